//! Sections of an object for BPF: ELF (elf(5)) of 64 bits, low bytes first.

use anyhow::Context;

/// What an object of this kind begins with.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// Bytes of a section's header.
const HEADER: usize = 64;
/// Type of a section that has no bytes in the file.
const NOBITS: usize = 8;
/// Flag of what is loaded.
const ALLOC: usize = 2;
/// Flag of code.
const EXECINSTR: usize = 4;

/// A section of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// How long it is once it is loaded.
    pub(super) len: usize,
    pub(super) bytes: &'a [u8],
}

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Programs.
    Code,
    /// What programs read or write.
    Data,
    /// Types, names, relocations.
    Notes,
}

/// All sections, in their order.
pub(super) fn sections(object: &[u8]) -> anyhow::Result<Vec<Section<'_>>> {
    read(object).context("no object as clang makes it for BPF")
}

fn read(object: &[u8]) -> Option<Vec<Section<'_>>> {
    if !object.starts_with(MAGIC) {
        return None;
    }
    let start = number(object, 0x28, 8)?;
    let headers = object.get(start..)?.chunks_exact(HEADER);
    let headers: Vec<&[u8]> = headers.take(number(object, 0x3c, 2)?).collect();
    let names = bytes(object, headers.get(number(object, 0x3e, 2)?)?)?;
    let section = |header: &&[u8]| {
        let flags = number(header, 8, 8)?;
        Some(Section {
            name: text(names, number(header, 0, 4)?)?,
            kind: if flags & EXECINSTR != 0 {
                Kind::Code
            } else if flags & ALLOC != 0 {
                Kind::Data
            } else {
                Kind::Notes
            },
            len: number(header, 32, 8)?,
            bytes: bytes(object, header)?,
        })
    };
    // The first one is none.
    headers.iter().skip(1).map(section).collect()
}

fn bytes<'a>(object: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    if number(header, 4, 4)? == NOBITS {
        return Some(&[]);
    }
    object
        .get(number(header, 24, 8)?..)?
        .get(..number(header, 32, 8)?)
}

/// The number in `len` bytes from `at` on, the low one first.
pub(super) fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let field = bytes.get(at..)?.get(..len)?;
    let number = field.iter().rev();
    Some(number.fold(0_usize, |number, byte| (number << 8) | usize::from(*byte)))
}

/// The text from `at` on, which ends with a zero.
pub(super) fn text(texts: &[u8], at: usize) -> Option<&str> {
    let bytes = texts.get(at..)?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section's header.
    fn header(name: u32, kind: u32, flags: u64, at: u64, len: u64) -> Vec<u8> {
        let mut header = [name.to_le_bytes(), kind.to_le_bytes()].concat();
        for number in [flags, 0, at, len, 0, 0, 0] {
            header.extend(number.to_le_bytes());
        }
        header
    }

    /// Code, zeros and names.
    fn object() -> Vec<u8> {
        let names = b"\0code\0zeros\0names\0";
        let mut object = MAGIC.to_vec();
        object.resize(0x40, 0);
        object[0x28] = 0x60;
        object[0x3c] = 4;
        object[0x3e] = 3;
        object.extend(names);
        object.resize(0x60, 0xff);
        object.extend(header(0, 0, 0, 0, 0));
        object.extend(header(1, 1, 6, 0x41, 4));
        object.extend(header(6, 8, 3, 0x1000, 0x0102));
        object.extend(header(12, 3, 0, 0x40, names.len() as u64));
        object
    }

    #[test]
    fn sections_are_read_with_what_they_are_for() {
        let object = object();
        let sections = sections(&object).unwrap();
        let found: Vec<_> = sections.iter().map(|s| (s.name, s.kind, s.len)).collect();
        assert_eq!(
            found,
            [
                ("code", Kind::Code, 4),
                ("zeros", Kind::Data, 0x0102),
                ("names", Kind::Notes, 18),
            ]
        );
        assert_eq!(sections[0].bytes, b"code");
        assert!(sections[1].bytes.is_empty());
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let object = object();
        for len in 0..0x60 {
            assert!(sections(&object[..len]).is_err(), "{len}");
        }
        let mut beyond = object.clone();
        beyond[0x28 + 7] = 0xff;
        assert!(sections(&beyond).is_err());
        assert!(sections(&object[1..]).is_err());
    }
}
