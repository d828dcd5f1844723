//! One layer from its archive into a folder.

use std::io::{BufReader, Read};
use std::path::Path;

use crate::digest::Digest;
use crate::layer::{Extractor, Fault, LayerError, Limits, Members, Stream, plan};

pub use crate::layer::opaque_attribute;

/// Uncompressed bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// What came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Of the uncompressed archive, all of it: what a configuration calls `diff_id`.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub archive_bytes: u64,
    /// Bytes of the files in it.
    pub file_bytes: u64,
    /// How many entries it has.
    pub entries: u64,
}

/// Unpacks a layer, plain or compressed by gzip or zstd, into the folder `into`, which has to be there
/// and empty, and where nobody else writes meanwhile: for overlay, with whiteouts as devices 0:0 and
/// opaque folders by the attribute that [`opaque_attribute`] names. Nothing outside of that folder is
/// touched. Where this process may give files to nobody else (an ordinary user, or a user namespace of
/// one user) they are all its own. After an error the folder holds what came before it.
///
/// Who trusts the layer compares [`Unpacked::diff_id`] before using it.
///
/// # Errors
/// See [`LayerError`]; it names the entry.
pub fn unpack_layer(tar: impl Read, into: &Path, limits: &Limits) -> Result<Unpacked, LayerError> {
    let stream = Stream::open(tar, limits).map_err(|error| LayerError::reading(1, b"", error))?;
    let mut members = Members::new(BufReader::with_capacity(BUFFER, stream), limits);
    let own_folder = |fault: Fault| fault.at(0, b"");
    let mut extractor = Extractor::open(into, limits).map_err(own_folder)?;
    let mut entries = 0;
    while let Some(entry) = members.advance()? {
        entries = entry.number;
        plan(&entry, limits)
            .map_err(Into::into)
            .and_then(|action| extractor.apply(&entry, &action, &mut members))
            .map_err(|fault: Fault| fault.at(entry.number, &entry.name))?;
    }
    let stream = members.finish()?.into_inner();
    let file_bytes = extractor.file_bytes();
    extractor.finish().map_err(own_folder)?;
    let (diff_id, archive_bytes) = stream.finish();
    Ok(Unpacked {
        diff_id,
        archive_bytes,
        file_bytes,
        entries,
    })
}

#[cfg(test)]
mod tests;
