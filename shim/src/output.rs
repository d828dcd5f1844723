//! The output of a task: two files for each stream, bounded as they are written.
//!
//! `NAME` holds what came last, `NAME.1` what came before. Beside each lies when it came, `NAME.times`
//! and `NAME.1.times`: records of 16 bytes, from which offset on, and when in Unix nanoseconds, both
//! little-endian. A file and its times are half of the limit at most, and full ones take the place of
//! the older, so all together never exceed the limit. [`crate::lines`] reads them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use weft_sys::error_text::without_numbers;

/// Standard output and standard error, as files in the task's folder.
pub const NAMES: [&str; 2] = ["stdout.log", "stderr.log"];

/// The most that is written at once, in bytes.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of a record of when output came.
pub(crate) const TIME_BYTES: usize = 16;

/// What came within so many nanoseconds after a record has that one's time: a millisecond.
const SAME_TIME: u64 = 1_000_000;

/// Unix nanoseconds.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

/// Reads what is there of an output that does not block; false when there was nothing. One that was closed
/// by the other side, which may go on without, is none any more.
pub(crate) fn read_once(
    output: &mut Option<File>,
    buffer: &mut [u8],
    take: impl FnOnce(&[u8]),
) -> bool {
    match output.as_mut().map(|output| output.read(buffer)) {
        Some(Ok(len @ 1..)) => {
            take(&buffer[..len]);
            true
        }
        Some(Err(error)) => {
            let later = matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            );
            if !later {
                *output = None;
            }
            false
        }
        _ => {
            *output = None;
            false
        }
    }
}

/// What came before the newest, beside a stream's file.
pub(crate) fn older(path: &Path) -> PathBuf {
    beside(path, ".1")
}

/// When the output in a file came.
pub(crate) fn times(path: &Path) -> PathBuf {
    beside(path, ".times")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// The newest output, and when it came.
#[derive(Debug)]
struct Files {
    text: File,
    /// Bytes in it.
    len: u64,
    times: File,
    /// Bytes in that.
    times_len: u64,
    /// The last record, of this life of the shim.
    last: Option<u64>,
}

impl Files {
    fn open(path: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
        };
        let (text, times) = (open(path)?, open(&times(path))?);
        Ok(Self {
            len: text.metadata()?.len(),
            times_len: times.metadata()?.len(),
            text,
            times,
            last: None,
        })
    }

    /// Before the bytes: who reads those finds it.
    fn note(&mut self, now: u64) -> io::Result<()> {
        let known = self.last.is_some_and(|last| now.abs_diff(last) < SAME_TIME);
        if known {
            return Ok(());
        }
        let mut record = [0; TIME_BYTES];
        record[..8].copy_from_slice(&self.len.to_le_bytes());
        record[8..].copy_from_slice(&now.to_le_bytes());
        let written = self.times.write_all(&record);
        let whole = TIME_BYTES as u64;
        if written.is_err() {
            // A part of one would shift all that follow.
            self.times.set_len(self.times_len)?;
        } else {
            self.times_len += whole;
            self.last = Some(now);
        }
        written
    }

    fn append(&mut self, bytes: &[u8], now: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.note(now)?;
        let written = self.text.write_all(bytes);
        // A disk that fills up takes a part.
        self.len = match (&written, self.text.metadata()) {
            (Err(_), Ok(metadata)) => metadata.len(),
            _ => self.len + bytes.len() as u64,
        };
        written
    }
}

/// One stream's files. A disk that does not take them costs output and nothing else.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    files: Option<Files>,
    half: u64,
    /// Bytes that could not be written, and why, until the log says so.
    lost: Option<(u64, io::Error)>,
}

impl Log {
    /// Both streams of the task of a folder.
    pub(crate) fn of_task(dir: &Path, limit_bytes: u64) -> [Self; 2] {
        NAMES.map(|name| Self::open(dir.join(name), limit_bytes))
    }

    /// Goes on with what an earlier attempt to run the task left.
    pub(crate) fn open(path: PathBuf, limit_bytes: u64) -> Self {
        let mut log = Self {
            path,
            files: None,
            half: limit_bytes / 2,
            lost: None,
        };
        if let Err(error) = log.opened() {
            log.lost = Some((0, error));
        }
        log
    }

    /// Takes what the task wrote, [`CHUNK_BYTES`] at most, and when: Unix nanoseconds.
    pub(crate) fn write(&mut self, bytes: &[u8], now: u64) {
        if let Some((lost, why)) = &self.lost {
            let why = without_numbers(&why.to_string());
            let note = format!("[weft-shim: {lost} bytes of output were lost: {why}]\n");
            match self.try_write(note.as_bytes(), now) {
                Ok(()) => self.lost = None,
                Err(_) => return self.lose(bytes.len()),
            }
        }
        if let Err((left, error)) = self.try_write(bytes, now) {
            self.lost = Some((0, error));
            self.lose(left);
        }
    }

    /// Everything, or how much of it was not written.
    fn try_write(&mut self, bytes: &[u8], now: u64) -> Result<(), (usize, io::Error)> {
        let all = |error| (bytes.len(), error);
        let half = self.half;
        let files = self.opened().map_err(all)?;
        let used = files.len + files.times_len + TIME_BYTES as u64;
        let room = usize::try_from(half.saturating_sub(used)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return files.append(bytes, now).map_err(all);
        }
        // Lines stay whole where there are any.
        let line_end = bytes[..room].iter().rposition(|b| *b == b'\n');
        let (first, later) = bytes.split_at(line_end.map_or(0, |at| at + 1));
        files.append(first, now).map_err(all)?;
        let rest = |error| (later.len(), error);
        self.rotate().map_err(rest)?;
        let files = self.opened().map_err(rest)?;
        files.append(later, now).map_err(rest)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.files = None;
        let older = older(&self.path);
        // First: a reader takes the times of a file before it sees its successor.
        std::fs::rename(times(&self.path), times(&older))?;
        std::fs::rename(&self.path, older)
    }

    fn opened(&mut self) -> io::Result<&mut Files> {
        match &mut self.files {
            Some(files) => Ok(files),
            none => Ok(none.insert(Files::open(&self.path)?)),
        }
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

    fn len(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |m| m.len())
    }

    fn all(path: &Path) -> u64 {
        let files = [path.to_owned(), older(path)];
        files.iter().map(|file| len(file) + len(&times(file))).sum()
    }

    #[test]
    fn both_files_together_never_exceed_the_limit() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("o");
        let mut log = Log::open(path.clone(), 1000);
        let mut text = String::new();
        for line in 0..500 {
            let line = format!("line {line}\n");
            log.write(line.as_bytes(), 7);
            text.push_str(&line);
            assert!(all(&path) <= 1000);
        }
        let kept = std::fs::read_to_string(older(&path)).expect("older")
            + &std::fs::read_to_string(&path).expect("newer");
        assert!(kept.len() > 500, "{}", kept.len());
        assert!(text.ends_with(&kept) && kept.starts_with("line "), "{kept}");
        // The next attempt to run the task goes on with the same files.
        let mut log = Log::open(path.clone(), 1000);
        log.write(&[b'x'; 400], 7);
        assert!(all(&path) <= 1000);
        log.write(b"\nend\n", 7);
        let newer = std::fs::read_to_string(&path).expect("newer");
        assert!(newer.ends_with("x\nend\n"), "{newer}");
    }

    #[test]
    fn records_of_time_count_towards_the_limit() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("o");
        let mut log = Log::open(path.clone(), 1000);
        for second in 0..1000 {
            log.write(b".", second * 1_000_000_000);
            assert!(all(&path) <= 1000, "{second}");
        }
        // Seventeen bytes each, in two halves.
        assert!(len(&older(&path)) >= 28);
    }

    #[test]
    fn one_record_larger_than_half_is_written_whole() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("o");
        let mut log = Log::open(path.clone(), 1000);
        log.write(b"short\n", 7);
        log.write(&[b'y'; 700], 7);
        assert_eq!(len(&path), 700);
        log.write(&[b'z'; 10], 7);
        assert_eq!((len(&path), len(&dir.path().join("o.1"))), (10, 700));
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_output_and_says_so_once() {
        let dir = tempfile::tempdir().expect("dir");
        // No such folder yet: nothing can be written.
        let path = dir.path().join("later/o");
        let mut log = Log::open(path.clone(), 1000);
        log.write(b"12345", 7);
        log.write(b"678", 7);
        std::fs::create_dir(dir.path().join("later")).expect("room again");
        log.write(b"after\n", 7);
        log.write(b"and on\n", 7);
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(
            text,
            "[weft-shim: 8 bytes of output were lost: No such file or directory]\n\
             after\nand on\n"
        );
    }
}
