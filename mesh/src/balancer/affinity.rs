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
    candidates
        .max_by_key(|(_, replica)| Rng::new(client ^ Rng::new(replica.key).next_u64()).next_u64())
        .map(|(at, _)| at)
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
