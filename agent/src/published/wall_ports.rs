//! Ports that the node's listeners have, for the wall between sandboxes and the host: they are all
//! of the host that a sandbox may speak to.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weft_model::objects::Protocol;

use super::port::Published;
use super::rule_set::RuleSet;
use crate::kept::HostRules;
use crate::names::TABLE;
use crate::sandbox::gwbridge::mesh_wall;

/// A port, on one address of the host or on all.
type Element = (Option<Ipv4Addr>, Protocol, u16);

/// The sets, and the wall around the mesh address that every front end needs.
pub(super) fn wall_ports(host: Arc<HostRules>) -> RuleSet<Element> {
    RuleSet::new(move |ports| host.set("ports", rules(ports)).map_err(|e| e.to_string()))
}

/// What a sandbox may speak to: its way to the host is IPv4, and what is the host's own only the
/// host speaks to.
pub(super) fn elements<'a>(open: impl Iterator<Item = &'a Published>) -> BTreeSet<Element> {
    open.filter_map(|published| {
        let ip = match published.host_ip {
            None => None,
            Some(IpAddr::V4(ip)) if !ip.is_loopback() => Some(ip),
            Some(_) => return None,
        };
        Some((ip, published.protocol, published.port))
    })
    .collect()
}

fn rules(ports: &BTreeSet<Element>) -> String {
    let mut text = mesh_wall();
    for set in ["listening", "listening_at"] {
        let _infallible = writeln!(text, "flush set inet {TABLE} {set}");
    }
    for (ip, protocol, port) in ports {
        let _infallible = match ip {
            None => writeln!(
                text,
                "add element inet {TABLE} listening {{ {protocol} . {port} }}"
            ),
            Some(ip) => writeln!(
                text,
                "add element inet {TABLE} listening_at {{ {ip} . {protocol} . {port} }}"
            ),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::objects::{ClientAddress, PublishMode};
    use weft_sys::netns::Netns;
    use weft_sys::nft;

    fn published(host_ip: Option<&str>, port: u16) -> Published {
        Published {
            client_address: ClientAddress::Node,
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            port,
            protocol: Protocol::Udp,
            service: "web".to_owned(),
            mode: PublishMode::Host,
            mesh_port: port,
            serving: true,
            limit_per_client: 0,
            ipv6: true,
        }
    }

    #[test]
    fn the_hosts_own_ports_are_not_open_to_sandboxes() {
        let all = [
            published(None, 1),
            published(Some("192.0.2.1"), 2),
            published(Some("127.0.0.1"), 3),
            published(Some("::1"), 4),
            published(Some("2001:db8::1"), 5),
        ];
        let open = elements(all.iter());
        let ip = "192.0.2.1".parse().ok();
        let expected = [(None, Protocol::Udp, 1), (ip, Protocol::Udp, 2)];
        assert_eq!(open, BTreeSet::from(expected));
    }

    #[test]
    fn the_kernel_takes_the_rules_again_and_again() {
        let netns = Netns::create_anonymous().expect("netns");
        let check = || {
            let ip = "192.0.2.1".parse().ok();
            let first = BTreeSet::from([(None, Protocol::Tcp, 8000), (ip, Protocol::Udp, 53)]);
            for ports in [first, BTreeSet::from([(None, Protocol::Tcp, 8001)])] {
                nft::apply(&rules(&ports)).expect("rules");
            }
            let table = nft::list_table("inet", TABLE).expect("nft");
            let table = table.expect("the table").to_string();
            assert!(table.contains("8001") && !table.contains("8000"), "{table}");
            assert!(table.contains("mesh_forward"), "{table}");
        };
        netns.run_in(check).expect("enter");
    }
}
