//! AES-256-GCM over what lies on a disk.
//!
//! Layout: way (1 byte), salt (16), number (8), ciphertext, tag (16).
//!
//! No nonce counts twice for one key. A [`Sealer`] draws a salt when it is made and derives a key of
//! its own from the secret and the salt (HKDF-SHA256); its nonces are numbers, each given once. Two
//! sealers of one secret meet only where chance draws the same 128 bits. A copy of the memory of a
//! running machine that is started twice would break this, as it breaks TLS.
//!
//! What is sealed says for which place: a row is no good at the place of another. An older row at its
//! own place is not told from the newest one: whoever may write to the disk can set it back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use rand::RngExt as _;
use weft_cluster::UnlockKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// First byte: how the rest is to be read.
const WAY: u8 = 1;
const SALT_LEN: usize = 16;
const NUMBER_LEN: usize = 8;
const HEADER_LEN: usize = 1 + SALT_LEN + NUMBER_LEN;
const TAG_LEN: usize = 16;
/// What the derived keys are for.
const PURPOSE: &[u8] = b"weft at rest 1";

/// 256 bits that seal. `Debug` leaves them out.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct SecretKey([u8; 32]);

impl SecretKey {
    /// A new one.
    pub(crate) fn draw() -> Self {
        Self(rand::rng().random())
    }

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<&UnlockKey> for SecretKey {
    fn from(key: &UnlockKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Why bytes are not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unopened {
    /// Too few for anything sealed.
    #[error("it is too short")]
    Short,
    /// By another way than there is.
    #[error("it is sealed in a way ({0}) that this version does not know")]
    Unknown(u8),
    /// The key is another one, or the bytes were changed or moved.
    #[error("it was changed, or sealed with another key")]
    Forged,
}

/// Seals under one secret; opens what any sealer of that secret has sealed.
pub(crate) struct Sealer {
    secret: SecretKey,
    salt: [u8; SALT_LEN],
    key: LessSafeKey,
    next: AtomicU64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

fn derive(secret: &SecretKey, salt: &[u8]) -> LessSafeKey {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret.as_bytes());
    let expanded = extracted
        .expand(&[PURPOSE], &AES_256_GCM)
        .expect("a key is shorter than what HKDF gives");
    LessSafeKey::new(UnboundKey::from(expanded))
}

fn nonce(number: [u8; NUMBER_LEN]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - NUMBER_LEN..].copy_from_slice(&number);
    Nonce::assume_unique_for_key(nonce)
}

impl Sealer {
    pub(crate) fn new(secret: SecretKey) -> Self {
        let salt: [u8; SALT_LEN] = rand::rng().random();
        Self {
            key: derive(&secret, &salt),
            secret,
            salt,
            next: AtomicU64::new(0),
        }
    }

    /// Seals a value for a place.
    pub(crate) fn close(&self, place: &[u8], value: &[u8]) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut sealed = Vec::with_capacity(HEADER_LEN + value.len() + TAG_LEN);
        sealed.push(WAY);
        sealed.extend_from_slice(&self.salt);
        sealed.extend_from_slice(&number);
        sealed.extend_from_slice(value);
        let (_, content) = sealed.split_at_mut(HEADER_LEN);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), Aad::from(place), content)
            .expect("no value is as long as what a nonce may seal");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed for that place.
    ///
    /// # Errors
    /// It is not sealed, not by this secret, not for this place, or was changed.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        match sealed.first() {
            Some(&WAY) if sealed.len() >= HEADER_LEN + TAG_LEN => {}
            Some(&WAY) | None => return Err(Unopened::Short),
            Some(&way) => return Err(Unopened::Unknown(way)),
        }
        let (header, content) = sealed.split_at(HEADER_LEN);
        let (salt, number) = header[1..].split_at(SALT_LEN);
        let number = <[u8; NUMBER_LEN]>::try_from(number).map_err(|_| Unopened::Short)?;
        let mut value = content.to_vec();
        let aad = Aad::from(place);
        let opened = if salt == self.salt {
            self.key.open_in_place(nonce(number), aad, &mut value)
        } else {
            derive(&self.secret, salt).open_in_place(nonce(number), aad, &mut value)
        };
        let len = opened.map_err(|_| Unopened::Forged)?.len();
        value.truncate(len);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes([byte; 32])
    }

    #[test]
    fn what_is_closed_opens_for_its_place_and_key_alone() {
        let (one, later) = (Sealer::new(key(1)), Sealer::new(key(1)));
        for value in [&b""[..], b"value", &[7; 100_000]] {
            let sealed = one.close(b"place", value);
            assert_eq!(one.open(b"place", &sealed).unwrap(), value);
            assert_eq!(
                later.open(b"place", &sealed).unwrap(),
                value,
                "another life"
            );
            assert_eq!(one.open(b"other", &sealed), Err(Unopened::Forged));
            let other = Sealer::new(key(2));
            assert_eq!(other.open(b"place", &sealed), Err(Unopened::Forged));
        }
        assert_eq!(format!("{one:?} {:?}", key(1)), "Sealer(..) SecretKey(..)");
    }

    #[test]
    fn each_byte_counts() {
        let sealer = Sealer::new(key(1));
        let sealed = sealer.close(b"place", b"a secret");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open(b"place", &changed).is_err(), "byte {at}");
            assert!(sealer.open(b"place", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(sealer.open(b"place", &[]), Err(Unopened::Short));
        assert_eq!(sealer.open(b"place", b"\0{}"), Err(Unopened::Unknown(0)));
    }

    #[test]
    fn nothing_is_sealed_twice_alike() {
        let (one, two) = (Sealer::new(key(1)), Sealer::new(key(1)));
        let sealed = (0..1000).map(|_| one.close(b"p", b"v"));
        let more = (0..1000).map(|_| two.close(b"p", b"v"));
        let heads: BTreeSet<Vec<u8>> = sealed
            .chain(more)
            .map(|sealed| sealed[..HEADER_LEN].to_vec())
            .collect();
        assert_eq!(heads.len(), 2000);
    }
}
