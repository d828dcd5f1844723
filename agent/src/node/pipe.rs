//! Between code that blocks and a conversation that does not: pieces that are read, and pieces that are
//! written.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Pieces that wait.
const AHEAD: usize = 4;

/// Pieces that come, as a reader. For threads that may block.
#[derive(Debug)]
pub(super) struct PipeReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl PipeReader {
    pub(super) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        let rest = Bytes::new();
        Self { pieces, rest }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let len = self.rest.len().min(buf.len());
        self.rest.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

/// Pieces for somebody else, as a writer. For threads that may block. Dropped before
/// [`PipeWriter::finish`], the last piece is an error: a part is not taken for the whole.
#[derive(Debug)]
pub(super) struct PipeWriter {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
    over: bool,
}

impl PipeWriter {
    pub(super) fn new() -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (pieces, receiver) = mpsc::channel(AHEAD);
        let writer = Self {
            pieces,
            piece: BytesMut::with_capacity(PIECE),
            over: false,
        };
        (writer, receiver)
    }

    /// All was written.
    pub(super) fn finish(mut self) {
        if self.flush().is_ok() {
            self.over = true;
        }
    }

    /// There is no more, and why.
    pub(super) fn fail(mut self, error: io::Error) {
        self.over = true;
        // Who does not listen any more need not know.
        drop(self.pieces.blocking_send(Err(error)));
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = buf.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buf[..len]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE));
        let sent = self.pieces.blocking_send(Ok(piece.freeze()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        if !self.over {
            let error = io::Error::other("what was written broke off");
            drop(self.pieces.blocking_send(Err(error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut writer, pieces) = PipeWriter::new();
        let content: Vec<u8> = (0..5 * PIECE + 17).map(|n| (n % 251) as u8).collect();
        let sent = content.clone();
        let thread = std::thread::spawn(move || {
            for part in sent.chunks(777) {
                writer.write_all(part).expect("a reader");
            }
            writer.finish();
        });
        let mut read = Vec::new();
        PipeReader::new(pieces)
            .read_to_end(&mut read)
            .expect("all of it");
        thread.join().expect("written");
        assert!(read == content, "{} bytes", read.len());
    }

    #[test]
    fn a_part_is_never_the_whole() {
        for fails in [true, false] {
            let (mut writer, pieces) = PipeWriter::new();
            writer.write_all(b"half").expect("room");
            let thread = std::thread::spawn(move || {
                if fails {
                    writer.fail(io::Error::other("the disk"));
                }
            });
            let mut read = Vec::new();
            let error = PipeReader::new(pieces).read_to_end(&mut read).unwrap_err();
            let says = if fails { "the disk" } else { "broke off" };
            assert!(error.to_string().contains(says), "{error}");
            thread.join().expect("ended");
        }
        let (mut writer, pieces) = PipeWriter::new();
        drop(pieces);
        let error = writer.write_all(&[0; 2 * PIECE]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
