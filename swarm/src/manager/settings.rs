//! What is asked of a manager about the swarm as a whole: its settings and its root certificate.

use std::time::SystemTime;

use weft_cluster::{
    ClusterState, CommandError, Entropy, RootProgress, check_version, rotate_root, update_swarm,
};
use weft_model::api::{CaRotate, RootRotation, SwarmDetail, SwarmUpdate, TlsInfo};

use super::Manager;
use super::ca::Authority;
use super::new_root::{cross_sign, generate, given};
use crate::roots::digest_text;

fn not_part_of_one() -> CommandError {
    CommandError::unavailable("This node is not part of a swarm")
}

impl Manager {
    /// Settings of the swarm, its root certificate, and how far its rotation is.
    ///
    /// # Errors
    /// There is no cluster.
    pub fn swarm(&self) -> Result<SwarmDetail, CommandError> {
        let state = self.state();
        let (Some(cluster), Some(secrets)) = (&state.cluster, &state.secrets) else {
            return Err(not_part_of_one());
        };
        let roots = &secrets.roots;
        let progress = RootProgress::of(&state);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let digest = digest_text(roots.signer().certificate.as_bytes());
        Ok(SwarmDetail {
            cluster: cluster.clone(),
            tls_info: TlsInfo {
                trust_root: roots.current.certificate.clone(),
            },
            root_rotation_in_progress: roots.successor.is_some(),
            root_rotation: RootRotation {
                desired_root_digest: format!("sha256:{digest}"),
                renewed: count(progress.renewed),
                total: count(progress.total),
                waiting: progress.waiting,
                away: progress.away,
            },
        })
    }

    /// `weft swarm update`, of the settings as they were at a version where one is given. With autolock
    /// this manager's disk is as asked for when it returns, those of others follow.
    ///
    /// # Errors
    /// A value that is out of its bounds, or the settings are not at that version: nothing changed. This
    /// manager does not lead, or the disk's.
    pub async fn update_swarm(
        &self,
        version: Option<u64>,
        update: &SwarmUpdate,
    ) -> Result<SwarmDetail, CommandError> {
        let plan = |s: &ClusterState, now, e: &mut Entropy| {
            let cluster = s.cluster.as_ref().ok_or_else(not_part_of_one)?;
            check_version(&cluster.meta, version)?;
            update_swarm(s, now, e, update)
        };
        self.core.run(plan).await?;
        if update.autolock.is_some() {
            self.core.lock.follow(&self.state()).await?;
        }
        self.swarm()
    }

    /// `weft swarm ca --rotate`: begins to replace the root certificate.
    ///
    /// # Errors
    /// A certificate or key that cannot be a root's, a life that is out of its bounds, a manager that
    /// does not answer, this one does not lead, or the disk's.
    pub async fn rotate_ca(&self, asked: &CaRotate) -> Result<SwarmDetail, CommandError> {
        self.core.check_leads()?;
        let now = SystemTime::now();
        let root = match (&asked.signing_ca_cert, &asked.signing_ca_key) {
            (None, None) => generate(now)?,
            (Some(certificate), Some(key)) => {
                let root = given(certificate, key, now)?;
                Authority::check_root(&root, &self.core.node, &self.core.cluster, now)?;
                root
            }
            (Some(_), None) => {
                return Err(CommandError::bad(
                    "the --ca-cert flag requires that a --ca-key flag be provided as well",
                ));
            }
            (None, Some(_)) => {
                return Err(CommandError::bad(
                    "the --ca-key flag requires that a --ca-cert flag be provided as well",
                ));
            }
        };
        let state = self.state();
        let current = state.secrets.as_ref().map(|secrets| &secrets.roots.current);
        if current.is_none_or(|current| current.digest != root.digest) {
            self.check_managers_answer()?;
        }
        self.core
            .run(|s: &ClusterState, at, e| {
                let secrets = s.secrets.as_ref().ok_or_else(not_part_of_one)?;
                let crossed = cross_sign(&root, &secrets.roots.current, now)?;
                rotate_root(s, at, e, &root, &crossed, asked.node_cert_expiry)
            })
            .await?;
        tracing::warn!(
            digest = root.digest,
            "the root certificate is being replaced"
        );
        self.swarm()
    }

    /// Whether all managers that vote would hear of a new root.
    ///
    /// # Errors
    /// Which ones do not answer, and what to do.
    fn check_managers_answer(&self) -> Result<(), CommandError> {
        let (state, members) = (self.state(), self.core.raft.members());
        let silent = members.iter().filter(|m| m.votes && !m.reachable);
        let names = silent.map(|member| {
            let node = state.nodes.get(&member.node);
            node.map_or(member.node.as_str(), |node| {
                node.description.hostname.as_str()
            })
        });
        let names: Vec<&str> = names.collect();
        let Some(first) = names.first() else {
            return Ok(());
        };
        let all = names.join(", ");
        Err(CommandError::unavailable(format!(
            "no answer of the manager on {all}, which would be cut off by a new root that it does not \
             hear of: nothing was changed. Start it, unlock it (`weft swarm unlock` there), or demote it \
             (`weft node demote {first}`), and rotate then"
        )))
    }
}
