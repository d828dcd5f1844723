//! Digests of content: what everything in a registry and in the store is named by.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How every digest that weft knows begins.
const ALGORITHM: &str = "sha256:";

/// Hexadecimal digits of a SHA-256.
const HEX_LEN: usize = 64;

/// The SHA-256 of some content, as OCI writes it: `sha256:` and 64 hexadecimal digits in small letters.
/// Safe as the name of a file by [`Self::hex`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {0:?}: weft knows sha256: and 64 hexadecimal digits in small letters")]
pub struct ParseDigestError(pub String);

impl Digest {
    /// That of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// With the algorithm: `sha256:0123…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[ALGORITHM.len()..]
    }

    /// The digest with these hexadecimal digits, as names of files in the store have them.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        format!("{ALGORITHM}{hex}").parse().ok()
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let small_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix(ALGORITHM) {
            Some(hex) if hex.len() == HEX_LEN && hex.bytes().all(small_hex) => {
                Ok(Self(text.to_owned()))
            }
            _ => {
                // Whoever sends megabytes does not get them back.
                let shown = text.chars().take(2 * HEX_LEN).collect();
                Err(ParseDigestError(shown))
            }
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest in the making.
pub struct Hasher(aws_lc_rs::digest::Context);

impl Hasher {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }

    /// More content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of it.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut text = String::with_capacity(ALGORITHM.len() + HEX_LEN);
        text.push_str(ALGORITHM);
        for byte in self.0.finish().as_ref() {
            write!(text, "{byte:02x}").expect("a string takes every text");
        }
        Digest(text)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_of_content_is_the_standards() {
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        let digest = hasher.finish();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.as_str(), ABC);
        assert_eq!(digest.hex(), &ABC[7..]);
        assert_eq!(Digest::from_hex(digest.hex()), Some(digest));
    }

    #[test]
    fn a_digest_is_one_spelling_and_no_path() {
        assert_eq!(ABC.parse::<Digest>().expect("a digest").to_string(), ABC);
        let bad = [
            String::new(),
            "sha256:".to_owned(),
            ABC[..70].to_owned(),
            format!("{ABC}0"),
            ABC.to_uppercase(),
            ABC.replace("ba", "BA"),
            ABC.replace("sha256", "sha512"),
            format!("sha256:../{}", &ABC[10..]),
            ABC.replace('b', "é"),
        ];
        for text in bad {
            let error = text.parse::<Digest>().expect_err(&text).to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
        let long = "x"
            .repeat(1 << 20)
            .parse::<Digest>()
            .expect_err("no digest");
        assert!(long.to_string().len() < 300);
    }

    #[test]
    fn json_has_it_as_text() {
        let digest = Digest::of(b"abc");
        let json = serde_json::to_string(&digest).expect("written");
        assert_eq!(json, format!("{ABC:?}"));
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("read"), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:1\"").is_err());
    }
}
