//! Programs inside of tasks: what is asked for, and the frames that go both ways.
//!
//! A frame is its kind, one byte, its length, four bytes with the highest first, and so many bytes.

use serde::{Deserialize, Serialize};

/// Bytes of a frame at most, without its head.
pub const MAX_FRAME: usize = 128 << 10;

const HEAD: usize = 5;

/// `weft exec`: what to run, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=value`, beside the environment of the task.
    pub env: Vec<String>,
    /// `NAME|UID[:GROUP|GID]`; that of the task when empty.
    pub user: String,
    /// Working directory; `/` when empty.
    pub dir: String,
    /// Standard input is passed on; else it is empty.
    pub input: bool,
    /// It has a terminal: columns and rows.
    pub terminal: Option<(u16, u16)>,
}

/// What one side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What to run: the first one that a user sends.
    Begin(Exec),
    /// For standard input; empty at its end.
    Input(Vec<u8>),
    /// The user's terminal has so many columns and rows.
    Resize(u16, u16),
    /// Of standard output, or the terminal.
    Output(Vec<u8>),
    /// Of standard error.
    Error(Vec<u8>),
    /// It has ended, with the code that a shell would show: the last frame.
    Exit(u8),
    /// It was not started; code and reason: the last frame.
    Failed(u8, String),
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a frame that nobody knows, of kind {kind} with {length} bytes: are both sides of the same version?"
)]
pub struct BadFrame {
    kind: u8,
    length: usize,
}

impl Frame {
    /// As it goes over a connection.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Begin(exec) => frame(0, &serde_json::to_vec(exec).unwrap_or_default()),
            Self::Input(bytes) => frame(1, bytes),
            Self::Resize(columns, rows) => {
                let [a, b] = columns.to_be_bytes();
                let [c, d] = rows.to_be_bytes();
                frame(2, &[a, b, c, d])
            }
            Self::Output(bytes) => frame(3, bytes),
            Self::Error(bytes) => frame(4, bytes),
            Self::Exit(code) => frame(5, &[*code]),
            Self::Failed(code, why) => frame(6, &[&[*code], why.as_bytes()].concat()),
        }
    }

    fn read(kind: u8, bytes: &[u8]) -> Option<Self> {
        Some(match (kind, bytes) {
            (0, json) => Self::Begin(serde_json::from_slice(json).ok()?),
            (1, bytes) => Self::Input(bytes.to_vec()),
            (2, &[a, b, c, d]) => {
                Self::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            (3, bytes) => Self::Output(bytes.to_vec()),
            (4, bytes) => Self::Error(bytes.to_vec()),
            (5, &[code]) => Self::Exit(code),
            (6, &[code, ref why @ ..]) => {
                Self::Failed(code, String::from_utf8_lossy(why).into_owned())
            }
            _ => return None,
        })
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut frame = vec![kind];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Frames out of pieces that end anywhere.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// Takes a piece.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// What follows is none.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some((&[kind, a, b, c, d], rest)) = self.0.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let bad = BadFrame { kind, length };
        if length > MAX_FRAME {
            return Err(bad);
        }
        let Some(bytes) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::read(kind, bytes).ok_or(bad)?;
        self.0.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whatever_the_pieces() {
        let exec = Exec {
            args: vec!["sh".to_owned(), "-c".to_owned(), "\u{fc}".to_owned()],
            terminal: Some((80, 24)),
            ..Exec::default()
        };
        let frames = [
            Frame::Begin(exec),
            Frame::Input(vec![0, 255, 3]),
            Frame::Input(Vec::new()),
            Frame::Resize(200, 50),
            Frame::Output(vec![b'x'; 70_000]),
            Frame::Error(b"oops".to_vec()),
            Frame::Exit(137),
            Frame::Failed(127, "no such program".to_owned()),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        for length in [1, 5, 1000, bytes.len()] {
            let (mut reader, mut read) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(length) {
                reader.add(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames, "{length}");
        }
    }

    #[test]
    fn what_is_no_frame_is_told() {
        for bytes in [
            &[9, 0, 0, 0, 0][..],
            &[1, 255, 0, 0, 0],
            &[2, 0, 0, 0, 1, 7],
            &[0, 0, 0, 0, 1, b'{'],
        ] {
            let mut reader = Frames::default();
            reader.add(bytes);
            assert!(reader.next_frame().is_err(), "{bytes:?}");
        }
    }
}
