//! The open session of each node, and machines that claim to be a node that is there already.
//!
//! A data directory that was copied (a cloned disk image, a backup that was started) makes two
//! machines of one name. Each of them would end the other's session with its own, for ever. So a
//! session is replaced by one of the same process, of the same address, or when it is dead; a
//! second process elsewhere is refused and named while the first one lives.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use weft_model::id::NodeId;

/// How long a refused twin is shown: it tries again every few seconds while it is there.
const SHOWN: Duration = Duration::from_secs(30);
/// Processes of a node that are told apart: the present one, and those that it replaced.
const LIVES: usize = 4;
/// Bytes of the name that a process gives itself.
const MAX_LIFE: usize = 64;
/// A process that comes back this late after it was replaced is no twin any more: somebody has
/// started an old one again.
const TWIN_MEMORY: Duration = Duration::from_secs(60);

/// Who asks for a session.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Names the process; empty for agents of earlier versions.
    pub(super) life: String,
    /// Where it calls from.
    pub(super) addr: IpAddr,
    /// That is where the node says it is: a copy elsewhere cannot call from there.
    pub(super) home: bool,
}

impl Caller {
    /// `homes` are the addresses that the node says it has.
    pub(super) fn new(mut life: String, addr: IpAddr, homes: &[IpAddr]) -> Self {
        if life.len() > MAX_LIFE {
            life = life.chars().take(MAX_LIFE / 4).collect();
        }
        let addr = addr.to_canonical();
        let home = homes.iter().any(|home| home.to_canonical() == addr);
        Self { life, addr, home }
    }

    fn is(&self, other: &Self) -> bool {
        self.life == other.life || self.life.is_empty() || other.life.is_empty()
    }
}

/// Two machines with one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twins {
    /// The one with the session.
    pub(super) first: IpAddr,
    /// The one that was refused.
    pub(super) second: IpAddr,
}

/// Resolves when a newer session replaces the one that was opened, or the node left. Dropped when the
/// session has ended.
pub(super) type Replaced = oneshot::Receiver<()>;

#[derive(Debug)]
struct Open {
    caller: Caller,
    /// Dropped to end it; closed when it has ended by itself.
    cancel: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<NodeId, Open>,
    /// Processes that another one replaced, and when: the newest last.
    replaced: BTreeMap<NodeId, VecDeque<(String, Instant)>>,
    twins: BTreeMap<NodeId, (Twins, Instant)>,
}

/// Open sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Inner>);

impl Sessions {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, in place of an older one. `silence` says how long ago the node was heard
    /// of, `period` how often it is to be.
    ///
    /// # Errors
    /// Another process has a session and lives.
    pub(super) fn open(
        &self,
        node: &NodeId,
        caller: Caller,
        silence: Duration,
        period: Duration,
        now: Instant,
    ) -> Result<Replaced, Twins> {
        // Two heartbeats may be missing; of an agent that is started again, one.
        let (late, kept) = (period * 5 / 2, period * 3 / 2);
        let mut inner = self.inner();
        let inner = &mut *inner;
        if let Some(held) = inner.open.get(node)
            && !held.caller.is(&caller)
        {
            let elsewhere = held.caller.addr != caller.addr;
            // Where the first one's agent is just being started again, its place is kept a moment.
            let closed = held.cancel.is_closed();
            let lives = silence < if closed && elsewhere { kept } else { late };
            let lives = lives && (elsewhere || !closed);
            let came_back = inner.replaced.get(node).is_some_and(|lives| {
                let mut lives = lives.iter();
                lives
                    .any(|(life, at)| *life == caller.life && now.duration_since(*at) < TWIN_MEMORY)
            });
            if caller.home && !held.caller.home {
                // The copy was faster, while the first one was away.
                let twins = Twins {
                    first: caller.addr,
                    second: held.caller.addr,
                };
                inner.twins.insert(node.clone(), (twins, now));
            } else if lives && (elsewhere || came_back) {
                let twins = Twins {
                    first: held.caller.addr,
                    second: caller.addr,
                };
                inner.twins.insert(node.clone(), (twins, now));
                return Err(twins);
            }
            let lives = inner.replaced.entry(node.clone()).or_default();
            lives.push_back((held.caller.life.clone(), now));
            while lives.len() >= LIVES {
                lives.pop_front();
            }
        }
        let refused = inner.twins.get(node);
        if refused.is_some_and(|(twins, _)| twins.second == caller.addr) {
            // It was refused too soon, or is the only one now.
            inner.twins.remove(node);
        }
        let (cancel, replaced) = oneshot::channel();
        let open = Open { caller, cancel };
        inner.open.insert(node.clone(), open);
        Ok(replaced)
    }

    /// Forgets nodes that are no members any more.
    pub(super) fn retain(&self, is_member: impl Fn(&NodeId) -> bool) {
        let mut inner = self.inner();
        inner
            .open
            .retain(|id, open| !open.cancel.is_closed() || is_member(id));
        inner.replaced.retain(|id, _| is_member(id));
    }

    /// The node left: its session ends.
    pub(super) fn end(&self, node: &NodeId) {
        let mut inner = self.inner();
        inner.open.remove(node);
        inner.replaced.remove(node);
        inner.twins.remove(node);
    }

    pub(super) fn contains(&self, node: &NodeId) -> bool {
        let inner = self.inner();
        let open = inner.open.get(node);
        open.is_some_and(|open| !open.cancel.is_closed())
    }

    /// Nodes of whom a second machine was refused lately.
    pub(super) fn twins(&self, now: Instant) -> BTreeMap<NodeId, Twins> {
        let mut inner = self.inner();
        inner
            .twins
            .retain(|_, (_, at)| now.duration_since(*at) < SHOWN);
        let twins = inner.twins.iter();
        twins.map(|(id, (twins, _))| (id.clone(), *twins)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn caller(life: &str, last: u8) -> Caller {
        Caller::new(life.to_owned(), IpAddr::from([10, 0, 0, last]), &[])
    }

    #[test]
    fn a_copy_that_was_faster_gives_way_to_the_one_that_is_at_home() {
        let (sessions, node, now) = (Sessions::default(), NodeId::from("n"), Instant::now());
        let homes = [IpAddr::from([10, 0, 0, 1])];
        let open = |life: &str, last, silence| {
            let addr = IpAddr::from([10, 0, 0, last]);
            let caller = Caller::new(life.to_owned(), addr, &homes);
            sessions.open(&node, caller, silence, PERIOD, now)
        };
        drop(open("a", 1, PERIOD).unwrap());
        let copy = open("b", 2, PERIOD * 2).unwrap();
        let mut first = open("c", 1, Duration::ZERO).unwrap();
        assert!(copy.blocking_recv().is_err(), "replaced");
        let twins = sessions.twins(now)[&node];
        assert_eq!(
            (twins.first, twins.second),
            (homes[0], IpAddr::from([10, 0, 0, 2]))
        );
        assert_eq!(open("b", 2, PERIOD).unwrap_err(), twins);
        assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn a_clone_is_refused_and_named_while_the_first_one_lives() {
        let (sessions, node, start) = (Sessions::default(), NodeId::from("n"), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        let open = |life: &str, last, silent_ms, secs| {
            let silence = Duration::from_millis(silent_ms);
            sessions.open(&node, caller(life, last), silence, PERIOD, at(secs))
        };
        let mut first = open("a", 1, 1000, 0).unwrap();
        let twins = Twins {
            first: IpAddr::from([10, 0, 0, 1]),
            second: IpAddr::from([10, 0, 0, 2]),
        };
        for secs in 1..5 {
            let refused = open("b", 2, 1000, secs);
            assert_eq!(refused.unwrap_err(), twins);
        }
        assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "it goes on");
        assert_eq!(sessions.twins(at(5))[&node], twins);
        // Its agent is started again, and is not overtaken by the clone.
        drop(first);
        assert!(!sessions.contains(&node));
        assert!(open("b", 2, 1000, 6).is_err());
        let again = open("c", 1, 1000, 7).unwrap();
        assert_eq!(sessions.twins(at(8))[&node], twins);
        assert!(sessions.twins(at(40)).is_empty());
        // It has died without a word, and is not heard of: there is one machine, and it is whole.
        assert!(open("b", 2, 1000, 49).is_err());
        open("b", 2, 9000, 50).unwrap();
        assert!(sessions.twins(at(50)).is_empty());
        assert!(again.blocking_recv().is_err(), "replaced");
    }

    #[test]
    fn a_restarted_agent_takes_its_place_at_once() {
        let (sessions, node, now) = (Sessions::default(), NodeId::from("n"), Instant::now());
        let open = |life: &str, last| sessions.open(&node, caller(life, last), PERIOD, PERIOD, now);
        let first = open("a", 1).unwrap();
        // The machine was reset: nobody has closed the connection.
        let second = open("b", 1).unwrap();
        assert!(first.blocking_recv().is_err());
        // The same process by another way.
        let third = open("b", 7).unwrap();
        assert!(second.blocking_recv().is_err());
        assert!(sessions.contains(&node));
        drop(third);
        assert!(!sessions.contains(&node));
        open("d", 7).unwrap();
        // An agent of an earlier version has no name.
        open("", 3).unwrap();
        open("e", 4).unwrap();
        assert!(sessions.twins(now).is_empty());
        sessions.end(&node);
        open("f", 9).unwrap();
    }

    #[test]
    fn twins_behind_one_address_are_told_by_the_one_that_comes_back() {
        let (sessions, node, start) = (Sessions::default(), NodeId::from("n"), Instant::now());
        let open = |life: &str, secs| {
            let now = start + Duration::from_secs(secs);
            sessions.open(&node, caller(life, 1), PERIOD, PERIOD, now)
        };
        open("a", 0).unwrap();
        let second = open("b", 1).unwrap();
        let refused = open("a", 2).unwrap_err();
        assert_eq!(refused.first, refused.second);
        drop(second);
        open("a", 3).unwrap();
    }

    #[test]
    fn a_machine_with_a_new_address_does_not_wait_until_it_is_down() {
        let (sessions, node, now) = (Sessions::default(), NodeId::from("n"), Instant::now());
        let open = |life: &str, last, silent_ms| {
            let silence = Duration::from_millis(silent_ms);
            sessions.open(&node, caller(life, last), silence, PERIOD, now)
        };
        let first = open("a", 1, 0).unwrap();
        // Its old connection is not closed; its heartbeats are overdue.
        assert!(open("b", 2, 2499).is_err());
        let second = open("b", 2, 2500).unwrap();
        drop((first, second));
        assert!(open("c", 3, 1499).is_err());
        open("c", 3, 1500).unwrap();
        assert!(sessions.twins(now).is_empty());
    }
}
