//! The key that managers lock what they keep on disk with.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const PREFIX: &str = "SWMKEY-1-";
const LEN: usize = 32;

/// 32 bytes, as people have them: `SWMKEY-1-` and unpadded base64. `Debug` leaves them out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct UnlockKey([u8; LEN]);

/// A text that is no unlock key. The text itself is not repeated: it may be nearly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid key string: an unlock key begins with SWMKEY-1-, and 43 letters and digits follow; \
     \"weft swarm unlock-key\" on a manager that is not locked prints it"
)]
pub struct ParseUnlockKeyError;

impl UnlockKey {
    /// From bytes that nobody else knows.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The key itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// As people have it. There is no `Display`, so that it gets into no message by chance.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + LEN * 2));
        text.push_str(PREFIX);
        STANDARD_NO_PAD.encode_string(self.0, &mut text);
        text
    }
}

impl FromStr for UnlockKey {
    type Err = ParseUnlockKeyError;

    fn from_str(text: &str) -> Result<Self, ParseUnlockKeyError> {
        let letters = text.trim().strip_prefix(PREFIX);
        let bytes = letters.and_then(|letters| STANDARD_NO_PAD.decode(letters).ok());
        let bytes = Zeroizing::new(bytes.ok_or(ParseUnlockKeyError)?);
        let bytes = <[u8; LEN]>::try_from(bytes.as_slice()).map_err(|_| ParseUnlockKeyError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_dockers_form() {
        let key = UnlockKey::from_bytes([0; LEN]);
        let text = key.to_text();
        assert_eq!(
            text.as_str(),
            "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        );
        assert_eq!(text.parse::<UnlockKey>(), Ok(key.clone()));
        let with_line_end = format!("{}\n", text.as_str());
        assert_eq!(with_line_end.parse::<UnlockKey>(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "UnlockKey(..)");
        for bad in [
            "",
            "SWMKEY-1-",
            "SWMKEY-1-AAAA",
            "SWMKEY-2-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "SWMTKN-1-a-b",
            "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA!!",
        ] {
            let error = bad.parse::<UnlockKey>().unwrap_err().to_string();
            assert!(error.starts_with("invalid key string"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad) || bad == "SWMKEY-1-");
        }
    }
}
