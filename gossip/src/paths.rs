//! Which ways between nodes work: datagrams one way or the other, or streams alone.
//!
//! A firewall may let gossip's TCP port pass and not its UDP port. Nodes then find each other alive
//! over streams, and everything works, only later; a person has to be told which way is closed. And
//! nodes that go down and come back all the time, as over a bad cable, are believed less and less.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use weft_model::id::NodeId;

/// So many probes in a row that no datagram answered, and a stream did, are no accident.
const RESCUES: usize = 3;
/// Rescues are remembered for this long.
const MEMORY: Duration = Duration::from_secs(60);
/// A datagram this young says that the way from its sender is open.
const YOUNG: Duration = Duration::from_secs(15);
/// Addresses that are kept in mind; more than a cluster has.
const MAX_PLACES: usize = 8192;

/// Returns within [`MEMORY`] that nobody is made to wait for: a restart, and another one.
const FREE_RETURNS: usize = 2;
/// The first wait, and the longest; each return doubles it.
const FIRST_HOLD: Duration = Duration::from_secs(2);
const LONGEST_HOLD: Duration = Duration::from_secs(16);

/// A way that datagrams do not pass while streams do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The other node.
    pub node: NodeId,
    /// Its gossip address.
    pub addr: SocketAddr,
    /// Datagrams of this node do not reach it; otherwise its own do not reach this node.
    pub outbound: bool,
}

/// What this node knows of ways.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Last datagram from each place.
    heard: BTreeMap<SocketAddr, Duration>,
    /// Nodes that answered by stream alone: where, and when.
    rescued: BTreeMap<NodeId, (SocketAddr, VecDeque<Duration>)>,
    returns: BTreeMap<NodeId, VecDeque<Duration>>,
}

fn forget_before(times: &mut VecDeque<Duration>, now: Duration) {
    while times
        .front()
        .is_some_and(|at| now.saturating_sub(*at) > MEMORY)
    {
        times.pop_front();
    }
}

impl Paths {
    /// A datagram came from there.
    pub(super) fn heard(&mut self, now: Duration, from: SocketAddr) {
        if self.heard.len() >= MAX_PLACES {
            self.heard.retain(|_, at| now.saturating_sub(*at) < YOUNG);
        }
        if self.heard.len() < MAX_PLACES || self.heard.contains_key(&from) {
            self.heard.insert(from, now);
        }
    }

    /// A datagram of this node was answered by one: both ways are open.
    pub(super) fn answered(&mut self, node: &NodeId) {
        self.rescued.remove(node);
    }

    /// No datagram answered a probe, and a stream did.
    pub(super) fn rescued(&mut self, now: Duration, node: &NodeId, addr: SocketAddr) {
        let (at, times) = self
            .rescued
            .entry(node.clone())
            .or_insert((addr, VecDeque::new()));
        *at = addr;
        times.push_back(now);
        if times.len() > RESCUES {
            times.pop_front();
        }
    }

    /// Ways that are closed to datagrams.
    pub(super) fn blocked(&mut self, now: Duration) -> Vec<Blocked> {
        self.rescued.retain(|_, (_, times)| {
            forget_before(times, now);
            !times.is_empty()
        });
        let often = self.rescued.iter().filter(|(_, (_, t))| t.len() >= RESCUES);
        often
            .map(|(node, (addr, _))| Blocked {
                node: node.clone(),
                addr: *addr,
                outbound: self
                    .heard
                    .get(addr)
                    .is_some_and(|at| now.saturating_sub(*at) < YOUNG),
            })
            .collect()
    }

    /// A node that was down is back: how long it is to be up before it is believed.
    pub(super) fn returned(&mut self, now: Duration, node: &NodeId) -> Duration {
        let times = self.returns.entry(node.clone()).or_default();
        forget_before(times, now);
        let before = times.len();
        times.push_back(now);
        // More than make any difference are not counted.
        if times.len() > 16 {
            times.pop_front();
        }
        match before.checked_sub(FREE_RETURNS) {
            None => Duration::ZERO,
            Some(more) => {
                let factor = 1_u32 << more.min(8);
                (FIRST_HOLD * factor).min(LONGEST_HOLD)
            }
        }
    }

    /// The node is no member any more.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.rescued.remove(node);
        self.returns.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_way_is_closed_when_streams_alone_answer_again_and_again() {
        let (mut paths, node) = (Paths::default(), NodeId::from("n"));
        let addr: SocketAddr = "192.0.2.1:7946".parse().unwrap();
        for n in 0..2 {
            paths.rescued(SECOND * n, &node, addr);
        }
        assert!(paths.blocked(SECOND * 2).is_empty(), "an accident");
        paths.rescued(SECOND * 2, &node, addr);
        let outbound = |paths: &mut Paths, at| {
            let blocked = paths.blocked(SECOND * at);
            blocked.first().map(|b| b.outbound)
        };
        assert_eq!(outbound(&mut paths, 3), Some(false));
        paths.heard(SECOND * 3, addr);
        assert_eq!(outbound(&mut paths, 4), Some(true), "its datagrams come");
        assert_eq!(outbound(&mut paths, 62), None, "nothing happened since");
        for n in 70..73 {
            paths.rescued(SECOND * n, &node, addr);
        }
        assert_eq!(outbound(&mut paths, 73), Some(false));
        paths.answered(&node);
        assert_eq!(outbound(&mut paths, 73), None);
    }

    #[test]
    fn who_comes_back_too_often_waits_longer_within_bounds() {
        let (mut paths, node) = (Paths::default(), NodeId::from("n"));
        let waits: Vec<u64> = (0..8)
            .map(|n| paths.returned(SECOND * n, &node).as_secs())
            .collect();
        assert_eq!(waits, [0, 0, 2, 4, 8, 16, 16, 16]);
        for n in 8..2000 {
            assert!(paths.returned(SECOND * n, &node) <= LONGEST_HOLD);
        }
        assert_eq!(paths.returned(SECOND * 2100, &node), Duration::ZERO);
    }
}
