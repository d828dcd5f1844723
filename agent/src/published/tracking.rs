//! The host's connection tracking, which undoes the rewrite of the frame front end: it must not
//! forget a connection that the flow table still has, nor let an answer out untranslated.
//!
//! Its own times are for strangers' connections: a half-closed one is forgotten after a minute or
//! two, one with data that nobody acknowledges after five. Those of the mesh get times of their
//! own, and nobody else's do. Segments outside of the window, to which nothing is translated, are
//! taken as they are for all of the host, as kube-proxy has it: there is no switch for some.
//!
//! What has no entry all the same, after a flush or in a full table, would leave the host with the
//! mesh address as its source. It is dropped, and counted in the counter of that name; the next
//! packet of the client brings the entry back.

use std::net::IpAddr;

use crate::names::{MESH_IFNAME, MESH_IP, MESH_IP6, TABLE};
use crate::sandbox::{SandboxError, sysctl};

/// Seconds that a connection may be open and quiet. The flow table keeps it for ever; a kernel that
/// counts time in 32 bits, a thousand to the second, cannot for longer than 24 days.
const OPEN: u32 = 20 * 24 * 60 * 60;
/// Seconds that a half-closed connection may be quiet: a little longer than in the flow table.
const HALF_CLOSED: u32 = 3660;
/// Seconds for a handshake: a little longer than in the flow table.
const HANDSHAKE: u32 = 90;
/// Seconds that a connection may be quiet which was reset, or seems so to this kernel, which believes
/// segments outside of the window: its own 10 s would have the next answer dropped.
const RESET: u32 = 90;

/// The chain that the kernel enters, for both address families.
const OUT: &str = "published_out";

/// Names of the chain, of the times, and of the counter of an address family.
const fn names(ipv6: bool) -> [&'static str; 3] {
    if ipv6 {
        ["published_out6", "published6_kept", "published6_untracked"]
    } else {
        ["published_out4", "published_kept", "published_untracked"]
    }
}

/// Rules for one address family, there before or not. Without `kept`, which kernels may lack, the
/// times are the kernel's own.
pub(super) fn rules(mesh_ip: IpAddr, kept: bool) -> String {
    let [chain, times, counter] = names(mesh_ip.is_ipv6());
    let [[of_v4, ..], [of_v6, ..]] = [false, true].map(names);
    let family = if mesh_ip.is_ipv6() { "ip6" } else { "ip" };
    let (object, rule) = if kept {
        (
            format!(
                "
    ct timeout {times} {{
        protocol tcp; l3proto {family};
        policy = {{ syn_recv : {HANDSHAKE}, established : {OPEN}, fin_wait : {HALF_CLOSED}, \
                 close_wait : {HALF_CLOSED}, close : {RESET}, retrans : {HALF_CLOSED}, \
                 unack : {HALF_CLOSED} }}
    }}"
            ),
            format!(
                "
        {family} daddr {mesh_ip} oifname \"{MESH_IFNAME}\" ct state new ct timeout set \"{times}\""
            ),
        )
    } else {
        Default::default()
    };
    // Behind the translation of answers, and before the kernel takes a new connection in.
    format!(
        "\
table inet {TABLE} {{{object}
    counter {counter} {{
    }}
    chain {of_v4} {{ }}
    chain {of_v6} {{ }}
    chain {OUT} {{
        type filter hook postrouting priority srcnat + 50; policy accept;
    }}
}}
flush chain inet {TABLE} {chain}
flush chain inet {TABLE} {OUT}
table inet {TABLE} {{
    chain {OUT} {{
        meta nfproto ipv4 jump {of_v4}
        meta nfproto ipv6 jump {of_v6}
    }}
    chain {chain} {{{rule}
        {family} saddr {mesh_ip} oifname != \"{MESH_IFNAME}\" counter name \"{counter}\" drop
    }}
}}
"
    )
}

/// Takes the rules of both address families away, there or not. Connections go on with the kernel's
/// own times.
pub(super) fn removal(kept: bool) -> String {
    let mut text = [MESH_IP.into(), MESH_IP6.into()]
        .map(|ip| rules(ip, kept))
        .concat();
    text += &format!("delete chain inet {TABLE} {OUT}\n");
    for [chain, times, counter] in [false, true].map(names) {
        text += &format!("delete chain inet {TABLE} {chain}\n");
        text += &format!("delete counter inet {TABLE} {counter}\n");
        if kept {
            text += &format!("delete ct timeout inet {TABLE} {times}\n");
        }
    }
    text
}

/// Lets segments outside of the window be translated like all others.
///
/// # Errors
/// The setting cannot be changed, or the kernel does not track connections.
pub(super) fn enable_liberal() -> Result<(), SandboxError> {
    sysctl::set("net/netfilter/nf_conntrack_tcp_be_liberal", "1")
}

#[cfg(test)]
mod tests {
    use weft_sys::netns::Netns;
    use weft_sys::nft;

    use super::*;

    #[test]
    fn the_kernel_takes_the_rules_twice_and_forgets_them() {
        let netns = Netns::create_anonymous().expect("netns");
        let list = || {
            let json = nft::list_table("inet", TABLE).expect("nft");
            json.map_or_else(String::new, |json| json.to_string())
        };
        let check = || {
            for (at, ip) in [MESH_IP.into(), MESH_IP6.into()].into_iter().enumerate() {
                for kept in [true, true, false] {
                    nft::apply(&rules(ip, kept)).expect("loaded");
                    let there = list();
                    assert_eq!(there.matches("\"drop\"").count(), at + 1, "{there}");
                    assert_eq!(there.matches("\"hook\"").count(), 1, "{there}");
                    assert!(there.contains("_untracked"), "{there}");
                }
                enable_liberal().expect("a setting");
            }
            for _ in 0..2 {
                nft::apply(&removal(true)).expect("removed");
            }
            assert!(!list().contains("published"), "{}", list());
        };
        netns.run_in(check).expect("enter");
    }
}
