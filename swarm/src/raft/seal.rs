//! What lies on the disk of the log is sealed: here is how, and for which place each row is.

use std::sync::Arc;

use crate::sealing::{Sealer, SecretKey, Unopened};

/// Writes and reads values of the file; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Seal(Arc<Sealer>);

impl Seal {
    /// With the key of this manager's disk.
    pub(super) fn new(key: SecretKey) -> Self {
        Self(Arc::new(Sealer::new(key)))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_opens_at_its_place_in_another_life_and_nowhere_else() {
        let key = SecretKey::draw();
        let (seal, later) = (Seal::new(key.clone()), Seal::new(key));
        let row = seal.close("vote", b"value");
        assert_eq!(later.open("vote", &row).unwrap(), b"value");
        assert_eq!(later.open("committed", &row), Err(Unopened::Forged));
        let stranger = Seal::new(SecretKey::draw());
        assert_eq!(stranger.open("vote", &row), Err(Unopened::Forged));
    }
}
