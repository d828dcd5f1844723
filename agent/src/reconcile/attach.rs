//! What an attachment means to a sandbox and to the data plane.

use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use weft_dataplane::{Port, PortCounters};
use weft_model::objects::{Attachment, Network};
use weft_sys::tap::Tap;
use weft_wire::{Mac, PortId, Vni};

use crate::compile::known::{KnownEndpoint, LocalPort};
use crate::parts::data_path::DataPath;
use crate::sandbox::PortConfig;

/// eth0, eth2, eth3, …: eth1 leads to the gateway bridge.
pub(super) fn ifname(index: usize) -> String {
    let number = if index == 0 { 0 } else { index + 1 };
    format!("eth{number}")
}

/// What a sandbox needs to know of an attachment.
pub(super) fn port_config(
    ifname: String,
    attachment: &Attachment,
    network: &Network,
    mtu: u16,
) -> PortConfig {
    PortConfig {
        endpoint: attachment.endpoint.clone(),
        ifname,
        mac: attachment.mac,
        ips: usable_addresses(attachment, network),
        gateways: network.subnets().iter().map(|s| s.gateway).collect(),
        mtu: u32::from(mtu),
    }
}

/// Addresses that the sandbox gets. Who publishes a port did not ask for IPv6: a kernel without it
/// serves the port over IPv4.
pub(super) fn usable_addresses(attachment: &Attachment, network: &Network) -> Vec<IpNet> {
    let without = network.spec.ingress && !Path::new("/proc/sys/net/ipv6").exists();
    let addresses = attachment.addresses.iter().copied();
    addresses
        .filter(|address| matches!(address, IpNet::V4(_)) || !without)
        .collect()
}

/// The data plane's side of an attachment; `id` is a number that no port had yet.
pub(super) fn local_port(
    id: PortId,
    data_path: &DataPath,
    tap: Tap,
    vni: u32,
    record: KnownEndpoint,
) -> anyhow::Result<LocalPort> {
    let first = record
        .ips
        .first()
        .ok_or_else(|| anyhow::anyhow!("endpoint {} has no address", record.id))?;
    let port = Port {
        id,
        name: record.name.as_str().into(),
        vni: Vni::new(vni).ok_or_else(|| anyhow::anyhow!("VNI {vni} is out of range"))?,
        mac: Mac(record.mac.0),
        ips: record.ips.clone(),
        worker: data_path.plane.worker_for(*first),
        tap: Arc::new(tap),
        counters: Arc::new(PortCounters::default()),
        shortcut: Default::default(),
    };
    Ok(LocalPort {
        port: Arc::new(port),
        record: Arc::new(record),
    })
}
