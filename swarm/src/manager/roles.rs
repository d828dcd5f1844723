//! What a node is to the swarm, and where: its role, which the managers' log follows, and its address.
//!
//! A role that people change is a wish, stored first. Who is to be a worker leaves the log next, and
//! has the certificate of one after that: until it is out, the others count on it. Whatever of this a
//! leader does not finish, the next one does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::Status;
use weft_cluster::{
    CommandError, Leadership, ProposeError, Quorum, change_node, set_advertise_addr, set_role,
};
use weft_model::api::{NodeUpdate, NodeUpdated};
use weft_model::id::NodeId;
use weft_model::objects::{Node, Role};
use weft_sys::clock::unix_ms;

use super::Manager;
use super::engine::{Engine, entropy};
use crate::tls::{member_config, who_listens};

/// How often the leader looks whether the log has members that are no managers any more.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than managers take to elect a leader.
const ELECTION: Duration = Duration::from_secs(3);
/// How long a demotion by force waits for managers that are no quorum.
const FORCED: Duration = Duration::from_secs(2);

impl Engine {
    /// Makes a node a manager or a worker; with what a person should know of the swarm after that.
    /// A new manager joins the log by itself, with the certificate that it asks for now. By force a
    /// manager becomes a worker also where those that stay are no quorum.
    ///
    /// # Errors
    /// No such node, the managers that stay would be no quorum, or none: nothing changed. This manager
    /// does not lead, or the log does not take it.
    pub(super) async fn change_role(
        &self,
        reference: &str,
        role: Role,
        force: bool,
    ) -> Result<(Node, Vec<String>), CommandError> {
        let _one = self.roles.lock().await;
        self.check_leads()?;
        let before = self.state().find_node(reference)?.clone();
        let id = &before.id;
        let mut costs = None;
        if role == Role::Worker {
            costs = self.check_demotion(id, force)?;
        }
        let node = self
            .run(|s, now, e| set_role(s, now, e, id.as_str(), role))
            .await?;
        let warning = (before.spec.role != role).then(|| self.role_warning());
        if costs.is_some() {
            self.retire_by_force(id).await;
        } else if role == Role::Worker {
            self.retire(id).await?;
        }
        let warnings = costs.or_else(|| warning.flatten().map(str::to_owned));
        Ok((node, warnings.into_iter().collect()))
    }

    /// What is wrong with as many managers as there are to be.
    fn role_warning(&self) -> Option<&'static str> {
        let state = self.state();
        let nodes = state.nodes.values();
        Quorum::warning_of(nodes.filter(|n| n.spec.role == Role::Manager).count())
    }

    /// Whether the log can do without a node; by force, what it costs where it cannot.
    fn check_demotion(&self, id: &NodeId, force: bool) -> Result<Option<String>, CommandError> {
        let members = self.raft.members();
        let Some(member) = members.iter().find(|m| m.node == *id && m.votes) else {
            return Ok(None);
        };
        let quorum = self.raft.quorum();
        if force {
            return quorum.check_forced(member.reachable);
        }
        quorum.check_removal(member.reachable).map(|()| None)
    }

    /// Takes a node out of the log although those that stay are no quorum. They agree on it as soon as they
    /// are one: nobody has to ask for it again.
    async fn retire_by_force(&self, id: &NodeId) {
        let why = match timeout(FORCED, self.retire(id)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the managers that stay do not answer".to_owned(),
        };
        tracing::warn!(node = %id, why, "demoted by force: nothing is decided until managers come back");
    }

    /// Takes a node out of the log.
    async fn retire(&self, id: &NodeId) -> Result<(), CommandError> {
        if !self.raft.has(id) {
            return Ok(());
        }
        match self.raft.remove_member(id).await {
            Ok(()) => {
                tracing::info!(node = %id, "the node is out of the managers' log");
                Ok(())
            }
            // It has removed itself, and another one leads already: that one sees to the rest.
            Err(ProposeError::NotLeader { .. } | ProposeError::Undecided) if *id == self.node => {
                Ok(())
            }
            Err(error) => Err(self.not_proposed(error)),
        }
    }

    /// Members of the log whose nodes are workers, or are gone.
    fn superfluous(&self) -> Vec<NodeId> {
        let state = self.state();
        let members = self.raft.members().into_iter().map(|member| member.node);
        let is_manager = |id: &NodeId| {
            let node = state.nodes.get(id);
            node.is_some_and(|node| node.spec.role == Role::Manager)
        };
        members.filter(|id| !is_manager(id)).collect()
    }

    /// Finishes what an earlier leader has begun, while this manager leads.
    pub(super) async fn members_loop(&self) {
        loop {
            sleep(LOOK).await;
            if self.raft.is_between_lists()
                && let Err(error) = self.raft.finish_change().await
            {
                tracing::debug!(%error, "a change of the managers' list is not at its end yet");
            }
            if self.superfluous().is_empty() {
                continue;
            }
            let _one = self.roles.lock().await;
            for id in self.superfluous() {
                let retired = match self.check_demotion(&id, false) {
                    Ok(_) => self.retire(&id).await,
                    Err(refused) => Err(refused),
                };
                if let Err(error) = retired {
                    tracing::debug!(node = %id, %error, "the node is in the managers' log yet");
                }
            }
        }
    }

    /// The role that a node is certified for.
    ///
    /// # Errors
    /// It is to be a worker, and the log counts on it yet.
    pub(super) fn role_to_certify(&self, node: &Node) -> Result<Role, Status> {
        if node.spec.role == Role::Worker && self.raft.has(&node.id) {
            return Err(Status::failed_precondition(format!(
                "node {} is in the managers' log yet: it has the certificate of a worker when it is \
                 out of it",
                node.id
            )));
        }
        Ok(node.spec.role)
    }

    /// Gives a node another address, in the log too. The others call a manager there at once, before they
    /// have agreed on it: it has to answer there already.
    async fn change_address(&self, id: &NodeId, addr: IpAddr) -> Result<Node, CommandError> {
        let place = self.raft.members().into_iter().find(|m| m.node == *id);
        let place = place.map(|m| (m.addr, SocketAddr::new(addr, m.addr.port())));
        if let Some((_, there)) = place.filter(|(at, there)| at != there) {
            // What is wrong with the address itself, first.
            set_advertise_addr(&self.state(), unix_ms(), &mut entropy(), id.as_str(), addr)?;
            self.check_answers(id, there).await?;
        }
        let node = self
            .run(|s, now, e| set_advertise_addr(s, now, e, id.as_str(), addr))
            .await?;
        if let Some((_, there)) = place {
            let moved = self.raft.move_member(id, there).await;
            moved.map_err(|error| self.not_proposed(error))?;
        }
        Ok(node)
    }

    /// Whether a manager answers at an address, itself.
    async fn check_answers(&self, id: &NodeId, there: SocketAddr) -> Result<(), CommandError> {
        let own = Arc::clone(&self.own.borrow());
        let why = match who_listens(there, member_config(&own)?).await {
            Ok(found) if found == *id => return Ok(()),
            Ok(found) => format!("node {found} does"),
            Err(error) => error.to_string(),
        };
        Err(CommandError::unavailable(format!(
            "the manager does not answer at {there} ({why}), where the others would look for it: nothing \
             was changed. Give its machine that address first, and have weftd listen there; it listens \
             on all addresses unless --listen-addr said otherwise"
        )))
    }
}

impl Manager {
    /// Whether the other managers are lost, so that this one may go on alone: nobody leads, nor is anybody
    /// elected while that is waited for.
    ///
    /// # Errors
    /// There is a leader: which one, and what to do.
    pub async fn check_lost(&self) -> Result<(), CommandError> {
        if self.raft.quorum().managers <= 1 {
            return Ok(());
        }
        let mut leadership = self.core.store.leadership();
        let is_led = |now: &Leadership| !matches!(now, Leadership::Follower { leader: None });
        // Where the store is gone there is no leader, either.
        drop(timeout(ELECTION, leadership.wait_for(is_led)).await);
        let Some(leader) = self.core.leader() else {
            return Ok(());
        };
        let state = self.state();
        let name = state.nodes.get(&leader).map(|n| &n.description.hostname);
        Err(CommandError::conflict(format!(
            "the swarm has a leader ({}), so its managers are not lost: --force-new-cluster would make a \
             second swarm of the same nodes beside the one that goes on. Managers that do not come back \
             are taken out with `weft node demote`; to go on with this one alone all the same, stop weftd \
             on the others first",
            name.map_or(leader.as_str(), String::as_str)
        )))
    }

    /// `weft node update`, `promote` and `demote`, of the node as it was at a version where one is
    /// given. The role changes last: what comes before it holds also where that is refused.
    ///
    /// # Errors
    /// No such node, or it is not at that version; labels that cannot be, an address that is not its own
    /// or where the manager does not answer, a demotion that would lose the quorum and is not forced, force
    /// without a demotion, or the log's.
    pub async fn update_node(
        &self,
        reference: &str,
        version: Option<u64>,
        update: &NodeUpdate,
    ) -> Result<NodeUpdated, CommandError> {
        let core = &self.core;
        core.check_leads()?;
        if update.force && update.role != Some(Role::Worker) {
            return Err(CommandError::bad(
                "force is for a manager that is to be a worker; leave it out, or give the role worker",
            ));
        }
        let id = self.state().find_node(reference)?.id.clone();
        let mut node = core
            .run(|s, now, e| change_node(s, now, e, id.as_str(), version, update))
            .await?;
        if let Some(addr) = update.advertise_addr {
            node = core.change_address(&id, addr).await?;
        }
        let mut warnings = Vec::new();
        if let Some(role) = update.role {
            (node, warnings) = core.change_role(id.as_str(), role, update.force).await?;
        }
        Ok(NodeUpdated { node, warnings })
    }
}
