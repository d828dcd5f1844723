//! Copies of frames for people. Off unless somebody reads: then one look at an `Option` is all
//! that a frame costs.
//!
//! ```text
//!   workers ──► full queue ──► reader ──► pcapng
//!      ▲                          │
//!      └──────── free queue ◄─────┘        empty: the frame is counted as lost, not waited for
//! ```
//!
//! A port takes a record only while it holds fewer than there are free ones: one that floods gets
//! half of them, two a third each, and for a quiet one there is always a place.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::sync::Unparker;
use weft_wire::DropReason;

/// Records that wait to be read, at most.
pub(crate) const RECORDS: usize = 1024;

/// Accounts for records in use. Ports that fall on one share its part.
const ACCOUNTS: usize = 64;

/// Bytes that a record has room for from the start; those of super-frames grow, and stay so until
/// the capture ends.
const RECORD_LEN: usize = 2048;

/// Which frames are wanted.
#[derive(Debug, Clone)]
pub struct CaptureFilter {
    /// Of this port only; `underlay` names what belongs to no port.
    pub port: Option<Arc<str>>,
    /// Frames that reach a sandbox.
    pub incoming: bool,
    /// Frames that leave a sandbox, and are delivered.
    pub outgoing: bool,
    /// Frames that are dropped.
    pub dropped: bool,
    /// Bytes kept of each frame, at most.
    pub snap_len: usize,
}

impl Default for CaptureFilter {
    fn default() -> Self {
        Self {
            port: None,
            incoming: true,
            outgoing: true,
            dropped: true,
            snap_len: usize::MAX,
        }
    }
}

/// What became of a frame, seen from its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was written into the sandbox.
    Incoming,
    /// It came from the sandbox and went its way.
    Outgoing,
    /// It was dropped.
    Dropped(DropReason),
}

/// One captured frame.
#[derive(Debug, Clone)]
pub struct Record {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Name of the port; nothing for frames from the underlay that reached none.
    pub port: Option<Arc<str>>,
    /// Node that a frame from the underlay came from, where it was dropped.
    pub vtep: Option<IpAddr>,
    /// What became of it.
    pub fate: Fate,
    /// Bytes that the frame had.
    pub len: usize,
    /// The first of them: an Ethernet frame without virtio header. A super-frame is whole, and a
    /// checksum that a device would have finished is unfinished.
    pub bytes: Vec<u8>,
}

impl Record {
    fn empty() -> Self {
        Self {
            at: 0,
            port: None,
            vtep: None,
            fate: Fate::Incoming,
            len: 0,
            bytes: Vec::with_capacity(RECORD_LEN),
        }
    }
}

/// What workers write to.
#[derive(Debug)]
pub(crate) struct Capture {
    filter: CaptureFilter,
    free: ArrayQueue<Record>,
    full: ArrayQueue<Record>,
    /// Records in use, by account.
    held: [AtomicU32; ACCOUNTS],
    lost: AtomicU64,
    reader: Unparker,
}

impl Capture {
    pub(crate) fn new(filter: CaptureFilter, reader: Unparker) -> Self {
        let free = ArrayQueue::new(RECORDS);
        // Both queues hold every record, so that pushing cannot fail.
        while free.push(Record::empty()).is_ok() {}
        Self {
            filter,
            free,
            full: ArrayQueue::new(RECORDS),
            held: std::array::from_fn(|_| AtomicU32::new(0)),
            lost: AtomicU64::new(0),
            reader,
        }
    }

    fn wants_port(&self, port: Option<&Arc<str>>) -> bool {
        let name = port.map_or(UNDERLAY, |port| port);
        self.filter
            .port
            .as_deref()
            .is_none_or(|wanted| wanted == name)
    }

    const fn wants(&self, fate: Fate) -> bool {
        match fate {
            Fate::Incoming => self.filter.incoming,
            Fate::Outgoing => self.filter.outgoing,
            Fate::Dropped(_) => self.filter.dropped,
        }
    }

    /// Copies a frame whose fate is not known yet; `None` when it is not wanted, or when the reader
    /// is too slow.
    pub(crate) fn begin<'a>(
        &self,
        port: Option<&Arc<str>>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Record> {
        if !self.wants_port(port) {
            return None;
        }
        let Some(mut record) = self.take(port) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        record.bytes.clear();
        record.len = 0;
        for piece in pieces {
            record.len += piece.len();
            let room = self.filter.snap_len.saturating_sub(record.bytes.len());
            record
                .bytes
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
        record.at = now();
        record.vtep = None;
        Some(record)
    }

    /// Hands a record to the reader, or takes it back when its fate is not asked for.
    pub(crate) fn finish(&self, mut record: Record, fate: Fate) {
        record.fate = fate;
        if !self.wants(fate) {
            self.give_back(record);
        } else if self.full.push(record).is_err() {
            tracing::debug!("a capture has more records than it was made with");
        } else {
            self.reader.unpark();
        }
    }

    /// A free record for the port, unless it holds its part already.
    fn take(&self, port: Option<&Arc<str>>) -> Option<Record> {
        let held = &self.held[account_of(port)];
        // Relaxed: a part that is off by a few while workers race is one still. Who asks for one port
        // shares with nobody.
        let part = self.free.len();
        if self.filter.port.is_none() && held.load(Ordering::Relaxed) as usize >= part {
            return None;
        }
        let mut record = self.free.pop()?;
        held.fetch_add(1, Ordering::Relaxed);
        record.port = port.map(Arc::clone);
        Some(record)
    }

    /// True when nothing waits for the reader.
    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    /// The next record for the reader, who gives it back.
    pub(crate) fn pop(&self) -> Option<Record> {
        self.full.pop()
    }

    /// Frames that were wanted while every record was in use.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn give_back(&self, record: Record) {
        self.held[account_of(record.port.as_ref())].fetch_sub(1, Ordering::Relaxed);
        if self.free.push(record).is_err() {
            tracing::debug!("a capture has more records than it was made with");
        }
    }

    /// Both at once.
    pub(crate) fn record<'a>(
        &self,
        port: Option<&Arc<str>>,
        vtep: Option<IpAddr>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        fate: Fate,
    ) {
        if !self.wants(fate) {
            return;
        }
        if let Some(mut record) = self.begin(port, pieces) {
            record.vtep = vtep;
            self.finish(record, fate);
        }
    }
}

/// Name of what belongs to no port.
pub const UNDERLAY: &str = "underlay";

/// Account of a port: its name stays where it is as long as anybody holds it. The first is the
/// underlay's.
fn account_of(port: Option<&Arc<str>>) -> usize {
    let Some(port) = port else { return 0 };
    let address = port.as_ptr().addr() as u64;
    // The upper bits of a product with an odd constant depend on all of the address's.
    let mixed = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    1 + mixed as usize % (ACCOUNTS - 1)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use crossbeam_utils::sync::Parker;

    use super::*;

    fn capture(filter: CaptureFilter) -> Capture {
        Capture::new(filter, Parker::new().unparker().clone())
    }

    #[test]
    fn only_what_was_asked_for_is_kept_and_no_more_of_it() {
        let capture = capture(CaptureFilter {
            port: Some("a".into()),
            outgoing: false,
            snap_len: 5,
            ..CaptureFilter::default()
        });
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let pieces = [&b"abc"[..], b"defg"];
        capture.record(Some(&a), None, pieces, Fate::Incoming);
        capture.record(Some(&b), None, pieces, Fate::Incoming);
        capture.record(None, None, pieces, Fate::Dropped(DropReason::UnknownVni));
        capture.record(Some(&a), None, pieces, Fate::Outgoing);
        let pending = capture.begin(Some(&a), pieces).expect("a record");
        capture.finish(pending, Fate::Outgoing);
        let record = capture.full.pop().expect("the one record");
        assert_eq!((record.len, &record.bytes[..]), (7, &b"abcde"[..]));
        assert!(record.at > 0);
        assert!(capture.full.is_empty());
        assert_eq!(capture.free.len(), RECORDS - 1);
        assert_eq!(capture.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_slow_reader_loses_frames_and_learns_how_many() {
        let capture = capture(CaptureFilter::default());
        let dropped = Fate::Dropped(DropReason::UnknownVni);
        for _ in 0..RECORDS / 2 + 7 {
            capture.record(None, None, [&b"x"[..]], dropped);
        }
        assert_eq!(capture.full.len(), RECORDS / 2);
        assert_eq!(capture.lost.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_port_that_floods_leaves_room_for_the_others() {
        let capture = capture(CaptureFilter::default());
        let ports: Vec<Arc<str>> = (0..40).map(|n| format!("port-{n}").into()).collect();
        let greedy = &ports[0];
        let quiet = ports
            .iter()
            .find(|port| account_of(Some(port)) != account_of(Some(greedy)))
            .expect("not all on one account");
        let flood = |port| {
            for _ in 0..2 * RECORDS {
                capture.record(Some(port), None, [&b"x"[..]], Fate::Outgoing);
            }
        };
        flood(greedy);
        assert_eq!(capture.full.len(), RECORDS / 2);
        let before = capture.lost.load(Ordering::Relaxed);
        for _ in 0..100 {
            capture.record(Some(quiet), None, [&b"y"[..]], Fate::Incoming);
        }
        assert_eq!(capture.lost.load(Ordering::Relaxed), before);
        // What is read comes back to whoever held it.
        while let Some(record) = capture.full.pop() {
            capture.give_back(record);
        }
        assert_eq!(capture.free.len(), RECORDS);
        assert!(capture.held.iter().all(|n| n.load(Ordering::Relaxed) == 0));
        // A record whose fate nobody asks for comes back, too.
        let only = Capture::new(
            CaptureFilter {
                outgoing: false,
                ..CaptureFilter::default()
            },
            Parker::new().unparker().clone(),
        );
        let pending = only.begin(Some(greedy), [&b"x"[..]]).expect("a record");
        only.finish(pending, Fate::Outgoing);
        assert!(only.held.iter().all(|n| n.load(Ordering::Relaxed) == 0));
    }
}
