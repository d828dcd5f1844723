//! The keys of one manager's disk. There is one, and while it is replaced those of before beside it:
//! what they have sealed is read until all of it is sealed by the newest one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::OwnedMutexGuard;

use super::sealer::{Sealer, SecretKey, Unopened};

/// What opens a manager's disk: the newest key seals, and each of them opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRing {
    newest: SecretKey,
    /// None, but while what these have sealed is sealed anew.
    before: Vec<SecretKey>,
}

impl KeyRing {
    /// These keys, the newest one first.
    pub(super) const fn new(newest: SecretKey, before: Vec<SecretKey>) -> Self {
        Self { newest, before }
    }

    /// A new key.
    pub(crate) fn draw() -> Self {
        Self::new(SecretKey::draw(), Vec::new())
    }

    /// With a new key, and all others to open what there is.
    pub(crate) fn renewed(&self) -> Self {
        Self::new(SecretKey::draw(), self.keys().cloned().collect())
    }

    /// With the newest key alone.
    pub(crate) fn settled(&self) -> Self {
        Self::new(self.newest.clone(), Vec::new())
    }

    /// Whether there is one key.
    pub(crate) fn is_settled(&self) -> bool {
        self.before.is_empty()
    }

    /// All of them, the newest one first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &SecretKey> {
        std::iter::once(&self.newest).chain(&self.before)
    }
}

/// A ring with what it seals and opens by.
struct Sealers {
    ring: KeyRing,
    newest: Sealer,
    before: Vec<Sealer>,
}

impl Sealers {
    fn new(ring: KeyRing) -> Self {
        Self {
            newest: Sealer::new(ring.newest.clone()),
            before: ring.before.iter().cloned().map(Sealer::new).collect(),
            ring,
        }
    }
}

/// Of its locks `change` is taken before `file`.
struct Shared {
    sealers: ArcSwap<Sealers>,
    /// Held while a file is replaced that is sealed as a whole.
    file: Mutex<()>,
    /// Held while the keys change.
    change: Arc<tokio::sync::Mutex<()>>,
}

/// The ring of a manager's disk, as all of this process that reads and writes there has it: copies are
/// the same. `Debug` leaves the keys out.
#[derive(Clone)]
pub(crate) struct DataKeys(Arc<Shared>);

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKeys(..)")
    }
}

impl From<KeyRing> for DataKeys {
    fn from(ring: KeyRing) -> Self {
        Self(Arc::new(Shared {
            sealers: ArcSwap::from_pointee(Sealers::new(ring)),
            file: Mutex::default(),
            change: Arc::default(),
        }))
    }
}

#[cfg(test)]
impl From<SecretKey> for DataKeys {
    fn from(key: SecretKey) -> Self {
        KeyRing::new(key, Vec::new()).into()
    }
}

impl DataKeys {
    /// The keys as they are now.
    pub(crate) fn ring(&self) -> KeyRing {
        self.0.sealers.load().ring.clone()
    }

    /// Seals and opens by these from now on. They have to be on the disk by then.
    pub(crate) fn set(&self, ring: KeyRing) {
        self.0.sealers.store(Arc::new(Sealers::new(ring)));
    }

    /// Seals a value for a place, by the newest key.
    pub(crate) fn close(&self, place: &[u8], value: &[u8]) -> Vec<u8> {
        self.0.sealers.load().newest.close(place, value)
    }

    /// Opens what any of the keys has sealed for that place.
    ///
    /// # Errors
    /// It is not sealed, not by these keys, not for this place, or was changed.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let sealers = self.0.sealers.load();
        let opened = sealers.newest.open(place, sealed);
        if opened != Err(Unopened::Forged) {
            return opened;
        }
        let older = sealers.before.iter();
        let mut older = older.map(|sealer| sealer.open(place, sealed));
        older.find(Result::is_ok).unwrap_or(opened)
    }

    /// While this is held nobody else replaces a file that is sealed as a whole: what was sealed by a key
    /// of before does not come after what seals it anew.
    pub(crate) fn hold_file(&self) -> MutexGuard<'_, ()> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held nobody else changes the keys.
    pub(crate) async fn hold_change(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.change).lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_key_seals_and_each_opens_as_long_as_it_is_there() {
        let first = KeyRing::draw();
        let keys = DataKeys::from(first.clone());
        let old = keys.close(b"place", b"value");
        let changing = keys.ring().renewed();
        assert!(!changing.is_settled() && first.is_settled());
        let copy = keys.clone();
        keys.set(changing.clone());
        let new = copy.close(b"place", b"value");
        for sealed in [&old, &new] {
            assert_eq!(copy.open(b"place", sealed).unwrap(), b"value");
            assert_eq!(copy.open(b"other", sealed), Err(Unopened::Forged));
        }
        assert_eq!(
            DataKeys::from(first).open(b"place", &new),
            Err(Unopened::Forged),
            "whoever has the first key alone does not read what is written from now on"
        );
        keys.set(changing.settled());
        assert!(keys.ring().is_settled());
        assert_eq!(copy.open(b"place", &new).unwrap(), b"value");
        assert_eq!(copy.open(b"place", &old), Err(Unopened::Forged));
        assert_eq!(format!("{copy:?}"), "DataKeys(..)");
    }
}
