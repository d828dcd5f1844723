//! Birth of a cluster, and its join secrets.

use std::time::Duration;

use ipnet::IpNet;
use weft_model::api::SwarmUpdate;
use weft_model::id::NodeId;
use weft_model::objects::{
    Availability, Cluster, ClusterSpec, Meta, NetworkSpec, Node, NodeSpec, Role,
};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::keys::first_ring;
use super::super::routes::HostRoute;
use super::super::secrets::{RootPair, Roots, Secrets};
use super::super::state::ClusterState;
use super::super::subnets::{DEFAULT_POOL, DEFAULT_SUBNET_PREFIX_LEN, IPV6_SUBNET_PREFIX_LEN};
use super::super::unlock_key::UnlockKey;
use super::autolock::set_autolock;
use super::network::build;
use super::node::{NodeDescription, build_node};

/// UDP port of the data path (RFC 7348).
pub const DEFAULT_DATA_PATH_PORT: u16 = 4789;

/// `weft swarm init`
#[derive(Debug, Clone)]
pub struct InitCluster {
    /// New cluster's id.
    pub cluster_id: String,
    /// Id of the first manager.
    pub node_id: NodeId,
    /// The first manager.
    pub node: NodeDescription,
    /// Pools of subnets; empty means the default one.
    pub default_address_pools: Vec<IpNet>,
    /// Prefix length of subnets from the pools; 24 when absent.
    pub subnet_prefix_len: Option<u8>,
    /// UDP port of the data path; 4789 when absent, or 0.
    pub data_path_port: Option<u16>,
    /// Routes of the manager's host.
    pub reserved: Vec<HostRoute>,
    /// Managers lock what they keep on disk.
    pub autolock: bool,
    /// Whether the first manager takes tasks.
    pub availability: Availability,
    /// Vouches for nodes.
    pub root: RootPair,
}

/// Makes the cluster, its `ingress` network, its secrets and its first node.
///
/// # Errors
/// A pool or port that cannot be used, or no room in the pools for `ingress`.
pub fn init_cluster(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    cmd: InitCluster,
) -> Result<Planned<Node>, CommandError> {
    if state.cluster.is_some() {
        return Err(CommandError::unavailable(
            "This node is already part of a swarm. Use \"weft swarm leave\" to leave this swarm \
             and join another one.",
        ));
    }
    cmd.node.check()?;
    let prefix_len = cmd.subnet_prefix_len.unwrap_or(DEFAULT_SUBNET_PREFIX_LEN);
    if !(1..=29).contains(&prefix_len) {
        return Err(CommandError::bad(format!(
            "subnet size is out of range: {prefix_len}; --default-addr-pool-mask-length takes 1 to 29"
        )));
    }
    let mut pools = cmd.default_address_pools;
    if !pools.iter().any(|pool| matches!(pool, IpNet::V4(_))) {
        pools.extend(DEFAULT_POOL.parse::<IpNet>());
    }
    for (i, pool) in pools.iter().enumerate() {
        let subnet_len = match pool {
            IpNet::V4(_) => prefix_len,
            IpNet::V6(_) => IPV6_SUBNET_PREFIX_LEN,
        };
        if pool.prefix_len() > subnet_len {
            return Err(CommandError::bad(format!(
                "address pool {pool} cannot be cut into subnets of length /{subnet_len}; give a \
                 larger one"
            )));
        }
        let earlier = pools.iter().take(i);
        if let Some(other) = earlier
            .into_iter()
            .find(|p| p.contains(pool) || pool.contains(*p))
        {
            return Err(CommandError::bad(format!(
                "address pools {other} and {pool} overlap"
            )));
        }
    }
    let data_path_port = match cmd.data_path_port.unwrap_or(0) {
        0 => DEFAULT_DATA_PATH_PORT,
        port @ 1024..=49151 => port,
        port => {
            return Err(CommandError::bad(format!(
                "Datapath port number is not in valid range (1024-49151) : {port}"
            )));
        }
    };
    let mut draft = Draft::new(state, now, entropy);
    draft.put(Cluster {
        id: cmd.cluster_id,
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        default_address_pools: pools.iter().map(IpNet::trunc).collect(),
        subnet_prefix_len: prefix_len,
        data_path_port,
    });
    let (gossip_keys, gossip_ring) = first_ring(&mut draft);
    let secrets = Secrets {
        worker: draft.entropy.bytes(),
        manager: draft.entropy.bytes(),
        gossip_keys,
        gossip_ring,
        roots: Roots {
            current: cmd.root,
            successor: None,
            generation: 1,
        },
        unlock_key: cmd
            .autolock
            .then(|| UnlockKey::from_bytes(draft.entropy.bytes())),
    };
    draft.put(secrets);
    let ingress = NetworkSpec {
        name: "ingress".to_owned(),
        ipv6: true,
        ingress: true,
        ..NetworkSpec::default()
    };
    if build(&mut draft, ingress.clone(), &cmd.reserved).is_err() {
        // A host whose routes cover every IPv6 prefix does without: listeners accept its clients.
        let ingress = NetworkSpec {
            ipv6: false,
            ..ingress
        };
        build(&mut draft, ingress, &cmd.reserved)?;
    }
    let spec = NodeSpec {
        role: Role::Manager,
        availability: cmd.availability,
        ..NodeSpec::default()
    };
    let node = build_node(&mut draft, cmd.node_id, spec, &cmd.node);
    Ok(draft.plan(node))
}

/// Replaces one join secret; nodes that joined with the old one stay.
///
/// # Errors
/// There is no cluster yet.
pub fn rotate_token(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    role: Role,
) -> Result<Planned<Secrets>, CommandError> {
    let mut secrets = state
        .secrets
        .clone()
        .ok_or_else(|| CommandError::unavailable("This node is not part of a swarm"))?;
    let mut draft = Draft::new(state, now, entropy);
    match role {
        Role::Worker => secrets.worker = draft.entropy.bytes(),
        Role::Manager => secrets.manager = draft.entropy.bytes(),
    }
    draft.put(secrets.clone());
    Ok(draft.plan(secrets))
}

/// Shortest life of a node certificate (Swarm's choice), in milliseconds.
const MIN_CERT_EXPIRY_MS: u64 = 60 * 60 * 1000;
/// Longest one: a root lives twenty years.
const MAX_CERT_EXPIRY_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// Shortest and longest time between two heartbeats, in milliseconds.
const HEARTBEATS_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Changes settings, and whether managers lock what they keep: all that is asked for, or nothing; what
/// is absent stays. The life of a certificate counts for those that are made from now on.
///
/// # Errors
/// There is no cluster, nothing is to be changed, or a value is out of its bounds.
pub fn update_swarm(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    update: &SwarmUpdate,
) -> Result<Planned<Cluster>, CommandError> {
    let mut cluster = state
        .cluster
        .clone()
        .ok_or_else(|| CommandError::unavailable("This node is not part of a swarm"))?;
    let before = cluster.spec.clone();
    let spec = &mut cluster.spec;
    if let Some(expiry) = update.node_cert_expiry {
        spec.ca_config.node_cert_expiry = checked_expiry(expiry)?;
    }
    if let Some(limit) = update.task_history_retention_limit {
        spec.orchestration.task_history_retention_limit = limit;
    }
    if let Some(period) = update.heartbeat_period {
        let ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        if !HEARTBEATS_MS.contains(&ms) {
            return Err(CommandError::bad(
                "the heartbeat period is not in the valid range (100ms-1m): give another \
                 --dispatcher-heartbeat",
            ));
        }
        spec.dispatcher.heartbeat_period = period;
    }
    let mut draft = Draft::new(state, now, entropy);
    let locks = update.autolock.map(|on| set_autolock(&mut draft, on));
    // The key is elsewhere; that it is there is a setting all the same, with a version.
    if locks.transpose()? == Some(true) || cluster.spec != before {
        draft.put(cluster.clone());
    }
    let cluster = draft.state.cluster.clone().unwrap_or(cluster);
    Ok(draft.plan(cluster))
}

/// A life that node certificates may have.
pub(super) fn checked_expiry(expiry: Duration) -> Result<Duration, CommandError> {
    let ms = expiry.as_millis();
    if ms < u128::from(MIN_CERT_EXPIRY_MS) {
        return Err(CommandError::bad(
            "minimum certificate expiry time is: 1h0m0s; give --cert-expiry that or more",
        ));
    }
    if ms > u128::from(MAX_CERT_EXPIRY_MS) {
        return Err(CommandError::bad(
            "maximum certificate expiry time is: 87600h0m0s (ten years); give --cert-expiry that or less",
        ));
    }
    Ok(expiry)
}

/// The role that a join secret gives. `equal` compares in constant time; both secrets are always
/// compared.
#[must_use]
pub fn role_of_secret(
    state: &ClusterState,
    secret: &[u8; 16],
    equal: impl Fn(&[u8], &[u8]) -> bool,
) -> Option<Role> {
    let secrets = state.secrets.as_ref()?;
    let worker = equal(secret, &secrets.worker);
    let manager = equal(secret, &secrets.manager);
    match (worker, manager) {
        (_, true) => Some(Role::Manager),
        (true, false) => Some(Role::Worker),
        (false, false) => None,
    }
}
