//! Which files an archive has, and where: nothing of it is unpacked, and no name of it becomes a path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use tar::{Header, PaxExtensions};

use super::error::ArchiveError;

/// Blocks of a tar.
const BLOCK: u64 = 512;
/// More than the parts of a thousand images.
const MAX_ENTRIES: usize = 65_536;
/// Longest name that is remembered; those of images have about a hundred bytes.
const MAX_NAME: usize = 256;
/// Longest extension of a header.
const MAX_EXTENSION: u64 = 64 * 1024;
/// Links to links.
const MAX_LINKS: usize = 8;

/// An archive and what is where in it.
#[derive(Debug)]
pub(super) struct Entries {
    file: File,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    File {
        at: u64,
        size: u64,
    },
    /// The same file under another name; archives of old have one layer under several.
    Link(String),
}

/// What stands before an entry and is about it.
#[derive(Debug, Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Entries {
    /// Reads the headers of a tar archive.
    ///
    /// # Errors
    /// It is none, ends too early, has too many entries.
    pub(super) fn read(file: File) -> Result<Self, ArchiveError> {
        let length = file.metadata().map_err(ArchiveError::Read)?.len();
        let mut places = BTreeMap::new();
        let mut extension = Extension::default();
        let mut at = 0;
        let mut count = 0;
        // Zeros end an archive; the end of the file does, too.
        while at + BLOCK <= length {
            let block = bytes(&file, at, BLOCK)?;
            if block.iter().all(|byte| *byte == 0) {
                break;
            }
            let header = Header::from_byte_slice(&block);
            let own_size = check(header, &block, at)?;
            count += 1;
            if count > MAX_ENTRIES {
                return Err(ArchiveError::Entries(MAX_ENTRIES));
            }
            let kind = header.entry_type().as_byte();
            let is_extension = matches!(kind, b'x' | b'g' | b'L' | b'K');
            let size = match extension.size {
                Some(size) if !is_extension => size,
                _ => own_size,
            };
            let start = at + BLOCK;
            let next = size
                .checked_next_multiple_of(BLOCK)
                .and_then(|padded| start.checked_add(padded))
                .filter(|_| size <= length.saturating_sub(start));
            let Some(next) = next else {
                return Err(damaged(at, "an entry is longer than the archive"));
            };
            match kind {
                b'x' => extension.take_pax(&extended(&file, start, size)?),
                b'L' => extension.name = Some(without_zeros(extended(&file, start, size)?)),
                b'K' => extension.target = Some(without_zeros(extended(&file, start, size)?)),
                b'g' => {}
                _ => {
                    let about = std::mem::take(&mut extension);
                    if let Some((name, place)) = place(header, kind, about, start, size) {
                        places.insert(name, place);
                    }
                }
            }
            at = next;
        }
        if count == 0 {
            return Err(damaged(0, "it has no entries"));
        }
        Ok(Self { file, places })
    }

    /// True where the archive has a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A file from its beginning, and its size in bytes; `None` where there is none.
    pub(super) fn open(&self, name: &str) -> Option<(Region<'_>, u64)> {
        let (at, size) = self.find(name)?;
        let region = Region {
            file: &self.file,
            at,
            left: size,
        };
        Some((region, size))
    }

    /// All of a small file.
    ///
    /// # Errors
    /// There is none, or it has more than `limit` bytes.
    pub(super) fn small(&self, name: &str, limit: usize) -> Result<Vec<u8>, ArchiveError> {
        let (at, size) = self
            .find(name)
            .ok_or_else(|| ArchiveError::Missing(super::error::shown(name)))?;
        if size > limit as u64 {
            return Err(ArchiveError::Entry {
                entry: super::error::shown(name),
                reason: format!("it has {size} bytes, {limit} at most are read"),
            });
        }
        bytes(&self.file, at, size)
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = normal("", name)?;
        for _ in 0..MAX_LINKS {
            match self.places.get(&name)? {
                Place::File { at, size } => return Some((*at, *size)),
                Place::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

impl Extension {
    fn take_pax(&mut self, text: &[u8]) {
        for pair in PaxExtensions::new(text).flatten() {
            match pair.key_bytes() {
                b"path" => self.name = Some(pair.value_bytes().to_vec()),
                b"linkpath" => self.target = Some(pair.value_bytes().to_vec()),
                b"size" => self.size = pair.value().ok().and_then(|text| text.parse().ok()),
                _ => {}
            }
        }
    }
}

/// A part of the archive as a file.
#[derive(Debug)]
pub(super) struct Region<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let room = buffer.len().min(most);
        let n = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Size of the entry, if this is a header at all.
fn check(header: &Header, block: &[u8], at: u64) -> Result<u64, ArchiveError> {
    // The sum has spaces in place of itself: pax(1), "ustar Interchange Format".
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(n, byte)| {
            if (148..156).contains(&n) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    if header.cksum().ok() != Some(sum) {
        return Err(damaged(at, "this is no header of an entry"));
    }
    header
        .entry_size()
        .map_err(|_| damaged(at, "an entry has no size"))
}

/// Name and place of an entry that may be named by a manifest.
fn place(
    header: &Header,
    kind: u8,
    about: Extension,
    start: u64,
    size: u64,
) -> Option<(String, Place)> {
    let name = about
        .name
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let name = remembered("", &name)?;
    let target = about
        .target
        .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let place = match kind {
        b'0' | b'7' | 0 => Place::File { at: start, size },
        b'1' => Place::Link(remembered("", &target?)?),
        b'2' => {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            Place::Link(remembered(folder, &target?)?)
        }
        _ => return None,
    };
    Some((name, place))
}

fn remembered(folder: &str, name: &[u8]) -> Option<String> {
    if name.len() > MAX_NAME {
        return None;
    }
    normal(folder, std::str::from_utf8(name).ok()?)
}

/// A name without `.` and `..`; none where it leads out of the archive.
fn normal(folder: &str, name: &str) -> Option<String> {
    if name.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn extended(file: &File, at: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
    if size > MAX_EXTENSION {
        return Err(damaged(at, "a name of more than 64 KiB"));
    }
    bytes(file, at, size)
}

fn without_zeros(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}

fn bytes(file: &File, at: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
    let size = usize::try_from(size).map_err(|_| damaged(at, "an entry is too long"))?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, at)
        .map_err(ArchiveError::Read)?;
    Ok(bytes)
}

fn damaged(at: u64, reason: &'static str) -> ArchiveError {
    ArchiveError::Damaged { at, reason }
}
