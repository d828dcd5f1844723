//! Identifiers of cluster objects: 25 characters of base 36, as Swarm prints them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of characters of every object id.
pub const ID_LEN: usize = 25;

/// Writes `value` in base 36, left-padded with `0` to `width` characters.
///
/// Digits beyond `width` are kept, so nothing is ever cut off.
#[must_use]
pub fn base36(mut value: u128, width: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut out = Vec::with_capacity(width.max(25));
    while value > 0 {
        let digit = usize::try_from(value % 36).unwrap_or(0);
        out.push(DIGITS[digit]);
        value /= 36;
    }
    while out.len() < width {
        out.push(b'0');
    }
    out.reverse();
    String::from_utf8(out).unwrap_or_default()
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// Makes an id from 128 bits of entropy that the caller drew.
            #[must_use]
            pub fn from_entropy(entropy: u128) -> Self {
                Self(base36(entropy, ID_LEN))
            }

            /// The whole id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve characters, as tables print it.
            #[must_use]
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.to_owned())
            }
        }
    };
}

object_id!(
    /// Id of a secret or a config.
    PayloadId
);
object_id!(
    /// A node of the cluster.
    NodeId
);
object_id!(
    /// A network.
    NetworkId
);
object_id!(
    /// A service.
    ServiceId
);
object_id!(
    /// A task: one replica of a service, in one attempt.
    TaskId
);
object_id!(
    /// An endpoint: one attachment of one sandbox to one network.
    EndpointId
);
object_id!(
    /// A static peer of a network (a VTEP outside the cluster).
    PeerId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_25_characters() {
        assert_eq!(NodeId::from_entropy(0).as_str().len(), ID_LEN);
        assert_eq!(NodeId::from_entropy(u128::MAX).as_str().len(), ID_LEN);
        assert_eq!(
            NodeId::from_entropy(35).as_str(),
            "000000000000000000000000z"
        );
        assert_eq!(NodeId::from_entropy(1 << 70).short().len(), 12);
    }
}
