//! The text of the one nftables table. Chains are static; what changes are elements of sets.

use ipnet::Ipv4Net;

use super::BRIDGE;

/// Name of the table, family `inet`.
pub const TABLE: &str = "weft";

/// One transaction that makes the table, or brings an existing one to this form. Chains and sets of
/// others in it stay.
pub(super) fn setup(subnet: Ipv4Net) -> String {
    let range = subnet.trunc();
    format!(
        "\
table inet {TABLE} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
    }}
}}
flush chain inet {TABLE} postrouting
flush chain inet {TABLE} forward
table inet {TABLE} {{
    chain postrouting {{
        ip saddr {range} oifname != \"{BRIDGE}\" masquerade
    }}
    chain forward {{
        iifname \"{BRIDGE}\" accept
        oifname \"{BRIDGE}\" accept
    }}
}}
"
    )
}

/// One transaction that takes the data path's own datagrams out of connection tracking, which the
/// masquerade above switches on for the whole host: they would pay for an entry that nothing reads.
pub(super) fn untracked(data_path_port: u16) -> String {
    format!(
        "\
table inet {TABLE} {{
    chain untracked_in {{
        type filter hook prerouting priority raw; policy accept;
    }}
    chain untracked_out {{
        type filter hook output priority raw; policy accept;
    }}
}}
flush chain inet {TABLE} untracked_in
flush chain inet {TABLE} untracked_out
table inet {TABLE} {{
    chain untracked_in {{
        udp dport {data_path_port} notrack
    }}
    chain untracked_out {{
        udp dport {data_path_port} notrack
    }}
}}
"
    )
}

/// One transaction that removes the table, there or not.
pub(super) fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}
