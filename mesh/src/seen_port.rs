//! From which port a replica sees a client outside.
//!
//! A client's kernel may use one source port towards several nodes: to it these are connections to
//! different servers. All of them may lead to one replica, which could not tell them apart. What is
//! open [`crate::Claims`] keeps apart. But a kernel remembers a connection for a minute after its end
//! (TIME_WAIT), and what another node brings then from the same port looks like a late segment of it:
//! the timestamps of the two have different offsets. The SYN is answered with an acknowledgement of
//! the old connection, the client answers that with a reset, and the SYN that it repeats goes to
//! another replica, with the blame on this one. So the clients of each node have ports of their own: the
//! client's port, moved on by a distance that is the node's.

use weft_wire::Mac;

/// Those below stay: they are privileged, and programs look at that.
const FIRST: u16 = 1024;
/// Ports that are moved.
const PORTS: u64 = 65_536 - FIRST as u64;
/// Between the distances of neighbouring addresses. It has no divisor in common with the number of
/// ports, so as many addresses have distances of their own; and it is near its golden section, so that
/// neighbours are far apart.
const STEP: u64 = 39_871;

/// The port at which replicas are to see a client of that port which came through `node`, by the node's
/// Ethernet address on the ingress network: that has its IPv4 address there. Two clients of one address
/// and one node never get the same, and one client by two nodes of a network does not either.
pub(crate) fn seen_port(node: Mac, port: u16) -> u16 {
    let Some(above) = port.checked_sub(FIRST) else {
        return port;
    };
    let [_, _, a, b, c, d] = node.0;
    let node = u32::from_be_bytes([a, b, c, d]);
    let moved = (u64::from(above) + u64::from(node) * STEP) % PORTS;
    let moved = moved as u16;
    FIRST + moved
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use weft_wire::mac_for_ip;

    use super::*;

    fn node(a: u8, b: u8) -> Mac {
        mac_for_ip(IpAddr::V4(Ipv4Addr::new(10, 0, a, b)))
    }

    #[test]
    fn every_port_is_seen_as_one_and_only_one() {
        for node in [node(0, 1), node(0, 250), node(255, 254), Mac([0xff; 6])] {
            let mut seen = vec![false; 1 << 16];
            for port in 0..=u16::MAX {
                let at = seen_port(node, port);
                assert!(
                    !std::mem::replace(&mut seen[usize::from(at)], true),
                    "{port}"
                );
                assert_eq!(at < FIRST, port < FIRST);
                assert!(port >= FIRST || at == port);
            }
        }
    }

    #[test]
    fn one_port_is_another_one_by_every_node_of_a_network() {
        for port in [1024, 33_000, u16::MAX] {
            let nodes = (0..=u8::MAX).flat_map(|a| (0..=u8::MAX).map(move |b| node(a, b)));
            let mut seen: Vec<u16> = nodes
                .take(64_512)
                .map(|node| seen_port(node, port))
                .collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 64_512);
        }
    }

    #[test]
    fn ports_by_neighbours_are_far_apart() {
        for (here, there) in (1..250).map(|b| (node(0, b), node(0, b + 1))) {
            let ports = [here, there].map(|node| seen_port(node, 40_000));
            assert!(ports[0].abs_diff(ports[1]) > 10_000, "{ports:?}");
        }
    }
}
