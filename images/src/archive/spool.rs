//! An archive as a file that can be read from anywhere: what names the parts comes last in many.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::error::ArchiveError;

/// The largest archive, unpacked: some images of models are this large, and no bomb fills a disk unnoticed.
pub(super) const MAX_BYTES: u64 = 64 << 30;
/// Bytes that are copied at once.
const BUFFER: usize = 256 * 1024;

/// A file without a name that has the archive, plain.
///
/// # Errors
/// The input breaks off, is compressed in a way that is not known, or is too large; there is no room.
pub(super) fn spool(input: impl Read, limit: u64) -> Result<File, ArchiveError> {
    let folder = folder();
    let mut file = tempfile::tempfile_in(&folder).map_err(|source| no_room(&folder, source))?;
    let mut input = input;
    let head = head(&mut input)?;
    let input = head.as_slice().chain(input);
    match head.as_slice() {
        [0x1f, 0x8b, ..] => copy(MultiGzDecoder::new(input), &mut file, &folder, limit)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::stream::read::Decoder::new(input).map_err(ArchiveError::Read)?;
            copy(decoder, &mut file, &folder, limit)?;
        }
        [b'B', b'Z', b'h', ..] => return Err(ArchiveError::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', ..] => return Err(ArchiveError::Compression("xz")),
        _ => copy(input, &mut file, &folder, limit)?,
    }
    Ok(file)
}

/// On a disk: `/tmp` is memory on many machines.
fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TMPDIR").filter(|text| !text.is_empty()) {
        return PathBuf::from(folder);
    }
    let disk = PathBuf::from("/var/tmp");
    if disk.is_dir() {
        disk
    } else {
        std::env::temp_dir()
    }
}

/// The first bytes, which say how it is compressed.
fn head(input: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut head = Vec::with_capacity(6);
    input
        .take(6)
        .read_to_end(&mut head)
        .map_err(ArchiveError::Read)?;
    Ok(head)
}

fn copy(mut from: impl Read, to: &mut File, folder: &Path, limit: u64) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ArchiveError::Read(error)),
        };
        copied += n as u64;
        if copied > limit {
            return Err(ArchiveError::TooLarge(limit));
        }
        to.write_all(&buffer[..n])
            .map_err(|source| no_room(folder, source))?;
    }
}

fn no_room(folder: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Spool {
        folder: folder.to_owned(),
        source,
    }
}
