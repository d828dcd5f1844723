//! Rendezvous hashing: one client, one replica, on every node.

use std::net::IpAddr;

use super::rng::Rng;
use crate::replica::Replica;

/// The replica that a client belongs to. Where it cannot take the connection, the next best one
/// does, and no other client moves.
pub(super) fn pick<'a>(
    client: IpAddr,
    candidates: impl Iterator<Item = (usize, &'a Replica)>,
) -> Option<usize> {
    let client = hash_of(client);
    let mut best: Option<(usize, f64)> = None;
    for (at, replica) in candidates {
        // An exponential variable with the weight as its rate: the least of several belongs to
        // each of them in proportion to the weights, whoever else there is.
        let time = exponential(client, replica.key) / f64::from(replica.weight.max(1));
        if best.is_none_or(|(_, least)| time < least) {
            best = Some((at, time));
        }
    }
    best.map(|(at, _)| at)
}

fn exponential(client: u64, key: u64) -> f64 {
    let mixed = Rng::new(client ^ Rng::new(key).next_u64()).next_u64();
    // 53 bits, which a double holds exactly; never zero.
    let uniform = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln()
}

fn hash_of(client: IpAddr) -> u64 {
    let bits = match client {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "both halves are mixed in")]
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    Rng::new(Rng::new(low).next_u64() ^ high).next_u64()
}
