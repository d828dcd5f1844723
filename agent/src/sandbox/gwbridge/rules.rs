//! Text of the one nftables table: the way out, and the wall around it. Chains are static; what
//! changes are elements of sets. The kernel enters one chain for each hook, `prerouting`, `forward` and
//! `output`, and they call the others: every packet of the host pays for each chain that is entered
//! and each rule that is asked, most for the name of its interface. So names come last in a rule, and
//! what is not weft's leaves early.
//!
//! A drop is final whatever chains of others accept, so the wall consists of drops; what it lets
//! through may still be dropped elsewhere. Chains at the priority `raw` come before connection
//! tracking and every rewrite: they see the addresses that a packet was sent with.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use weft_dataplane::SEGMENTING_DEVICE;
use weft_model::objects::{Mac, Protocol};

use crate::names::{BRIDGE, MESH_HOST_IP, MESH_HOST_IP6, MESH_IFNAME, PORT_PREFIX, TABLE};

/// Chains without which a part of the wall is missing, with how many rules each has at least.
pub(crate) const WALL: [(&str, usize); 10] = [
    ("prerouting", 3),
    ("output", 2),
    ("forward", 3),
    ("mesh_in", 3),
    ("mesh_out", 2),
    ("mesh_forward", 2),
    ("sandbox_in", 6),
    ("sandbox_forward", 6),
    ("sandbox_replies", 2),
    ("sandbox_input", 6),
];

/// Those of them that the kernel enters.
pub(super) const HOOKED: [&str; 4] = ["prerouting", "output", "forward", "sandbox_input"];

/// A port of a node of the cluster that its peers alone may speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClusterPort {
    /// Address of the node.
    pub(crate) ip: Ipv4Addr,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// The port.
    pub(crate) port: u16,
}

/// One transaction that makes the table, or brings an existing one to this form. Chains and sets of
/// others in it stay, and so do elements of the sets but for `sources`, the sandboxes on the bridge.
pub(super) fn setup(subnet: Ipv4Net, sources: &BTreeSet<Ipv4Addr>) -> String {
    let range = subnet.trunc();
    let mut text = format!(
        "\
{mesh}
table inet {TABLE} {{
    set gateway_sources {{
        type ether_addr . ipv4_addr
    }}
    set cluster_ports {{
        type ipv4_addr . inet_proto . inet_service
    }}
    counter refused_sandbox {{ }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
    }}
    chain sandbox_input {{
        type filter hook input priority filter; policy accept;
    }}
}}
flush set inet {TABLE} gateway_sources
flush chain inet {TABLE} postrouting
flush chain inet {TABLE} sandbox_in
flush chain inet {TABLE} sandbox_forward
flush chain inet {TABLE} sandbox_replies
flush chain inet {TABLE} sandbox_input
table inet {TABLE} {{
    chain postrouting {{
        ip saddr {range} oifname != \"{BRIDGE}\" masquerade
    }}
    # A frame for a reserved group address (IEEE 802.1D table 7-10) passes the bridge by and is
    # received on the port itself.
    chain sandbox_in {{
        iifname \"{MESH_IFNAME}\" accept
        iifname \"{PORT_PREFIX}*\" counter name refused_sandbox drop
        iifname != \"{BRIDGE}\" return
        meta nfproto ipv6 counter name refused_sandbox drop
        meta pkttype != host counter name refused_sandbox drop
        ether saddr . ip saddr != @gateway_sources counter name refused_sandbox drop
    }}
    # What comes from the bridge. First what has passed all of this before. An ICMP error of a sandbox
    # would be believed by the flow that it quotes, whoever's that is.
    chain sandbox_forward {{
        oifname \"{MESH_IFNAME}\" jump mesh_forward
        oifname \"{BRIDGE}\" counter name refused_sandbox drop
        ct state established accept
        meta l4proto icmp ct state related counter name refused_sandbox drop
        ct state invalid counter name refused_sandbox drop
        ip daddr . meta l4proto . th dport @cluster_ports counter name refused_sandbox drop
    }}
    # What goes to it, from elsewhere.
    chain sandbox_replies {{
        ct state established,related accept
        counter name refused_sandbox drop
    }}
    chain sandbox_input {{
        iifname != \"{BRIDGE}\" return
        ct state established accept
        icmp type echo-request accept
        meta l4proto . th dport @listening accept
        ip daddr . meta l4proto . th dport @listening_at accept
        counter name refused_sandbox drop
    }}
}}
",
        mesh = mesh_wall(),
    );
    for ip in sources {
        text.push_str(&source(*ip, true));
    }
    text
}

/// Makes the wall around the mesh address, or brings it to this form: the address knows ports, not
/// the addresses that they were published on, so only what a front end sends may reach it. With it
/// come the sets of ports that the node's listeners have.
pub(crate) fn mesh_wall() -> String {
    let v4 = Ipv4Net::new_assert(MESH_HOST_IP, 30).trunc();
    let v6 = Ipv6Net::new_assert(MESH_HOST_IP6, 126).trunc();
    let own = rustix::process::geteuid().as_raw();
    format!(
        "\
table inet {TABLE} {{
    set listening {{
        type inet_proto . inet_service
    }}
    set listening_at {{
        type ipv4_addr . inet_proto . inet_service
    }}
    counter refused_mesh {{ }}
    chain mesh_in {{ }}
    chain mesh_out {{ }}
    chain mesh_forward {{ }}
    chain sandbox_in {{ }}
    chain sandbox_forward {{ }}
    chain sandbox_replies {{ }}
    chain untracked_in {{ }}
    chain untracked_out {{ }}
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
    }}
    chain output {{
        type filter hook output priority raw; policy accept;
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
    }}
}}
flush chain inet {TABLE} prerouting
flush chain inet {TABLE} output
flush chain inet {TABLE} forward
flush chain inet {TABLE} mesh_in
flush chain inet {TABLE} mesh_out
flush chain inet {TABLE} mesh_forward
table inet {TABLE} {{
    chain mesh_in {{
        ip daddr {v4} iifname != \"lo\" iifname != \"{MESH_IFNAME}\" counter name refused_mesh drop
        ip daddr 127.0.0.0/8 iifname != \"lo\" iifname != \"{MESH_IFNAME}\" counter name refused_mesh drop
        ip6 daddr {v6} iifname != \"lo\" iifname != \"{MESH_IFNAME}\" counter name refused_mesh drop
    }}
    # The agent's listeners; programs of others on this host have the listeners.
    chain mesh_out {{
        ip daddr {v4} meta skuid != {own} counter name refused_mesh drop
        ip6 daddr {v6} meta skuid != {own} counter name refused_mesh drop
    }}
    chain mesh_forward {{
        ct status dnat return
        counter name refused_mesh drop
    }}
    # Names of weft's own interfaces begin with a w; few others do. Walls first: what a later chain
    # accepts has left this hook.
    chain prerouting {{
        iifname \"w*\" jump sandbox_in
        jump mesh_in
        meta l4proto udp jump untracked_in
    }}
    chain output {{
        jump mesh_out
        meta l4proto udp jump untracked_out
    }}
    # Published ports come first, and are done.
    chain forward {{
        iifname \"{BRIDGE}\" goto sandbox_forward
        oifname \"{MESH_IFNAME}\" goto mesh_forward
        oifname \"{BRIDGE}\" goto sandbox_replies
    }}
}}
"
    )
}

/// Lets a sandbox send from its address, or no longer.
pub(super) fn source(ip: Ipv4Addr, may: bool) -> String {
    let verb = if may { "add" } else { "delete" };
    let mac = Mac::for_ip(ip.into());
    format!("{verb} element inet {TABLE} gateway_sources {{ {mac} . {ip} }}\n")
}

/// Says which ports of the cluster's nodes no sandbox may speak to.
pub(super) fn cluster(ports: &BTreeSet<ClusterPort>) -> String {
    let mut text = format!(
        "\
table inet {TABLE} {{
    set cluster_ports {{
        type ipv4_addr . inet_proto . inet_service
    }}
}}
flush set inet {TABLE} cluster_ports
"
    );
    for ClusterPort { ip, protocol, port } in ports {
        let _infallible = writeln!(
            text,
            "add element inet {TABLE} cluster_ports {{ {ip} . {protocol} . {port} }}"
        );
    }
    text
}

/// One transaction that takes the data path's own datagrams out of connection tracking, which the
/// masquerade above switches on for the whole host: they would pay for an entry that nothing reads.
/// They come to the address `at` of this node, or are sent by this process, itself or through the
/// device that the kernel segments them behind. What others send to that port elsewhere is traffic as
/// any other, and a sandbox's has to be masqueraded. Needs the chains of [`mesh_wall`].
pub(super) fn untracked(at: SocketAddr) -> String {
    let (family, ip, port) = match at.ip() {
        IpAddr::V4(ip) => ("ip", ip.to_string(), at.port()),
        IpAddr::V6(ip) => ("ip6", ip.to_string(), at.port()),
    };
    let own = rustix::process::geteuid().as_raw();
    format!(
        "\
table inet {TABLE} {{
    chain untracked_in {{ }}
    chain untracked_out {{ }}
}}
flush chain inet {TABLE} untracked_in
flush chain inet {TABLE} untracked_out
table inet {TABLE} {{
    chain untracked_in {{
        udp dport {port} {family} daddr {ip} iifname != \"{BRIDGE}\" notrack accept
        udp dport {port} iifname \"{SEGMENTING_DEVICE}\" notrack
    }}
    chain untracked_out {{
        udp dport {port} meta skuid {own} notrack
    }}
}}
"
    )
}

/// Takes away the chains that the kernel entered by themselves in earlier versions, where they are
/// there or no chain of their name is. Fails, and changes nothing, where the chains of this version
/// are.
pub(crate) fn former() -> String {
    let raw_in = ["mesh_in", "sandbox_in", "untracked_in"].map(|name| (name, "prerouting", "raw"));
    let raw_out = ["mesh_out", "untracked_out"].map(|name| (name, "output", "raw"));
    let forward = ["mesh_forward", "sandbox_forward"].map(|name| (name, "forward", "filter"));
    let out = [("published6_out", "postrouting", "srcnat + 50")];
    let mut text = String::new();
    for (name, hook, priority) in raw_in.into_iter().chain(raw_out).chain(forward).chain(out) {
        let _infallible = write!(
            text,
            "\
table inet {TABLE} {{
    chain {name} {{
        type filter hook {hook} priority {priority}; policy accept;
    }}
}}
flush chain inet {TABLE} {name}
delete chain inet {TABLE} {name}
"
        );
    }
    text
}

/// One transaction that removes the table, there or not.
pub(super) fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}
