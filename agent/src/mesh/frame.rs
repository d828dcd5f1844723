//! Published ports, frame front end: the kernel sends their packets to the mesh address behind
//! `weft0`, where a worker picks a replica. Nothing is terminated, and the replica sees the client.
//!
//! One chain and two maps in the table that the gateway bridge uses too. Only packets from
//! elsewhere take this way; what the host itself sends, to `localhost` above all, meets the
//! listeners. Connections that were rewritten once stay so, whatever becomes of the maps: the
//! kernel's connection tracking knows them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_control::objects::{ClientAddress, Protocol, PublishMode};
use weft_sys::nft;

use super::Published;
use crate::sandbox::MESH_IFNAME;
use crate::sandbox::gwbridge::TABLE;
use crate::sandbox::sysctl;

/// A port to send to the mesh, on one address of the host or on all, and the port that stands for it
/// there.
pub(super) type Element = (Option<Ipv4Addr>, Protocol, u16, u16);

/// Keeps the kernel's maps as they should be. No method waits.
#[derive(Debug, Clone)]
pub(super) struct FrameFrontEnd {
    mesh_ip: Ipv4Addr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeSet<Element>,
    applied: Option<BTreeSet<Element>>,
    /// Somebody is bringing the kernel up to date, and looks at `wanted` again before he goes.
    working: bool,
    error: Option<String>,
}

impl FrameFrontEnd {
    pub(super) fn new(mesh_ip: Ipv4Addr) -> Self {
        Self {
            mesh_ip,
            state: Arc::default(),
        }
    }

    /// Takes in which ports there are, and tries again what failed before. Inside the runtime.
    pub(super) fn update(&self, wanted: BTreeSet<Element>) {
        let mut state = self.lock();
        state.wanted = wanted;
        if state.working || state.applied.as_ref() == Some(&state.wanted) {
            return;
        }
        state.working = true;
        drop(state);
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.apply());
    }

    /// Why packets do not come this way.
    pub(super) fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// Whether the kernel has what was wanted last.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.applied.as_ref() == Some(&state.wanted)
    }

    fn apply(&self) {
        loop {
            let wanted = self.lock().wanted.clone();
            let result = self.load(&wanted);
            let mut state = self.lock();
            match result {
                Ok(()) => {
                    state.error = None;
                    state.applied = Some(wanted);
                }
                Err(error) => {
                    state.error = Some(error);
                    state.applied = None;
                }
            }
            if state.error.is_some() || state.applied.as_ref() == Some(&state.wanted) {
                state.working = false;
                return;
            }
        }
    }

    fn load(&self, wanted: &BTreeSet<Element>) -> Result<(), String> {
        // First: a packet that is rewritten and not forwarded is lost. The gateway bridge needs it
        // too, and may be later.
        if !wanted.is_empty() {
            sysctl::set("net/ipv4/ip_forward", "1").map_err(|e| e.to_string())?;
        }
        nft::apply(&rules(self.mesh_ip, wanted)).map_err(|e| e.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes away what an agent with the frame front end left. Blocks.
///
/// # Errors
/// See [`nft::NftError`].
pub(super) fn remove() -> Result<(), nft::NftError> {
    let mut text = rules(Ipv4Addr::UNSPECIFIED, &BTreeSet::new());
    for object in [
        "chain inet weft published_in",
        "map inet weft published",
        "map inet weft published_at",
    ] {
        let _infallible = writeln!(text, "delete {object}");
    }
    nft::apply(&text)
}

/// Elements of one address family only: the mesh address is one of IPv4. A port in host mode is for
/// one task, which the listener knows, and where replicas are not to see the client's address, the
/// listener speaks to them. So it does for datagrams: a server that answers on a socket without an
/// address of its own sends by its main routes, which lead an answer to a stranger elsewhere.
pub(super) fn element(published: &Published) -> Option<Element> {
    let as_they_are = published.mode == PublishMode::Ingress
        && published.protocol == Protocol::Tcp
        && published.client_address == ClientAddress::Keep;
    if !as_they_are {
        return None;
    }
    let to = |ip| (ip, published.protocol, published.port, published.mesh_port);
    match published.host_ip {
        None => Some(to(None)),
        // The host's own, which only the host sends to.
        Some(ip) if ip.is_loopback() => None,
        Some(IpAddr::V4(ip)) => Some(to(Some(ip))),
        Some(IpAddr::V6(_)) => None,
    }
}

/// One transaction that makes chain and maps, or brings existing ones to this form.
fn rules(mesh_ip: Ipv4Addr, wanted: &BTreeSet<Element>) -> String {
    let mut text = format!(
        "\
table inet {TABLE} {{
    map published {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}
    map published_at {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    }}
    chain published_in {{
        type nat hook prerouting priority dstnat; policy accept;
    }}
}}
flush chain inet {TABLE} published_in
flush map inet {TABLE} published
flush map inet {TABLE} published_at
table inet {TABLE} {{
    chain published_in {{
        iifname \"{MESH_IFNAME}\" return
        ip daddr 127.0.0.0/8 return
        fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
        fib daddr type local dnat ip to meta l4proto . th dport map @published
    }}
}}
"
    );
    for (ip, protocol, port, mesh_port) in wanted {
        let _infallible = match ip {
            None => writeln!(
                text,
                "add element inet {TABLE} published {{ {protocol} . {port} : {mesh_ip} . {mesh_port} }}"
            ),
            Some(ip) => writeln!(
                text,
                "add element inet {TABLE} published_at {{ {ip} . {protocol} . {port} : {mesh_ip} . {mesh_port} }}"
            ),
        };
    }
    text
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
        let check = || {
            let mesh = Ipv4Addr::new(169, 254, 77, 2);
            let all = BTreeSet::from([
                (None, Protocol::Tcp, 8000, 8000),
                (None, Protocol::Udp, 53, 53),
                (Some(Ipv4Addr::new(192, 0, 2, 1)), Protocol::Tcp, 80, 49_152),
            ]);
            nft::apply(&rules(mesh, &all)).expect("first");
            let first = list();
            for text in ["8000", "\"udp\"", "192.0.2.1", "49152", "169.254.77.2"] {
                assert!(first.contains(text), "{text}: {first}");
            }
            let fewer = BTreeSet::from([(None, Protocol::Tcp, 8001, 8001)]);
            nft::apply(&rules(mesh, &fewer)).expect("second");
            let second = list();
            assert!(
                second.contains("8001") && !second.contains("8000"),
                "{second}"
            );
            assert_eq!(second.matches("169.254.77.2").count(), 1, "{second}");
            remove().expect("removed");
            remove().expect("nothing there");
            assert!(!list().contains("published"), "{}", list());
        };
        netns.run_in(check).expect("enter");
    }

    #[test]
    fn only_packets_from_elsewhere_over_ipv4_take_this_way() {
        let tcp = Protocol::Tcp;
        let of_protocol = |host_ip, mode, client_address, protocol| {
            element(&Published {
                client_address,
                host_ip,
                port: 80,
                protocol,
                service: "web".to_owned(),
                mode,
                mesh_port: 81,
                serving: true,
                limit_per_client: 0,
            })
        };
        let on_for = |ip, mode, address| of_protocol(ip, mode, address, tcp);
        let on = |host_ip, mode| on_for(host_ip, mode, ClientAddress::Keep);
        let of = |ip: &str| on(Some(ip.parse().expect("ip")), PublishMode::Ingress);
        let all = (None, Protocol::Tcp, 80, 81);
        assert_eq!(on(None, PublishMode::Ingress), Some(all));
        assert_eq!(on(None, PublishMode::Host), None);
        for other in [ClientAddress::Node, ClientAddress::ProxyV2] {
            assert_eq!(on_for(None, PublishMode::Ingress, other), None);
        }
        let datagrams = of_protocol(
            None,
            PublishMode::Ingress,
            ClientAddress::Keep,
            Protocol::Udp,
        );
        assert_eq!(datagrams, None);
        let one = Some(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(of("192.0.2.1"), Some((one, Protocol::Tcp, 80, 81)));
        assert_eq!(of("127.0.0.1"), None);
        assert_eq!(of("::1"), None);
        assert_eq!(of("2001:db8::1"), None);
    }
}
