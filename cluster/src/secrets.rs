//! What managers keep to themselves: join secrets, and the ring of gossip keys.

use serde::{Deserialize, Serialize};
use weft_model::assignment::GossipKey;
use weft_model::objects::Role;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::unlock_key::UnlockKey;

/// What must stay between managers: join secrets, gossip keys, the key that unlocks
/// managers. Never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// Last part of the worker join token.
    pub worker: [u8; 16],
    /// Last part of the manager join token.
    pub manager: [u8; 16],
    /// The first seals, all open. The next one comes second, the one before last.
    pub gossip_keys: Vec<GossipKey>,
    /// Where their rotation is.
    #[serde(default)]
    pub gossip_ring: RingState,
    /// What managers lock their disks with; nothing where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock_key: Option<UnlockKey>,
}

impl Secrets {
    /// The join secret that gives `role`.
    #[must_use]
    pub fn join(&self, role: Role) -> &[u8; 16] {
        match role {
            Role::Worker => &self.worker,
            Role::Manager => &self.manager,
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// How far the ring is in getting rid of keys that a stranger knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingStep {
    /// Not at it.
    #[default]
    Settled,
    /// Every node is getting the next key, which no stranger knows.
    Announced,
    /// That key seals; the one before opens what is still under way.
    Replaced,
}

/// When the ring changed last; kept beside the keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Unix milliseconds; 0 in a swarm of an earlier version, whose only key never changed.
    pub changed_at: u64,
    /// What is to come.
    pub step: RingStep,
    /// When the announcement began that this step belongs to, in Unix milliseconds.
    #[serde(default)]
    pub announced_at: u64,
}

impl Zeroize for RingState {
    fn zeroize(&mut self) {
        *self = Self::default();
    }
}
