//! The way of a flow through the underlay: its outer source port.

use std::net::IpAddr;

use crate::{FiveTuple, Fragment, IpInfo};

/// What the outer source port of a packet is chosen by: its flow, but for fragments, which take one
/// path because only the first of them knows its ports.
#[must_use]
pub const fn path_tuple(info: &IpInfo) -> FiveTuple {
    let whole = matches!(info.fragment, Fragment::None);
    FiveTuple {
        sport: if whole { info.sport } else { 0 },
        dport: if whole { info.dport } else { 0 },
        // Behind IPv6 extension headers only the first fragment knows the protocol.
        proto: if whole { info.proto } else { 0 },
        ..info.five_tuple()
    }
}

/// Outer UDP source port of a flow: a hash of the inner headers in 49152..=65535, so that the
/// underlay can spread flows over equal paths (RFC 7348 section 5).
#[must_use]
pub fn entropy_port(flow: &FiveTuple) -> u16 {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => {
            let (high, low) = {
                let bits = ip.to_bits();
                ((bits >> 64) as u64, bits as u64)
            };
            mix(high) ^ low
        }
    };
    let ports = u64::from(flow.sport) << 32 | u64::from(flow.dport) << 16 | u64::from(flow.proto);
    let hash = mix(mix(mix(address(flow.src)) ^ address(flow.dst)) ^ ports);
    0xc000 | (hash >> 50) as u16
}

/// Finaliser of MurmurHash3: every input bit changes half of the output bits.
const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(sport: u16) -> FiveTuple {
        FiveTuple {
            src: "10.0.0.2".parse().unwrap(),
            dst: "10.0.0.3".parse().unwrap(),
            sport,
            dport: 80,
            proto: 6,
        }
    }

    #[test]
    fn rfc7348_s5_source_port_range() {
        let mut seen = std::collections::BTreeSet::new();
        for sport in 0..4096 {
            let port = entropy_port(&flow(sport));
            assert!(port >= 49152);
            seen.insert(port);
        }
        // 4096 balls into 16384 bins leave about 3624 distinct ones.
        assert!(seen.len() > 3400, "{} distinct ports", seen.len());
    }

    #[test]
    fn same_flow_same_port_and_reversal_is_its_own_inverse() {
        assert_eq!(entropy_port(&flow(7)), entropy_port(&flow(7)));
        assert_eq!(flow(7).reversed().reversed(), flow(7));
        assert_ne!(flow(7).reversed(), flow(7));
    }
}
