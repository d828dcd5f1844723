//! The file with the key that seals what a manager keeps: the key itself, or locked. While the key is
//! replaced, those of before are in it as well.
//!
//! It is replaced as a whole, so that whatever happens it holds the keys in one form or the other. It
//! says which version of the state it follows: a manager whose state is older, as it may be after a
//! restart, does not undo what a newer one has done.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use weft_cluster::{CommandError, UnlockKey};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::ring::KeyRing;
use super::sealer::{Sealer, SecretKey};

/// Its name, below the certificate directory.
pub(crate) const KEY_FILE: &str = "data.key";

/// Of a file with one key.
const ONE_KEY: u32 = 1;
/// Of a file with keys of before beside it. Newer ones are refused.
const FORMAT: u32 = 2;
/// Place of a locked key.
const PLACE: &[u8] = b"weft data key";

/// Why the key is not to be had. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The disk's fault.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// read, write
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Not a key file, or a damaged one.
    #[error(
        "{} is damaged: {why}; restore it from a backup of this node, or leave the swarm with --force \
         and join again, or restore a backup of the swarm",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Of a version to come.
    #[error(
        "{} has format {found}, this weftd reads up to {FORMAT}; nothing in it was changed. Start the \
         version of weftd that wrote it",
        path.display()
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Of the file.
        found: u32,
    },
    /// The key does not fit.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongKey,
    /// There is nothing to unlock.
    #[error("swarm is not locked")]
    NotLocked,
}

impl From<KeyFileError> for CommandError {
    fn from(error: KeyFileError) -> Self {
        let text = error.to_string();
        match error {
            KeyFileError::WrongKey => Self::bad(text),
            KeyFileError::NotLocked => Self::conflict(text),
            _ => Self::unavailable(text),
        }
    }
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "lowercase")]
enum Held {
    /// The key, for whoever reads the file.
    Clear(String),
    /// Sealed by the unlock key.
    Locked(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    /// Version of the swarm's state that the form follows.
    follows: u64,
    /// The newest key.
    key: Held,
    /// Keys of before, in the same form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<Held>,
}

/// What is read first.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// What a key file holds.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    /// Version of the state that it follows.
    pub(crate) follows: u64,
    keys: Keys,
}

/// Keys in one form, the newest one and those of before.
#[derive(Debug)]
enum Keys {
    Clear(KeyRing),
    Locked(Vec<Vec<u8>>),
}

impl KeyFile {
    /// Reads it; nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or of another version.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let text = match std::fs::read(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(KeyFileError::File {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let damaged = |why: String| KeyFileError::Damaged {
            path: path.to_owned(),
            why,
        };
        let Format { format } =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if !(ONE_KEY..=FORMAT).contains(&format) {
            return Err(KeyFileError::Format {
                path: path.to_owned(),
                found: format,
            });
        }
        let stored: Stored =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Self {
            path: path.to_owned(),
            follows: stored.follows,
            keys: keys_of(&stored).map_err(damaged)?,
        }))
    }

    /// The keys, where they are not locked.
    pub(crate) const fn clear(&self) -> Option<&KeyRing> {
        match &self.keys {
            Keys::Clear(ring) => Some(ring),
            Keys::Locked(_) => None,
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// It is not locked, or by another key.
    pub(crate) fn unlock(&self, unlock: &UnlockKey) -> Result<KeyRing, KeyFileError> {
        let Keys::Locked(locked) = &self.keys else {
            return Err(KeyFileError::NotLocked);
        };
        let sealer = Sealer::new(SecretKey::from(unlock));
        let keys = locked.iter().map(|locked| {
            let opened = sealer.open(PLACE, locked);
            let opened = Zeroizing::new(opened.map_err(|_| KeyFileError::WrongKey)?);
            key_of(&opened).map_err(|why| self.damaged(why))
        });
        let keys: Vec<SecretKey> = keys.collect::<Result<_, _>>()?;
        ring_of(keys).map_err(|why| self.damaged(why))
    }

    fn damaged(&self, why: String) -> KeyFileError {
        KeyFileError::Damaged {
            path: self.path.clone(),
            why,
        }
    }

    /// Whether it holds these keys, and no others, in this form.
    pub(crate) fn is(&self, ring: &KeyRing, unlock: Option<&UnlockKey>) -> bool {
        match unlock {
            None => self.clear() == Some(ring),
            Some(unlock) => self.unlock(unlock).is_ok_and(|held| held == *ring),
        }
    }

    /// Writes it anew; it outlives the loss of power when this returns.
    ///
    /// # Errors
    /// The disk's: the old file is there then.
    pub(crate) fn write(
        path: &Path,
        follows: u64,
        ring: &KeyRing,
        unlock: Option<&UnlockKey>,
    ) -> Result<(), KeyFileError> {
        let sealer = unlock.map(|unlock| Sealer::new(SecretKey::from(unlock)));
        let mut keys = ring.keys().map(|key| match &sealer {
            None => Held::Clear(STANDARD_NO_PAD.encode(key.as_bytes())),
            Some(sealer) => {
                let sealed = sealer.close(PLACE, key.as_bytes());
                Held::Locked(STANDARD_NO_PAD.encode(sealed))
            }
        });
        let key = keys.next().expect("a ring has a key");
        let before: Vec<Held> = keys.collect();
        let format = if before.is_empty() { ONE_KEY } else { FORMAT };
        let stored = Stored {
            format,
            follows,
            key,
            before,
        };
        let text = serde_json::to_vec(&stored).map_err(io::Error::other);
        let written = text.and_then(|text| {
            let text = Zeroizing::new(text);
            replace_file(path, &text, PRIVATE, Outlives::Power)
        });
        written.map_err(|source| KeyFileError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }
}

/// The keys of a file, all in one form.
fn keys_of(stored: &Stored) -> Result<Keys, String> {
    let all = || std::iter::once(&stored.key).chain(&stored.before);
    let decoded = |text: &str| {
        let bytes = STANDARD_NO_PAD.decode(text);
        bytes.map_err(|error| error.to_string())
    };
    let two_forms = || "its keys are in two forms".to_owned();
    if matches!(stored.key, Held::Clear(_)) {
        let keys = all().map(|held| match held {
            Held::Clear(text) => key_of(&Zeroizing::new(decoded(text)?)),
            Held::Locked(_) => Err(two_forms()),
        });
        let keys: Vec<SecretKey> = keys.collect::<Result<_, _>>()?;
        return ring_of(keys).map(Keys::Clear);
    }
    let locked = all().map(|held| match held {
        Held::Locked(text) => decoded(text),
        Held::Clear(_) => Err(two_forms()),
    });
    locked.collect::<Result<_, _>>().map(Keys::Locked)
}

fn ring_of(keys: Vec<SecretKey>) -> Result<KeyRing, String> {
    let mut keys = keys.into_iter();
    let newest = keys.next().ok_or_else(|| "it has no key".to_owned())?;
    Ok(KeyRing::new(newest, keys.collect()))
}

fn key_of(bytes: &[u8]) -> Result<SecretKey, String> {
    let key = <[u8; 32]>::try_from(bytes).map_err(|_| format!("a key of {} bytes", bytes.len()))?;
    Ok(SecretKey::from_bytes(key))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use weft_sys::namespaces::unmounted_tmpfs;

    use super::*;

    fn unlock_key(byte: u8) -> UnlockKey {
        UnlockKey::from_bytes([byte; 32])
    }

    #[test]
    fn a_key_comes_back_in_the_form_that_it_was_written_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        assert!(KeyFile::read(&path).unwrap().is_none());
        let key = KeyRing::draw();
        KeyFile::write(&path, 3, &key, None).unwrap();
        let file = KeyFile::read(&path).unwrap().unwrap();
        assert_eq!((file.clear(), file.follows), (Some(&key), 3));
        assert!(file.is(&key, None) && !file.is(&key, Some(&unlock_key(1))));
        let refused = file.unlock(&unlock_key(1)).unwrap_err();
        assert!(matches!(refused, KeyFileError::NotLocked));

        KeyFile::write(&path, 4, &key, Some(&unlock_key(1))).unwrap();
        let file = KeyFile::read(&path).unwrap().unwrap();
        assert_eq!((file.clear(), file.follows), (None, 4));
        assert!(file.is(&key, Some(&unlock_key(1))) && !file.is(&key, None));
        assert_eq!(file.unlock(&unlock_key(1)).unwrap(), key);
        let refused = file.unlock(&unlock_key(2)).unwrap_err();
        assert!(refused.to_string().contains("invalid key"), "{refused}");
        let text = std::fs::read_to_string(&path).unwrap();
        let in_clear = STANDARD_NO_PAD.encode(key.keys().next().unwrap().as_bytes());
        assert!(!text.contains(&in_clear));
        assert!(text.contains(r#""format":1,"#), "as others read it");
    }

    #[test]
    fn keys_of_before_are_in_it_as_long_as_they_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        let first = KeyRing::draw();
        let changing = first.renewed();
        for unlock in [None, Some(unlock_key(1))] {
            KeyFile::write(&path, 5, &changing, unlock.as_ref()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(r#""format":2,"#), "older ones refuse it");
            let file = KeyFile::read(&path).unwrap().unwrap();
            assert!(file.is(&changing, unlock.as_ref()));
            assert!(!file.is(&first, unlock.as_ref()));
            assert!(!file.is(&changing.settled(), unlock.as_ref()));
            let found = match &unlock {
                None => file.clear().cloned().unwrap(),
                Some(unlock) => file.unlock(unlock).unwrap(),
            };
            assert_eq!(found, changing);
            let settled = changing.settled();
            KeyFile::write(&path, 5, &settled, unlock.as_ref()).unwrap();
            let file = KeyFile::read(&path).unwrap().unwrap();
            assert!(file.is(&settled, unlock.as_ref()), "the old one is dropped");
        }
        let key = "A".repeat(43);
        let mixed = format!(
            r#"{{"format":2,"follows":0,"key":{{"clear":"{key}"}},"before":[{{"locked":"{key}"}}]}}"#
        );
        std::fs::write(&path, mixed).unwrap();
        let error = KeyFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("two forms"), "{error}");
    }

    #[test]
    fn what_is_no_key_file_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        let newer = r#"{"format":3,"key":{"split":["a","b"]}}"#;
        for (text, word) in [
            ("", "is damaged"),
            ("{}", "is damaged"),
            (
                r#"{"format":1,"follows":0,"key":{"clear":"AAAA"}}"#,
                "a key of 3 bytes",
            ),
            (
                r#"{"format":1,"follows":0,"key":{"clear":"~"}}"#,
                "is damaged",
            ),
            (newer, "has format 3, this weftd reads up to 2"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = KeyFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    /// What a crash leaves is what a writer leaves that does not come to its end.
    #[test]
    fn a_write_that_fails_leaves_the_form_before() {
        let disk = unmounted_tmpfs(64 << 10).expect("a small disk");
        let dir = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
        let path = dir.join(KEY_FILE);
        let key = KeyRing::draw();
        KeyFile::write(&path, 1, &key, None).unwrap();
        std::fs::write(dir.join("filler"), vec![0; 1 << 20]).expect_err("it does not fit");
        let refused = KeyFile::write(&path, 2, &key, Some(&unlock_key(1)));
        assert!(matches!(
            refused,
            Err(KeyFileError::File {
                action: "write",
                ..
            })
        ));
        let file = KeyFile::read(&path).unwrap().unwrap();
        assert_eq!((file.clear(), file.follows), (Some(&key), 1));
        std::fs::remove_file(dir.join("filler")).unwrap();
        KeyFile::write(&path, 2, &key, Some(&unlock_key(1))).unwrap();
        // A writer that was killed before the rename.
        std::fs::write(dir.join(".data.key.1-1.unfinished"), "{").unwrap();
        let file = KeyFile::read(&path).unwrap().unwrap();
        assert_eq!(file.unlock(&unlock_key(1)).unwrap(), key);
    }
}
