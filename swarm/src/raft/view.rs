//! What openraft says of itself, judged: who leads, and whether it may act as the leader.

use std::time::Duration;

use openraft::ServerState;
use tokio::time::Instant;

use super::types::{Metrics, RaftId, StoredMembership};

/// A leader that no quorum answers for so long does not decide any more; one that is not heard of
/// for so long is none. Another may be elected before: what both of them write is never both taken.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);

/// The members, as one of them sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) members: StoredMembership,
    /// Who has been elected last, alive or not.
    pub(super) leader: Option<RaftId>,
}

impl View {
    pub(super) fn of(metrics: &Metrics) -> Self {
        Self {
            members: StoredMembership::clone(&metrics.membership_config),
            leader: metrics.current_leader,
        }
    }
}

/// Whether this member is all there is.
pub(super) fn is_alone(members: &StoredMembership, member: RaftId) -> bool {
    members.voter_ids().eq([member])
}

/// Tells when a leader may act.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The term, and the last entry that was in the log when it began: all of it is to be applied
    /// before anything is planned.
    began: Option<(u64, Option<u64>)>,
    /// When a quorum answered last, in this term.
    followed: Option<Instant>,
}

impl Judge {
    /// True of the leader, when a quorum follows it and its state has all that any leader before it
    /// has acknowledged.
    pub(super) fn leads(&mut self, metrics: &Metrics, now: Instant) -> bool {
        let is_elected =
            metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
        if !is_elected {
            *self = Self::default();
            return false;
        }
        if !self.is_followed(metrics, now) {
            self.began = None;
            return false;
        }
        let term = metrics.current_term;
        let began = self.began.filter(|(began, _)| *began == term);
        let (_, last) = *self
            .began
            .insert(began.unwrap_or((term, metrics.last_log_index)));
        metrics
            .last_applied
            .is_some_and(|applied| applied.leader_id.term == term && Some(applied.index) >= last)
    }

    /// Whether a quorum answered lately. openraft does not know of a new list of members until the
    /// new ones answer: what it said of the list before holds as long as it would have.
    fn is_followed(&mut self, metrics: &Metrics, now: Instant) -> bool {
        let answered = if is_alone(&metrics.membership_config, metrics.id) {
            Some(now)
        } else {
            metrics
                .millis_since_quorum_ack
                .and_then(|ms| now.checked_sub(Duration::from_millis(ms)))
        };
        self.followed = answered.or(self.followed);
        self.followed
            .is_some_and(|at| now.duration_since(at) <= SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use openraft::testing::log_id;

    use super::*;
    use crate::raft::types::{Member, Membership};

    fn metrics(voters: &[RaftId]) -> Metrics {
        let nodes: BTreeMap<RaftId, Member> =
            voters.iter().map(|id| (*id, Member::default())).collect();
        let members = Membership::new(vec![voters.iter().copied().collect()], nodes);
        Metrics {
            current_term: 3,
            last_log_index: Some(10),
            last_applied: Some(log_id(3, 1, 10)),
            state: ServerState::Leader,
            current_leader: Some(1),
            millis_since_quorum_ack: Some(100),
            membership_config: Arc::new(StoredMembership::new(Some(log_id(1, 1, 1)), members)),
            ..Metrics::new_initial(1)
        }
    }

    #[test]
    fn a_leader_acts_when_it_has_caught_up_with_those_before_it() {
        let now = Instant::now();
        let mut judge = Judge::default();
        let mut new = metrics(&[1, 2, 3]);
        new.last_applied = Some(log_id(2, 2, 9));
        assert!(
            !judge.leads(&new, now),
            "the first entry of its term is not applied"
        );
        new.last_applied = Some(log_id(3, 1, 10));
        assert!(judge.leads(&new, now));
        new.last_log_index = Some(20);
        assert!(judge.leads(&new, now), "it goes on while it writes");

        // It leads the same term after a restart: its own entries of it count as well.
        let mut judge = Judge::default();
        assert!(!judge.leads(&new, now));
        new.last_applied = Some(log_id(3, 1, 20));
        assert!(judge.leads(&new, now));
    }

    #[test]
    fn a_leader_that_nobody_follows_is_none() {
        let now = Instant::now();
        let mut judge = Judge::default();
        let mut cut_off = metrics(&[1, 2, 3]);
        cut_off.millis_since_quorum_ack = None;
        assert!(!judge.leads(&cut_off, now), "it has not been answered yet");
        cut_off.millis_since_quorum_ack = Some(1400);
        assert!(judge.leads(&cut_off, now));
        cut_off.millis_since_quorum_ack = Some(1600);
        assert!(!judge.leads(&cut_off, now));
        let mut alone = metrics(&[1]);
        alone.millis_since_quorum_ack = None;
        assert!(judge.leads(&alone, now), "it is a quorum");
        let mut joined = metrics(&[1, 2]);
        joined.millis_since_quorum_ack = None;
        let later = now + SILENCE;
        assert!(judge.leads(&joined, later), "the new one may still answer");
        let too_late = later + Duration::from_millis(1);
        assert!(!judge.leads(&joined, too_late));
        joined.millis_since_quorum_ack = Some(0);
        assert!(judge.leads(&joined, too_late));
        alone.state = ServerState::Candidate;
        assert!(!judge.leads(&alone, now));
    }
}
