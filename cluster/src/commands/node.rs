//! Members: joining, health, availability, removal.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use weft_model::id::NodeId;
use weft_model::objects::{
    CaConfig, Description, Impairment, ManagerStatus, Meta, Node, NodeSpec, NodeState, NodeStatus,
    Platform, Reachability, Resources, Role, TaskState,
};
use weft_model::text::{self, MAX_HOSTNAME, MAX_VERSION};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::index::Key;
use super::super::ipam::Ipam;
use super::super::keys;
use super::super::object::{Change, ObjectId, RemovedNode};
use super::super::state::ClusterState;

/// Container runtimes that a node names at most.
const MAX_RUNTIMES: usize = 16;

/// What a node says about itself when it joins and whenever its session opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// `--name`, or the host name.
    pub hostname: String,
    /// Version of `weftd`.
    pub engine_version: String,
    /// Address that others reach the node at.
    pub addr: IpAddr,
    /// Address of the VXLAN data path.
    pub data_path_addr: IpAddr,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// Control address, of managers only.
    pub manager_addr: Option<SocketAddr>,
    /// What its machine is; nothing of agents of earlier versions.
    #[serde(default)]
    pub platform: Platform,
    /// What its machine has for tasks; nothing of agents of earlier versions.
    #[serde(default)]
    pub resources: Resources,
    /// OCI runtime programs that it has; nothing where it runs host tasks alone.
    #[serde(default)]
    pub runtimes: Vec<String>,
}

impl NodeDescription {
    /// What a node has said, as it is kept.
    fn of(node: &Node) -> Self {
        Self {
            hostname: node.description.hostname.clone(),
            engine_version: node.description.engine.version.clone(),
            addr: node.status.addr,
            data_path_addr: node.data_path_addr,
            gossip_port: node.gossip_port,
            manager_addr: node.manager_addr(),
            platform: node.description.platform.clone(),
            resources: node.description.resources,
            runtimes: node.description.engine.runtimes.clone(),
        }
    }

    /// The same at another address. The data path moves with it, unless it has an address of its own.
    #[must_use]
    pub fn moved_to(&self, addr: IpAddr) -> Self {
        let moves = self.data_path_addr == self.addr;
        Self {
            addr,
            data_path_addr: if moves { addr } else { self.data_path_addr },
            manager_addr: self
                .manager_addr
                .map(|manager| SocketAddr::new(addr, manager.port())),
            ..self.clone()
        }
    }

    /// Whether others can live with it: texts that are short and read as they are, addresses that
    /// can be a machine's.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self) -> Result<(), CommandError> {
        if !text::is_plain(&self.hostname, MAX_HOSTNAME) {
            return Err(CommandError::bad(format!(
                "the name of the node must have 1 to {MAX_HOSTNAME} printable characters; set --name"
            )));
        }
        if !text::is_plain(&self.engine_version, MAX_VERSION) {
            return Err(CommandError::bad(format!(
                "the version of weftd must have 1 to {MAX_VERSION} printable characters"
            )));
        }
        let platform = &self.platform;
        for word in [&platform.architecture, &platform.os] {
            if !word.is_empty() && !text::is_plain(word, MAX_VERSION) {
                return Err(CommandError::bad(format!(
                    "architecture and system of the node must have {MAX_VERSION} printable \
                     characters at most"
                )));
            }
        }
        let plain = |word: &String| text::is_plain(word, MAX_VERSION);
        if self.runtimes.len() > MAX_RUNTIMES || !self.runtimes.iter().all(plain) {
            return Err(CommandError::bad(format!(
                "the node has to name {MAX_RUNTIMES} container runtimes at most, each with 1 to \
                 {MAX_VERSION} printable characters"
            )));
        }
        let nobodys = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast();
        if nobodys(self.addr) || nobodys(self.data_path_addr) {
            return Err(CommandError::bad(
                "advertise address must be a non-zero IP address or network interface (with \
                 optional port number)",
            ));
        }
        Ok(())
    }

    /// Whether its addresses are nobody else's: packets and words for another node would go to this
    /// one. A node that is down may have been replaced by this one.
    fn check_addresses(&self, state: &ClusterState, id: &NodeId) -> Result<(), CommandError> {
        let data_path = Key::Vtep(self.data_path_addr);
        let gossip = Key::Gossip(self.addr, self.gossip_port);
        let taken = [
            (
                data_path,
                format!("data path address {}", self.data_path_addr),
            ),
            (
                gossip,
                format!(
                    "gossip address {}",
                    SocketAddr::new(self.addr, self.gossip_port)
                ),
            ),
        ];
        let taken = taken.into_iter().find_map(|(key, what)| {
            let mut there = state.nodes_at(key);
            let other = there.find(|n| n.id != *id && n.status.state != NodeState::Down)?;
            Some((other, what))
        });
        if let Some((other, what)) = taken {
            return Err(CommandError::conflict(format!(
                "{what} is that of node {} ({}), which is not down: give this node another one \
                 (--advertise-addr, --data-path-addr), or remove the other one with \"weft node rm \
                 --force {}\" on a manager",
                other.description.hostname, other.id, other.id
            )));
        }
        let mut peers = state.peers_at(Key::Vtep(self.data_path_addr));
        if peers.next().is_some() {
            return Err(CommandError::conflict(format!(
                "data path address {} is that of a static peer; remove the peer on a manager, or \
                 give this node another one (--data-path-addr)",
                self.data_path_addr
            )));
        }
        Ok(())
    }
}

fn describe(node: &mut Node, description: &NodeDescription) {
    let said = &mut node.description;
    said.hostname.clone_from(&description.hostname);
    said.engine.version.clone_from(&description.engine_version);
    said.platform.clone_from(&description.platform);
    said.engine.runtimes.clone_from(&description.runtimes);
    said.resources = description.resources;
    node.status.addr = description.addr;
    node.data_path_addr = description.data_path_addr;
    node.gossip_port = description.gossip_port;
    let manager_addr = description.manager_addr;
    node.manager_status = manager_addr
        .filter(|_| node.spec.role == Role::Manager)
        .map(|addr| ManagerStatus {
            leader: false,
            reachability: Reachability::default(),
            addr,
        });
}

/// Adds a node with an address on the ingress network; without one when the network is full, which
/// the reconciliation then says on the node.
pub(super) fn build_node(
    draft: &mut Draft<'_>,
    id: NodeId,
    spec: NodeSpec,
    description: &NodeDescription,
) -> Node {
    let mut ipam = Ipam::new(&draft.state);
    let ingress_ip = draft
        .state
        .ingress()
        .and_then(|n| ipam.allocate_node(n).ok());
    ipam.store(draft);
    let mut node = Node {
        id,
        meta: Meta::default(),
        spec,
        description: Description::default(),
        status: NodeStatus {
            state: NodeState::Unknown,
            message: "joined; its session is not open yet".to_owned(),
            addr: description.addr,
            impaired: None,
        },
        manager_status: None,
        data_path_addr: description.data_path_addr,
        gossip_port: 0,
        certified: 0,
        certified_by: String::new(),
        ingress_ip,
    };
    describe(&mut node, description);
    draft.put(node.clone());
    node
}

/// Adds a node that proved to know a join secret.
///
/// # Errors
/// The id or an address is taken, the description is not to be lived with, or there is no cluster.
pub fn join(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: NodeId,
    role: Role,
    description: &NodeDescription,
) -> Result<Planned<Node>, CommandError> {
    let spec = NodeSpec {
        role,
        ..NodeSpec::default()
    };
    join_as(state, now, entropy, id, spec, description)
}

/// The same with all that people may say of a node: it takes no task before they count.
///
/// # Errors
/// As of [`join`].
pub fn join_as(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: NodeId,
    spec: NodeSpec,
    description: &NodeDescription,
) -> Result<Planned<Node>, CommandError> {
    if state.cluster.is_none() {
        return Err(CommandError::unavailable(
            "This node is not part of a swarm",
        ));
    }
    if state.nodes.contains_key(&id) {
        return Err(CommandError::conflict(format!("node {id} already exists")));
    }
    if state.was_removed(&id) {
        return Err(CommandError::forbidden(format!(
            "Permission denied: node {id} was removed from swarm; run \"weft swarm leave\" there, \
             with --force where it was a manager, and join again"
        )));
    }
    description.check()?;
    description.check_addresses(state, &id)?;
    let mut draft = Draft::new(state, now, entropy);
    let node = build_node(&mut draft, id, spec, description);
    Ok(draft.plan(node))
}

fn member<'a>(state: &'a ClusterState, id: &NodeId) -> Result<&'a Node, CommandError> {
    state.nodes.get(id).ok_or_else(|| {
        CommandError::forbidden(format!(
            "Permission denied: node {id} was removed from swarm; run \"weft swarm leave\" there, \
             with --force where it was a manager, and join again"
        ))
    })
}

/// Takes over what a node says about itself; no change when nothing differs.
///
/// # Errors
/// The node is not a member (any more), or says what [`join`] refuses too.
pub fn update_node(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: &NodeId,
    description: &NodeDescription,
) -> Result<Vec<Change>, CommandError> {
    let before = member(state, id)?;
    // It may not have heard yet where it is to be reached.
    let ordered = before.spec.advertise_addr;
    let moved = ordered.map(|addr| description.moved_to(addr));
    let description = moved.as_ref().unwrap_or(description);
    description.check()?;
    description.check_addresses(state, id)?;
    let mut node = before.clone();
    describe(&mut node, description);
    let mut draft = Draft::new(state, now, entropy);
    if node != *before {
        draft.put(node);
    }
    Ok(draft.into_changes())
}

/// Records that a node opened a session with a certificate that counts from `since` on, in Unix
/// milliseconds, which the root certificate `root` made (its digest). Of the time the newest stays; the
/// root is that of this very session.
///
/// # Errors
/// The node is not a member (any more).
pub fn note_certificate(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: &NodeId,
    since: u64,
    root: &str,
) -> Result<Vec<Change>, CommandError> {
    let mut node = member(state, id)?.clone();
    let mut draft = Draft::new(state, now, entropy);
    if since > node.certified || node.certified_by != root {
        node.certified = node.certified.max(since);
        root.clone_into(&mut node.certified_by);
        draft.put(node);
    }
    Ok(draft.into_changes())
}

/// Records a node's health; no change when it is known already.
///
/// # Errors
/// The node is not a member (any more).
pub fn set_node_state(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: &NodeId,
    health: NodeState,
    message: &str,
) -> Result<Vec<Change>, CommandError> {
    let mut node = member(state, id)?.clone();
    let mut draft = Draft::new(state, now, entropy);
    if node.status.state != health {
        node.status.state = health;
        if health == NodeState::Down {
            // Whatever it was, it is more now.
            node.status.impaired = None;
        }
        message.clone_into(&mut node.status.message);
        draft.put(node);
    }
    Ok(draft.into_changes())
}

/// Records that a node carries no traffic although its session is open, or that it does again; no
/// change when it is known already.
///
/// # Errors
/// The node is not a member (any more).
pub fn set_impaired(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: &NodeId,
    reason: Option<&str>,
) -> Result<Vec<Change>, CommandError> {
    let before = member(state, id)?;
    let mut node = before.clone();
    let known = before.status.impaired.as_ref().map(|i| i.since);
    // Another reason does not begin another wait. A node that is down may not be less.
    node.status.impaired = reason
        .filter(|_| before.status.state != NodeState::Down)
        .map(|reason| Impairment {
            since: known.unwrap_or(now),
            reason: reason.to_owned(),
        });
    let mut draft = Draft::new(state, now, entropy);
    if node != *before {
        draft.put(node);
    }
    Ok(draft.into_changes())
}

/// `weft node promote`, `demote` and `node update --role`: what the node is to be. Its certificate and
/// its place in the managers' log follow.
///
/// # Errors
/// The node does not exist.
pub fn set_role(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    role: Role,
) -> Result<Planned<Node>, CommandError> {
    let mut node = state.find_node(reference)?.clone();
    let mut draft = Draft::new(state, now, entropy);
    if node.spec.role != role {
        node.spec.role = role;
        // Where it answers as a manager it says itself, once it has the certificate of one.
        node.manager_status = None;
        draft.put(node.clone());
    }
    Ok(draft.plan(node))
}

/// `weft node update --advertise-addr`: where others reach the node from now on. It takes it up when
/// it hears of it.
///
/// # Errors
/// The node does not exist, the address is nobody's, or another node's.
pub fn set_advertise_addr(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    addr: IpAddr,
) -> Result<Planned<Node>, CommandError> {
    let before = state.find_node(reference)?;
    let mut node = before.clone();
    let mut draft = Draft::new(state, now, entropy);
    move_node(&mut node, state, addr)?;
    if node != *before {
        draft.put(node.clone());
    }
    Ok(draft.plan(node))
}

fn move_node(node: &mut Node, state: &ClusterState, addr: IpAddr) -> Result<(), CommandError> {
    let moved = NodeDescription::of(node).moved_to(addr);
    moved.check()?;
    moved.check_addresses(state, &node.id)?;
    node.spec.advertise_addr = Some(addr);
    describe(node, &moved);
    Ok(())
}

/// `weft swarm init --force-new-cluster`: one manager goes on, reached at `addr`; the others are lost.
/// They count as down, and are workers where they show up again.
///
/// # Errors
/// The node is no member, or the address is another node's.
pub fn go_on_alone(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: &NodeId,
    addr: SocketAddr,
) -> Result<Vec<Change>, CommandError> {
    let mut own = member(state, id)?.clone();
    let mut draft = Draft::new(state, now, entropy);
    let others = state.nodes.values().filter(|node| node.id != *id);
    for node in others.filter(|node| node.spec.role == Role::Manager) {
        let mut lost = node.clone();
        lost.spec.role = Role::Worker;
        lost.manager_status = None;
        lost.status.state = NodeState::Down;
        lost.status.impaired = None;
        "lost, as another manager goes on alone (--force-new-cluster)"
            .clone_into(&mut lost.status.message);
        draft.put(lost);
    }
    own.spec.role = Role::Manager;
    if own.status.addr != addr.ip() {
        move_node(&mut own, &draft.state, addr.ip())?;
    }
    own.manager_status = Some(ManagerStatus {
        leader: false,
        reachability: Reachability::default(),
        addr,
    });
    if state.nodes.get(id) != Some(&own) {
        draft.put(own);
    }
    Ok(draft.into_changes())
}

/// Why a node that is in the managers' log is not removed, in Docker's words.
#[must_use]
pub fn still_a_manager(id: &NodeId) -> CommandError {
    CommandError::bad(format!(
        "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to \
         worker before removal"
    ))
}

/// A node left by itself and does not come back: it is down, and nothing of it is waited for.
///
/// # Errors
/// The node is not a member (any more).
pub fn leave_node(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: &NodeId,
) -> Result<Vec<Change>, CommandError> {
    let mut node = member(state, id)?.clone();
    let mut draft = Draft::new(state, now, entropy);
    node.status.state = NodeState::Down;
    node.status.impaired = None;
    "the node left the swarm".clone_into(&mut node.status.message);
    draft.put(node);
    give_up(&mut draft, state, id, "the node of the task left the swarm");
    keys::expel(&mut draft);
    Ok(draft.into_changes())
}

/// Endpoints and tasks of a node that does not come back.
fn give_up(draft: &mut Draft<'_>, state: &ClusterState, id: &NodeId, why: &str) {
    for endpoint in state.endpoints_on(id) {
        draft.delete(ObjectId::Endpoint(endpoint.attachment.endpoint.clone()));
    }
    for task in state.tasks_on(id) {
        if !task.status.state.is_terminal() {
            let mut task = task.clone();
            task.status.state = TaskState::Orphaned;
            task.status.since = draft.now;
            task.status.err = why.to_owned();
            task.desired = task.desired.max(TaskState::Shutdown);
            draft.put(task);
        }
    }
}

/// Remembers that no certificate of a node counts any more, for as long as there may be one: a manager
/// does not know of every node by its nodes alone.
fn refuse_certificates(draft: &mut Draft<'_>, id: &NodeId) {
    let Some(cluster) = &draft.state.cluster else {
        return;
    };
    // Certificates of before the setting was changed may live longer.
    let life = cluster.spec.ca_config.node_cert_expiry;
    let life = life.max(CaConfig::EXPIRY).as_millis();
    let until = draft
        .now
        .saturating_add(u64::try_from(life).unwrap_or(u64::MAX));
    let removed = draft.state.removed.values();
    let past = removed.filter(|node| node.until <= draft.now);
    let past: Vec<NodeId> = past.map(|node| node.id.clone()).collect();
    for id in past {
        draft.delete(ObjectId::Removed(id));
    }
    draft.put(RemovedNode {
        id: id.clone(),
        until,
    });
}

/// `weft node rm`: forgets a node, its endpoints and its tasks; they are replaced elsewhere, and so
/// are the gossip keys that it knows. Its certificates do not count any more.
///
/// # Errors
/// It does not exist, is a manager, or is not down and `force` is false.
pub fn remove_node(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    force: bool,
) -> Result<Planned<Node>, CommandError> {
    let node = state.find_node(reference)?.clone();
    if node.spec.role == Role::Manager {
        return Err(still_a_manager(&node.id));
    }
    if !force && node.status.state == NodeState::Ready {
        return Err(CommandError::bad(format!(
            "node {} is not down and can't be removed; run \"weft swarm leave\" there first, or \
             use --force",
            node.id
        )));
    }
    let mut draft = Draft::new(state, now, entropy);
    draft.delete(ObjectId::Node(node.id.clone()));
    refuse_certificates(&mut draft, &node.id);
    let why = "Task belonged to a node that has been deleted";
    give_up(&mut draft, state, &node.id, why);
    keys::expel(&mut draft);
    Ok(draft.plan(node))
}
