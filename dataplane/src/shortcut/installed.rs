//! The entries of one worker.

use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weft_fastpath::{FlowKey, Record, RecordId, Records, Traffic};
use weft_mesh::{Context, FlowTable};
use weft_wire::frame::UDP;
use weft_wire::{Instant, PortId};

use super::balanced::Balanced;
use super::cache::Entries;
use super::exchange::{Exchange, NO_USE};
use super::sandbox::Shortcut;
use crate::port::Port;

/// An entry that carried nothing for so long is deleted: the flow is over, or can do without.
const IDLE: Duration = Duration::from_secs(30);

/// A flow to a virtual address goes by the worker once in a while, though it is never idle: the worker
/// that reads its replica's frames would else take its own entry for one that was left behind.
const RENEW: Duration = Duration::from_secs(1800);

/// The other end of a flow that stays on this node.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) port: Arc<Port>,
    /// Hash of its answers.
    pub(super) flow: u64,
    /// As they leave its sandbox.
    pub(super) out: FlowKey,
}

/// Where so many packets have passed, some have arrived.
const PASSED: u64 = 8;

/// A flow that the kernel carries.
#[derive(Debug)]
pub(super) struct Installed {
    /// Hash by which the worker tells flows.
    pub(super) flow: u64,
    /// The direction that leaves the sandbox.
    pub(super) out: FlowKey,
    /// The one that comes from another node; none where it stays on this one.
    pub(super) inward: Option<FlowKey>,
    pub(super) record: RecordId,
    pub(super) port: Arc<Port>,
    /// Who gets what leaves, where that is a port of this node.
    pub(super) receiver: Option<Receiver>,
    /// The devices that the entries name.
    at: Shortcut,
    /// Where the balancer has it.
    balanced: Option<Balanced>,
    /// When the entries were written last.
    pub(super) since: Instant,
    /// What the port's counters have of it.
    told: Traffic,
    /// Where it is one of datagrams.
    exchange: Option<Exchange>,
}

/// All of them, found by flow or one after the other.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Option<Installed>>,
    by_flow: HashMap<u64, usize, RandomState>,
    free: Vec<usize>,
    of_port: HashMap<PortId, usize, RandomState>,
    /// Where the next look begins.
    next: usize,
}

impl Installed {
    pub(super) fn new(
        flow: u64,
        (out, inward): (FlowKey, Option<FlowKey>),
        record: RecordId,
        (port, receiver): (Arc<Port>, Option<Receiver>),
        at: Shortcut,
        balanced: Option<Balanced>,
        now: Instant,
    ) -> Self {
        Self {
            flow,
            out,
            inward,
            record,
            port,
            receiver,
            at,
            balanced,
            since: now,
            told: Traffic::default(),
            exchange: (out.flow.proto == UDP).then(|| Exchange::new(now)),
        }
    }

    /// Whether these are its entries, its devices, and the ports of who sends and who gets it: one of
    /// another worker may be another one, with the same devices.
    pub(super) fn is_of(
        &self,
        keys: (FlowKey, Option<FlowKey>),
        at: Shortcut,
        (port, receiver): (PortId, Option<PortId>),
    ) -> bool {
        let own = (
            self.port.id,
            self.receiver.as_ref().map(|receiver| receiver.port.id),
        );
        (self.out, self.inward) == keys && self.at == at && own == (port, receiver)
    }

    /// Whether the sandbox still has the devices that the entries name.
    pub(super) fn has_devices(&self) -> bool {
        self.port.shortcut.load().as_deref() == Some(&self.at)
    }

    /// Counts for the port, and the flow table, what was carried since the last call, and says whether
    /// it was silent for too long, or is to go by the worker for a while.
    pub(super) fn follow(
        &mut self,
        record: &Record,
        flows: &mut FlowTable,
        cx: &Context<'_>,
    ) -> bool {
        let (is, was) = (record.traffic, self.told);
        let counters = &self.port.counters;
        let frames = is.out_packets.saturating_sub(was.out_packets);
        let bytes = is.out_bytes.saturating_sub(was.out_bytes);
        counters.sent_many(frames, bytes);
        if let Some(receiver) = &self.receiver {
            receiver.port.counters.received_many(frames, bytes);
        }
        let in_frames = is.in_packets.saturating_sub(was.in_packets);
        let in_bytes = is.in_bytes.saturating_sub(was.in_bytes);
        counters.received_many(in_frames, in_bytes);
        self.told = is;
        if let Some(balanced) = &self.balanced {
            let carried = [(frames, bytes), (in_frames, in_bytes)];
            balanced.tell(flows, cx, carried, record);
        }
        let renewed = self.balanced.is_some() && cx.now.since(self.since) >= RENEW;
        renewed || cx.now.since(self.since.max(record.last)) >= IDLE
    }

    /// Whether packets are let pass to the device of the second port, and none has come by it: a rule of
    /// the host keeps them.
    pub(super) const fn is_unanswered(record: &Record) -> bool {
        record.passed >= PASSED && record.traffic.in_packets == 0
    }

    /// How long the flow is to stay with the workers, where it has datagrams that are better off there.
    pub(super) fn judge<E: Entries>(
        &mut self,
        record: &Record,
        (installer, records): (&E, &Records),
        now: Instant,
    ) -> Option<Duration> {
        let exchange = self.exchange.as_mut()?;
        if record.bound {
            return Some(NO_USE);
        }
        let back = match &self.receiver {
            // The other port's worker may have entered both directions, and looks at them then.
            Some(_) if !installer.is_of(self.out, self.record) => return None,
            Some(receiver) => {
                let answers = installer.record_of(receiver.out);
                answers.map_or(0, |id| records.read(id).traffic.out_packets)
            }
            None => record.traffic.in_packets,
        };
        exchange.look([record.traffic.out_packets, back], now)
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_flow.len()
    }

    pub(super) fn get_mut(&mut self, flow: u64) -> Option<&mut Installed> {
        let place = *self.by_flow.get(&flow)?;
        self.places.get_mut(place)?.as_mut()
    }

    pub(super) fn put(&mut self, installed: Installed) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.by_flow.insert(installed.flow, place);
        *self.of_port.entry(installed.port.id).or_default() += 1;
        self.places[place] = Some(installed);
    }

    pub(super) fn remove(&mut self, flow: u64) -> Option<Installed> {
        let place = self.by_flow.remove(&flow)?;
        self.free.push(place);
        let removed = self.places.get_mut(place)?.take()?;
        if let Some(count) = self.of_port.get_mut(&removed.port.id) {
            *count -= 1;
            if *count == 0 {
                self.of_port.remove(&removed.port.id);
            }
        }
        Some(removed)
    }

    /// How many a port has.
    pub(super) fn count_of(&self, port: PortId) -> usize {
        self.of_port.get(&port).copied().unwrap_or_default()
    }

    /// Looks at up to `budget` places, and goes on behind them the next time. True when that was the
    /// end of the table.
    pub(super) fn look(&mut self, budget: usize, look: impl FnMut(&mut Installed)) -> bool {
        let end = self.places.len().min(self.next + budget);
        let places = &mut self.places[self.next.min(end)..end];
        places.iter_mut().flatten().for_each(look);
        let done = end == self.places.len();
        self.next = if done { 0 } else { end };
        done
    }

    /// Flows of a port.
    pub(super) fn of_port(&self, port: PortId) -> Vec<u64> {
        let all = self.places.iter().flatten();
        let of_port = all.filter(|installed| {
            let receiver = installed.receiver.as_ref();
            installed.port.id == port || receiver.is_some_and(|receiver| receiver.port.id == port)
        });
        of_port.map(|installed| installed.flow).collect()
    }
}
