//! The text of the one nftables table. Chains are static; what changes are elements of sets.

use ipnet::Ipv4Net;

use super::BRIDGE;

/// Name of the table, family `inet`.
pub const TABLE: &str = "weft";

/// One transaction that makes the table, or brings an existing one to this form. Set elements of an
/// existing table stay.
///
/// `published` holds the published ports that the mesh's frame front end will rewrite to the mesh
/// address; no rule uses it yet.
pub(super) fn setup(subnet: Ipv4Net) -> String {
    let range = subnet.trunc();
    format!(
        "\
table inet {TABLE} {{
    set published {{
        type inet_proto . inet_service
    }}
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

/// One transaction that removes the table, there or not.
pub(super) fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}
