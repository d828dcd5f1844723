//! How the file of `weft swarm backup` begins: what it is, and whether it can be read without the
//! unlock key. What follows is the managers' affair.

/// Begins every backup.
const MAGIC: [u8; 8] = *b"weftbkp\n";
/// Of the file. It grows when an earlier version would take what is written for something else.
const FORMAT: u32 = 1;
const CLEAR: u8 = 0;
const SEALED: u8 = 1;

/// Largest backup, in bytes: 256 MiB.
pub const MAX_BACKUP: usize = 256 << 20;

/// Header of a request to restore: the unlock key, where the backup is sealed.
pub const UNLOCK_KEY_HEADER: &str = "weft-unlock-key";

/// First bytes of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupHeader {
    /// The unlock key of the swarm is needed to read what follows.
    pub sealed: bool,
}

/// Why a file is not taken for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotABackup {
    /// Something else.
    #[error("it is no backup of a swarm; give a file that `weft swarm backup` wrote")]
    Foreign,
    /// Of a version to come.
    #[error(
        "it is a backup of format {0}, and this weft reads format {FORMAT}; restore it with the \
         version of weft that wrote it, or a newer one"
    )]
    Newer(u32),
    /// It ends too early, or its header is nonsense.
    #[error("the backup is damaged; take another copy of it, or an earlier one")]
    Damaged,
}

impl BackupHeader {
    /// Bytes of it.
    pub const LEN: usize = MAGIC.len() + 4 + 1;

    /// As it is written.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.push(if self.sealed { SEALED } else { CLEAR });
        bytes
    }

    /// The header of a file, and what follows it.
    ///
    /// # Errors
    /// It is no backup, or not one that this version reads.
    pub fn read(file: &[u8]) -> Result<(Self, &[u8]), NotABackup> {
        let rest = file.strip_prefix(&MAGIC).ok_or(NotABackup::Foreign)?;
        let (format, rest) = rest.split_first_chunk().ok_or(NotABackup::Damaged)?;
        let format = u32::from_be_bytes(*format);
        if format != FORMAT {
            return Err(NotABackup::Newer(format));
        }
        match rest.split_first() {
            Some((&CLEAR, rest)) => Ok((Self { sealed: false }, rest)),
            Some((&SEALED, rest)) => Ok((Self { sealed: true }, rest)),
            _ => Err(NotABackup::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_others_are_told_apart() {
        for sealed in [false, true] {
            let header = BackupHeader { sealed };
            let mut file = header.to_bytes();
            assert_eq!(file.len(), BackupHeader::LEN);
            file.extend_from_slice(b"more");
            assert_eq!(BackupHeader::read(&file), Ok((header, &b"more"[..])));
            for cut in 0..BackupHeader::LEN {
                let error = BackupHeader::read(&file[..cut]).unwrap_err();
                let expected = if cut < MAGIC.len() {
                    NotABackup::Foreign
                } else {
                    NotABackup::Damaged
                };
                assert_eq!(error, expected, "cut at {cut}");
            }
        }
        let mut newer = BackupHeader { sealed: true }.to_bytes();
        newer[MAGIC.len() + 3] = 2;
        assert_eq!(BackupHeader::read(&newer), Err(NotABackup::Newer(2)));
        assert_eq!(BackupHeader::read(b"PK\x03\x04"), Err(NotABackup::Foreign));
    }
}
