//! The file that one worker's flows outlive the process in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_mesh::{Journal, Origin, RECORD_VERSION, RECORD_WORDS, Record, SavedOrigin};
use weft_sys::shared_words::SharedWords;

use crate::snapshot::Snapshot;
use crate::worker::{Worker, context};

/// Where the records are: one file for each worker, in a folder that does not outlive the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The folder, which is there.
    pub folder: PathBuf,
}

/// First word of a file that this version wrote.
const MAGIC: u64 = 0x7765_6674_666c_6f77;

/// How long the ends of a flow may take to appear.
const AWAITED: Duration = Duration::from_secs(5);

/// Word of the first record that says how many places were ever used: to look at a page of a file is
/// to have it in memory.
const USED: usize = RECORD_WORDS - 1;

/// Records that room is asked for at once. A system call for so many new flows is little, and to have
/// room for all that a table may ever hold would take 25 MB of memory for each worker.
const STEP: usize = 2048;

/// How many records are left out between two attempts to get room for them.
const LEFT_OUT: u32 = 4096;

/// Records in a mapped file. The first one says what the others are. Where there is no room the
/// flows go on, and do not outlive the process.
#[derive(Debug)]
pub(crate) struct FileJournal {
    words: SharedWords,
    /// Records that may still be left out before room is asked for again; zero while there is room.
    patience: u32,
    /// Records left out since there was room; of all workers, for whoever tells people.
    left_out: Arc<AtomicU64>,
}

impl FileJournal {
    /// Maps the file of worker `index`, and reads what an earlier process left in it. That stays until
    /// [`Journal::clear`]: this process may end before it has flows. With another number of workers
    /// or places the records are of no use. Records that there was no room for are counted in
    /// `left_out`.
    ///
    /// # Errors
    /// No file, or no room for the first records.
    pub(crate) fn open(
        config: &JournalConfig,
        (index, workers): (usize, usize),
        capacity: usize,
        left_out: Arc<AtomicU64>,
    ) -> io::Result<(Self, Vec<Record>)> {
        let path: &Path = &config.folder.join(format!("flows-{index}"));
        let mut words = SharedWords::open(path, (capacity + 1) * RECORD_WORDS)?;
        words.reserve(STEP * RECORD_WORDS)?;
        let header = [
            MAGIC,
            RECORD_VERSION,
            index as u64,
            workers as u64,
            capacity as u64,
        ];
        let known = words.iter().zip(header).all(|(w, h)| load(w) == h);
        let used = usize::try_from(load(&words[USED])).unwrap_or(capacity);
        words.reserve((used.min(capacity) + 1) * RECORD_WORDS)?;
        let mut journal = Self {
            words,
            patience: 0,
            left_out,
        };
        if !known {
            journal.clear();
        }
        let there = journal.words.chunks_exact(RECORD_WORDS).skip(1).take(used);
        let whole = there.filter(|record| load(&record[0]) != 0);
        let records = whole
            .map(|record| std::array::from_fn(|i| load(&record[i])))
            .collect();
        for (word, value) in journal.words.iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        Ok((journal, records))
    }

    fn record(&self, place: u32) -> Option<&[AtomicU64]> {
        let start = (place as usize + 1) * RECORD_WORDS;
        self.words.get(start..start + RECORD_WORDS)
    }

    /// Makes room for a record that has none; false when there is none to be had.
    fn extend_to(&mut self, place: u32) -> bool {
        let wanted = (place as usize + 2) * RECORD_WORDS;
        if wanted > self.words.capacity() {
            return false;
        }
        if self.patience == 0 {
            match self.words.reserve(wanted + STEP * RECORD_WORDS) {
                Ok(()) => {
                    self.left_out.store(0, Ordering::Relaxed);
                    return true;
                }
                Err(_) => self.patience = LEFT_OUT,
            }
        }
        self.patience -= 1;
        self.left_out.fetch_add(1, Ordering::Relaxed);
        false
    }
}

impl Journal for FileJournal {
    fn write(&mut self, place: u32, record: &Record) {
        if self.record(place).is_none() && !self.extend_to(place) {
            return;
        }
        let Some(words) = self.record(place) else {
            return;
        };
        for (word, value) in words.iter().zip(record).skip(1) {
            word.store(*value, Ordering::Relaxed);
        }
        let used = &self.words[USED];
        if load(used) <= u64::from(place) {
            used.store(u64::from(place) + 1, Ordering::Relaxed);
        }
        words[0].store(record[0], Ordering::Release);
    }

    fn set_head(&mut self, place: u32, head: u64) {
        if let Some([first, ..]) = self.record(place) {
            first.store(head, Ordering::Release);
        }
    }

    fn clear(&mut self) {
        let used = usize::try_from(load(&self.words[USED])).unwrap_or(usize::MAX);
        for record in self.words.chunks_exact(RECORD_WORDS).skip(1).take(used) {
            record[0].store(0, Ordering::Relaxed);
        }
        self.words[USED].store(0, Ordering::Relaxed);
    }
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

impl Worker {
    /// Takes up the flows of an earlier process, with the first tables that say where they are: a
    /// port may be there a moment later than the others.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        if self.saved.is_empty() {
            return;
        }
        let until = match self.saved_until {
            Some(until) => until,
            None => {
                self.flows.clear_journal();
                *self.saved_until.insert(self.now.after(AWAITED))
            }
        };
        let cx = context(self.now, snapshot);
        let origin = |saved| origin(snapshot, saved);
        let count = self.flows.restore(&cx, &mut self.saved, origin);
        let left_out = self.saved.len();
        if count > 0 {
            tracing::info!(
                worker = self.index,
                count,
                left_out,
                "flows of the last agent go on"
            );
        }
        if self.now >= until {
            self.saved = Vec::new();
        }
    }
}

fn origin(snapshot: &Snapshot, saved: SavedOrigin) -> Option<Origin> {
    match saved {
        SavedOrigin::Port { vni, ip } => {
            let mut ports = snapshot.ports.values();
            let port = ports.find(|p| p.vni == vni && p.ips.contains(&ip))?;
            Some(Origin::Port { vni, port: port.id })
        }
        SavedOrigin::Mesh {
            vni,
            ipv4,
            keeps_client,
        } => {
            let mesh = snapshot.mesh.as_ref().filter(|m| m.vni == vni)?;
            Some(mesh.origin(mesh.family(ipv4)?, keeps_client))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn record(n: u64) -> Record {
        std::array::from_fn(|i| n + i as u64)
    }

    #[test]
    fn records_are_there_for_the_next_process_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = JournalConfig {
            folder: folder.path().to_owned(),
        };
        let open = |workers, capacity| {
            let left_out = Arc::default();
            FileJournal::open(&config, (0, workers), capacity, left_out).expect("a journal")
        };
        let (mut journal, found) = open(2, 100);
        assert!(found.is_empty());
        for place in [0, 7, 99] {
            journal.write(place, &record(u64::from(place) + 1));
        }
        journal.write(100, &record(1));
        journal.set_head(7, 0);
        journal.set_head(99, 5);
        // As when the process was killed: nothing is done at the end.
        drop(journal);
        let mut last: Record = record(100);
        last[0] = 5;
        let left = [record(1), last];
        let (again, found) = open(2, 100);
        assert_eq!(found, left);
        // Killed before it had tables to take them up with.
        drop(again);
        let (mut again, found) = open(2, 100);
        assert_eq!(found, left);
        again.clear();
        drop(again);
        let (mut other, found) = open(2, 100);
        assert!(found.is_empty(), "taken up once");
        other.write(3, &record(9));
        drop(other);
        let (_third, found) = open(1, 100);
        assert!(
            found.is_empty(),
            "another number of workers steers otherwise"
        );
    }

    #[test]
    fn records_beyond_the_first_step_are_kept_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = JournalConfig {
            folder: folder.path().to_owned(),
        };
        let open =
            || FileJournal::open(&config, (0, 1), 200_000, Arc::default()).expect("a journal");
        let (mut journal, _) = open();
        let places = [0, 2046, 2047, 2048, 100_000, 199_999];
        for place in places {
            journal.write(place, &record(u64::from(place) + 1));
        }
        drop(journal);
        let (_again, found) = open();
        assert_eq!(found, places.map(|place| record(u64::from(place) + 1)));
    }

    /// A full `/run`: once every store to a new page was the end of the process.
    #[test]
    fn a_full_disk_costs_the_records_that_do_not_fit() {
        let disk = weft_sys::namespaces::unmounted_tmpfs(1 << 20).expect("a small disk");
        let folder: PathBuf = format!("/proc/self/fd/{}", disk.as_raw_fd()).into();
        let config = JournalConfig {
            folder: folder.clone(),
        };
        let left_out: Arc<AtomicU64> = Arc::default();
        let open = || FileJournal::open(&config, (0, 1), 200_000, Arc::clone(&left_out));
        let (mut journal, _) = open().expect("room for the first records");
        for place in 0..200_000 {
            journal.write(place, &record(u64::from(place) + 1));
        }
        drop(journal);
        let (mut journal, found) = open().expect("what is there has its room");
        let missing = left_out.load(Ordering::Relaxed);
        assert!(found.len() > 2000 && found.len() < 8192, "{}", found.len());
        assert_eq!(found.len() as u64 + missing, 200_000);
        journal.clear();
        for place in 0..200_000 {
            journal.write(place, &record(1));
        }
        drop(journal);

        // No room at all, from the first record on.
        std::fs::remove_file(folder.join("flows-0")).expect("removed");
        let filler = folder.join("filler");
        std::fs::write(&filler, vec![0; 2 << 20]).expect_err("it does not fit");
        let error = open().expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        // There is room again while the process runs.
        std::fs::remove_file(&filler).expect("removed");
        let (mut journal, _) = open().expect("room");
        std::fs::write(&filler, vec![0; 2 << 20]).expect_err("it does not fit");
        journal.write(5000, &record(1));
        std::fs::remove_file(&filler).expect("removed");
        for _ in 0..LEFT_OUT {
            journal.write(5000, &record(1));
        }
        drop(journal);
        let (_last, found) = open().expect("room");
        assert_eq!(found, [record(1)]);
    }
}
