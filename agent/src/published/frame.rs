//! Published ports, frame front end: the kernel sends their packets to the mesh address behind
//! `weft0`, where a worker picks a replica. Nothing is terminated, and the replica sees the client.
//!
//! One chain and two maps for each address family, in the table that the gateway bridge uses too.
//! Only packets from elsewhere take this way; what the host itself sends, to `localhost` above all,
//! meets the listeners. So does what has a link-local address, which no kernel forwards. Connections
//! that were rewritten once stay so, whatever becomes of the maps: the kernel's connection tracking
//! knows them ([`tracking`]).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use weft_model::objects::{ClientAddress, Protocol, PublishMode};
use weft_sys::nft;

use super::port::Published;
use super::rule_set::RuleSet;
use super::tracking;
use crate::kept::HostRules;
use crate::names::{MESH_IFNAME, TABLE};
use crate::sandbox::gwbridge::mesh_wall;

/// A port to send to the mesh, on one address of the host or on all, and the port that stands for it
/// there.
pub(super) type Element = (Option<IpAddr>, Protocol, u16, u16);

/// Keeps the kernel's maps of one address family as they should be. No method waits.
#[derive(Debug, Clone)]
pub(super) struct FrameFrontEnd {
    ipv6: bool,
    rules: RuleSet<Element>,
    host: Arc<HostRules>,
    /// Some port is to come this way.
    needed: Arc<AtomicBool>,
}

impl FrameFrontEnd {
    /// Sends packets of its family to `mesh_ip`.
    pub(super) fn new(mesh_ip: IpAddr, host: Arc<HostRules>) -> Self {
        let rules = Arc::clone(&host);
        Self {
            ipv6: mesh_ip.is_ipv6(),
            rules: RuleSet::new(move |wanted| load(&rules, mesh_ip, wanted)),
            host,
            needed: Arc::default(),
        }
    }

    /// Takes in all ports of the node, and tries again what failed before. Inside the runtime. Where
    /// rules of others would drop the packets, these meet the listeners instead.
    pub(super) fn follow<'a>(&self, open: impl Iterator<Item = &'a Published>) {
        let mut wanted: BTreeSet<Element> = open.filter_map(|p| element(p, self.ipv6)).collect();
        self.needed.store(!wanted.is_empty(), Ordering::Relaxed);
        if self.host.dropped_to_mesh(self.ipv6).is_some() {
            wanted.clear();
        }
        self.rules.update(wanted);
    }

    /// Whether packets to a port come this way.
    pub(super) fn takes(&self, published: &Published) -> bool {
        self.error().is_none() && element(published, self.ipv6).is_some()
    }

    /// Whether packets to a port should come this way and do not.
    pub(super) fn fails(&self, published: &Published) -> bool {
        element(published, self.ipv6).is_some() && self.error().is_some()
    }

    /// Why packets do not come this way.
    pub(super) fn error(&self) -> Option<String> {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        let dropped = || {
            let needed = self.needed.load(Ordering::Relaxed);
            self.host.dropped_to_mesh(self.ipv6).filter(|_| needed)
        };
        let error = self.rules.error().or_else(|| self.host.error());
        let error = error.or_else(dropped)?;
        Some(format!("over {family}: {error}"))
    }
}

fn load(host: &HostRules, mesh_ip: IpAddr, wanted: &BTreeSet<Element>) -> Result<(), String> {
    let ipv6 = mesh_ip.is_ipv6();
    let [part, ..] = names(ipv6);
    if wanted.is_empty() {
        let removed = host.remove(part, &removal(ipv6));
        return removed.map_err(|e| e.to_string());
    }
    // First: a packet that is rewritten and not forwarded is lost. The gateway bridge needs it
    // too, and may be later.
    host.forward(ipv6).map_err(|e| e.to_string())?;
    let rules = rules(mesh_ip, wanted);
    let set = |kept| host.set(part, [&*rules, &tracking::rules(mesh_ip, kept)].concat());
    if let Err(error) = set(true) {
        set(false).map_err(|e| e.to_string())?;
        tracing::warn!(
            %error,
            "the kernel may forget connections to published ports that are quiet for long"
        );
    }
    if let Err(error) = tracking::enable_liberal() {
        tracing::warn!(
            %error,
            "segments outside of their window may be lost between published ports and clients"
        );
    }
    Ok(())
}

/// Takes away what an agent with the frame front end left. Blocks.
///
/// # Errors
/// See [`nft::NftError`].
pub(super) fn remove() -> Result<(), nft::NftError> {
    nft::apply(&[removal(false), removal(true)].concat())?;
    // A kernel without these times has none to remove.
    nft::apply(&tracking::removal(true)).or_else(|_| nft::apply(&tracking::removal(false)))
}

/// Whether packets of one address family go to the mesh for a port, and how. A port in host mode is
/// for one task, which the listener knows, and where replicas are not to see the client's address,
/// the listener speaks to them. So it does for datagrams: a server that answers on a socket without
/// an address of its own sends by its main routes, which lead an answer to a stranger elsewhere. And
/// over IPv6 where a replica has only IPv4.
fn element(published: &Published, ipv6: bool) -> Option<Element> {
    let as_they_are = published.mode == PublishMode::Ingress
        && published.protocol == Protocol::Tcp
        && published.client_address == ClientAddress::Keep
        && (published.ipv6 || !ipv6);
    // What is the host's own only the host sends to.
    let meant = published
        .host_ip
        .is_none_or(|ip| ip.is_ipv6() == ipv6 && !ip.is_loopback());
    (as_they_are && meant).then_some((
        published.host_ip,
        published.protocol,
        published.port,
        published.mesh_port,
    ))
}

/// Names of the maps and of the chain of an address family.
const fn names(ipv6: bool) -> [&'static str; 3] {
    if ipv6 {
        ["published6", "published6_at", "published6_in"]
    } else {
        ["published", "published_at", "published_in"]
    }
}

/// One transaction that makes chain and maps, or brings existing ones to this form.
fn rules(mesh_ip: IpAddr, wanted: &BTreeSet<Element>) -> String {
    let ipv6 = mesh_ip.is_ipv6();
    // Whoever may send to the mesh address is a client, so the wall around it comes first.
    let mut text = [mesh_wall(), frame(ipv6)].concat();
    let [map, map_at, _] = names(ipv6);
    for (ip, protocol, port, mesh_port) in wanted {
        let to = format!("{mesh_ip} . {mesh_port}");
        let _infallible = match ip {
            None => writeln!(
                text,
                "add element inet {TABLE} {map} {{ {protocol} . {port} : {to} }}"
            ),
            Some(ip) => writeln!(
                text,
                "add element inet {TABLE} {map_at} {{ {ip} . {protocol} . {port} : {to} }}"
            ),
        };
    }
    text
}

/// Takes chain and maps away, there or not.
fn removal(ipv6: bool) -> String {
    let mut text = frame(ipv6);
    let [map, map_at, chain] = names(ipv6);
    for object in [("chain", chain), ("map", map), ("map", map_at)] {
        let (kind, name) = object;
        let _infallible = writeln!(text, "delete {kind} inet {TABLE} {name}");
    }
    text
}

/// Chain and maps without an element.
fn frame(ipv6: bool) -> String {
    let [map, map_at, chain] = names(ipv6);
    let (ip, kind, left_out) = if ipv6 {
        ("ip6", "ipv6_addr", "ip6 saddr fe80::/10")
    } else {
        ("ip", "ipv4_addr", "ip daddr 127.0.0.0/8")
    };
    format!(
        "\
table inet {TABLE} {{
    map {map} {{
        type inet_proto . inet_service : {kind} . inet_service
    }}
    map {map_at} {{
        type {kind} . inet_proto . inet_service : {kind} . inet_service
    }}
    chain {chain} {{
        type nat hook prerouting priority dstnat; policy accept;
    }}
}}
flush chain inet {TABLE} {chain}
flush map inet {TABLE} {map}
flush map inet {TABLE} {map_at}
table inet {TABLE} {{
    chain {chain} {{
        iifname \"{MESH_IFNAME}\" return
        {left_out} return
        fib daddr type != local return
        dnat {ip} to {ip} daddr . meta l4proto . th dport map @{map_at}
        dnat {ip} to meta l4proto . th dport map @{map}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_sys::netns::Netns;

    fn list() -> String {
        let json = nft::list_table("inet", TABLE).expect("nft");
        json.map_or_else(String::new, |json| json.to_string())
    }

    #[test]
    fn the_kernel_takes_the_rules_again_and_again_and_forgets_them() {
        let netns = Netns::create_anonymous().expect("netns");
        let check = |mesh: &str, one: &str| {
            let mesh: IpAddr = mesh.parse().expect("an address");
            let all = BTreeSet::from([
                (None, Protocol::Tcp, 8000, 8000),
                (None, Protocol::Udp, 53, 53),
                (one.parse().ok(), Protocol::Tcp, 80, 49_152),
            ]);
            nft::apply(&rules(mesh, &all)).expect("first");
            let first = list();
            let mesh_text = mesh.to_string();
            for text in ["8000", "\"udp\"", one, "49152", &mesh_text] {
                assert!(first.contains(text), "{text}: {first}");
            }
            let fewer = BTreeSet::from([(None, Protocol::Tcp, 8001, 8001)]);
            nft::apply(&rules(mesh, &fewer)).expect("second");
            let second = list();
            assert!(
                second.contains("8001") && !second.contains("8000"),
                "{second}"
            );
            assert_eq!(second.matches(&mesh_text).count(), 1, "{second}");
        };
        let both = || {
            check("169.254.77.2", "192.0.2.1");
            nft::apply(&removal(false)).expect("IPv4 removed");
            check("fd57:4546:5400::a9fe:4d02", "2001:db8::1");
            nft::apply(&removal(false)).expect("IPv6 stays");
            assert!(list().contains("published6"), "{}", list());
            remove().expect("removed");
            remove().expect("nothing there");
            assert!(!list().contains("published"), "{}", list());
        };
        netns.run_in(both).expect("enter");
    }

    fn published(host_ip: Option<&str>) -> Published {
        Published {
            client_address: ClientAddress::Keep,
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            port: 80,
            protocol: Protocol::Tcp,
            service: "web".to_owned(),
            mode: PublishMode::Ingress,
            mesh_port: 81,
            serving: true,
            limit_per_client: 0,
            ipv6: true,
        }
    }

    #[test]
    fn only_what_replicas_can_answer_themselves_takes_this_way() {
        let all = published(None);
        let to_all = (None, Protocol::Tcp, 80, 81);
        for ipv6 in [false, true] {
            assert_eq!(element(&all, ipv6), Some(to_all));
            let host = Published {
                mode: PublishMode::Host,
                ..all.clone()
            };
            let datagrams = Published {
                protocol: Protocol::Udp,
                ..all.clone()
            };
            let [node, proxy] =
                [ClientAddress::Node, ClientAddress::ProxyV2].map(|client_address| Published {
                    client_address,
                    ..all.clone()
                });
            for other in [host, datagrams, node, proxy] {
                assert_eq!(element(&other, ipv6), None, "{other:?}");
            }
        }
        let only_v4 = Published {
            ipv6: false,
            ..all.clone()
        };
        assert_eq!(element(&only_v4, false), Some(to_all));
        assert_eq!(element(&only_v4, true), None);
    }

    #[test]
    fn one_address_belongs_to_one_family() {
        for (ip, families) in [
            ("192.0.2.1", [true, false]),
            ("2001:db8::1", [false, true]),
            ("127.0.0.1", [false, false]),
            ("::1", [false, false]),
        ] {
            let on_one = published(Some(ip));
            let found = [false, true].map(|ipv6| element(&on_one, ipv6).is_some());
            assert_eq!(found, families, "{ip}");
        }
    }
}
