//! What lies on the disk of the log is sealed: here is how, and for which place each row is.

use zeroize::Zeroizing;

use crate::sealing::{DataKeys, Unopened};

/// Writes and reads values of the file; cheap to clone. What it writes is sealed by the newest key of
/// that moment, what it reads by that one or, while the key is replaced, one of before.
#[derive(Debug, Clone)]
pub(super) struct Seal(DataKeys);

impl Seal {
    /// With the keys of this manager's disk.
    pub(super) const fn new(keys: DataKeys) -> Self {
        Self(keys)
    }

    /// A value as it is stored at a place of that name.
    pub(super) fn close(&self, place: &str, value: &[u8]) -> Vec<u8> {
        self.0.close(place.as_bytes(), value)
    }

    /// What is stored at a place of that name.
    ///
    /// # Errors
    /// It was sealed by another key or for another place, or changed.
    pub(super) fn open(&self, place: &str, row: &[u8]) -> Result<Vec<u8>, Unopened> {
        self.0.open(place.as_bytes(), row)
    }

    /// What is stored at a place of that name, sealed anew. It is as long as before.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub(super) fn anew(&self, place: &str, row: &[u8]) -> Result<Vec<u8>, Unopened> {
        let value = Zeroizing::new(self.open(place, row)?);
        Ok(self.close(place, &value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::KeyRing;

    #[test]
    fn a_row_opens_at_its_place_in_another_life_and_nowhere_else() {
        let ring = KeyRing::draw();
        let (seal, later) = (Seal::new(ring.clone().into()), Seal::new(ring.into()));
        let row = seal.close("vote", b"value");
        assert_eq!(later.open("vote", &row).unwrap(), b"value");
        assert_eq!(later.open("committed", &row), Err(Unopened::Forged));
        let again = seal.anew("vote", &row).unwrap();
        assert_ne!(again, row);
        assert_eq!(again.len(), row.len());
        assert_eq!(later.open("vote", &again).unwrap(), b"value");
        let stranger = Seal::new(KeyRing::draw().into());
        assert_eq!(stranger.open("vote", &row), Err(Unopened::Forged));
    }
}
