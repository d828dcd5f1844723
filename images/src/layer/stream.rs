//! The bytes of an archive from its compressed ones: counted, bounded, and their digest taken.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::Refusal;
use super::limits::Limits;
use crate::digest::{Digest, Hasher};

/// Bytes that are read from below at once.
const BUFFER: usize = 128 << 10;

/// RFC 1952 section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// RFC 8878 section 3.1.1.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What is below, with the bytes that were looked at first.
type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, Counted<R>>>;

/// Counts what is read.
struct Counted<R> {
    from: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// By what the first bytes are: names of media types are not always right, as Docker knows.
enum Decoder<R: Read> {
    Plain(Source<R>),
    /// Of several members, as pigz and eStargz write them.
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    /// Of several frames. Its window is 128 MiB at most, the library's own limit.
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

/// The uncompressed bytes of an archive.
pub(crate) struct Stream<R: Read> {
    from: Decoder<R>,
    hasher: Hasher,
    bytes: u64,
    limit: u64,
    ratio: u64,
    ratio_from: u64,
}

impl<R: Read> Stream<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// The reader's.
    pub(crate) fn open(from: R, limits: &Limits) -> io::Result<Self> {
        let mut counted = Counted { from, bytes: 0 };
        let mut head = Vec::with_capacity(ZSTD.len());
        (&mut counted)
            .take(ZSTD.len() as u64)
            .read_to_end(&mut head)?;
        let gzip = head.starts_with(&GZIP);
        let zstd = head.starts_with(&ZSTD) || is_skippable(&head);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(counted));
        let from = if gzip {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if zstd {
            Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?))
        } else {
            Decoder::Plain(source)
        };
        Ok(Self {
            from,
            hasher: Hasher::new(),
            bytes: 0,
            limit: limits.bytes,
            ratio: limits.ratio,
            ratio_from: limits.ratio_from,
        })
    }

    /// Compressed bytes that were read.
    fn compressed(&self) -> u64 {
        let source = match &self.from {
            Decoder::Plain(source) => source,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
        };
        source.get_ref().get_ref().1.bytes
    }

    /// The digest of what was read, and how many bytes that were.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

/// A frame to be skipped may be the first one. RFC 8878 section 3.1.2.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [first, 0x2a, 0x4d, 0x18] if first & 0xf0 == 0x50)
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.from {
            Decoder::Plain(from) => from.read(into),
            Decoder::Gzip(from) => from.read(into),
            Decoder::Zstd(from) => from.read(into),
        }?;
        self.hasher.update(&into[..read]);
        self.bytes += read as u64;
        if self.bytes > self.limit {
            return Err(io::Error::other(Refusal::Bytes(self.limit)));
        }
        if self.bytes > self.ratio_from && self.bytes / self.ratio > self.compressed() {
            return Err(io::Error::other(Refusal::Bomb(self.ratio)));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 1).expect("compressed")
    }

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let one = into.len().min(1);
            self.0.read(&mut into[..one])
        }
    }

    fn read(bytes: &[u8], limits: &Limits) -> io::Result<(Vec<u8>, Digest)> {
        let mut stream = Stream::open(Slow(bytes), limits)?;
        let mut out = Vec::new();
        stream.read_to_end(&mut out)?;
        let (digest, count) = stream.finish();
        assert_eq!(count, out.len() as u64);
        Ok((out, digest))
    }

    #[test]
    fn each_way_of_compression_gives_the_same_bytes_and_digest() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (first, second) = text.split_at(5000);
        let skippable = [
            &[0x5e_u8, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2][..],
            &zstd(&text),
        ]
        .concat();
        let all = [
            text.clone(),
            gzip(&text),
            [gzip(first), gzip(second)].concat(),
            zstd(&text),
            [zstd(first), zstd(second)].concat(),
            skippable,
        ];
        for bytes in all {
            let (out, digest) = read(&bytes, &Limits::default()).expect("read");
            assert!(out == text);
            assert_eq!(digest, Digest::of(&text));
        }
        for short in [&b""[..], b"a", b"\x1f"] {
            assert_eq!(read(short, &Limits::default()).expect("read").0, short);
        }
        let cut = gzip(&text);
        read(&cut[..cut.len() / 2], &Limits::default()).expect_err("cut off");
        let cut = zstd(&text);
        read(&cut[..cut.len() / 2], &Limits::default()).expect_err("cut off");
    }

    #[test]
    fn a_bomb_and_a_large_archive_are_ended() {
        let zeros = vec![0; 8 << 20];
        // The quickest level makes one byte of some 150.
        let limits = Limits {
            ratio: 20,
            ratio_from: 1 << 20,
            ..Limits::default()
        };
        for bomb in [gzip(&zeros), zstd(&zeros)] {
            let error = read(&bomb, &limits).expect_err("a bomb");
            assert!(error.to_string().contains("decompression bomb"), "{error}");
        }
        read(&zeros, &limits).expect("as large as it says");
        let limits = Limits {
            bytes: 1 << 20,
            ..Limits::default()
        };
        for large in [zeros.clone(), gzip(&zeros), zstd(&zeros)] {
            let error = read(&large, &limits).expect_err("too large");
            assert!(error.to_string().contains("1048576 bytes"), "{error}");
        }
    }
}
