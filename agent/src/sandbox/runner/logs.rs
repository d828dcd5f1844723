//! Keeping the output of tasks bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{RunError, Runner};

pub(super) const LOGS: [&str; 2] = ["stdout.log", "stderr.log"];
/// A log longer than this is trimmed…
const MAX_LEN: u64 = 10 << 20;
/// … to about this length.
const KEPT_LEN: u64 = 5 << 20;

impl Runner {
    /// Shortens every log over 10 MiB to its last 5 MiB, also those of running tasks. To be called
    /// about once a minute; blocks for some milliseconds per trimmed log.
    ///
    /// The end of the file is copied over its beginning and the rest cut off. Tasks go on writing
    /// to the same file, because it is opened for appending; what one writes in the instant between
    /// the end of the copy and the cut is lost.
    ///
    /// # Errors
    /// [`RunError::File`], the first one; the other logs are trimmed all the same.
    pub fn trim_logs(&self) -> Result<(), RunError> {
        let mut result = Ok(());
        for task in self.folders()? {
            result = result.and(trim_all(&self.dir.join(task.as_str())));
        }
        result
    }
}

/// Trims the logs of one task.
pub(super) fn trim_all(dir: &Path) -> Result<(), RunError> {
    let mut result = Ok(());
    for name in LOGS {
        let path = dir.join(name);
        let trimmed = match trim(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        result = result.and(trimmed.map_err(|source| RunError::File { path, source }));
    }
    result
}

fn trim(path: &Path) -> io::Result<()> {
    let len = std::fs::metadata(path)?.len();
    if len <= MAX_LEN {
        return Ok(());
    }
    let (mut from, mut to) = (
        File::open(path)?,
        OpenOptions::new().write(true).open(path)?,
    );
    from.seek(SeekFrom::Start(len - KEPT_LEN))?;
    let mut buffer = vec![0; 64 << 10];
    let (mut at_line_start, mut copied) = (false, 0_u64);
    // A task that writes faster than this copies must not keep it here for ever.
    while copied < MAX_LEN {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        let mut chunk = &buffer[..n];
        if !at_line_start {
            at_line_start = true;
            let newline = chunk.iter().position(|&b| b == b'\n');
            chunk = &chunk[newline.map_or(0, |at| at + 1)..];
        }
        to.write_all(chunk)?;
        copied += chunk.len() as u64;
    }
    to.set_len(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_last_lines_and_goes_on() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("stdout.log");
        let mut task = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("open");
        let mut text = String::new();
        for line in 0..1_200_000 {
            text.push_str(&format!("{line:09}\n"));
        }
        task.write_all(text.as_bytes()).expect("write");
        trim_all(dir.path()).expect("trim");
        task.write_all(b"after\n").expect("write");
        let kept = std::fs::read_to_string(&path).expect("read");
        assert!(kept.len() as u64 <= KEPT_LEN + 6, "{}", kept.len());
        assert!(kept.len() as u64 >= KEPT_LEN - 10, "{}", kept.len());
        assert_eq!(
            kept.strip_suffix("after\n"),
            text.get(text.len() + 6 - kept.len()..)
        );
    }

    #[test]
    fn a_log_of_one_line_and_a_short_one() {
        let dir = tempfile::tempdir().expect("dir");
        let (long, short) = (dir.path().join("stdout.log"), dir.path().join("stderr.log"));
        std::fs::write(&long, vec![b'x'; (MAX_LEN + 1) as usize]).expect("write");
        std::fs::write(&short, "short").expect("write");
        trim_all(dir.path()).expect("trim");
        assert_eq!(std::fs::metadata(&long).expect("there").len(), KEPT_LEN);
        assert_eq!(std::fs::read(&short).expect("read"), b"short");
    }
}
