//! Types of an object for BPF, as far as its tables are declared by them. The format is the kernel's:
//! Documentation/bpf/btf.rst. Tables are variables in a section of their own; each is a structure
//! whose fields point at arrays of so many elements, or at the type of a key or value.

use anyhow::Context;

use super::elf::{number, text};

const MAGIC: usize = 0xeb9f;
/// Bytes of a type before what its kind adds.
const TYPE: usize = 12;

const INT: usize = 1;
const PTR: usize = 2;
const ARRAY: usize = 3;
const STRUCT: usize = 4;
const UNION: usize = 5;
const ENUM: usize = 6;
const FWD: usize = 7;
const TYPEDEF: usize = 8;
const VOLATILE: usize = 9;
const CONST: usize = 10;
const RESTRICT: usize = 11;
const FUNC: usize = 12;
const FUNC_PROTO: usize = 13;
const VAR: usize = 14;
const DATASEC: usize = 15;
const FLOAT: usize = 16;
const DECL_TAG: usize = 17;
const TYPE_TAG: usize = 18;
const ENUM64: usize = 19;

/// All types of an object; others name them by their place.
#[derive(Debug)]
pub(super) struct Types<'a> {
    types: Vec<Type>,
    texts: &'a [u8],
}

#[derive(Debug, Default)]
struct Type {
    /// Where its name is.
    name: usize,
    kind: usize,
    /// Its size in bytes, or the type that it is made of.
    of: usize,
    /// What its kind adds.
    words: Vec<usize>,
}

impl<'a> Types<'a> {
    pub(super) fn read(section: &'a [u8]) -> anyhow::Result<Self> {
        Self::parse(section)
            .context("types that xtask/src/bpf/btf.rs does not know: teach it there")
    }

    fn parse(section: &'a [u8]) -> Option<Self> {
        if number(section, 0, 2)? != MAGIC {
            return None;
        }
        let start = number(section, 4, 4)?;
        let part = |at: usize| {
            let from = start + number(section, at, 4)?;
            section.get(from..)?.get(..number(section, at + 4, 4)?)
        };
        let (mut rest, texts) = (part(8)?, part(16)?);
        // The first one is `void`.
        let mut types = vec![Type::default()];
        while !rest.is_empty() {
            let info = number(rest, 4, 4)?;
            let (kind, count) = ((info >> 24) & 0x1f, info & 0xffff);
            let len = match kind {
                PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
                INT | VAR | DECL_TAG => 1,
                ARRAY => 3,
                ENUM | FUNC_PROTO => 2 * count,
                STRUCT | UNION | DATASEC | ENUM64 => 3 * count,
                _ => return None,
            };
            let words = (0..len).map(|word| number(rest, TYPE + 4 * word, 4));
            types.push(Type {
                name: number(rest, 0, 4)?,
                kind,
                of: number(rest, 8, 4)?,
                words: words.collect::<Option<_>>()?,
            });
            rest = rest.get(TYPE + 4 * len..)?;
        }
        Some(Self { types, texts })
    }

    /// The tables, one line each: name, numbers, and sizes of key and value in bytes.
    pub(super) fn tables(&self) -> anyhow::Result<Vec<String>> {
        let sections = self.types.iter().filter(|section| {
            section.kind == DATASEC && text(self.texts, section.name) == Some(".maps")
        });
        let entries = sections.flat_map(|section| section.words.chunks_exact(3));
        let tables = entries
            .map(|entry| self.table(entry[0]))
            .collect::<Option<Vec<_>>>();
        tables.context("a table that xtask/src/bpf/btf.rs does not know: teach it there")
    }

    fn table(&self, variable: usize) -> Option<String> {
        let variable = self.types.get(variable)?;
        let mut line = format!("table {}", text(self.texts, variable.name)?);
        for field in self.types.get(variable.of)?.words.chunks_exact(3) {
            let name = text(self.texts, field[0])?;
            let pointer = self.types.get(field[1]).filter(|to| to.kind == PTR)?;
            let number = match name {
                "key" | "value" => self.size(pointer.of)?,
                _ => *self.types.get(pointer.of)?.words.get(2)?,
            };
            line += &format!(", {name} {number}");
        }
        Some(line)
    }

    fn size(&self, number: usize) -> Option<usize> {
        let found = self.types.get(number)?;
        match found.kind {
            INT | STRUCT | UNION | ENUM | FLOAT | ENUM64 => Some(found.of),
            PTR => Some(8),
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => self.size(found.of),
            ARRAY => Some(self.size(*found.words.first()?)? * found.words.get(2)?),
            _ => None,
        }
    }

    /// Files that its programs were compiled from, for what shows their lines.
    pub(super) fn sources(&self) -> Vec<String> {
        let texts = self.texts.split(|byte| *byte == 0);
        texts
            .filter(|text| text.ends_with(b".bpf.c"))
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: &str = "\0.maps\0flows\0max_entries\0key\0value\0./a/b.bpf.c\0";

    fn at(name: &str) -> usize {
        TEXTS.find(&format!("\0{name}\0")).unwrap() + 1
    }

    fn section(types: &[Vec<usize>]) -> Vec<u8> {
        let types = types.concat();
        // Magic and version, then where types and texts are, from the end of this.
        let header = [
            MAGIC + (1 << 16),
            24,
            0,
            4 * types.len(),
            4 * types.len(),
            TEXTS.len(),
        ];
        let words = header.into_iter().chain(types);
        let mut bytes: Vec<u8> = words.flat_map(|word| (word as u32).to_le_bytes()).collect();
        bytes.extend(TEXTS.as_bytes());
        bytes
    }

    /// `flows` with 7 entries, keys of 4 bytes behind a name of their own, and values of 28.
    fn types() -> Vec<Vec<usize>> {
        let table = [
            [at("max_entries"), 3, 0],
            [at("key"), 5, 64],
            [at("value"), 3, 128],
        ];
        vec![
            vec![0, INT << 24, 4, 32],
            vec![0, ARRAY << 24, 0, 1, 1, 7],
            vec![0, PTR << 24, 2],
            vec![0, TYPEDEF << 24, 1],
            vec![0, PTR << 24, 4],
            [vec![0, (STRUCT << 24) | 3, 24], table.concat()].concat(),
            vec![at("flows"), VAR << 24, 6, 1],
            vec![at(".maps"), (DATASEC << 24) | 1, 24, 7, 0, 24],
        ]
    }

    #[test]
    fn tables_are_shown_with_numbers_and_sizes() {
        let section = section(&types());
        let types = Types::read(&section).unwrap();
        assert_eq!(
            types.tables().unwrap(),
            ["table flows, max_entries 7, key 4, value 28"]
        );
        assert_eq!(types.sources(), ["./a/b.bpf.c"]);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let whole = section(&types());
        for len in 0..whole.len() {
            assert!(Types::read(&whole[..len]).is_err(), "{len}");
        }
        let mut kind = types();
        kind.push(vec![0, 31 << 24, 0]);
        assert!(Types::read(&section(&kind)).is_err());
        // A field that does not point, and a variable that is not there.
        for (number, word) in [(5, 4), (7, 3)] {
            let mut other = types();
            other[number][word] = if number == 5 { 1 } else { 99 };
            let section = section(&other);
            assert!(Types::read(&section).unwrap().tables().is_err());
        }
    }
}
