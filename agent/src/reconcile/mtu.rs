//! The part of the loop that follows the MTUs of the underlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_dataplane::Port;
use weft_gossip::NetdbView;
use weft_model::assignment::Assignment;
use weft_model::id::NodeId;
use weft_wire::PortId;

use crate::blocking::blocking;
use crate::compile::mtus::Mtus;
use crate::names::MERGING_PORT;
use crate::parts::data_path::DataPath;
use crate::parts::local::LocalPorts;
use crate::parts::underlay::Underlay;
use crate::parts::warnings::Warnings;
use crate::sandbox::set_port_mtu;

/// How long ports stay narrow after the tables allow more: no worker may still refuse, by older
/// tables, what a wider port sends. Its kernel would believe the refusal for ten minutes.
const GROW_AFTER: Duration = Duration::from_millis(200);

/// What was measured and set last.
#[derive(Debug)]
pub(super) struct MtuKeeper {
    underlay: Option<Underlay>,
    vteps: BTreeSet<IpAddr>,
    /// VTEPs to which super-frames leave as segments, as the data plane was told.
    segmented: BTreeSet<IpAddr>,
    /// When the tables got other MTUs.
    changed: Instant,
    /// MTU that each port was last set to.
    set: BTreeMap<PortId, u16>,
}

impl Default for MtuKeeper {
    fn default() -> Self {
        Self {
            underlay: None,
            vteps: BTreeSet::new(),
            segmented: BTreeSet::new(),
            changed: Instant::now(),
            set: BTreeMap::new(),
        }
    }
}

impl MtuKeeper {
    /// MTU of the data path's device, for the other nodes; 0 before it was measured.
    pub(super) fn device(&self) -> u32 {
        self.underlay.as_ref().map_or(0, |u| u.device)
    }

    /// Makes tables and ports follow the underlay. The kernel is asked when `look` says so, and
    /// when there are other VTEPs than before.
    pub(super) async fn keep(
        &mut self,
        data_path: &DataPath,
        local: &LocalPorts,
        warnings: &Warnings,
        (orders, view): (&Assignment, &NetdbView),
        look: bool,
    ) {
        let vteps = vteps(orders);
        if look || self.underlay.is_none() || vteps != self.vteps {
            let (own, ask) = (orders.own.node.data_path_addr, vteps.clone());
            let read = blocking(move || Underlay::read(own, ask)).await;
            match read.and_then(|r| Ok(r?)) {
                Ok(underlay) => {
                    warnings.clear("mtu");
                    self.choose_ways(data_path, &underlay);
                    self.underlay = Some(underlay);
                    self.vteps = vteps;
                }
                Err(error) => warnings.set(
                    "mtu",
                    format!("the MTU of the underlay is not followed: {error:#}"),
                ),
            }
        }
        data_path.second_ports.announce(merging(orders, view));
        if let Some(underlay) = &self.underlay {
            let mtus = Mtus::of(
                underlay.device,
                &underlay.routes,
                orders.own.node.data_path_addr.is_ipv6(),
                &announced(orders, view),
            );
            if **data_path.mtus.load() != mtus {
                tracing::info!(
                    device = underlay.device,
                    port = mtus.port,
                    "the MTU of the underlay is another one"
                );
                data_path.mtus.store(Arc::new(mtus));
                self.changed = Instant::now();
            }
        }
        self.set_ports(data_path, local).await;
    }

    /// Tells the data plane which VTEPs get segments. The price of either way is known some moments
    /// after the start.
    fn choose_ways(&mut self, data_path: &DataPath, underlay: &Underlay) {
        let before = self.underlay.as_ref().map(|u| &u.plain);
        if before != Some(&underlay.plain) {
            if let Some((vtep, device)) = underlay.plain.first_key_value() {
                tracing::info!(
                    %vtep, device, vteps = underlay.plain.len(),
                    "a device does not segment tunnels: super-frames are segmented here"
                );
            }
            data_path.plain.store(Arc::new(underlay.plain.clone()));
        }
        if **data_path.by_segments.load() != underlay.by_segments {
            let by_segments = Arc::new(underlay.by_segments.clone());
            data_path.by_segments.store(by_segments);
        }
        if **data_path.hops.load() != underlay.hops {
            data_path.hops.store(Arc::new(underlay.hops.clone()));
        }
        let segmented = underlay.segmented(data_path.plane.segments_are_cheaper());
        if segmented != self.segmented {
            data_path.plane.segment_for(segmented.iter().copied());
            self.segmented = segmented;
        }
    }

    /// Sets what was not set yet. A port that is made with the MTU of a moment ago is found here.
    async fn set_ports(&mut self, data_path: &DataPath, local: &LocalPorts) {
        let mtu = data_path.mtu();
        let mut ports = local.ports();
        ports.extend(data_path.mesh_port.clone());
        self.set.retain(|id, _| ports.iter().any(|p| p.id == *id));
        let settled = self.changed.elapsed() >= GROW_AFTER;
        let wrong: Vec<Arc<Port>> = ports
            .into_iter()
            .filter(|p| match self.set.get(&p.id) {
                Some(set) => mtu < *set || (settled && mtu > *set),
                None => true,
            })
            .collect();
        if wrong.is_empty() {
            return;
        }
        let done = blocking(move || {
            wrong
                .into_iter()
                .filter(|port| match set_port_mtu(&port.tap, u32::from(mtu)) {
                    Ok(()) => true,
                    Err(error) => {
                        // Its sandbox has ended, which is noticed elsewhere.
                        tracing::debug!(port = %port.name, %error, "the MTU was not set");
                        false
                    }
                })
                .map(|port| port.id)
                .collect::<Vec<_>>()
        });
        match done.await {
            Ok(done) => self.set.extend(done.into_iter().map(|id| (id, mtu))),
            Err(error) => tracing::error!(%error, "the MTU of ports was not set"),
        }
    }
}

/// Other nodes' and static peers' underlay addresses.
fn vteps(orders: &Assignment) -> BTreeSet<IpAddr> {
    let nodes = orders
        .shared
        .nodes
        .iter()
        .filter(|n| n.id != orders.own.node.id);
    nodes
        .map(|n| n.data_path_addr)
        .chain(orders.shared.peers.iter().map(|p| p.vtep))
        .collect()
}

/// Other nodes that say that their kernel merges what comes to the second port.
fn merging(orders: &Assignment, view: &NetdbView) -> BTreeSet<Ipv4Addr> {
    let others = orders.shared.nodes.iter();
    others
        .filter(|node| node.id != orders.own.node.id)
        .filter(|node| {
            // No other one: sandboxes are kept from this one alone.
            view.node(&node.id)
                .is_some_and(|record| record.merging_port == MERGING_PORT)
        })
        .filter_map(|node| match node.data_path_addr {
            IpAddr::V4(vtep) => Some(vtep),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// What nodes say of their own devices. Where a node is, the orders say.
fn announced(orders: &Assignment, view: &NetdbView) -> BTreeMap<IpAddr, u32> {
    let nodes = orders.shared.nodes.iter();
    let addrs: BTreeMap<&NodeId, IpAddr> = nodes.map(|n| (&n.id, n.data_path_addr)).collect();
    view.nodes()
        .filter_map(|(owner, record)| Some((*addrs.get(owner)?, record.mtu)))
        .collect()
}
