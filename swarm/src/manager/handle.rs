//! What the node API asks of a manager. Every error is for people, with Docker's words where
//! Docker has some.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_cluster::{
    ClusterState, CommandError, Detacher, Entropy, Quorum, Token, UnlockKey, add_peer,
    check_version, create_network, create_service, detach_endpoint, plan_rebalance, plan_update,
    rebalance_service, remove_network, remove_node, remove_peer, remove_service, rotate_token,
    rotate_unlock_key, scale_service, service_status, still_a_manager, update_service, usage,
    waiting,
};
use weft_model::api::{
    AddressUsage, JoinToken, NodeClone, NodeRow, NodeSight, PeerAdd, Rebalance, Rebalanced,
    ServiceDetail, ServiceUpdate, TaskMove, TaskRow, TlsStatus, UpdatePlan,
};
use weft_model::id::NodeId;
use weft_model::objects::{
    Endpoint, ManagerStatus, Network, NetworkSpec, Node, NodeState, PortSpec, PublishMode,
    Reachability, Role, Service, ServiceSpec, StaticPeer, Task,
};
use weft_model::talk::Talk;
use weft_sys::clock::unix_ms;

use super::Manager;
use super::api::{ApiCall, ApiReply};
use super::sessions::Twins;
use super::shown::Shown;
use super::talks;
use crate::exchange::Exchange;
use crate::raft::MemberSight;

impl Manager {
    /// The newest desired state.
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        self.core.state()
    }

    /// Why changes of the desired state are not stored, while they are not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.core.store.trouble().borrow().clone()
    }

    /// The managers, by their addresses. The leader knows of each whether it answers; another one
    /// knows it of the leader.
    #[must_use]
    pub fn managers(&self) -> Vec<MemberSight> {
        self.raft.members()
    }

    /// How many managers there are and answer, as far as this one knows.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        self.raft.quorum()
    }

    /// Whether this manager leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.core.check_leads().is_ok()
    }

    /// Waits for the proof that this manager leads: what it reads after that has all that anybody was
    /// told is done.
    ///
    /// # Errors
    /// Another one leads, or none does: too few answer.
    pub async fn confirm_lead(&self) -> Result<(), CommandError> {
        let confirmed = self.core.store.confirm_lead().await;
        confirmed.map_err(|error| self.core.not_proposed(error))
    }

    /// Waits until what this manager reads has all that anybody was told is done when this was called,
    /// whoever leads.
    ///
    /// # Errors
    /// No manager leads, too few answer, or this one lacks what the others have.
    pub async fn catch_up(&self) -> Result<(), CommandError> {
        self.relay.catch_up().await
    }

    /// Has the leader answer a call of the node API; nothing when this manager leads, and is to
    /// answer itself. While there is no leader the call waits, for 5 s at most.
    ///
    /// # Errors
    /// There is no leader, or it did not answer; the text says so where a change may have been made.
    pub async fn pass_on(&self, call: &ApiCall) -> Result<Option<ApiReply>, CommandError> {
        self.relay.pass_on(call).await
    }

    /// Nodes whose identity a second machine has shown lately, for people.
    #[must_use]
    pub fn clones(&self) -> Vec<String> {
        let state = self.state();
        let twins = self.core.sessions.twins(Instant::now());
        let text = |(id, twins): (&NodeId, &Twins)| {
            let name = state
                .nodes
                .get(id)
                .map_or(id.as_str(), |n| &n.description.hostname);
            format!(
                "node {name} is there twice: at {}, which has the session, and at {}, whose data \
                 directory is a copy; stop weftd there, empty its data directory, and let it join \
                 by itself",
                twins.first, twins.second
            )
        };
        twins.iter().map(text).collect()
    }

    /// Managers that this swarm has no more and that run as before, for people.
    #[must_use]
    pub fn past_managers(&self) -> Vec<String> {
        let state = self.state();
        let past = self.core.past.lasting(Instant::now()).into_iter();
        let text = |(id, addr): (NodeId, IpAddr)| {
            let node = state.nodes.get(&id);
            let name = node.map_or(id.as_str(), |node| &node.description.hostname);
            format!(
                "another manager of this swarm's past still runs at {addr}: node {name}, which is no \
                 manager of it any more, by a restored backup, --force-new-cluster, or what was decided \
                 while it was away; run `weft swarm leave --force` there, and join it again"
            )
        };
        past.map(text).collect()
    }

    /// Gossip lost a node: it is marked down as soon as its heartbeat is overdue too.
    pub async fn report_node_down(&self, node: &NodeId) {
        self.core.hear_of_loss(node).await;
    }

    /// Begins a conversation of a user with the swarm, wherever its leader is.
    ///
    /// # Errors
    /// There is no leader or it did not answer, or what is asked for is not there.
    pub async fn talk(&self, talk: Talk) -> Result<Exchange, CommandError> {
        match self.relay.open(&talk).await? {
            Some(exchange) => Ok(exchange),
            None => talks::begin(&self.core, talk).await,
        }
    }

    /// A task, as `weft task inspect` shows it.
    ///
    /// # Errors
    /// No such task, or an ambiguous reference.
    pub fn task(&self, reference: &str) -> Result<TaskRow, CommandError> {
        let state = self.state();
        let task = state.find_task(reference)?;
        let row = task_rows(&state, std::iter::once(task)).pop();
        row.ok_or_else(|| CommandError::not_found(format!("no such task: {reference}")))
    }

    /// `weft swarm join-token`
    ///
    /// # Errors
    /// There is no cluster.
    pub fn join_token(&self, role: Role) -> Result<JoinToken, CommandError> {
        let state = self.state();
        let secrets = state
            .secrets
            .as_ref()
            .ok_or_else(|| CommandError::unavailable("This node is not part of a swarm"))?;
        let token = Token {
            ca_digest: self.core.authority()?.digest(),
            secret: *secrets.join(role),
        };
        Ok(JoinToken {
            token: token.to_string(),
            manager_addr: self.advertise.to_string(),
        })
    }

    /// `weft swarm join-token --rotate`
    ///
    /// # Errors
    /// The disk's.
    pub async fn rotate_join_token(&self, role: Role) -> Result<JoinToken, CommandError> {
        self.core
            .run(|s, now, e| rotate_token(s, now, e, role))
            .await?;
        self.join_token(role)
    }

    /// `weft swarm unlock-key`: nothing where managers are not locked.
    #[must_use]
    pub fn unlock_key(&self) -> Option<UnlockKey> {
        let state = self.state();
        let secrets = state.secrets.as_ref()?;
        secrets.unlock_key.clone()
    }

    /// `weft swarm unlock-key --rotate`
    ///
    /// # Errors
    /// Managers are not locked, the disk's, or this manager does not lead.
    pub async fn rotate_unlock_key(&self) -> Result<(), CommandError> {
        self.core.run(rotate_unlock_key).await?;
        self.core.lock.follow(&self.state()).await
    }

    fn node_row(&self, node: &Node) -> NodeRow {
        let state = self.state();
        let name = |id: &NodeId| {
            let node = state.nodes.get(id);
            node.map_or_else(|| id.to_string(), |n| n.description.hostname.clone())
        };
        let sight = self.core.vitals.sight(&node.id);
        let twins = self.core.sessions.twins(Instant::now());
        let mut node = node.clone();
        if node.status.state == NodeState::Ready && self.core.health.is_unheard(&node.id) {
            node.status.state = NodeState::Unknown;
            node.status.message = "not heard of since this manager leads".to_owned();
        }
        let seen = self.managers().into_iter().find(|m| m.node == node.id);
        if let Some(seen) = seen {
            // Whatever it is to be, it has a part in what managers decide.
            node.manager_status = Some(ManagerStatus {
                leader: self.core.leader().as_ref() == Some(&node.id),
                reachability: if seen.reachable {
                    Reachability::Reachable
                } else {
                    Reachability::Unreachable
                },
                addr: seen.addr,
            });
        } else if let Some(manager) = &mut node.manager_status {
            // It is about to join the log.
            manager.leader = self.core.leader().as_ref() == Some(&node.id);
            manager.reachability = Reachability::Unknown;
        }
        NodeRow {
            cloned: twins.get(&node.id).map(|twins| NodeClone {
                first: twins.first,
                second: twins.second,
            }),
            gossip: sight.map(|sight| NodeSight {
                others: sight.others,
                seen: sight.others.saturating_sub(sight.unseen),
                unseen: sight.unseen_nodes.iter().map(name).collect(),
            }),
            tls: tls_status(&state, &node),
            is_self: node.id == self.core.node,
            node,
        }
    }

    /// `weft node ls`, by host name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeRow> {
        let state = self.state();
        let mut rows: Vec<_> = state.nodes.values().map(|n| self.node_row(n)).collect();
        rows.sort_by_cached_key(|row| row.node.description.hostname.clone());
        rows
    }

    /// `weft node inspect`
    ///
    /// # Errors
    /// No such node, or an ambiguous reference.
    pub fn node(&self, reference: &str) -> Result<NodeRow, CommandError> {
        Ok(self.node_row(self.state().find_node(reference)?))
    }

    /// `weft node rm`
    ///
    /// # Errors
    /// No such node, a manager, or a node that is not down without `force`.
    pub async fn remove_node(&self, reference: &str, force: bool) -> Result<(), CommandError> {
        let plan = |s: &ClusterState, now, e: &mut Entropy| {
            let id = &s.find_node(reference)?.id;
            if self.raft.has(id) {
                return Err(still_a_manager(id));
            }
            remove_node(s, now, e, reference, force)
        };
        self.core.run(plan).await.map(drop)
    }

    /// `weft network ls`, by name.
    #[must_use]
    pub fn networks(&self) -> Vec<Network> {
        let mut networks: Vec<_> = self.state().networks.values().cloned().collect();
        networks.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        networks
    }

    /// A network, with its used and usable addresses.
    ///
    /// # Errors
    /// No such network, or an ambiguous reference.
    pub fn network(&self, reference: &str) -> Result<(Network, AddressUsage), CommandError> {
        let state = self.state();
        let network = state.find_network(reference)?;
        let (used, total) = usage(&state, network);
        Ok((network.clone(), AddressUsage { used, total }))
    }

    /// `weft network create`
    ///
    /// # Errors
    /// A name in use or not valid, a subnet that overlaps with a network or a route of this host.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<Network, CommandError> {
        let routes = (self.routes)();
        self.core
            .run(|s, now, e| create_network(s, now, e, spec.clone(), &routes))
            .await
    }

    /// `weft network rm`
    ///
    /// # Errors
    /// No such network, or it is in use; the text says by whom.
    pub async fn remove_network(&self, reference: &str) -> Result<(), CommandError> {
        self.core
            .change(|s, now, e| remove_network(s, now, e, reference))
            .await
    }

    /// Forgets an endpoint.
    ///
    /// # Errors
    /// No such network or endpoint, or it is on a node that `who` does not speak for.
    pub async fn detach(
        &self,
        who: Detacher<'_>,
        network: &str,
        endpoint: &str,
    ) -> Result<Endpoint, CommandError> {
        self.core
            .run(|s, now, e| detach_endpoint(s, now, e, who, network, endpoint))
            .await
    }

    /// `weft network peer ls`, by address.
    ///
    /// # Errors
    /// No such network.
    pub fn peers(&self, network: &str) -> Result<Vec<StaticPeer>, CommandError> {
        let state = self.state();
        let network = state.find_network(network)?;
        let on = state.peers.values().filter(|p| p.network == network.id);
        let mut peers: Vec<_> = on.cloned().collect();
        peers.sort_by_key(|p| p.ip);
        Ok(peers)
    }

    /// `weft network peer add`
    ///
    /// # Errors
    /// No such network, an address in use (the text says by whom) or outside the network.
    pub async fn add_peer(
        &self,
        network: &str,
        peer: &PeerAdd,
    ) -> Result<StaticPeer, CommandError> {
        self.core
            .run(|s, now, e| add_peer(s, now, e, network, peer))
            .await
    }

    /// `weft network peer rm`
    ///
    /// # Errors
    /// No such network or peer.
    pub async fn remove_peer(&self, network: &str, ip: IpAddr) -> Result<(), CommandError> {
        self.core
            .change(|s, now, e| remove_peer(s, now, e, network, ip))
            .await
    }

    /// `weft service ls`, by name. `port_errors` are left to the caller, who hears gossip.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceDetail> {
        let state = self.state();
        let mut rows: Vec<_> = state.services.values().map(|s| detail(&state, s)).collect();
        rows.sort_by(|a, b| a.service.spec.name.cmp(&b.service.spec.name));
        rows
    }

    /// `weft service inspect`
    ///
    /// # Errors
    /// No such service, or an ambiguous reference.
    pub fn service(&self, reference: &str) -> Result<ServiceDetail, CommandError> {
        let state = self.state();
        Ok(detail(&state, state.find_service(reference)?))
    }

    /// `weft service create`
    ///
    /// # Errors
    /// A name or port in use (the text says by whom), an unknown network, no address left.
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<Service, CommandError> {
        self.core
            .run(|s, now, e| create_service(s, now, e, spec.clone()))
            .await
            .map(Shown::shown)
    }

    /// `weft service scale`, of the service as it was at a version where one is given.
    ///
    /// # Errors
    /// No such service, or it is not replicated or not at that version.
    pub async fn scale_service(
        &self,
        reference: &str,
        version: Option<u64>,
        replicas: u32,
    ) -> Result<Service, CommandError> {
        let plan = |s: &ClusterState, now, e: &mut Entropy| {
            check_version(&s.find_service(reference)?.meta, version)?;
            scale_service(s, now, e, reference, replicas)
        };
        self.core.run(plan).await.map(Shown::shown)
    }

    /// `weft service rebalance`: what moves, or would.
    ///
    /// # Errors
    /// No such service, it is not replicated, or so many tasks do not move at one command.
    pub async fn rebalance_service(
        &self,
        reference: &str,
        request: Rebalance,
    ) -> Result<Rebalanced, CommandError> {
        let most = request.max_moves;
        let moves = if request.dry_run {
            plan_rebalance(&self.state(), unix_ms(), reference, most)?
        } else {
            let plan = |s: &ClusterState, now, e: &mut Entropy| {
                rebalance_service(s, now, e, reference, most)
            };
            self.core.run(plan).await?
        };
        let state = self.state();
        let hostname = |id: &NodeId| {
            let node = state.nodes.get(id);
            node.map_or_else(|| id.0.clone(), |n| n.description.hostname.clone())
        };
        let moves = moves.into_iter().map(|one| TaskMove {
            slot: one.task.slot,
            task: one.task.id,
            from: hostname(&one.from),
            to: hostname(&one.to),
        });
        Ok(Rebalanced {
            moves: moves.collect(),
        })
    }

    /// `weft service update`, likewise.
    ///
    /// # Errors
    /// No such service, or it is not at that version, or a port that cannot be published or taken back.
    pub async fn update_service(
        &self,
        reference: &str,
        version: Option<u64>,
        update: &ServiceUpdate,
    ) -> Result<Service, CommandError> {
        let plan = |s: &ClusterState, now, e: &mut Entropy| {
            check_version(&s.find_service(reference)?.meta, version)?;
            update_service(s, now, e, reference, update)
        };
        self.core.run(plan).await.map(Shown::shown)
    }

    /// `weft service update --dry-run`: what [`Self::update_service`] would do.
    ///
    /// # Errors
    /// As of that.
    pub fn plan_update(
        &self,
        reference: &str,
        version: Option<u64>,
        update: &ServiceUpdate,
    ) -> Result<UpdatePlan, CommandError> {
        let state = self.state();
        check_version(&state.find_service(reference)?.meta, version)?;
        // Nothing of it is kept, neither moments nor ids.
        let entropy = &mut Entropy::from_seed([0; 32]);
        plan_update(&state, 0, entropy, reference, update).map(Shown::shown)
    }

    /// `weft service rm`
    ///
    /// # Errors
    /// No such service.
    pub async fn remove_service(&self, reference: &str) -> Result<(), CommandError> {
        self.core
            .change(|s, now, e| remove_service(s, now, e, reference))
            .await
    }

    /// `weft service ps`: by slot, the newest task of a slot first; a slot that an update is paused for
    /// before all others.
    ///
    /// # Errors
    /// No such service.
    pub fn tasks(&self, reference: &str) -> Result<Vec<TaskRow>, CommandError> {
        let state = self.state();
        let service = state.find_service(reference)?;
        let mut rows = task_rows(&state, state.tasks_of(&service.id));
        // What an update is paused for is what people look for.
        let status = service.update_status.as_ref();
        let failed = status.and_then(|status| state.tasks.get(status.failed.as_ref()?));
        if let Some(failed) = failed {
            let slot = |task: &Task| (task.slot, task.node.clone().filter(|_| task.slot == 0));
            rows.sort_by_key(|row| slot(&row.task) != slot(failed));
        }
        Ok(rows)
    }

    /// `weft node ps`: by service and slot, the newest task of a slot first.
    ///
    /// # Errors
    /// No such node, or an ambiguous reference.
    pub fn node_tasks(&self, reference: &str) -> Result<Vec<TaskRow>, CommandError> {
        let state = self.state();
        let node = &state.find_node(reference)?.id;
        Ok(task_rows(&state, state.tasks_on(node)))
    }
}

/// Whether the node's certificate is of the root that makes them now.
fn tls_status(state: &ClusterState, node: &Node) -> TlsStatus {
    let signer = state.secrets.as_ref();
    let signer = signer.map(|secrets| &secrets.roots.signer().digest);
    match signer {
        _ if node.certified_by.is_empty() => TlsStatus::Unknown,
        Some(signer) if *signer == node.certified_by => TlsStatus::Ready,
        _ => TlsStatus::NeedsRotation,
    }
}

fn task_rows<'a>(state: &ClusterState, tasks: impl Iterator<Item = &'a Task>) -> Vec<TaskRow> {
    let mut rows: Vec<_> = tasks
        .map(|task| TaskRow {
            task: task.clone(),
            node_name: task
                .node
                .as_ref()
                .map(|id| match state.nodes.get(id) {
                    Some(node) => node.description.hostname.clone(),
                    None => id.to_string(),
                })
                .unwrap_or_default(),
            node_down: task.node.as_ref().is_some_and(|id| {
                let node = state.nodes.get(id);
                node.is_none_or(|n| {
                    n.status.state == NodeState::Down || n.status.impaired.is_some()
                })
            }),
            host_ports: host_ports(state, task),
        })
        .map(Shown::shown)
        .collect();
    rows.sort_by_cached_key(|row| {
        // Global services have no slots: their nodes stand for them.
        let node = Some(row.node_name.clone()).filter(|_| row.task.slot == 0);
        let age = (row.task.meta.created_at, row.task.id.clone());
        let service = row.task.service_name.clone();
        (service, row.task.slot, node, std::cmp::Reverse(age))
    });
    rows
}

/// Ports that are open on the task's node for the task alone.
fn host_ports(state: &ClusterState, task: &Task) -> Vec<PortSpec> {
    let service = state.services.get(&task.service);
    let service = service.filter(|_| !task.status.state.is_terminal());
    let ports = service.into_iter().flat_map(|s| &s.endpoint.ports);
    let ports = ports.filter(|port| port.mode == PublishMode::Host);
    ports.cloned().collect()
}

fn detail(state: &ClusterState, service: &Service) -> ServiceDetail {
    ServiceDetail {
        service: service.clone(),
        status: service_status(state, service),
        port_errors: Vec::new(),
        waiting: waiting(state, service),
    }
    .shown()
}
