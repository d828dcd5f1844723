//! The file that one worker's flows outlive the process in.

use std::io;
use std::path::{Path, PathBuf};
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

/// Records in a mapped file. The first one says what the others are.
#[derive(Debug)]
pub(crate) struct FileJournal {
    words: SharedWords,
}

impl FileJournal {
    /// Maps the file of worker `index`, and takes out what an earlier process left in it. With
    /// another number of workers or places its records are of no use.
    pub(crate) fn open(
        config: &JournalConfig,
        (index, workers): (usize, usize),
        capacity: usize,
    ) -> io::Result<(Self, Vec<Record>)> {
        let path: &Path = &config.folder.join(format!("flows-{index}"));
        let words = SharedWords::open(path, (capacity + 1) * RECORD_WORDS)?;
        let header = [
            MAGIC,
            RECORD_VERSION,
            index as u64,
            workers as u64,
            capacity as u64,
        ];
        let known = words.iter().zip(header).all(|(w, h)| load(w) == h);
        let used = usize::try_from(load(&words[USED])).unwrap_or(capacity);
        let mut records = Vec::new();
        for record in words.chunks_exact(RECORD_WORDS).skip(1).take(used) {
            if load(&record[0]) == 0 {
                continue;
            }
            if known {
                records.push(std::array::from_fn(|i| load(&record[i])));
            }
            record[0].store(0, Ordering::Relaxed);
        }
        words[USED].store(0, Ordering::Relaxed);
        for (word, value) in words.iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        Ok((Self { words }, records))
    }

    fn record(&self, place: u32) -> Option<&[AtomicU64]> {
        let start = (place as usize + 1) * RECORD_WORDS;
        self.words.get(start..start + RECORD_WORDS)
    }
}

impl Journal for FileJournal {
    fn write(&mut self, place: u32, record: &Record) {
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
        let until = *self.saved_until.get_or_insert(self.now.after(AWAITED));
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

    #[test]
    fn records_are_there_for_the_next_process_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = JournalConfig {
            folder: folder.path().to_owned(),
        };
        let open = |workers, capacity| {
            FileJournal::open(&config, (0, workers), capacity).expect("a journal")
        };
        let (mut journal, found) = open(2, 100);
        assert!(found.is_empty());
        let record = |n: u64| std::array::from_fn(|i| n + i as u64);
        for place in [0, 7, 99] {
            journal.write(place, &record(u64::from(place) + 1));
        }
        journal.write(100, &record(1));
        journal.set_head(7, 0);
        journal.set_head(99, 5);
        // The process was killed: nothing is closed.
        let (_again, found) = open(2, 100);
        let mut last: Record = record(100);
        last[0] = 5;
        assert_eq!(found, [record(1), last]);
        let (mut other, found) = open(2, 100);
        assert!(found.is_empty(), "taken up once");
        other.write(3, &record(9));
        let (_third, found) = open(1, 100);
        assert!(
            found.is_empty(),
            "another number of workers steers otherwise"
        );
    }
}
