//! Names of volumes: Docker's pattern, and those that nobody has given.

use std::fs::File;
use std::io::{self, Read as _};

use crate::error::Fault;

/// Longest name: of a folder.
const MAX_NAME: usize = 255;
/// Characters of a name that are repeated in an error.
const SHOWN: usize = 128;

/// Whether a volume may have this name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn check(name: &str) -> Result<(), Fault> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !first || !rest {
        return Err(Fault::Characters(name.chars().take(SHOWN).collect()));
    }
    match name.len() {
        1 => Err(Fault::Short),
        2..=MAX_NAME => Ok(()),
        long => Err(Fault::Long(long)),
    }
}

/// A name that no other volume has: 64 hexadecimal digits.
pub(crate) fn anonymous() -> io::Result<String> {
    let mut random = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["data", "a1", "shop_db.data-1", "0x", &"x".repeat(255)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/srv/data",
            "../x",
            ".x",
            "-x",
            "_x",
            "a b",
            "bücher",
            "a\n",
        ] {
            assert_eq!(check(bad), Err(Fault::Characters(bad.to_owned())), "{bad}");
        }
        assert_eq!(check("a"), Err(Fault::Short));
        assert_eq!(check(&"x".repeat(256)), Err(Fault::Long(256)));
        assert_eq!(
            check("a/b").expect_err("a path").to_string(),
            "\"a/b\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, \
             use absolute path"
        );
    }

    #[test]
    fn names_that_nobody_gave_differ() {
        let (one, other) = (anonymous().expect("random"), anonymous().expect("random"));
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(check(&one), Ok(()));
        assert_ne!(one, other);
    }
}
