//! The output of a task as lines, with the moment of each, in the order of time; also while the task
//! writes more.
//!
//! Reads what [`crate::output`] writes. All calls block for as long as the disk does.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::output::{NAMES, TIME_BYTES, older, times};

/// Bytes of a line at most; what is longer comes in several.
pub const MAX_LINE: usize = 16 << 10;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its first byte came: Unix nanoseconds.
    pub time: u64,
    /// Of which stream: an index of [`NAMES`].
    pub stream: usize,
    /// Without its end.
    pub text: Vec<u8>,
}

/// A file of output that is read, whatever name it gets meanwhile.
#[derive(Debug)]
struct Open {
    text: File,
    /// Absent where the shim of an earlier version wrote none.
    times: Option<File>,
    /// Bytes of it that were read.
    read: u64,
    /// Records that were read.
    records: u64,
    /// Of the last record that counts already.
    now: u64,
    /// The one after it.
    next: Option<(u64, u64)>,
}

impl Open {
    /// Nothing where there is no such file.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let open = |path: &Path| match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        let Some(text) = open(path)? else {
            return Ok(None);
        };
        let times = open(&times(path))?;
        // Until there is a record: no line is younger than the last one.
        let written = text.metadata()?.modified()?.duration_since(UNIX_EPOCH);
        let written = written.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        Ok(Some(Self {
            text,
            times,
            read: 0,
            records: 0,
            now: written,
            next: None,
        }))
    }

    fn is(&self, path: &Path) -> io::Result<bool> {
        let ours = self.text.metadata()?;
        match std::fs::metadata(path) {
            Ok(other) => Ok((ours.dev(), ours.ino()) == (other.dev(), other.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// When the byte at this offset came; offsets do not go back.
    fn time_of(&mut self, offset: u64) -> io::Result<u64> {
        loop {
            if self.next.is_none() {
                self.next = self.record()?;
            }
            match self.next {
                Some((from, time)) if from <= offset => {
                    self.now = time;
                    self.next = None;
                }
                _ => return Ok(self.now),
            }
        }
    }

    fn record(&mut self) -> io::Result<Option<(u64, u64)>> {
        let Some(times) = &self.times else {
            return Ok(None);
        };
        let mut record = [0; TIME_BYTES];
        match times.read_exact_at(&mut record, self.records * TIME_BYTES as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        self.records += 1;
        let (mut offset, mut time) = ([0; 8], [0; 8]);
        offset.copy_from_slice(&record[..8]);
        time.copy_from_slice(&record[8..]);
        Ok(Some((u64::from_le_bytes(offset), u64::from_le_bytes(time))))
    }
}

/// One stream.
#[derive(Debug)]
struct Stream {
    path: PathBuf,
    index: usize,
    open: Option<Open>,
    /// A line that has no end yet, and when it began.
    begun: Vec<u8>,
    since: u64,
    lines: VecDeque<Line>,
    /// There was no more of it at the last look.
    dry: bool,
}

impl Stream {
    fn new(path: PathBuf, index: usize) -> Self {
        Self {
            path,
            index,
            open: None,
            begun: Vec::new(),
            since: 0,
            lines: VecDeque::new(),
            dry: false,
        }
    }

    /// Has a line at hand, if there is one; with `all` also one without an end.
    fn fill(&mut self, all: bool) -> io::Result<()> {
        let mut buffer = Vec::new();
        while self.lines.is_empty() {
            if self.open.is_none() {
                let before = Open::at(&older(&self.path))?;
                self.open = match before {
                    Some(before) => Some(before),
                    None => Open::at(&self.path)?,
                };
            }
            let Some(open) = &mut self.open else { break };
            buffer.resize(READ_BYTES, 0);
            let mut len = open.text.read_at(&mut buffer, open.read)?;
            if len == 0 {
                if open.is(&self.path)? {
                    break;
                }
                // It has had a successor since; what came before that is read.
                len = open.text.read_at(&mut buffer, open.read)?;
                if len == 0 {
                    let Some(next) = self.successor()? else {
                        break;
                    };
                    self.open = Some(next);
                    continue;
                }
            }
            self.take(&buffer[..len])?;
        }
        if all && self.lines.is_empty() && !self.begun.is_empty() {
            self.push();
        }
        Ok(())
    }

    /// The file after the one that is open: the newest, or where two came meanwhile, the one before it.
    fn successor(&self) -> io::Result<Option<Open>> {
        let older = older(&self.path);
        let is_older = match &self.open {
            Some(open) => open.is(&older)?,
            None => false,
        };
        if !is_older && let Some(before) = Open::at(&older)? {
            return Ok(Some(before));
        }
        Open::at(&self.path)
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if self.begun.is_empty() {
                self.since = self.time()?;
            }
            for part in text.chunks(MAX_LINE) {
                if self.begun.len() + part.len() > MAX_LINE {
                    self.push();
                    self.since = self.time()?;
                }
                self.begun.extend_from_slice(part);
            }
            if ends {
                self.push();
            }
            if let Some(open) = &mut self.open {
                open.read += piece.len() as u64;
            }
        }
        Ok(())
    }

    /// When what is taken next came.
    fn time(&mut self) -> io::Result<u64> {
        match &mut self.open {
            Some(open) => open.time_of(open.read),
            None => Ok(0),
        }
    }

    fn push(&mut self) {
        self.lines.push_back(Line {
            time: self.since,
            stream: self.index,
            text: std::mem::take(&mut self.begun),
        });
    }
}

/// All output of a task that there is, in the order of time.
#[derive(Debug)]
pub struct Lines {
    streams: [Stream; 2],
}

impl Lines {
    /// Of the task with this folder, from the first line that is kept.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let [stdout, stderr] = NAMES.map(|name| dir.join(name));
        Self {
            streams: [Stream::new(stdout, 0), Stream::new(stderr, 1)],
        }
    }

    /// When the next line came; nothing while there is none. A line without an end counts with `all`
    /// only: for a task that has ended, or a reader who does not wait.
    ///
    /// # Errors
    /// The disk's.
    pub fn next_time(&mut self, all: bool) -> io::Result<Option<u64>> {
        // One that says nothing is looked at again when the other one has to be, not for each line.
        let lacks = |stream: &Stream| stream.lines.is_empty();
        let mut streams = self.streams.iter();
        if streams.any(|s| lacks(s) && !s.dry) || self.streams.iter().all(lacks) {
            for stream in &mut self.streams {
                stream.fill(all)?;
                stream.dry = stream.lines.is_empty() && stream.begun.is_empty();
            }
        }
        let heads = self.streams.iter().filter_map(|s| s.lines.front());
        Ok(heads.map(|line| line.time).min())
    }

    /// The next line, likewise.
    ///
    /// # Errors
    /// The disk's.
    pub fn next(&mut self, all: bool) -> io::Result<Option<Line>> {
        let Some(time) = self.next_time(all)? else {
            return Ok(None);
        };
        let mut streams = self.streams.iter_mut();
        let first = streams.find(|s| s.lines.front().is_some_and(|line| line.time == time));
        Ok(first.and_then(|stream| stream.lines.pop_front()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Log;

    const SECOND: u64 = 1_000_000_000;

    fn texts(lines: &mut Lines, all: bool) -> Vec<(u64, usize, String)> {
        let mut found = Vec::new();
        while let Some(line) = lines.next(all).expect("read") {
            let text = String::from_utf8(line.text).expect("text");
            found.push((line.time / SECOND, line.stream, text));
        }
        found
    }

    #[test]
    fn both_streams_come_in_the_order_of_time() {
        let dir = tempfile::tempdir().expect("dir");
        let mut logs = NAMES.map(|name| Log::open(dir.path().join(name), 1 << 20));
        logs[0].write(b"one\ntwo\nthr", SECOND);
        logs[1].write(b"oh\n", 2 * SECOND);
        logs[0].write(b"ee\nfo", 3 * SECOND);
        let mut lines = Lines::of(dir.path());
        let row = |time, stream, text: &str| (time, stream, text.to_owned());
        let told = [
            row(1, 0, "one"),
            row(1, 0, "two"),
            row(1, 0, "three"),
            row(2, 1, "oh"),
        ];
        assert_eq!(texts(&mut lines, false), told);
        logs[0].write(b"ur\n", 4 * SECOND);
        logs[1].write(b"end", 5 * SECOND);
        assert_eq!(texts(&mut lines, false), [row(3, 0, "four")]);
        assert_eq!(texts(&mut lines, true), [row(5, 1, "end")]);
        assert!(texts(&mut lines, true).is_empty());
    }

    #[test]
    fn a_stream_that_says_nothing_for_long_is_heard_again() {
        let dir = tempfile::tempdir().expect("dir");
        let mut logs = NAMES.map(|name| Log::open(dir.path().join(name), 1 << 20));
        let mut lines = Lines::of(dir.path());
        let row = |time, stream, text: &str| (time, stream, text.to_owned());
        for second in 1..20 {
            logs[0].write(b"a\nb\n", second * SECOND);
            let first = lines.next(false).expect("read").expect("a line");
            assert_eq!(first.text, b"a");
            if second % 5 == 0 {
                logs[1].write(b"oh\n", second * SECOND);
            }
            let told = texts(&mut lines, false);
            assert_eq!(told[0], row(second, 0, "b"));
            let oh = (second % 5 == 0).then(|| row(second, 1, "oh"));
            assert_eq!(told.get(1), oh.as_ref());
        }
    }

    #[test]
    fn a_reader_follows_files_that_are_full() {
        let dir = tempfile::tempdir().expect("dir");
        let mut log = Log::open(dir.path().join(NAMES[0]), 4000);
        let mut lines = Lines::of(dir.path());
        let mut read = Vec::new();
        for n in 0..2000 {
            log.write(format!("line {n}\n").as_bytes(), n * SECOND);
            if n % 7 == 0 {
                read.extend(texts(&mut lines, false));
            }
        }
        read.extend(texts(&mut lines, false));
        let all: Vec<(u64, usize, String)> =
            (0..2000).map(|n| (n, 0, format!("line {n}"))).collect();
        assert_eq!(read, all);
        // Who comes late has what is kept.
        let late = texts(&mut Lines::of(dir.path()), false);
        assert!(late.len() > 50 && all.ends_with(&late), "{}", late.len());
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_several() {
        let dir = tempfile::tempdir().expect("dir");
        let mut log = Log::open(dir.path().join(NAMES[1]), 1 << 20);
        log.write(&vec![b'x'; MAX_LINE * 2 + 5], SECOND);
        log.write(b"y\n", 2 * SECOND);
        let found = texts(&mut Lines::of(dir.path()), false);
        let lengths: Vec<_> = found.iter().map(|(_, _, text)| text.len()).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE, 6]);
    }

    #[test]
    fn output_without_times_has_that_of_its_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join(NAMES[0]);
        std::fs::write(&path, "old\n").expect("write");
        let at = UNIX_EPOCH + std::time::Duration::from_secs(77);
        let file = File::options().write(true).open(path).expect("open");
        file.set_modified(at).expect("time");
        let found = texts(&mut Lines::of(dir.path()), false);
        assert_eq!(found, [(77, 0, "old".to_owned())]);
    }
}
