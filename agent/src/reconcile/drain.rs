//! The end of a task, in two phases: first every node stops sending it new connections and says so,
//! then the open ones may end; and only then the task is asked to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_gossip::{Member, NetdbView};
use weft_model::id::{EndpointId, NodeId};
use weft_model::records::LoadRecord;

/// What gossip needs to reach every node, where no word comes back that it did.
const WITHDRAW: Duration = Duration::from_millis(500);

/// Whoever looked a name up just before the last node left it out has connected by then.
const RESOLVED: Duration = Duration::from_millis(100);

/// How long nodes may take to say that they send nothing new.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// How long connections that are open by then may go on at most; where the task's grace period is
/// shorter, that is the limit.
const FINISHED_WITHIN: Duration = Duration::from_secs(10);

/// Where a task is on its way out. Time is an argument.
#[derive(Debug)]
pub(super) struct Drain {
    endpoints: BTreeSet<EndpointId>,
    /// How long open connections may go on.
    finish: Duration,
    /// Since when every node says that it sends nothing new.
    agreed: Option<Duration>,
    acknowledged: Option<Duration>,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Somebody may still send something new, or has something open.
    Waits,
    /// Of what balancers count nothing is open.
    Idle,
    /// What is open has had its time.
    Over,
}

impl Drain {
    /// Of a task with these endpoints, which were withdrawn just now, and this grace period.
    pub(super) fn new(endpoints: impl IntoIterator<Item = EndpointId>, grace: Duration) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            finish: grace.min(FINISHED_WITHIN),
            agreed: None,
            acknowledged: None,
        }
    }

    /// How far it is, `since` after the task was withdrawn.
    pub(super) fn progress(&mut self, view: &NetdbView, since: Duration) -> Progress {
        self.judge(&view.members, view.loads(), since)
    }

    fn judge<'a>(
        &mut self,
        members: &BTreeMap<NodeId, Member>,
        loads: impl Iterator<Item = (&'a NodeId, &'a str, LoadRecord)>,
        since: Duration,
    ) -> Progress {
        // It is in no table and no name.
        if self.endpoints.is_empty() {
            return Progress::Over;
        }
        let (open, silent) = self.look(members, loads);
        let acknowledged = match self.acknowledged {
            Some(at) => at,
            None => {
                if !self.is_acknowledged(silent, since) {
                    return Progress::Waits;
                }
                *self.acknowledged.insert(since)
            }
        };
        if since >= acknowledged + self.finish {
            Progress::Over
        } else if open == 0 {
            Progress::Idle
        } else {
            Progress::Waits
        }
    }

    /// Whether nothing new comes any more, or nobody is waited for any longer. Nodes take new tables
    /// and new names at the same time, and say so afterwards.
    fn is_acknowledged(&mut self, silent: Option<usize>, since: Duration) -> bool {
        let agreed = match silent {
            Some(0) => *self.agreed.get_or_insert(since) + RESOLVED,
            // Nobody balances to a task without a virtual address and published ports.
            None => WITHDRAW,
            Some(_) => {
                self.agreed = None;
                ACKNOWLEDGED_WITHIN
            }
        };
        since >= agreed.min(ACKNOWLEDGED_WITHIN)
    }

    /// Connections that all nodes have open to the task, and how many of the nodes still send new
    /// ones; nothing when none ever said a word.
    fn look<'a>(
        &self,
        members: &BTreeMap<NodeId, Member>,
        loads: impl Iterator<Item = (&'a NodeId, &'a str, LoadRecord)>,
    ) -> (u64, Option<usize>) {
        let mut open = 0;
        let mut acknowledged: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for (owner, endpoint, load) in loads {
            if self.endpoints.iter().any(|e| e.as_str() == endpoint) {
                open += u64::from(load.active);
                if load.draining {
                    *acknowledged.entry(owner).or_default() += 1;
                }
            }
        }
        // Some of the endpoints may be on networks where nobody balances: the most that anybody
        // acknowledged is what there is.
        let wanted = acknowledged.values().copied().max();
        let silent = wanted.map(|wanted| {
            members
                .iter()
                .filter(|(_, member)| member.state.is_active())
                .filter(|(node, _)| acknowledged.get(node).copied().unwrap_or(0) < wanted)
                .count()
        });
        (open, silent)
    }
}

#[cfg(test)]
mod tests {
    use weft_gossip::MemberState;

    use super::*;

    /// What every node last said of the task, and who is there: the view, without gossip.
    #[derive(Default)]
    struct Cluster {
        members: BTreeMap<NodeId, Member>,
        loads: BTreeMap<(NodeId, String), LoadRecord>,
    }

    impl Cluster {
        fn of(nodes: &[&str]) -> Self {
            let mut cluster = Self::default();
            for node in nodes {
                cluster.is(node, MemberState::Alive);
            }
            cluster
        }

        fn is(&mut self, node: &str, state: MemberState) {
            let addr = ([10, 0, 0, 1], 7946).into();
            let member = Member { addr, state };
            self.members.insert(NodeId::from(node), member);
        }

        fn says(&mut self, node: &str, endpoint: &str, active: u32, draining: bool) {
            let key = (NodeId::from(node), endpoint.to_owned());
            self.loads.insert(key, LoadRecord { active, draining });
        }

        /// As gossip does with a node that is gone.
        fn hide(&mut self, node: &str, state: MemberState) {
            self.is(node, state);
            self.loads.retain(|(owner, _), _| owner.as_str() != node);
        }

        fn progress(&self, drain: &mut Drain, ms: u64) -> Progress {
            let loads = self.loads.iter();
            let loads = loads.map(|((owner, endpoint), load)| (owner, endpoint.as_str(), *load));
            drain.judge(&self.members, loads, Duration::from_millis(ms))
        }

        /// As far as balancers know.
        fn is_over(&self, drain: &mut Drain, ms: u64) -> bool {
            self.progress(drain, ms) != Progress::Waits
        }
    }

    fn drain() -> Drain {
        Drain::new([EndpointId::from("task")], Duration::from_secs(5))
    }

    #[test]
    fn it_is_over_once_all_nodes_acknowledge_and_nothing_is_open() {
        let (mut cluster, mut drain) = (Cluster::of(&["a", "b"]), drain());
        cluster.says("a", "task", 2, false);
        assert!(!cluster.is_over(&mut drain, 0));
        cluster.says("a", "task", 2, true);
        cluster.says("b", "task", 0, true);
        assert!(!cluster.is_over(&mut drain, 40), "a name is just looked up");
        assert!(!cluster.is_over(&mut drain, 140), "two are open");
        cluster.says("a", "task", 1, true);
        assert!(!cluster.is_over(&mut drain, 3_000), "one is open");
        cluster.says("a", "task", 0, true);
        assert_eq!(cluster.progress(&mut drain, 3_025), Progress::Idle);
    }

    #[test]
    fn an_idle_task_waits_for_the_last_word_and_for_who_has_just_looked_it_up() {
        let (mut cluster, mut drain) = (Cluster::of(&["a", "b"]), drain());
        cluster.says("a", "task", 0, true);
        assert!(!cluster.is_over(&mut drain, 10));
        cluster.says("b", "task", 0, true);
        assert!(!cluster.is_over(&mut drain, 50), "agreed here");
        assert!(!cluster.is_over(&mut drain, 149));
        assert!(cluster.is_over(&mut drain, 150));
    }

    #[test]
    fn a_word_that_is_taken_back_counts_anew() {
        let (mut cluster, mut drain) = (Cluster::of(&["a", "b"]), drain());
        for node in ["a", "b"] {
            cluster.says(node, "task", 0, true);
        }
        assert!(!cluster.is_over(&mut drain, 50));
        // It has started again, and knows nothing yet.
        cluster.says("b", "task", 0, false);
        assert!(!cluster.is_over(&mut drain, 150));
        cluster.says("b", "task", 0, true);
        assert!(!cluster.is_over(&mut drain, 300));
        assert!(cluster.is_over(&mut drain, 400));
    }

    #[test]
    fn connections_that_stay_open_have_the_grace_period_and_ten_seconds_at_most() {
        for (grace, finish) in [(0, 0), (3, 3_000), (10, 10_000), (600, 10_000)] {
            let grace = Duration::from_secs(grace);
            let mut drain = Drain::new([EndpointId::from("task")], grace);
            let mut cluster = Cluster::of(&["a"]);
            cluster.says("a", "task", 1, true);
            let progress = |drain: &mut Drain, ms| cluster.progress(drain, ms);
            assert_eq!(progress(&mut drain, 600), Progress::Waits);
            if finish > 0 {
                assert_eq!(progress(&mut drain, 700), Progress::Waits, "{grace:?}");
                assert_eq!(progress(&mut drain, 699 + finish), Progress::Waits);
            }
            assert_eq!(progress(&mut drain, 700 + finish), Progress::Over);
        }
    }

    #[test]
    fn a_task_in_no_network_is_waited_for_by_nobody() {
        let cluster = Cluster::of(&["a", "b"]);
        let mut drain = Drain::new([], Duration::from_secs(10));
        assert_eq!(cluster.progress(&mut drain, 0), Progress::Over);
    }

    #[test]
    fn a_node_that_never_answers_delays_it_by_two_seconds() {
        let (mut cluster, mut idle) = (Cluster::of(&["a", "b"]), drain());
        cluster.says("a", "task", 0, true);
        assert!(!cluster.is_over(&mut idle, 1_999), "b may still send");
        assert!(cluster.is_over(&mut idle, 2_000));
        // What it has open counts, and has its time from then on.
        let mut busy = drain();
        cluster.says("b", "task", 1, false);
        assert!(!cluster.is_over(&mut busy, 2_000));
        assert!(!cluster.is_over(&mut busy, 6_999));
        assert!(cluster.is_over(&mut busy, 7_000));
    }

    #[test]
    fn nobody_waits_for_a_node_that_leaves_or_dies_meanwhile() {
        for state in [MemberState::Left, MemberState::Down] {
            let (mut cluster, mut drain) = (Cluster::of(&["a", "b"]), drain());
            cluster.says("a", "task", 0, true);
            cluster.says("b", "task", 3, false);
            assert!(!cluster.is_over(&mut drain, 1_000));
            cluster.hide("b", state);
            assert!(!cluster.is_over(&mut drain, 1_025), "{state:?}");
            assert!(cluster.is_over(&mut drain, 1_125), "{state:?}");
        }
    }

    #[test]
    fn a_suspect_is_waited_for() {
        let (mut cluster, mut drain) = (Cluster::of(&["a", "b"]), drain());
        cluster.says("a", "task", 0, true);
        cluster.is("b", MemberState::Suspect);
        assert!(!cluster.is_over(&mut drain, 1_000));
        cluster.says("b", "task", 0, true);
        assert!(!cluster.is_over(&mut drain, 1_025));
        assert!(cluster.is_over(&mut drain, 1_125));
    }

    #[test]
    fn a_node_acknowledges_every_endpoint_that_anybody_balances_to() {
        let endpoints = ["front", "back", "plain"].map(EndpointId::from);
        let mut cluster = Cluster::of(&["a", "b"]);
        let mut drain = Drain::new(endpoints, Duration::from_secs(5));
        cluster.says("a", "front", 0, true);
        cluster.says("a", "back", 0, true);
        cluster.says("b", "front", 0, true);
        assert!(
            !cluster.is_over(&mut drain, 1_000),
            "b may send to the other one"
        );
        cluster.says("b", "back", 0, true);
        assert!(!cluster.is_over(&mut drain, 1_025));
        assert!(
            cluster.is_over(&mut drain, 1_125),
            "nobody speaks of the third"
        );
    }

    #[test]
    fn a_task_that_nobody_balances_to_waits_for_names_to_be_withdrawn() {
        let (mut cluster, mut drain) = (Cluster::of(&["a"]), drain());
        // Another task's connections are none of its own.
        cluster.says("a", "other", 5, false);
        assert!(!cluster.is_over(&mut drain, 499));
        assert!(cluster.is_over(&mut drain, 500));
    }
}
