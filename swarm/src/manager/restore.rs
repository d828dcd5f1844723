//! `weft swarm backup` and `weft swarm restore`.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use weft_cluster::{ClusterState, CommandError, Entry, NodeDescription, Reply, UnlockKey, restore};
use weft_model::id::NodeId;
use weft_model::objects::Role;
use weft_sys::clock::unix_ms;

use super::bind::bind;
use super::ca::HeldAuthority;
use super::engine::entropy;
use super::store_file::open_store;
use super::{Manager, ManagerConfig, Own, backup, lock};
use crate::desired_store::DesiredStore;
use crate::identity::Identity;
use crate::membership::{Membership, STORE_FILE};
use crate::raft::{Member, OnDisk, RaftStore, Start, lay_down};
use crate::sealing::{DataKeys, KeyRing};

/// `weft swarm restore`
pub struct RestoreParams {
    /// The file.
    pub backup: Vec<u8>,
    /// What the swarm unlocked by when it was made, where it did.
    pub unlock_key: Option<UnlockKey>,
    /// What this node says about itself; its control address is filled in.
    pub node: NodeDescription,
}

impl std::fmt::Debug for RestoreParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreParams")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// `weft swarm backup`: the state as this manager has it, in which the root's key is; sealed by the
    /// unlock key, where there is one.
    ///
    /// # Errors
    /// This manager has no state yet.
    pub async fn backup(&self) -> Result<Vec<u8>, CommandError> {
        let state = self.state();
        if state.cluster.is_none() {
            return Err(CommandError::unavailable(
                "this manager does not have the state of the swarm yet; try again",
            ));
        }
        let written = spawn_blocking(move || backup::encode(&state));
        written
            .await
            .map_err(|error| CommandError::unavailable(error.to_string()))
    }

    /// Makes a swarm of this node alone from a backup, and starts: the same swarm, with its networks,
    /// services, nodes and tokens. Writes the node's membership too; nothing is left behind when it
    /// fails.
    ///
    /// # Errors
    /// The node is part of a swarm already, the file is no backup that this version reads, is damaged
    /// or sealed by another key, the port is in use, the disk's.
    pub async fn restore(
        config: ManagerConfig,
        params: RestoreParams,
    ) -> Result<(Self, Identity, Membership), CommandError> {
        if Identity::load(&config.data_dir)?.is_some() {
            return Err(CommandError::unavailable(
                "This node is already part of a swarm. Use \"weft swarm leave\" to leave this \
                 swarm, and restore the backup then.",
            ));
        }
        let RestoreParams {
            backup: file,
            unlock_key,
            node,
        } = params;
        let read = spawn_blocking(move || backup::decode(&file, unlock_key.as_ref())).await;
        let state = read.map_err(|error| CommandError::unavailable(error.to_string()))??;
        let (listener, local_addr, advertise) = bind(&config).await?;
        let node = NodeDescription {
            manager_addr: Some(advertise),
            ..node
        };
        // What an earlier attempt left behind does not count.
        Membership::forget(&config.data_dir)?;
        let laid = Self::lay_out(&config, state, node).await;
        let (store, own, membership) = match laid {
            Ok(laid) => laid,
            Err(error) => {
                Membership::forget(&config.data_dir)?;
                return Err(error);
            }
        };
        let identity = Identity::clone(&own.borrow());
        let listener = (listener, local_addr, advertise);
        let desired = Arc::clone(&store) as Arc<dyn DesiredStore>;
        let data_dir = config.data_dir.clone();
        let served = Self::serve(desired, store, config, listener, own);
        let manager = match served {
            Ok(manager) => manager,
            Err(error) => {
                Membership::forget(&data_dir)?;
                return Err(error);
            }
        };
        Ok((manager, identity, membership))
    }

    /// Writes all that a manager has on its disk; the identity, which makes it count, last.
    async fn lay_out(
        config: &ManagerConfig,
        mut state: ClusterState,
        node: NodeDescription,
    ) -> Result<(Arc<RaftStore>, Own, Membership), CommandError> {
        let data_dir = &config.data_dir;
        let mut entropy = entropy();
        let id = NodeId::from_entropy(entropy.next_u128());
        let planned = restore(&state, unix_ms(), &mut entropy, id.clone(), &node)?;
        let entry = Entry {
            base: state.version,
            changes: planned.changes,
        };
        if let Reply::Stale(stale) = entry.apply(&mut state) {
            return Err(CommandError::unavailable(stale.to_string()));
        }
        let unlock = state.secrets.as_ref().and_then(|s| s.unlock_key.clone());
        let ring = KeyRing::draw();
        lock::found(data_dir, state.version, &ring, unlock.as_ref())?;
        let keys = DataKeys::from(ring);
        let now = SystemTime::now();
        let cluster = state.cluster.as_ref();
        let cluster = cluster
            .map(|cluster| cluster.id.clone())
            .unwrap_or_default();
        let authority = HeldAuthority::default().of(&state)?;
        let identity = authority.issue(&id, Role::Manager, &cluster, now)?;
        let own = watch::Sender::new(Arc::new(identity.sealed_by(keys.clone())));
        let member = Member {
            node: id,
            addr: node.manager_addr.unwrap_or(config.advertise),
        };
        let (medium, of) = (OnDisk(data_dir.join(STORE_FILE)), member.clone());
        let sealed_by = keys.clone();
        let laid = spawn_blocking(move || lay_down(&medium, sealed_by, of, state)).await;
        laid.map_err(|error| CommandError::unavailable(error.to_string()))??;
        let store = open_store(data_dir, keys, Start::Alone(member), &own).await?;
        let membership = Membership {
            managers: node.manager_addr.iter().map(ToString::to_string).collect(),
            node,
            listen: Some(config.listen),
        };
        let identity = Arc::clone(&own.borrow());
        membership.save(data_dir, &identity)?;
        Ok((store, own, membership))
    }
}
