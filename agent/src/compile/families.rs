//! Nodes between which no packets pass, as their data paths are of two families.

use std::net::IpAddr;

/// Says of which nodes the data path is of another family than this node's, so that no packets pass.
pub(super) fn out_of_reach<'a>(
    own: IpAddr,
    nodes: impl Iterator<Item = (&'a str, IpAddr)>,
) -> impl Iterator<Item = String> {
    nodes
        .filter(move |(_, addr)| addr.is_ipv6() != own.is_ipv6())
        .map(move |(name, addr)| {
            format!(
                "node {name} has the data-path address {addr} and this one {own}: no packets pass \
                 between them; join all nodes with a --data-path-addr of one family"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_another_family_are_named() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let nodes = [("a", ip("10.1.0.5")), ("b", ip("fd00::5"))];
        let said: Vec<String> = out_of_reach(ip("10.1.0.9"), nodes.into_iter()).collect();
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("node b has the data-path address fd00::5"));
        assert_eq!(out_of_reach(ip("fd00::9"), nodes.into_iter()).count(), 1);
    }
}
