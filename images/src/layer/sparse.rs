//! Maps of sparse files, in the four ways in which GNU tar has written them: which parts of a file
//! stand in the archive. GNU tar manual, "Storing Sparse Files".

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::entry::Chunk;
use super::error::Refusal;
use super::pax::decimal;

/// Bytes of a header, and what content is padded to.
pub(crate) const BLOCK: usize = 512;

/// More parts than any file of an image has: each costs memory before anything is written.
const MOST: usize = 1 << 16;

const BAD_NUMBER: Refusal = Refusal::Sparse("a number is none");
const TOO_MANY: Refusal = Refusal::Sparse("it has too many parts");

/// The map in an old header of GNU tar, and in the blocks that follow it, which `more` reads.
///
/// # Errors
/// What `more` says, or a [`Refusal`].
pub(crate) fn of_gnu<E: From<Refusal>>(
    header: &GnuHeader,
    mut more: impl FnMut() -> Result<[u8; BLOCK], E>,
) -> Result<Vec<Chunk>, E> {
    let mut chunks = Vec::new();
    take(&header.sparse, &mut chunks)?;
    let mut goes_on = header.is_extended();
    while goes_on {
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&more()?);
        take(extension.sparse(), &mut chunks)?;
        goes_on = extension.is_extended();
    }
    Ok(chunks)
}

fn take(parts: &[GnuSparseHeader], chunks: &mut Vec<Chunk>) -> Result<(), Refusal> {
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if chunks.len() == MOST {
            return Err(TOO_MANY);
        }
        chunks.push(Chunk {
            offset: part.offset().map_err(|_| BAD_NUMBER)?,
            len: part.length().map_err(|_| BAD_NUMBER)?,
        });
    }
    Ok(())
}

/// The map of formats 0.0 and 0.1: offset, length, offset, length, …
///
/// # Errors
/// [`Refusal::Sparse`].
pub(crate) fn of_numbers(numbers: &[u64]) -> Result<Vec<Chunk>, Refusal> {
    if numbers.len() > 2 * MOST {
        return Err(TOO_MANY);
    }
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Refusal::Sparse("an offset has no length"));
    }
    let chunk = |pair: &[u64]| Chunk {
        offset: pair[0],
        len: pair[1],
    };
    Ok(pairs.map(chunk).collect())
}

/// The map of format 1.0, which stands before the content in whole blocks: how many parts, then
/// offset and length of each, a line for each number.
#[derive(Debug, Default)]
pub(crate) struct LineMap {
    digits: Vec<u8>,
    numbers: Vec<u64>,
}

impl LineMap {
    /// The next block of it; true when it was the last one.
    ///
    /// # Errors
    /// [`Refusal::Sparse`].
    pub(crate) fn block(&mut self, block: &[u8; BLOCK]) -> Result<bool, Refusal> {
        for byte in block {
            if self.is_whole() {
                return Ok(true);
            }
            if *byte != b'\n' {
                if self.digits.len() > 20 {
                    return Err(BAD_NUMBER);
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or(BAD_NUMBER)?;
            if self.numbers.is_empty() && number > MOST as u64 {
                return Err(TOO_MANY);
            }
            self.numbers.push(number);
            self.digits.clear();
        }
        Ok(self.is_whole())
    }

    fn is_whole(&self) -> bool {
        let first = self.numbers.first();
        first.is_some_and(|count| self.numbers.len() as u64 == 1 + 2 * count)
    }

    /// What it says.
    ///
    /// # Errors
    /// [`Refusal::Sparse`].
    pub(crate) fn chunks(&self) -> Result<Vec<Chunk>, Refusal> {
        of_numbers(self.numbers.get(1..).unwrap_or_default())
    }
}

/// Parts in order that lie in a file of `size` bytes, and are all of the `stored` ones.
///
/// # Errors
/// [`Refusal::Sparse`].
pub(crate) fn check(chunks: &[Chunk], size: u64, stored: u64) -> Result<(), Refusal> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for chunk in chunks {
        if chunk.offset < end {
            return Err(Refusal::Sparse("parts overlap"));
        }
        let past = Refusal::Sparse("a part lies behind the end of the file");
        end = chunk.offset.checked_add(chunk.len).ok_or(past.clone())?;
        if end > size {
            return Err(past);
        }
        // Cannot overflow: the parts do not overlap, and lie below `size`.
        sum += chunk.len;
    }
    if sum != stored {
        return Err(Refusal::Sparse("it is about more or less than there is"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, len: u64) -> Chunk {
        Chunk { offset, len }
    }

    #[test]
    fn a_map_has_to_fit_the_file() {
        let good = [chunk(0, 5), chunk(10, 5), chunk(20, 0)];
        assert_eq!(check(&good, 20, 10), Ok(()));
        assert!(check(&good, 19, 10).is_err(), "behind the end");
        assert!(check(&good, 20, 11).is_err(), "less than there is");
        assert!(check(&[chunk(0, 5), chunk(4, 1)], 9, 6).is_err(), "overlap");
        assert!(
            check(&[chunk(1, u64::MAX)], u64::MAX, 0).is_err(),
            "overflow"
        );
        assert_eq!(check(&[], u64::MAX, 0), Ok(()), "a hole");
        assert!(of_numbers(&[1, 2, 3]).is_err());
        assert_eq!(of_numbers(&[1, 2]), Ok(vec![chunk(1, 2)]));
    }

    #[test]
    fn a_map_of_lines_ends_where_it_says() {
        let block = |text: &str| {
            let mut block = [0; BLOCK];
            block[..text.len()].copy_from_slice(text.as_bytes());
            block
        };
        let mut map = LineMap::default();
        assert_eq!(map.block(&block("2\n0\n5\n10\n5\n")), Ok(true));
        assert_eq!(map.chunks(), Ok(vec![chunk(0, 5), chunk(10, 5)]));
        let mut empty = LineMap::default();
        assert_eq!(empty.block(&block("0\n")), Ok(true));
        assert_eq!(empty.chunks(), Ok(Vec::new()));
        for bad in [
            "",
            "x\n",
            "-1\n",
            "70000\n",
            "1\n0\n\n",
            "123456789012345678901234\n",
        ] {
            assert!(LineMap::default().block(&block(bad)).is_err(), "{bad:?}");
        }
    }
}
