//! What lies on the disk of the log, as it is or sealed. The one place that knows which.

use std::borrow::Cow;

/// First byte of every value: how the rest is to be read.
const PLAIN: u8 = 0;

/// Writes and reads values of the file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seal;

/// A value that this version does not know how to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Sealed {
    /// It has no first byte.
    #[error("it is empty")]
    Empty,
    /// By another way than there is.
    #[error("it is sealed in a way ({0}) that this version does not know")]
    Unknown(u8),
}

impl Seal {
    pub(super) fn close(self, value: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(value.len() + 1);
        row.push(PLAIN);
        row.extend_from_slice(value);
        row
    }

    pub(super) fn open(self, row: &[u8]) -> Result<Cow<'_, [u8]>, Sealed> {
        match row.split_first() {
            Some((&PLAIN, value)) => Ok(Cow::Borrowed(value)),
            Some((&way, _)) => Err(Sealed::Unknown(way)),
            None => Err(Sealed::Empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_opens_and_what_is_unknown_says_so() {
        let seal = Seal;
        let row = seal.close(b"value");
        assert_eq!(seal.open(&row).unwrap().as_ref(), b"value");
        assert_eq!(seal.open(&seal.close(b"")).unwrap().as_ref(), b"");
        assert_eq!(seal.open(&[]), Err(Sealed::Empty));
        assert_eq!(seal.open(&[9, 1]), Err(Sealed::Unknown(9)));
    }
}
