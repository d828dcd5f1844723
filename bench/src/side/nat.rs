//! The kernel's own ways to spread connections over replicas, both of which rewrite packets (NAT):
//! IPVS, which Docker Swarm has, and nftables, which Docker's newer sources have in its place where the
//! firewall is nftables.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use weft_lab::{Patience, Stop};
use weft_sys::netns::Netns;
use weft_sys::nft;

use super::{LIMIT, set_in};
use crate::proxies::find;

/// What is told to IPVS.
const IPVSADM: &str = "ipvsadm";

/// Has connection tracking see what IPVS rewrites, so that its packets can get another source.
const TRACKED: &str = "ipv4/vs/conntrack";

/// Who rewrites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    Ipvs,
    Nftables,
}

impl Nat {
    pub(crate) const ALL: [Self; 2] = [Self::Ipvs, Self::Nftables];

    /// What it is called beside weft.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "IPVS",
            Self::Nftables => "nftables",
        }
    }

    /// Why it cannot be used here, if so.
    pub(crate) fn missing(self, stop: &Stop) -> Option<String> {
        if !nft::installed() {
            return Some("nft is not installed (nftables)".to_owned());
        }
        match self {
            Self::Ipvs => ipvs_answers(stop).err().map(|error| format!("{error:#}")),
            Self::Nftables => None,
        }
    }

    /// Leads what is sent from a namespace to a virtual address on to the server, at the same port.
    pub(super) fn lead(
        self,
        client: &Netns,
        vip: SocketAddr,
        server: IpAddr,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        match self {
            Self::Ipvs => {
                let server = SocketAddr::new(server, vip.port());
                client.run_in(|| restore(&service(vip, server), stop))?
            }
            Self::Nftables => apply(client, &led(vip.ip(), server)),
        }
    }

    /// Leads what comes to a port of a namespace on to the server, in the namespace's own name: the
    /// server knows no way to others.
    pub(super) fn publish(
        self,
        gate: &Netns,
        published: SocketAddr,
        server: SocketAddr,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        set_in(gate, "ipv4/ip_forward", "1")?;
        match self {
            Self::Ipvs => {
                gate.run_in(|| restore(&service(published, server), stop))??;
                set_in(gate, TRACKED, "1")?;
                apply(gate, &masqueraded(server))
            }
            Self::Nftables => apply(gate, &published_at(published, server)),
        }
    }
}

/// IPVS is here, and can give packets another source.
fn ipvs_answers(stop: &Stop) -> anyhow::Result<()> {
    let nowhere = Netns::create_anonymous()?;
    nowhere.run_in(|| -> anyhow::Result<()> {
        // It also loads the module, where there is one.
        ipvsadm("--list", "", stop)?;
        ensure!(
            Path::new("/proc/sys/net").join(TRACKED).exists(),
            "this kernel does not track what IPVS rewrites here (CONFIG_IP_VS_NFCT; of user \
             namespaces not every kernel does)"
        );
        Ok(())
    })?
}

/// Services and their servers, in the calling thread's namespace.
fn restore(rules: &str, stop: &Stop) -> anyhow::Result<()> {
    ipvsadm("--restore", rules, stop)
}

fn ipvsadm(what: &str, input: &str, stop: &Stop) -> anyhow::Result<()> {
    let program = find(IPVSADM).context("ipvsadm is not installed")?;
    let mut command = Command::new(program);
    let output = Patience::new(LIMIT, stop).run_with_input(command.arg(what), input)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{IPVSADM} {what}: {}", said.trim());
    }
    Ok(())
}

fn apply(netns: &Netns, rules: &str) -> anyhow::Result<()> {
    netns
        .run_in(|| nft::apply(rules))?
        .with_context(|| format!("these rules were not taken:\n{}", rules.trim()))
}

/// A service of IPVS that goes to one server, by masquerading (`-m`).
fn service(target: SocketAddr, server: SocketAddr) -> String {
    format!("-A -t {target} -s rr\n-a -t {target} -r {server} -m\n")
}

fn led(vip: IpAddr, server: IpAddr) -> String {
    format!(
        "\
table ip bench {{
    chain to_server {{
        type nat hook output priority -100
        ip daddr {vip} dnat to {server}
    }}
}}
"
    )
}

fn published_at(published: SocketAddr, server: SocketAddr) -> String {
    format!(
        "\
table ip bench {{
    chain to_server {{
        type nat hook prerouting priority -100
        ip daddr {} tcp dport {} dnat to {server}
    }}
    chain in_own_name {{
        type nat hook postrouting priority 100
        ct status dnat masquerade
    }}
}}
",
        published.ip(),
        published.port()
    )
}

fn masqueraded(server: SocketAddr) -> String {
    format!(
        "\
table ip bench {{
    chain in_own_name {{
        type nat hook postrouting priority 100
        ip daddr {} tcp dport {} masquerade
    }}
}}
",
        server.ip(),
        server.port()
    )
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use weft_sys::netlink::{Netlink, Veth};

    use super::*;
    use crate::load::{Ports, Way, exchange_kept};
    use crate::side::TRY;

    const SERVER: &str = "10.99.0.2";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A veth between two namespaces, each end with its name and its address.
    fn cable(one: (&Netns, &str, &str), other: (&Netns, &str, &str)) {
        let made = Netlink::open_in(one.0).unwrap().add_veth(&Veth {
            name: one.1,
            peer: other.1,
            peer_netns: Some(other.0),
            peer_mac: None,
            mtu: None,
        });
        assert!(made.unwrap());
        for (netns, name, address) in [one, other] {
            let mut links = Netlink::open_in(netns).unwrap();
            let address = IpNet::new(ip(address), 24).unwrap();
            links.add_address(name, address).unwrap();
            links.set_up(name, true).unwrap();
        }
    }

    /// Those that can be used here: nftables in any case.
    fn usable() -> Vec<Nat> {
        let stop = Stop::default();
        let mut all = Nat::ALL.to_vec();
        all.retain(|nat| nat.missing(&stop).is_none());
        assert!(all.contains(&Nat::Nftables));
        all
    }

    /// True when the server answers over connections that are made one after the other.
    fn answers(client: &Netns, server: &Netns, target: SocketAddr) -> bool {
        let way = Way {
            client,
            server,
            listen: ip(SERVER),
            target: target.ip(),
            ports: Some(Ports {
                listen: 8080,
                target: target.port(),
            }),
            agents: &[],
        };
        (0..2).all(|_| !exchange_kept(&way, TRY).unwrap().times.is_empty())
    }

    #[test]
    fn a_virtual_address_leads_to_the_server() {
        for nat in usable() {
            let [client, server] = [(); 2].map(|()| Netns::create_anonymous().unwrap());
            cable((&client, "eth0", "10.99.0.4"), (&server, "eth0", SERVER));
            let vip = addr("10.99.0.200:8080");
            let led = nat.lead(&client, vip, ip(SERVER), &Stop::default());
            led.unwrap();
            assert!(answers(&client, &server, vip), "{nat:?}");
        }
    }

    #[test]
    fn a_published_port_leads_to_the_server_in_the_name_of_the_gate() {
        for nat in usable() {
            let [client, gate, server] = [(); 3].map(|()| Netns::create_anonymous().unwrap());
            cable(
                (&client, "eth0", "10.77.0.254"),
                (&gate, "underlay0", "10.77.0.204"),
            );
            cable((&gate, "eth0", "10.99.0.4"), (&server, "eth0", SERVER));
            let (published, replica) = (addr("10.77.0.204:8000"), addr("10.99.0.2:8080"));
            let led = nat.publish(&gate, published, replica, &Stop::default());
            led.unwrap();
            // The server has no route to the client: it answers whom it knows.
            assert!(answers(&client, &server, published), "{nat:?}");
        }
    }

    #[test]
    fn rules_are_what_ipvsadm_and_nft_read() {
        assert_eq!(
            service(addr("10.99.0.200:8080"), addr("10.99.0.2:8080")),
            "-A -t 10.99.0.200:8080 -s rr\n-a -t 10.99.0.200:8080 -r 10.99.0.2:8080 -m\n"
        );
        let netns = Netns::create_anonymous().unwrap();
        apply(&netns, &masqueraded(addr("10.99.0.2:8080"))).unwrap();
        let error = apply(&netns, "table ip bench { chain c { nosuch } }").unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("nosuch } }: nft refused: "), "{said}");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let told = Nat::Ipvs.missing(&Stop::default());
        let named = told.as_deref() == Some("ipvsadm is not installed");
        assert_eq!(find(IPVSADM).is_none(), named, "{told:?}");
    }
}
