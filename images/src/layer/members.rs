//! The entries of an archive, one after the other, with a bound on everything that is remembered.
//!
//! The tar crate has the headers; its walk over them keeps names and extended headers of any size in
//! memory, and splits binary attributes at newlines, so the walk is here. Where readers of tar differ,
//! this one is as Go's archive/tar, which Docker reads layers by: what two of them understand
//! differently hides things from whoever looked at an image with the other one.

use std::io::{self, Read};
use std::ops::Range;

use tar::{EntryType, Header};

use super::entry::{Chunk, Entry, Kind, Time};
use super::error::{Fault, LayerError, Refusal, shown};
use super::limits::Limits;
use super::pax::{self, Pax};
use super::sparse::{self, BLOCK, LineMap};

/// Where the fields of a header are. POSIX.1-2017, pax, "ustar Interchange Format".
mod field {
    use std::ops::Range;

    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MODIFIED: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
}

/// What the headers before that of an entry say of it.
#[derive(Default)]
struct Before {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Before {
    fn is_nothing(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }
}

/// Reads entries; the content of the last one is what [`Read`] gives.
pub(crate) struct Members<'a, R> {
    from: R,
    limits: &'a Limits,
    /// Of the entry that is being read.
    number: u64,
    name: Vec<u8>,
    /// Bytes of its content that were not read, and of what it is padded with.
    left: u64,
    padding: u64,
}

impl<'a, R: Read> Members<'a, R> {
    /// From the first entry on.
    pub(crate) fn new(from: R, limits: &'a Limits) -> Self {
        Self {
            from,
            limits,
            number: 0,
            name: Vec::new(),
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; nothing at the end. What was not read of the last one is skipped.
    ///
    /// # Errors
    /// [`LayerError::Refused`], [`LayerError::Damaged`], [`LayerError::Read`].
    pub(crate) fn advance(&mut self) -> Result<Option<Entry>, LayerError> {
        self.skip()?;
        self.count()?;
        let mut before = Before::default();
        loop {
            let Some(header) = self.header()? else {
                if before.is_nothing() {
                    return Ok(None);
                }
                return Err(self.damaged("it ends behind a header that is about a next entry"));
            };
            let size = self.size_of(&header)?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let data = self.extended(size)?;
                    let pax = pax::parse(&data).map_err(|why| self.damaged(why))?;
                    self.once(before.pax.replace(pax).is_none())?;
                }
                EntryType::GNULongName => {
                    let name = self.long_name(size)?;
                    self.once(before.name.replace(name).is_none())?;
                }
                EntryType::GNULongLink => {
                    let link = self.long_name(size)?;
                    self.once(before.link.replace(link).is_none())?;
                }
                // About all entries that follow: Docker reads none of them, and so nobody relies on
                // one. git archive has its commit in it.
                EntryType::XGlobalHeader => {
                    self.content(size);
                    self.skip()?;
                    self.count()?;
                }
                kind => return self.entry(&header, kind, size, before).map(Some),
            }
        }
    }

    /// Reads what follows the last entry: it belongs to the digest of the layer.
    ///
    /// # Errors
    /// [`LayerError::Refused`], [`LayerError::Read`].
    pub(crate) fn finish(mut self) -> Result<R, LayerError> {
        let rest = io::copy(&mut self.from, &mut io::sink());
        match rest {
            Ok(_) => Ok(self.from),
            Err(error) => Err(LayerError::reading(self.number, &self.name, error)),
        }
    }

    fn count(&mut self) -> Result<(), LayerError> {
        self.name.clear();
        self.number += 1;
        if self.number > self.limits.entries.saturating_add(1) {
            return Err(self.refused(Refusal::Entries(self.limits.entries)));
        }
        Ok(())
    }

    /// A header with a right checksum; nothing at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block == [0; BLOCK] {
            // POSIX: two blocks of zeros. Something behind one of them is hidden from some readers.
            return match self.block()? {
                Some(second) if second != [0; BLOCK] => {
                    Err(self.damaged("something follows a block of zeros"))
                }
                _ => Ok(None),
            };
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let checksum = number(&block[field::CHECKSUM]);
        // Itself it counts as spaces.
        let spaces = 8 * i64::from(b' ');
        // As POSIX has it, and as some old programs sum it up.
        let (mut unsigned, mut signed) = (spaces, spaces);
        for (at, byte) in block.iter().enumerate() {
            if !field::CHECKSUM.contains(&at) {
                unsigned += i64::from(*byte);
                signed += i64::from(byte.cast_signed());
            }
        }
        if checksum != Some(unsigned) && checksum != Some(signed) {
            return Err(self.damaged(if self.number == 1 {
                "this is no tar archive, plain or compressed by gzip or zstd"
            } else {
                "the checksum of its header is wrong"
            }));
        }
        Ok(Some(header))
    }

    /// 512 bytes; nothing at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.damaged("it ends in the middle of a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::reading(self.number, &self.name, error)),
            }
        }
        Ok(Some(block))
    }

    fn size_of(&self, header: &Header) -> Result<u64, LayerError> {
        number(&header.as_bytes()[field::SIZE])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| self.damaged("the size in its header is no number"))
    }

    /// What follows is so many bytes of content.
    fn content(&mut self, size: u64) {
        let block = BLOCK as u64;
        self.left = size;
        self.padding = (block - size % block) % block;
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        // Not as one number: the sum may be too large for it.
        for part in [self.left, self.padding] {
            let skipped = io::copy(&mut (&mut self.from).take(part), &mut io::sink());
            match skipped {
                Ok(bytes) if bytes == part => {}
                Ok(_) => return Err(self.damaged("it ends in the middle of an entry")),
                Err(error) => return Err(LayerError::reading(self.number, &self.name, error)),
            }
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// All of a header that has content.
    fn extended(&mut self, bytes: u64) -> Result<Vec<u8>, LayerError> {
        let limit = self.limits.extended;
        if bytes > limit {
            return Err(self.refused(Refusal::Extended { bytes, limit }));
        }
        self.content(bytes);
        let mut data = Vec::new();
        let read = (&mut self.from).take(bytes).read_to_end(&mut data);
        match read {
            Ok(read) if read as u64 == bytes => {
                self.left = 0;
                self.skip()?;
                Ok(data)
            }
            Ok(_) => Err(self.damaged("it ends in the middle of an extended header")),
            Err(error) => Err(LayerError::reading(self.number, &self.name, error)),
        }
    }

    /// The name that a header of GNU tar has as its content, up to the first zero byte.
    fn long_name(&mut self, bytes: u64) -> Result<Vec<u8>, LayerError> {
        let limit = self.limits.name;
        // With the zero byte that ends it.
        if bytes > limit as u64 + 1 {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            return Err(self.refused(Refusal::LongName { bytes, limit }));
        }
        let mut name = self.extended(bytes)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn once(&self, is_first: bool) -> Result<(), LayerError> {
        if is_first {
            return Ok(());
        }
        Err(self.damaged("two headers of the same kind are about one entry"))
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        before: Before,
    ) -> Result<Entry, LayerError> {
        let pax = before.pax.unwrap_or_default();
        let in_header = || header.path_bytes().into_owned();
        self.name = before.name.or(pax.path).unwrap_or_else(in_header);
        if let Some(name) = pax.sparse.name {
            self.name = name;
        }
        let link = || header.link_name_bytes().unwrap_or_default().into_owned();
        let link = before.link.or(pax.link).unwrap_or_else(link);
        if self.number > self.limits.entries {
            return Err(self.refused(Refusal::Entries(self.limits.entries)));
        }
        let mut size = pax.size.unwrap_or(size);
        let kind = self.kind(kind);
        if matches!(
            kind,
            Kind::HardLink | Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo
        ) || header.entry_type() == EntryType::Directory
        {
            // Whatever stands there: POSIX has no content for them.
            size = 0;
        }
        let sparse = if header.entry_type() == EntryType::GNUSparse {
            Some(self.old_map(header, size)?)
        } else {
            self.content(size);
            self.pax_map(pax.sparse.version, pax.sparse.map, pax.sparse.size)?
        };
        let (size, sparse) = match sparse {
            Some((size, chunks)) => (size, Some(chunks)),
            None => (size, None),
        };
        let bytes = header.as_bytes();
        let value = |range: Range<usize>, what: &'static str| {
            number(&bytes[range]).ok_or_else(|| self.refused(Refusal::Number(what)))
        };
        let device = match kind {
            Kind::Char | Kind::Block => (
                value(field::MAJOR, "device")?,
                value(field::MINOR, "device")?,
            ),
            _ => (0, 0),
        };
        let modified = match pax.modified {
            Some(time) => time,
            None => Time {
                seconds: value(field::MODIFIED, "time")?,
                nanos: 0,
            },
        };
        Ok(Entry {
            number: self.number,
            name: self.name.clone(),
            link,
            kind,
            // What is above is the kind of file, which some programs write there.
            mode: (value(field::MODE, "mode")? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| value(field::UID, "owner"), Ok)?,
            gid: pax.gid.map_or_else(|| value(field::GID, "group"), Ok)?,
            modified,
            device,
            size,
            sparse,
            attributes: pax.attributes,
        })
    }

    fn kind(&self, kind: EntryType) -> Kind {
        match kind {
            // As before POSIX had a kind for folders.
            EntryType::Regular if self.name.ends_with(b"/") => Kind::Folder,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::Char,
            EntryType::Block => Kind::Block,
            EntryType::Directory => Kind::Folder,
            EntryType::Fifo => Kind::Fifo,
            other => Kind::Other(other.as_byte()),
        }
    }

    /// The map in old headers of GNU tar: blocks of it stand before the content, and do not count.
    fn old_map(&mut self, header: &Header, stored: u64) -> Result<(u64, Vec<Chunk>), LayerError> {
        let bad = Refusal::Sparse("its header is none of GNU tar's");
        let gnu = header.as_gnu().ok_or_else(|| self.refused(bad))?;
        let bad = Refusal::Sparse("its size is no number");
        let size = gnu.real_size().map_err(|_| self.refused(bad))?;
        let chunks = sparse::of_gnu(gnu, || match self.block() {
            Ok(Some(block)) => Ok(block),
            Ok(None) => Err(Stop::Error(self.damaged("it ends in the middle of a map"))),
            Err(error) => Err(Stop::Error(error)),
        });
        let chunks = chunks.map_err(|stop| match stop {
            Stop::Refused(why) => self.refused(why),
            Stop::Error(error) => error,
        })?;
        self.content(stored);
        self.checked(chunks, size)
    }

    /// The map in an extended header, or the one that it says stands before the content.
    fn pax_map(
        &mut self,
        version: (Option<u64>, Option<u64>),
        numbers: Option<Vec<u64>>,
        size: Option<u64>,
    ) -> Result<Option<(u64, Vec<Chunk>)>, LayerError> {
        let chunks = match (version, numbers) {
            ((Some(1), Some(0)), _) => self.line_map()?,
            (_, Some(numbers)) => sparse::of_numbers(&numbers).map_err(|why| self.refused(why))?,
            _ => return Ok(None),
        };
        let missing = || Refusal::Sparse("it does not say how large the file is");
        let size = size.ok_or_else(|| self.refused(missing()))?;
        self.checked(chunks, size).map(Some)
    }

    fn line_map(&mut self) -> Result<Vec<Chunk>, LayerError> {
        let mut map = LineMap::default();
        loop {
            let mut block = [0; BLOCK];
            if self.left < BLOCK as u64 || self.read_exact(&mut block).is_err() {
                return Err(self.refused(Refusal::Sparse("the file ends in it")));
            }
            if map.block(&block).map_err(|why| self.refused(why))? {
                return map.chunks().map_err(|why| self.refused(why));
            }
        }
    }

    fn checked(&self, chunks: Vec<Chunk>, size: u64) -> Result<(u64, Vec<Chunk>), LayerError> {
        sparse::check(&chunks, size, self.left).map_err(|why| self.refused(why))?;
        Ok((size, chunks))
    }

    fn refused(&self, why: Refusal) -> LayerError {
        Fault::Refused(why).at(self.number, &self.name)
    }

    fn damaged(&self, why: &'static str) -> LayerError {
        LayerError::Damaged {
            number: self.number,
            name: shown(&self.name),
            why,
        }
    }
}

/// Why a map was not read to its end.
enum Stop {
    Refused(Refusal),
    Error(LayerError),
}

impl From<Refusal> for Stop {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

impl<R: Read> Read for Members<'_, R> {
    /// Content of the entry that was last read; an end that comes too early is an error.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut into[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// A number of a header: octal, between spaces or zero bytes; or, as GNU tar writes large and negative
/// ones, binary behind a bit.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let is_negative = first & 0x40 != 0;
        let start = if is_negative { first } else { first & 0x7f };
        let mut value = i128::from(start.cast_signed());
        for byte in &field[1..] {
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_blank(byte));
    let Some(start) = start else {
        return Some(0);
    };
    let text = &field[start..];
    let end = text.iter().position(is_blank).unwrap_or(text.len());
    let digits = std::str::from_utf8(&text[..end]).ok()?;
    // `from_str_radix` would take a sign.
    let is_octal = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    is_octal.then(|| i64::from_str_radix(digits, 8).ok())?
}
