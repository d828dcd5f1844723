//! What `weft.bpf.c` does with entries, in Rust: what is looked up by what, what is a miss, what is
//! counted where. Sockets are the sandboxes' own, and take packets from any device. Of TCP alone, and
//! without `weft0`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use weft_fastpath::{
    Epochs, FlowCache, FlowKey, Heartbeat, InEntry, OutEntry, RecordId, Records, Rewrite, Scope,
    Way,
};
use weft_sys::kernel_words::KernelWords;
use weft_wire::rewrite::Side;
use weft_wire::{FiveTuple, Instant};

use super::super::cache::{Entries, Memory};
use super::segment::Segment;
use super::world::vni;

// Words of `struct record`.
const RECORD: usize = Records::WORDS / FlowCache::FLOWS as usize;
const OUT_BYTES: usize = 0;
const OUT_PACKETS: usize = 1;
const IN_BYTES: usize = 2;
const IN_PACKETS: usize = 3;
const LAST: usize = 4;
const SOCKET: usize = 5;
const SENT: usize = 6;

/// `SOCKET_FREE`.
const FREE: u64 = 1;

/// The agent's view of the memory.
#[derive(Debug)]
pub(super) struct Cache {
    records: Records,
    epochs: Epochs,
    heartbeat: Heartbeat,
}

impl Memory for Cache {
    fn records(&self) -> &Records {
        &self.records
    }

    fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }
}

/// The programs with their tables, and their view of the memory.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) out: HashMap<FlowKey, OutEntry>,
    pub(super) inward: HashMap<FlowKey, InEntry>,
    records: KernelWords,
    epochs: KernelWords,
    until: KernelWords,
    /// The tables take no entry.
    pub(super) full: bool,
}

/// Memory that two see.
fn shared(words: usize) -> [KernelWords; 2] {
    let file = memfd_create("words", MemfdFlags::CLOEXEC).expect("memory");
    ftruncate(&file, words as u64 * 8).expect("room");
    [(); 2].map(|()| KernelWords::map(&file, words).expect("mapped"))
}

impl Programs {
    pub(super) fn load() -> (Self, Cache) {
        let [records, agents_records] = shared(Records::WORDS);
        let [epochs, agents_epochs] = shared(Epochs::NETWORKS as usize);
        let [until, agents_until] = shared(1);
        let programs = Self {
            out: HashMap::new(),
            inward: HashMap::new(),
            records,
            epochs,
            until,
            full: false,
        };
        let cache = Cache {
            records: Records::of(agents_records),
            epochs: Epochs::of(agents_epochs),
            heartbeat: Heartbeat::of(agents_until),
        };
        (programs, cache)
    }

    /// `leave` and `push`: the entry by which a segment leaves its sandbox. None: a worker gets it.
    pub(super) fn leave(
        &mut self,
        sandbox: u16,
        segment: &Segment,
        now: Instant,
    ) -> Option<OutEntry> {
        if !segment.is_plain() {
            return None;
        }
        let key = FlowKey {
            scope: Scope::Out(sandbox),
            flow: segment.flow,
        };
        let entry = *self.out.get(&key)?;
        let record = entry.record;
        self.note_sent(record, segment);
        self.set(record, SOCKET, FREE);
        let is_ready = match entry.way {
            Way::Local { other, .. } => self.is_ready(segment.flow, entry.rewrite, other),
            Way::Remote { .. } => true,
        };
        let fits = segment.largest_packet() <= u32::from(entry.largest);
        if !self.holds(entry.network, entry.epoch, now) || !is_ready || !fits {
            return None;
        }
        self.count(record, [OUT_BYTES, OUT_PACKETS], segment, now);
        Some(entry)
    }

    /// `pop`: the entry by which a segment from the node at `from` reaches its sandbox. None: a worker
    /// gets it.
    pub(super) fn pop(
        &mut self,
        (from, device): (Ipv4Addr, u32),
        segment: &Segment,
        now: Instant,
    ) -> Option<InEntry> {
        if !segment.is_plain() {
            return None;
        }
        let key = FlowKey {
            scope: Scope::In(vni()),
            flow: segment.flow,
        };
        let entry = *self.inward.get(&key)?;
        if (entry.from, entry.underlay) != (from, device)
            || !self.holds(entry.network, entry.epoch, now)
            || self.word(entry.record, SOCKET) != FREE
            || entry.by_device.is_some()
        {
            return None;
        }
        self.count(entry.record, [IN_BYTES, IN_PACKETS], segment, now);
        Some(entry)
    }

    /// Whether an entry is of the tables of now, and the agent lives.
    pub(super) fn holds(&self, network: u32, epoch: u32, now: Instant) -> bool {
        self.epochs[network as usize].load(Ordering::SeqCst) == u64::from(epoch)
            && now.0 < self.until[0].load(Ordering::SeqCst)
    }

    /// Whether the other end, in the sandbox of that number, has sent something by its own entry.
    fn is_ready(&self, flow: FiveTuple, rewrite: Option<Rewrite>, other: u16) -> bool {
        let back = FlowKey {
            scope: Scope::Out(other),
            flow: rewritten(flow, rewrite).reversed(),
        };
        let answers = self.out.get(&back);
        answers.is_some_and(|answers| self.word(answers.record, SOCKET) == FREE)
    }

    fn note_sent(&self, record: RecordId, segment: &Segment) {
        let end = segment.end();
        let sent = self.word(record, SENT);
        let before = (sent >> 32) as u32;
        let is_new = sent == 0 || end.wrapping_sub(before).cast_signed() > 0;
        let end = if is_new { end } else { before };
        self.set(record, SENT, u64::from(end) << 32 | u64::from(segment.ack));
    }

    fn count(&self, record: RecordId, at: [usize; 2], segment: &Segment, now: Instant) {
        for (word, more) in at.into_iter().zip([segment.len(), 1]) {
            self.set(record, word, self.word(record, word) + more);
        }
        self.set(record, LAST, now.0);
    }

    fn word(&self, record: RecordId, word: usize) -> u64 {
        self.records[record.number() as usize * RECORD + word].load(Ordering::Relaxed)
    }

    fn set(&self, record: RecordId, word: usize, to: u64) {
        self.records[record.number() as usize * RECORD + word].store(to, Ordering::Relaxed);
    }
}

/// The addresses of a flow after a rewrite.
pub(super) fn rewritten(mut flow: FiveTuple, rewrite: Option<Rewrite>) -> FiveTuple {
    let Some(to) = rewrite else {
        return flow;
    };
    match to.side {
        Side::Source => {
            (flow.src, flow.sport) = (to.ip, to.port);
            flow.dport = to.other_port.unwrap_or(flow.dport);
        }
        Side::Destination => {
            (flow.dst, flow.dport) = (to.ip, to.port);
            flow.sport = to.other_port.unwrap_or(flow.sport);
        }
    }
    flow
}

/// A worker's way to the tables.
#[derive(Debug)]
pub(super) struct Writer(pub(super) Rc<RefCell<Programs>>);

impl Writer {
    fn may(&self) -> Result<(), &'static str> {
        if self.0.borrow().full {
            return Err("no room");
        }
        Ok(())
    }
}

impl Entries for Writer {
    type Refusal = &'static str;

    fn put_out(&mut self, key: FlowKey, entry: OutEntry) -> Result<(), &'static str> {
        self.may()?;
        self.0.borrow_mut().out.insert(key, entry);
        Ok(())
    }

    fn put_in(&mut self, key: FlowKey, entry: InEntry) -> Result<(), &'static str> {
        self.may()?;
        self.0.borrow_mut().inward.insert(key, entry);
        Ok(())
    }

    fn record_of(&self, key: FlowKey) -> Option<RecordId> {
        let programs = self.0.borrow();
        programs.out.get(&key).map(|entry| entry.record)
    }

    fn record_in(&self, key: FlowKey) -> Option<RecordId> {
        let programs = self.0.borrow();
        programs.inward.get(&key).map(|entry| entry.record)
    }

    fn remove_out(&mut self, key: FlowKey) {
        self.0.borrow_mut().out.remove(&key);
    }

    fn remove_in(&mut self, key: FlowKey) {
        self.0.borrow_mut().inward.remove(&key);
    }
}
