//! Sealing with the cluster's gossip keys: AES-256-GCM, random nonces.
//!
//! Layout: version (1 byte), key epoch (4), sender's salt (8), nonce (12), ciphertext, tag (16).
//! Each process derives its own key from the ring's key and a salt that it draws at start
//! (HKDF-SHA256), so the bound of 2^32 messages for random nonces (NIST SP 800-38D section 8.3)
//! holds for each process, not for the whole cluster; at 100 messages a second that is 16 months.
//! A replayed message does no harm: entries and membership are ordered by version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use weft_model::assignment::GossipKey;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const SALT_LEN: usize = 8;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = 1 + 4 + SALT_LEN + NONCE_LEN;
/// More senders than any cluster has lives of nodes at a time.
const MAX_PEERS: usize = 32_768;

/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// What a message is sealed for: one cannot be passed off as the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Channel {
    Datagram = 1,
    Stream = 2,
}

/// Why a message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("not a sealed gossip message")]
    Malformed,
    #[error("sealed with a key that this node does not hold")]
    UnknownEpoch,
    #[error("sealed with another key, for another cluster, or changed on the way")]
    Forged,
}

type PeerId = (u32, [u8; SALT_LEN]);

struct Ring {
    keys: Vec<GossipKey>,
    seal: RandomizedNonceKey,
    seal_epoch: u32,
    peers: Mutex<HashMap<PeerId, Arc<RandomizedNonceKey>>>,
}

/// Seals with the first key of the ring, opens with all.
pub(crate) struct Sealer {
    cluster_id: String,
    salt: [u8; SALT_LEN],
    ring: ArcSwap<Ring>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("cluster_id", &self.cluster_id)
            .field("epoch", &self.ring.load().seal_epoch)
            .finish_non_exhaustive()
    }
}

fn derive(key: &GossipKey, salt: &[u8; SALT_LEN]) -> Result<RandomizedNonceKey, Unspecified> {
    let mut derived = Zeroizing::new([0_u8; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(&key.key)
        .expand(&[b"weft gossip 1"], HKDF_SHA256)?
        .fill(derived.as_mut())?;
    RandomizedNonceKey::new(&AES_256_GCM, derived.as_ref())
}

fn ring(keys: Vec<GossipKey>, salt: &[u8; SALT_LEN]) -> anyhow::Result<Ring> {
    let first = keys
        .first()
        .ok_or_else(|| anyhow::anyhow!("the cluster gave this node no gossip key: join it anew"))?;
    let seal = derive(first, salt).map_err(|_| anyhow::anyhow!("gossip key derivation failed"))?;
    Ok(Ring {
        seal,
        seal_epoch: first.epoch,
        keys,
        peers: Mutex::default(),
    })
}

impl Sealer {
    pub(crate) fn new(cluster_id: String, keys: Vec<GossipKey>) -> anyhow::Result<Self> {
        let mut salt = [0; SALT_LEN];
        aws_lc_rs::rand::fill(&mut salt)
            .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Self {
            cluster_id,
            salt,
            ring: ArcSwap::from_pointee(ring(keys, &salt)?),
        })
    }

    /// Replaces the ring; an empty one is refused.
    pub(crate) fn set_keys(&self, keys: Vec<GossipKey>) -> anyhow::Result<()> {
        if self.ring.load().keys != keys {
            self.ring.store(Arc::new(ring(keys, &self.salt)?));
        }
        Ok(())
    }

    /// The key that seals: its epoch, and since when it does by the managers' clock, in Unix
    /// milliseconds; and how many open.
    pub(crate) fn held(&self) -> (u32, u64, usize) {
        let ring = self.ring.load();
        let since = ring.keys.first().map_or(0, |key| key.sealing_since);
        (ring.seal_epoch, since, ring.keys.len())
    }

    fn aad(&self, channel: Channel, head: &[u8]) -> Vec<u8> {
        let mut aad = Vec::with_capacity(head.len() + 1 + self.cluster_id.len());
        aad.extend_from_slice(head);
        aad.push(channel as u8);
        aad.extend_from_slice(self.cluster_id.as_bytes());
        aad
    }

    pub(crate) fn seal(&self, channel: Channel, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let ring = self.ring.load();
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        out.push(VERSION);
        out.extend_from_slice(&ring.seal_epoch.to_be_bytes());
        out.extend_from_slice(&self.salt);
        let aad = self.aad(channel, &out);
        let mut body = Vec::with_capacity(plain.len() + TAG_LEN);
        body.extend_from_slice(plain);
        let nonce = ring
            .seal
            .seal_in_place_append_tag(Aad::from(aad), &mut body)?;
        out.extend_from_slice(nonce.as_ref());
        out.append(&mut body);
        Ok(out)
    }

    /// Opens in place and returns the content.
    pub(crate) fn open<'a>(
        &self,
        channel: Channel,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (head, body) = sealed
            .split_at_mut_checked(HEADER_LEN)
            .ok_or(OpenError::Malformed)?;
        let (clear, nonce) = head.split_at(HEADER_LEN - NONCE_LEN);
        let (Some((version, rest)), Ok(nonce)) =
            (clear.split_first(), Nonce::try_assume_unique_for_key(nonce))
        else {
            return Err(OpenError::Malformed);
        };
        let Some((epoch, salt)) = rest.split_first_chunk::<4>() else {
            return Err(OpenError::Malformed);
        };
        let Ok(salt) = <[u8; SALT_LEN]>::try_from(salt) else {
            return Err(OpenError::Malformed);
        };
        if *version != VERSION || body.len() < TAG_LEN {
            return Err(OpenError::Malformed);
        }
        let epoch = u32::from_be_bytes(*epoch);
        let ring = self.ring.load();
        let aad = Aad::from(self.aad(channel, clear));
        let peer = (epoch, salt);
        let known = lock(&ring.peers).get(&peer).map(Arc::clone);
        if let Some(key) = known {
            return key
                .open_in_place(nonce, aad, body)
                .map_err(|_| OpenError::Forged);
        }
        let key = ring
            .keys
            .iter()
            .find(|k| k.epoch == epoch)
            .ok_or(OpenError::UnknownEpoch)?;
        let key = Arc::new(derive(key, &salt).map_err(|_| OpenError::Forged)?);
        let plain = key
            .open_in_place(nonce, aad, body)
            .map_err(|_| OpenError::Forged)?;
        // Only who holds the cluster's key gets here.
        let mut peers = lock(&ring.peers);
        if peers.len() >= MAX_PEERS {
            peers.clear();
        }
        peers.insert(peer, key);
        Ok(plain)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The map stays whole whatever happens while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(epoch: u32, byte: u8) -> GossipKey {
        GossipKey {
            epoch,
            key: [byte; 32],
            sealing_since: 0,
        }
    }

    fn sealer(cluster: &str, keys: &[GossipKey]) -> Sealer {
        Sealer::new(cluster.to_owned(), keys.to_vec()).unwrap()
    }

    fn open(by: &Sealer, channel: Channel, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut copy = sealed.to_vec();
        by.open(channel, &mut copy).map(|p| p.to_vec())
    }

    #[test]
    fn opens_what_the_cluster_sealed_and_nothing_else() {
        let a = sealer("c", &[key(1, 1)]);
        let b = sealer("c", &[key(2, 2), key(1, 1)]);
        let sealed = a.seal(Channel::Datagram, b"hello").unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        for _ in 0..2 {
            assert_eq!(open(&b, Channel::Datagram, &sealed).unwrap(), b"hello");
        }
        assert_eq!(
            open(&b, Channel::Stream, &sealed),
            Err(OpenError::Forged),
            "other channel"
        );
        let from_b = b.seal(Channel::Datagram, b"x").unwrap();
        assert_eq!(
            open(&a, Channel::Datagram, &from_b),
            Err(OpenError::UnknownEpoch)
        );
        let wrong_key = sealer("c", &[key(1, 9)]);
        assert_eq!(
            open(&wrong_key, Channel::Datagram, &sealed),
            Err(OpenError::Forged)
        );
        let other_cluster = sealer("d", &[key(1, 1)]);
        assert_eq!(
            open(&other_cluster, Channel::Datagram, &sealed),
            Err(OpenError::Forged)
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let a = sealer("c", &[key(1, 1)]);
        let sealed = a.seal(Channel::Stream, b"content").unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open(&a, Channel::Stream, &bad).is_err(), "byte {at}");
            assert!(open(&a, Channel::Stream, &sealed[..at]).is_err());
        }
        assert_eq!(open(&a, Channel::Stream, &sealed).unwrap(), b"content");
    }

    #[test]
    fn keys_rotate() {
        let a = sealer("c", &[key(1, 1)]);
        let old = a.seal(Channel::Datagram, b"old").unwrap();
        a.set_keys(vec![key(2, 2), key(1, 1)]).unwrap();
        assert_eq!(open(&a, Channel::Datagram, &old).unwrap(), b"old");
        a.set_keys(vec![key(2, 2)]).unwrap();
        assert_eq!(
            open(&a, Channel::Datagram, &old),
            Err(OpenError::UnknownEpoch)
        );
        assert!(a.set_keys(Vec::new()).is_err());
        assert!(!format!("{a:?}").contains("key"));
    }
}
