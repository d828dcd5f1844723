//! The node's gateway bridge, set up beside the rest: to load its rules takes as long as everything
//! else of a start together, and ports that are taken up again can do without.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use weft_model::assignment::Assignment;
use weft_model::objects::Protocol;

use super::warnings::Warnings;
use crate::config::{Config, MeshFrontEnd};
use crate::kept::HostRules;
use crate::names::MERGING_PORT;
use crate::published::MeshSockets;
use crate::sandbox::gwbridge::{ClusterPort, Egress, GatewayBridge};

/// The bridge, or the lack of one, once that is known.
#[derive(Debug, Clone)]
pub(crate) struct Gateway(Arc<OnceLock<Option<Arc<GatewayBridge>>>>);

impl Gateway {
    /// Starts to set it up. What goes wrong is warned of.
    pub(crate) fn start(
        config: &Config,
        orders: &Assignment,
        warnings: &Arc<Warnings>,
        rules: Arc<HostRules>,
    ) -> anyhow::Result<Self> {
        let this = Self(Arc::default());
        let (cell, warnings) = (Arc::clone(&this.0), Arc::clone(warnings));
        let (subnet, front_end) = (config.gwbridge_subnet, config.mesh);
        let data_path =
            SocketAddr::new(orders.own.node.data_path_addr, orders.shared.data_path_port);
        let closed = cluster_ports(orders);
        std::thread::Builder::new()
            .name("weft-gateway".to_owned())
            .spawn(move || {
                if front_end == MeshFrontEnd::Socket
                    && let Err(error) = MeshSockets::remove_frame_rules()
                {
                    tracing::info!(%error, "no rules of a frame front end were removed");
                }
                cell.get_or_init(|| match GatewayBridge::ensure(subnet, rules) {
                    Ok(gateway) => {
                        if let Egress::Off(why) = gateway.egress() {
                            warnings.set("gateway", why.clone());
                        }
                        if let Err(error) = gateway.spare_tracking(data_path) {
                            tracing::info!(%error, "the data path passes through connection tracking");
                        }
                        if let Err(error) = gateway.close(&closed) {
                            warnings.set("wall", open_to_sandboxes(&error));
                        }
                        Some(Arc::new(gateway))
                    }
                    Err(error) => {
                        warnings.set("gateway", format!("egress is off: {error}"));
                        None
                    }
                });
            })
            .context("cannot start the gateway bridge")?;
        Ok(this)
    }

    /// The bridge, if it is there already.
    pub(crate) fn get(&self) -> Option<Arc<GatewayBridge>> {
        self.0.get().cloned().flatten()
    }

    /// Waits for it; nothing where it could not be made. Blocks, for some ten milliseconds after
    /// the start.
    pub(crate) fn wait(&self) -> Option<Arc<GatewayBridge>> {
        self.0.wait().clone()
    }
}

/// Ports of all nodes that only nodes may speak to: the data path, gossip, the managers.
pub(crate) fn cluster_ports(orders: &Assignment) -> BTreeSet<ClusterPort> {
    let ports = orders.shared.nodes.iter().flat_map(|node| {
        let manager = node
            .manager_addr
            .map(|at| SocketAddr::new(node.addr, at.port()));
        let gossip = SocketAddr::new(node.addr, node.gossip_port);
        let data_path = SocketAddr::new(node.data_path_addr, orders.shared.data_path_port);
        // Whether the node has it or not: what comes there is taken as what comes to the data path.
        let merging = SocketAddr::new(node.data_path_addr, MERGING_PORT);
        [
            Some((data_path, Protocol::Udp)),
            Some((merging, Protocol::Udp)),
            Some((gossip, Protocol::Udp)),
            Some((gossip, Protocol::Tcp)),
            manager.map(|at| (at, Protocol::Tcp)),
            node.manager_addr.map(|at| (at, Protocol::Tcp)),
        ]
    });
    let v4 = |(at, protocol): (SocketAddr, Protocol)| match at.ip() {
        IpAddr::V4(ip) => Some(ClusterPort {
            ip,
            protocol,
            port: at.port(),
        }),
        // The bridge carries IPv4 only.
        IpAddr::V6(_) => None,
    };
    ports.flatten().filter_map(v4).collect()
}

/// The text of the warning about ports that are not closed.
pub(crate) fn open_to_sandboxes(error: &dyn std::fmt::Display) -> String {
    format!("sandboxes reach ports of the cluster's nodes: {error}; it is tried again")
}
