//! What managers keep to themselves: join secrets, the keys of root certificates, and the ring of
//! gossip keys.

use serde::{Deserialize, Serialize};
use weft_model::assignment::GossipKey;
use weft_model::objects::Role;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::unlock_key::UnlockKey;

/// A root certificate with its key. `Debug` leaves the key out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct RootPair {
    /// The certificate, PEM, with a line feed at its end.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// Names it: SHA-256 of the certificate (DER), in hexadecimal digits.
    pub digest: String,
}

impl std::fmt::Debug for RootPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootPair")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// The root certificate that is about to take the place of the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Successor {
    /// It, with its key.
    pub root: RootPair,
    /// The same name and public key, signed by the present root, PEM: who knows that one alone can
    /// verify what the next one made.
    pub cross_signed: String,
}

/// The cluster's certificate authority. Its keys are in the log, as whoever leads next has to go on
/// with a rotation that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Roots {
    /// Join tokens pin it.
    pub current: RootPair,
    /// Makes all certificates while it is there.
    #[serde(default)]
    pub successor: Option<Successor>,
    /// Counts the changes of both.
    #[serde(default)]
    pub generation: u64,
}

impl Roots {
    /// The one that makes certificates.
    #[must_use]
    pub fn signer(&self) -> &RootPair {
        self.successor
            .as_ref()
            .map_or(&self.current, |successor| &successor.root)
    }

    /// All that count, the one that makes certificates first.
    pub fn trusted(&self) -> impl Iterator<Item = &RootPair> {
        let successor = self.successor.as_ref().map(|successor| &successor.root);
        successor.into_iter().chain([&self.current])
    }

    /// Their certificates as one text: what nodes trust.
    #[must_use]
    pub fn bundle(&self) -> String {
        let texts = self.trusted().map(|root| root.certificate.as_str());
        texts.collect()
    }
}

/// What must stay between managers: join secrets, gossip keys, root keys and the key that unlocks
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
    /// Who vouches for nodes.
    #[serde(default)]
    pub roots: Roots,
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
