//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`, both in base 36.

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize, ZeroizeOnDrop};

const PREFIX: &str = "SWMTKN-1-";
const DIGEST_CHARS: usize = 50;
const SECRET_CHARS: usize = 25;

/// A join token. `Display` shows the secret: print it only where a person asked for it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token {
    /// SHA-256 of the root certificate (DER): the joiner pins the cluster's CA with it.
    pub ca_digest: [u8; 32],
    /// Proves to the manager that the joiner was invited, and decides its role.
    pub secret: [u8; 16],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{}-{}",
            encode(&self.ca_digest, DIGEST_CHARS),
            encode(&self.secret, SECRET_CHARS)
        )
    }
}

/// The text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// It does not start with `SWMTKN-1-`.
    #[error(
        "invalid join token: it does not start with SWMTKN-1-; copy the whole token that \
         `weft swarm join-token worker` prints on a manager"
    )]
    Prefix,
    /// Wrong number of parts, of characters, or a character that is not 0-9 or a-z.
    #[error(
        "invalid join token: its {0} is damaged or cut off; copy the whole token that \
         `weft swarm join-token worker` prints on a manager"
    )]
    Part(&'static str),
}

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let rest = s
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(ParseTokenError::Prefix)?;
        let (digest, secret) = rest
            .split_once('-')
            .ok_or(ParseTokenError::Part("secret"))?;
        Ok(Self {
            ca_digest: decode(digest, DIGEST_CHARS).ok_or(ParseTokenError::Part("digest"))?,
            secret: decode(secret, SECRET_CHARS).ok_or(ParseTokenError::Part("secret"))?,
        })
    }
}

/// Big-endian bytes to base 36, left-padded with `0`. Also used to print a certificate's digest.
#[must_use]
pub fn encode(bytes: &[u8], width: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    let mut out = Vec::with_capacity(width);
    while number.iter().any(|b| *b != 0) {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = (remainder << 8) | u32::from(*byte);
            // Below 256, because the remainder is below 36.
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            remainder = value % 36;
        }
        out.push(DIGITS[remainder as usize % 36]);
    }
    while out.len() < width {
        out.push(b'0');
    }
    out.reverse();
    number.zeroize();
    String::from_utf8(out).unwrap_or_default()
}

fn decode<const N: usize>(text: &str, width: usize) -> Option<[u8; N]> {
    if text.len() != width {
        return None;
    }
    let mut out = [0u8; N];
    for c in text.bytes() {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'z' => c - b'a' + 10,
            _ => return None,
        };
        let mut carry = u32::from(digit);
        for byte in out.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prints_and_parses(ca_digest: [u8; 32], secret: [u8; 16]) {
            let token = Token { ca_digest, secret };
            let text = token.to_string();
            prop_assert_eq!(text.len(), PREFIX.len() + DIGEST_CHARS + 1 + SECRET_CHARS);
            prop_assert_eq!(text.parse::<Token>().unwrap(), token);
        }

        #[test]
        fn any_text_is_answered(text in "(SWMTKN-1-)?[0-9a-z-]{0,90}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }

    #[test]
    fn extremes() {
        let token = Token {
            ca_digest: [0xff; 32],
            secret: [0; 16],
        };
        let text = token.to_string();
        assert!(text.ends_with(&format!("-{}", "0".repeat(25))));
        assert_eq!(text.parse(), Ok(token));
    }

    #[test]
    fn damaged_tokens_say_what_is_wrong() {
        let good = Token {
            ca_digest: [7; 32],
            secret: [9; 16],
        }
        .to_string();
        assert_eq!("SWMTKN-2-1".parse::<Token>(), Err(ParseTokenError::Prefix));
        assert_eq!(
            good[..good.len() - 1].parse::<Token>(),
            Err(ParseTokenError::Part("secret"))
        );
        assert_eq!(
            good.replace("-1-", "-1-z").parse::<Token>(),
            Err(ParseTokenError::Part("digest"))
        );
        // 36^50 > 2^256: fifty `z` overflow.
        let overflow = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        assert_eq!(
            overflow.parse::<Token>(),
            Err(ParseTokenError::Part("digest"))
        );
    }
}
