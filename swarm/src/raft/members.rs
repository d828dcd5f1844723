//! Who is a member of the log: seen, added, removed, and moved to another address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use tokio::time::timeout;
use weft_cluster::{Leadership, ProposeError, Quorum};
use weft_model::id::NodeId;

use super::shared::Shared;
use super::store::RaftStore;
use super::types::{Member, Metrics, Raft, RaftId};
use super::view::SILENCE;

/// How long a new member may take to get what the others have; the others wait for their turn.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How long a list of members may take to be in the log.
const CHANGE: Duration = Duration::from_secs(15);

/// A manager, as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSight {
    /// Which node it is.
    pub node: NodeId,
    /// Where the others reach it.
    pub addr: SocketAddr,
    /// It counts for the quorum. A new one does not before it has caught up.
    pub votes: bool,
    /// It leads.
    pub leads: bool,
    /// It was heard of lately. The leader hears of all; others of the leader alone.
    pub reachable: bool,
}

type Changes = ChangeMembers<RaftId, Member>;
type Refusal = RaftError<RaftId, ClientWriteError<RaftId, Member>>;

/// Adds a member without a vote, and waits until it has said that it has the entry which made it one;
/// or this manager does not lead any more. openraft's own wait is over at once where the log is so
/// short that a member which was never reached does not count as far behind: with a vote, one that
/// does not answer can cost the quorum.
async fn add_listener(raft: &Raft, id: RaftId, member: Member) -> Result<(), Refusal> {
    let added = raft.add_learner(id, member, false).await?;
    let mut metrics = raft.metrics();
    let is_over = |metrics: &Metrics| {
        let sent = metrics.replication.as_ref().and_then(|sent| sent.get(&id));
        metrics.state != ServerState::Leader || sent.is_some_and(|last| *last >= Some(added.log_id))
    };
    // Where openraft has ended, the next change says it.
    drop(metrics.wait_for(is_over).await);
    Ok(())
}

impl RaftStore {
    /// All members, by their addresses.
    pub(crate) fn members(&self) -> Vec<MemberSight> {
        let shared = &self.shared;
        let leader = shared.leader();
        let view = shared.view.borrow();
        let voters: BTreeSet<RaftId> = view.members.voter_ids().collect();
        let members = view.members.nodes().map(|(id, member)| MemberSight {
            node: member.node.clone(),
            addr: member.addr,
            votes: voters.contains(id),
            leads: leader == Some(*id),
            reachable: *id == shared.file.member || shared.links.is_heard(*id, SILENCE),
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|member| member.addr);
        members
    }

    /// Nodes of other members that were heard of by this process, and not in this time.
    pub(crate) fn missed(&self, within: Duration) -> BTreeSet<NodeId> {
        let shared = &self.shared;
        let view = shared.view.borrow();
        let others = view
            .members
            .nodes()
            .filter(|(id, _)| **id != shared.file.member && shared.links.is_missed(**id, within));
        others.map(|(_, member)| member.node.clone()).collect()
    }

    /// Whether a node has a place in the log.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        let view = self.shared.view.borrow();
        view.members.nodes().any(|(_, member)| member.node == *node)
    }

    /// How many managers there are and answer, as far as this one knows.
    pub(crate) fn quorum(&self) -> Quorum {
        let members = self.members();
        let voters = members.iter().filter(|member| member.votes);
        Quorum {
            managers: voters.clone().count(),
            reachable: voters.filter(|member| member.reachable).count(),
        }
    }

    /// Makes a manager a member, under the name that it drew; it votes when it has all that the
    /// others have. What its node was before is removed. Nothing to do when it has a vote already.
    ///
    /// # Errors
    /// This manager does not lead, or the new one does not answer: then it is no member.
    pub(crate) async fn add_member(&self, id: RaftId, member: Member) -> Result<(), ProposeError> {
        self.in_turn(|registrar| async move { registrar.add(id, member).await })
            .await
    }

    /// Removes all that a node is in the log; nothing when that is nothing.
    ///
    /// # Errors
    /// This manager does not lead, or there is no quorum for it.
    pub(crate) async fn remove_member(&self, node: &NodeId) -> Result<(), ProposeError> {
        let node = node.clone();
        self.in_turn(|registrar| async move { registrar.remove(&node, None).await })
            .await
    }

    /// Tells all members where a node is reached from now on; nothing when they know. The leader calls it
    /// there before the others have agreed: who asks for this has seen it answer there.
    ///
    /// # Errors
    /// This manager does not lead, or there is no quorum for it.
    pub(crate) async fn move_member(
        &self,
        node: &NodeId,
        addr: SocketAddr,
    ) -> Result<(), ProposeError> {
        let node = node.clone();
        self.in_turn(|registrar| async move { registrar.relocate(&node, addr).await })
            .await
    }

    /// Whether a change of members has its first entry and not its second one: two lists count. So it
    /// is for a moment, or since its leader was lost between them.
    pub(crate) fn is_between_lists(&self) -> bool {
        new_list(&self.shared).is_some()
    }

    /// Writes the second entry of such a change; nothing when there is none.
    ///
    /// # Errors
    /// This manager does not lead, or there is no quorum for it.
    pub(crate) async fn finish_change(&self) -> Result<(), ProposeError> {
        self.in_turn(|registrar| async move { registrar.finish().await })
            .await
    }

    /// Does `work` while nobody else changes members. It goes on when its caller has gone away, to its
    /// end or that of the log: halfway, two lists count, or one listens whom nobody gives a vote.
    async fn in_turn<F>(&self, work: impl FnOnce(Registrar) -> F) -> Result<(), ProposeError>
    where
        F: Future<Output = Result<(), ProposeError>> + Send + 'static,
    {
        let turn = Arc::clone(&self.changing).lock_owned().await;
        let work = work(Registrar {
            raft: self.leading()?,
            shared: Arc::clone(&self.shared),
        });
        let mut stop = self.shared.stop.subscribe();
        let done = tokio::spawn(async move {
            let stopped = async { drop(stop.wait_for(|stops| *stops).await) };
            let done = tokio::select! {
                done = work => done,
                () = stopped => Err(ProposeError::Undecided),
            };
            drop(turn);
            done
        });
        done.await.unwrap_or(Err(ProposeError::Undecided))
    }

    fn leading(&self) -> Result<Raft, ProposeError> {
        if let Leadership::Follower { leader } = &*self.shared.leadership.borrow() {
            return Err(ProposeError::NotLeader {
                leader: leader.clone(),
            });
        }
        self.raft().ok_or(ProposeError::NotLeader { leader: None })
    }
}

/// Where a change of members leads that is not at its end.
fn new_list(shared: &Shared) -> Option<BTreeSet<RaftId>> {
    let view = shared.view.borrow();
    match view.members.membership().get_joint_config().as_slice() {
        [_, .., new] => Some(new.clone()),
        _ => None,
    }
}

/// Who changes the list of members, one change at a time.
struct Registrar {
    shared: Arc<Shared>,
    raft: Raft,
}

impl Registrar {
    async fn add(self, id: RaftId, member: Member) -> Result<(), ProposeError> {
        let node = member.node.clone();
        self.remove(&node, Some(id)).await?;
        if self.has_vote(id) {
            return Ok(());
        }
        let added = timeout(CATCH_UP, add_listener(&self.raft, id, member)).await;
        let Ok(added) = added else {
            self.remove(&node, None).await?;
            return Err(ProposeError::Disk(format!(
                "node {node} does not take what the managers have; it is no manager"
            )));
        };
        added.map_err(|error| refused(&self.shared, &error))?;
        self.change(ChangeMembers::AddVoterIds([id].into())).await
    }

    /// By the list that counts in the end.
    fn has_vote(&self, id: RaftId) -> bool {
        let view = self.shared.view.borrow();
        let lists = view.members.membership().get_joint_config();
        lists.last().is_some_and(|voters| voters.contains(&id))
    }

    /// Removes the members of a node, but for one of that name.
    async fn remove(&self, node: &NodeId, but: Option<RaftId>) -> Result<(), ProposeError> {
        let (voters, others): (BTreeSet<RaftId>, BTreeSet<RaftId>) = {
            let view = self.shared.view.borrow();
            let voters: BTreeSet<RaftId> = view.members.voter_ids().collect();
            let of_node = view.members.nodes();
            let of_node = of_node.filter(|(id, member)| member.node == *node && Some(**id) != but);
            let ids = of_node.map(|(id, _)| *id);
            ids.partition(|id| voters.contains(id))
        };
        if !voters.is_empty() {
            self.change(ChangeMembers::RemoveVoters(voters)).await?;
        }
        if !others.is_empty() {
            self.change(ChangeMembers::RemoveNodes(others)).await?;
        }
        Ok(())
    }

    async fn relocate(&self, node: &NodeId, addr: SocketAddr) -> Result<(), ProposeError> {
        let moved: BTreeMap<RaftId, Member> = {
            let view = self.shared.view.borrow();
            let at = view.members.nodes();
            let elsewhere = at.filter(|(_, member)| member.node == *node && member.addr != addr);
            elsewhere
                .map(|(id, member)| {
                    let node = member.node.clone();
                    (*id, Member { node, addr })
                })
                .collect()
        };
        if moved.is_empty() {
            return Ok(());
        }
        self.change(ChangeMembers::SetNodes(moved)).await
    }

    async fn finish(&self) -> Result<(), ProposeError> {
        match new_list(&self.shared) {
            Some(voters) => self.change(ChangeMembers::ReplaceAllVoters(voters)).await,
            None => Ok(()),
        }
    }

    async fn change(&self, changes: Changes) -> Result<(), ProposeError> {
        // Who stops voting leaves; nobody stays to listen.
        let changed = timeout(CHANGE, self.raft.change_membership(changes, false)).await;
        match changed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(&self.shared, &error)),
            Err(_) => Err(ProposeError::Undecided),
        }
    }
}

/// Why members do not change.
fn refused(shared: &Shared, error: &Refusal) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            let leader = forward.leader_id.and_then(|leader| shared.node_of(leader));
            ProposeError::NotLeader { leader }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ProposeError::Disk(error.to_string())
        }
        RaftError::Fatal(error) => ProposeError::Disk(error.to_string()),
    }
}
