//! The output of a task: two files for each stream, bounded as they are written.
//!
//! `NAME` holds what came last, `NAME.1` what came before. Each is half of the limit at most, and a
//! full one takes the place of the older, so both together never exceed the limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Standard output and standard error, as files in the task's folder.
pub const NAMES: [&str; 2] = ["stdout.log", "stderr.log"];

/// The most that is written at once, in bytes.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// One stream's files. A disk that does not take them costs output and nothing else.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    /// Bytes in the current file.
    len: u64,
    half: u64,
    /// Bytes that could not be written, and why, until the log says so.
    lost: Option<(u64, io::Error)>,
}

impl Log {
    /// Goes on with what an earlier attempt to run the task left.
    pub(crate) fn open(path: PathBuf, limit_bytes: u64) -> Self {
        let mut log = Self {
            path,
            file: None,
            len: 0,
            half: limit_bytes / 2,
            lost: None,
        };
        if let Err(error) = log.reopen() {
            log.lost = Some((0, error));
        }
        log
    }

    /// Takes what the task wrote, [`CHUNK_BYTES`] at most.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if let Some((lost, why)) = &self.lost {
            let note = format!("[weft-shim: {lost} bytes of output were lost: {why}]\n");
            match self.try_write(note.as_bytes()) {
                Ok(()) => self.lost = None,
                Err(_) => return self.lose(bytes.len()),
            }
        }
        if let Err((left, error)) = self.try_write(bytes) {
            self.lost = Some((0, error));
            self.lose(left);
        }
    }

    /// Everything, or how much of it was not written.
    fn try_write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let all = |error| (bytes.len(), error);
        let room = usize::try_from(self.half.saturating_sub(self.len)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return self.append(bytes).map_err(all);
        }
        // Lines stay whole where there are any.
        let line_end = bytes[..room].iter().rposition(|b| *b == b'\n');
        let (now, later) = bytes.split_at(line_end.map_or(0, |at| at + 1));
        self.append(now).map_err(all)?;
        let rest = |error| (later.len(), error);
        self.rotate().map_err(rest)?;
        self.append(later).map_err(rest)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let written = file.write_all(bytes);
        // A disk that fills up takes a part.
        self.len = match (&written, file.metadata()) {
            (Err(_), Ok(metadata)) => metadata.len(),
            _ => self.len + bytes.len() as u64,
        };
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        self.len = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn lose(&mut self, bytes: usize) {
        if let Some((lost, _)) = &mut self.lost {
            *lost += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len(path: &std::path::Path) -> u64 {
        std::fs::metadata(path).map_or(0, |m| m.len())
    }

    #[test]
    fn both_files_together_never_exceed_the_limit() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, older) = (dir.path().join("o"), dir.path().join("o.1"));
        let mut log = Log::open(path.clone(), 1000);
        let mut text = String::new();
        for line in 0..500 {
            let line = format!("line {line}\n");
            log.write(line.as_bytes());
            text.push_str(&line);
            assert!(len(&path) + len(&older) <= 1000);
        }
        let kept = std::fs::read_to_string(&older).expect("older")
            + &std::fs::read_to_string(&path).expect("newer");
        assert!(kept.len() > 500, "{}", kept.len());
        assert!(text.ends_with(&kept) && kept.starts_with("line "), "{kept}");
        // The next attempt to run the task goes on with the same files.
        let mut log = Log::open(path.clone(), 1000);
        log.write(&[b'x'; 400]);
        assert!(len(&path) + len(&older) <= 1000);
        log.write(b"\nend\n");
        let newer = std::fs::read_to_string(&path).expect("newer");
        assert!(newer.ends_with("x\nend\n"), "{newer}");
    }

    #[test]
    fn one_record_larger_than_half_is_written_whole() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("o");
        let mut log = Log::open(path.clone(), 1000);
        log.write(b"short\n");
        log.write(&[b'y'; 700]);
        assert_eq!(len(&path), 700);
        log.write(&[b'z'; 10]);
        assert_eq!((len(&path), len(&dir.path().join("o.1"))), (10, 700));
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_output_and_says_so_once() {
        let dir = tempfile::tempdir().expect("dir");
        // No such folder yet: nothing can be written.
        let path = dir.path().join("later/o");
        let mut log = Log::open(path.clone(), 1000);
        log.write(b"12345");
        log.write(b"678");
        std::fs::create_dir(dir.path().join("later")).expect("room again");
        log.write(b"after\n");
        log.write(b"and on\n");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(
            text,
            "[weft-shim: 8 bytes of output were lost: No such file or directory (os error 2)]\n\
             after\nand on\n"
        );
    }
}
