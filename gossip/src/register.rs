//! Whom a node believes, and how much.
//!
//! Every member holds the key of gossip, and so did every node that was a member once: a message
//! that opens proves nothing of who wrote it. So the managers say who is a member and where, and
//! what any clock can have reached; the rest is refused and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_model::id::NodeId;

use super::identity::Identity;

/// Incarnations are times of day in milliseconds. Clocks differ, by years where one has never been
/// set, and a node goes one above what others say of it, so much is left to both: 139 years. What
/// counts is that nobody can say a number that its owner could not outbid a moment later.
const AHEAD: u64 = 1 << 42;

/// A node's own word, by a stream from its own address, counts for twice as much: others may have
/// been told a number that only their clocks allow, and it has to go above that.
const AHEAD_ITSELF: u64 = 2 * AHEAD;

/// Beyond what any node writes in one life.
pub(crate) const MAX_SEQ: u64 = 1 << 48;

/// The members of the cluster, by word of the managers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Gossip address of each node.
    pub addrs: BTreeMap<NodeId, SocketAddr>,
    /// A time that the managers' clock has reached, in milliseconds since 1970: it counts where a
    /// node's own clock is behind.
    pub time_ms: u64,
}

/// Why something was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No member, or not from where that member is.
    Stranger,
    /// A number that no node can have reached.
    Absurd,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever it may be.
    Anybody,
    /// The node of which it is said, or it is said of this node.
    Itself,
}

/// What the managers have said, or nothing yet: then everybody is a member.
#[derive(Debug)]
pub(crate) struct Register {
    members: Option<BTreeMap<NodeId, SocketAddr>>,
    places: BTreeSet<(IpAddr, u16)>,
    /// The latest clock, and when it had reached that here.
    clock: (u64, Duration),
    number: u64,
}

impl Register {
    pub(crate) const fn new(time_ms: u64, now: Duration) -> Self {
        Self {
            members: None,
            places: BTreeSet::new(),
            clock: (time_ms, now),
            number: 0,
        }
    }

    pub(crate) fn set(&mut self, now: Duration, members: Members) {
        if members.time_ms > self.time_at(now) {
            self.clock = (members.time_ms, now);
        }
        let places = members.addrs.values();
        self.places = places.map(|a| (a.ip(), a.port())).collect();
        self.members = Some(members.addrs);
        self.number += 1;
    }

    /// Of what was said last of who is a member.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    fn time_at(&self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.clock.1).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.clock.0.saturating_add(passed)
    }

    /// Whether no node's clock can have shown this.
    pub(crate) fn is_absurd(&self, now: Duration, incarnation: u64, by: By) -> bool {
        let ahead = match by {
            By::Anybody => AHEAD,
            By::Itself => AHEAD_ITSELF,
        };
        incarnation > self.time_at(now).saturating_add(ahead)
    }

    pub(crate) fn is_member(&self, node: &NodeId) -> bool {
        let members = self.members.as_ref();
        members.is_none_or(|m| m.contains_key(node))
    }

    /// Whether it is a member's gossip address.
    pub(crate) fn is_place(&self, addr: SocketAddr) -> bool {
        self.members.is_none() || self.places.contains(&(addr.ip(), addr.port()))
    }

    /// Whether a member is at that address, on whatever port: streams have ports of their own.
    pub(crate) fn is_home(&self, ip: IpAddr) -> bool {
        self.members.is_none() || self.places.range((ip, 0)..=(ip, u16::MAX)).next().is_some()
    }

    /// Whether `node` is where `ip` is; unknown without a register.
    pub(crate) fn lives_at(&self, node: &NodeId, ip: IpAddr) -> Option<bool> {
        let members = self.members.as_ref()?;
        Some(members.get(node).is_some_and(|addr| addr.ip() == ip))
    }

    /// Whether `id` may be what is said of a node.
    pub(crate) fn judge(&self, now: Duration, id: &Identity, by: By) -> Result<(), Doubt> {
        let known = self.members.as_ref().map(|m| m.get(&id.node));
        if known.is_some_and(|addr| addr.is_none_or(|addr| !is_same(*addr, id.addr))) {
            return Err(Doubt::Stranger);
        }
        if self.is_absurd(now, id.incarnation, by) {
            return Err(Doubt::Absurd);
        }
        Ok(())
    }
}

/// Scope and flow of IPv6 are of no interest.
fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip(), a.port()) == (b.ip(), b.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7946))
    }

    fn members(time_ms: u64) -> Members {
        let addrs = [("a", 1), ("b", 2)].map(|(n, last)| (NodeId::from(n), at(last)));
        Members {
            addrs: addrs.into(),
            time_ms,
        }
    }

    #[test]
    fn strangers_other_places_and_absurd_numbers_are_told_apart() {
        let mut register = Register::new(1000, Duration::ZERO);
        let id = |node: &str, last, incarnation| Identity::new(node.into(), at(last), incarnation);
        let now = Duration::from_secs(5);
        let judge = |r: &Register, now, id: &Identity| r.judge(now, id, By::Anybody);
        assert_eq!(judge(&register, now, &id("z", 9, 1)), Ok(()));
        register.set(now, members(9000));
        assert_eq!(judge(&register, now, &id("a", 1, 1)), Ok(()));
        assert_eq!(judge(&register, now, &id("z", 1, 1)), Err(Doubt::Stranger));
        assert_eq!(judge(&register, now, &id("a", 2, 1)), Err(Doubt::Stranger));
        let limit = 9000 + AHEAD;
        assert_eq!(judge(&register, now, &id("a", 1, limit)), Ok(()));
        let over = id("a", 1, limit + 1);
        assert_eq!(judge(&register, now, &over), Err(Doubt::Absurd));
        assert_eq!(register.judge(now, &over, By::Itself), Ok(()));
        let later = now + Duration::from_millis(1);
        assert_eq!(judge(&register, later, &over), Ok(()), "its owner's answer");
        assert!(register.is_place(at(2)) && !register.is_place(at(3)));
        let other_port = SocketAddr::new(at(2).ip(), 1);
        assert!(!register.is_place(other_port) && register.is_home(other_port.ip()));
        assert_eq!(register.lives_at(&"a".into(), at(1).ip()), Some(true));
        assert_eq!(register.lives_at(&"b".into(), at(1).ip()), Some(false));
    }

    #[test]
    fn the_later_clock_counts_and_nothing_overflows() {
        let mut register = Register::new(9000, Duration::ZERO);
        let absurd = |r: &Register, n| r.is_absurd(Duration::ZERO, n, By::Anybody);
        register.set(Duration::ZERO, members(2000));
        assert!(absurd(&register, AHEAD + 9001) && !absurd(&register, AHEAD + 9000));
        register.set(Duration::ZERO, members(10_000));
        assert!(!absurd(&register, AHEAD + 9001));
        register.set(Duration::ZERO, members(u64::MAX));
        assert!(!register.is_absurd(Duration::from_secs(1), u64::MAX, By::Anybody));
    }
}
