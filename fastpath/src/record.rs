//! What programs and agent write where both see it.

use std::net::SocketAddrV4;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weft_sys::kernel_words::KernelWords;
use weft_wire::Instant;

/// Flows that there is room for; `FLOWS` of `bpf/weft.bpf.c`.
pub(crate) const FLOWS: u32 = 131_072;
/// Networks that there is room for; `NETWORKS` there.
pub(crate) const NETWORKS: u32 = 16_384;
/// Words of a record: `struct record`.
pub(crate) const RECORD_WORDS: usize = 11;

const OUT_BYTES: usize = 0;
const OUT_PACKETS: usize = 1;
const IN_BYTES: usize = 2;
const IN_PACKETS: usize = 3;
const LAST: usize = 4;
const SOCKET: usize = 5;
const SENT: usize = 6;
const PASSED: usize = 10;

/// `SOCKET_BOUND`.
const BOUND: u64 = 2;

/// Number of a flow's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId(pub(crate) u32);

impl RecordId {
    /// Its place among all records.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What the programs have carried of one flow since its record was opened. A super-frame is one
/// packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of frames that left the sandbox.
    pub out_bytes: u64,
    /// Frames that left it.
    pub out_packets: u64,
    /// Bytes of frames that came from another node.
    pub in_bytes: u64,
    /// Frames that came from another node.
    pub in_packets: u64,
}

/// A record as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What was carried.
    pub traffic: Traffic,
    /// When the last packet was; 0 before the first.
    pub last: Instant,
    /// The flow's socket does not take packets from another device than its own.
    pub bound: bool,
    /// How far the sandbox is; none before its first packet, and of datagrams. Counts what goes to the
    /// workers, too.
    pub sent: Option<Sent>,
    /// Packets that were let pass to the device of the second port. Those that it has brought count in
    /// `traffic`.
    pub passed: u64,
}

/// How far one end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Sequence number after the last byte that it has sent.
    pub end: u32,
    /// What it has acknowledged last.
    pub ack: u32,
}

/// The records of all flows, in memory shared with the programs.
#[derive(Debug)]
pub struct Records(KernelWords);

impl Records {
    /// Words of all of them.
    pub const WORDS: usize = FLOWS as usize * RECORD_WORDS;

    /// In memory of [`Self::WORDS`].
    #[must_use]
    pub const fn of(words: KernelWords) -> Self {
        Self(words)
    }

    /// Reads a record. Its words are not read at one instant.
    #[must_use]
    pub fn read(&self, id: RecordId) -> Record {
        let word = |word| self.word(id, word);
        Record {
            traffic: Traffic {
                out_bytes: word(OUT_BYTES),
                out_packets: word(OUT_PACKETS),
                in_bytes: word(IN_BYTES),
                in_packets: word(IN_PACKETS),
            },
            last: Instant(word(LAST)),
            bound: word(SOCKET) == BOUND,
            sent: match word(SENT) {
                0 => None,
                sent => Some(Sent {
                    end: (sent >> 32) as u32,
                    ack: sent as u32,
                }),
            },
            passed: word(PASSED),
        }
    }

    /// Makes a record that no entry uses that of a new flow.
    pub(crate) fn clear(&self, id: RecordId) {
        for word in self.words(id) {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn words(&self, id: RecordId) -> &[std::sync::atomic::AtomicU64] {
        let start = id.0 as usize * RECORD_WORDS;
        self.0.get(start..start + RECORD_WORDS).unwrap_or_default()
    }

    fn word(&self, id: RecordId, word: usize) -> u64 {
        self.words(id)
            .get(word)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// The epoch of each network: entries of another one are stale.
#[derive(Debug)]
pub struct Epochs(KernelWords);

impl Epochs {
    /// Networks that there is room for.
    pub const NETWORKS: u32 = NETWORKS;

    /// In memory of a word for each network.
    #[must_use]
    pub const fn of(words: KernelWords) -> Self {
        Self(words)
    }

    /// Makes every entry of a network stale that is not of `epoch`, for the next packet already.
    pub fn set(&self, network: u32, epoch: u32) {
        if let Some(word) = self.0.get(network as usize) {
            word.store(epoch.into(), Ordering::SeqCst);
        }
    }

    /// The epoch of a network now.
    #[must_use]
    pub fn get(&self, network: u32) -> u32 {
        let word = self.0.get(network as usize);
        word.map_or(0, |word| word.load(Ordering::SeqCst) as u32)
    }
}

/// Until when entries hold without an agent.
#[derive(Debug)]
pub struct Heartbeat(KernelWords);

impl Heartbeat {
    /// How long established flows go on after the agent was last heard of.
    pub const LIFE: Duration = Duration::from_secs(600);

    /// In memory of one word.
    #[must_use]
    pub const fn of(words: KernelWords) -> Self {
        Self(words)
    }

    /// The agent lives.
    pub fn beat(&self, now: Instant) {
        self.hold_until(now.after(Self::LIFE));
    }

    /// No entry holds any more.
    pub fn stop(&self) {
        self.hold_until(Instant(0));
    }

    /// Entries hold until `end` at least; until when they would have.
    pub(crate) fn prolong(&self, end: Instant) -> Instant {
        let word = self.0.first();
        Instant(word.map_or(0, |word| word.fetch_max(end.0, Ordering::SeqCst)))
    }

    /// Takes back a call of [`Heartbeat::prolong`] with `end` that returned `before`. An agent that
    /// was heard of since is not contradicted.
    pub(crate) fn take_back(&self, end: Instant, before: Instant) {
        if self.end() == end {
            self.hold_until(before);
        }
    }

    /// Until when entries hold.
    pub(crate) fn end(&self) -> Instant {
        let word = self.0.first();
        Instant(word.map_or(0, |word| word.load(Ordering::SeqCst)))
    }

    fn hold_until(&self, end: Instant) {
        if let Some(word) = self.0.first() {
            word.store(end.0, Ordering::SeqCst);
        }
    }
}

/// The port that datagrams of flows may come to besides that of the data path: the kernel merges what
/// is in tunnels only where a tunnel device of its own has the port.
#[derive(Debug)]
pub struct SecondPort(pub(crate) KernelWords);

impl SecondPort {
    /// What comes to `at`, of this node, is taken as what comes to `data_path`, the port that the
    /// workers read.
    pub fn open(&self, at: SocketAddrV4, data_path: u16) {
        self.set(Self::word(at, data_path));
    }

    /// There is none.
    pub fn close(&self) {
        self.set(0);
    }

    /// `union second_port`.
    fn word(at: SocketAddrV4, data_path: u16) -> u64 {
        let [a, b, c, d] = at.ip().octets();
        let [port, to] = [at.port(), data_path].map(u16::to_be_bytes);
        u64::from_ne_bytes([a, b, c, d, port[0], port[1], to[0], to[1]])
    }

    fn set(&self, word: u64) {
        if let Some(place) = self.0.first() {
            place.store(word, Ordering::SeqCst);
        }
    }
}

/// Records that are free; one pool for each worker, of numbers that no other one has.
#[derive(Debug)]
pub struct RecordPool {
    free: Vec<RecordId>,
}

impl RecordPool {
    /// A pool of these numbers, below [`FlowCache::FLOWS`](crate::FlowCache::FLOWS).
    #[must_use]
    pub fn new(numbers: std::ops::Range<u32>) -> Self {
        Self {
            free: numbers.rev().map(RecordId).collect(),
        }
    }

    /// Opens an empty record; none when there is none left.
    pub fn open(&mut self, records: &Records) -> Option<RecordId> {
        let id = self.free.pop()?;
        records.clear(id);
        Some(id)
    }

    /// How many are left.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Gives a record back that no entry names any more.
    pub fn close(&mut self, id: RecordId) {
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_port_lies_as_the_programs_read_it() {
        let at = "192.0.2.7:4790".parse().unwrap();
        let bytes = SecondPort::word(at, 8472).to_ne_bytes();
        assert_eq!(bytes, [192, 0, 2, 7, 0x12, 0xb6, 0x21, 0x18]);
    }
}
