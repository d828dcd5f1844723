//! Ranges that this host has already, and networks that are in their way.

use std::time::{Duration, Instant};

use weft_cluster::{HostRoute, shared_with};
use weft_model::assignment::Assignment;
use weft_model::id::NetworkId;
use weft_model::objects::Network;
use weft_sys::netlink::{MAIN_TABLE, Netlink};

use crate::blocking::blocking;
use crate::names::{BRIDGE, MESH_IFNAME};
use crate::parts::warnings::Warnings;

/// Between two looks at the host's routes when no network changes.
const LOOK_AT_ROUTES: Duration = Duration::from_secs(60);

/// Networks that were compared with the host's routes, and when.
#[derive(Debug, Default)]
pub(crate) struct Overlaps {
    compared: Option<(Vec<NetworkId>, Instant)>,
}

impl Overlaps {
    /// Compares again when that is due, and sets or clears the warning.
    pub(crate) async fn keep(&mut self, warnings: &Warnings, orders: &Assignment) {
        let networks = orders.shared.networks.iter();
        let ids: Vec<NetworkId> = networks.map(|n| n.id.clone()).collect();
        let known = self.compared.as_ref();
        if known.is_some_and(|(seen, at)| *seen == ids && at.elapsed() < LOOK_AT_ROUTES) {
            return;
        }
        self.compared = Some((ids, Instant::now()));
        let networks = orders.shared.networks.clone();
        match blocking(move || overlaps(&networks, &host_routes())).await {
            Ok(Some(text)) => warnings.set("routes", text),
            Ok(None) => warnings.clear("routes"),
            Err(error) => tracing::warn!(%error, "the host's routes were not looked at"),
        }
    }
}

/// Routes of this host that networks are held against, the gateway bridge's among them.
pub(crate) fn host_routes() -> Vec<HostRoute> {
    let routes = Netlink::open().and_then(|mut netlink| netlink.routes());
    match routes {
        Ok(routes) => routes
            .into_iter()
            .filter(|r| r.table == MAIN_TABLE)
            .filter(|r| !r.dest.addr().is_multicast())
            .filter_map(|r| {
                let dev = r.dev.filter(|dev| dev != MESH_IFNAME)?;
                let own = if dev == BRIDGE {
                    ", the gateway bridge"
                } else {
                    ""
                };
                Some(match r.gateway {
                    Some(via) => HostRoute::by_gateway(r.dest, format!("via {via} dev {dev}")),
                    None => HostRoute::connected(r.dest, format!("dev {dev}{own}")),
                })
            })
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot read the host's routes; subnets are not checked against them");
            Vec::new()
        }
    }
}

/// What a person should know of networks that a host route of this node overlaps. The manager has
/// looked at its own routes only.
fn overlaps(networks: &[Network], routes: &[HostRoute]) -> Option<String> {
    let mut found = Vec::new();
    for network in networks {
        for subnet in network.subnets() {
            for HostRoute { dest, what, .. } in shared_with(subnet.cidr, routes) {
                found.push(format!(
                    "network {} ({}) overlaps with the host route {dest} ({what})",
                    network.spec.name, subnet.cidr
                ));
            }
        }
    }
    (!found.is_empty()).then(|| {
        format!(
            "{}: what this node reaches there, tasks and endpoints on that network do not; make the network with another --subnet, or change the route",
            found.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use weft_model::id::NetworkId;
    use weft_model::objects::{Ipam, Meta, NetworkSpec};

    use super::*;

    fn network(name: &str, cidr: &str) -> Network {
        Network {
            id: NetworkId::from(name),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: name.to_owned(),
                ipam: Ipam::from_iter([cidr.parse().unwrap()]),
                ..NetworkSpec::default()
            },
            vni: 4097,
            ending: false,
        }
    }

    #[test]
    fn overlaps_are_named_either_way_round() {
        let networks = [network("a", "10.0.1.0/24"), network("b", "172.18.0.0/24")];
        let route = |net: &str, dev: &str| HostRoute::connected(net.parse().unwrap(), dev);
        let apart = [
            route("0.0.0.0/1", "dev tun0"),
            route("10.0.2.0/24", "dev eth1"),
            route("fd00::/8", "dev eth1"),
        ];
        assert_eq!(overlaps(&networks, &apart), None);
        let both = [
            route("10.0.1.128/25", "dev eth1"),
            route("172.18.0.0/16", "dev weft_gwbridge, the gateway bridge"),
        ];
        let text = overlaps(&networks, &both).unwrap();
        for says in [
            "network a (10.0.1.0/24) overlaps with the host route 10.0.1.128/25 (dev eth1)",
            "network b (172.18.0.0/24) overlaps with the host route 172.18.0.0/16 (dev weft_gwbridge, the gateway bridge)",
        ] {
            assert!(text.contains(says), "{text}");
        }
    }
}
