//! What was carried, counted apart from what is tested.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weft_wire::PortId;

use super::bed::Bed;
use super::connection::{Connection, End};
use super::segment::Segment;
use super::world::ENDPOINTS;
use crate::port::PortCounters;

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Frames and bytes from each port, and to it, that the programs have carried.
    ports: HashMap<PortId, [u64; 4]>,
    /// Bytes of data to each replica, and from it, by the balancer or past it.
    replicas: HashMap<u64, [u64; 2]>,
    /// Frames that the programs have carried.
    pub(super) carried: u64,
    /// How often entries of a flow were written.
    pub(super) made: u64,
}

impl Counts {
    pub(super) fn sent(&mut self, port: PortId, segment: &Segment) {
        self.carried += 1;
        self.at_port(port, 0, segment);
    }

    pub(super) fn received(&mut self, port: PortId, segment: &Segment) {
        self.at_port(port, 2, segment);
    }

    fn at_port(&mut self, port: PortId, at: usize, segment: &Segment) {
        let counts = self.ports.entry(port).or_default();
        counts[at] += 1;
        counts[at + 1] += segment.len();
    }

    /// One end of a connection has sent a segment, which went its way.
    pub(super) fn balanced(&mut self, connection: &Connection, end: End, segment: &Segment) {
        if connection.is_balanced() {
            let counts = self.replicas.entry(connection.key).or_default();
            counts[usize::from(end == End::Server)] += u64::from(segment.data);
        }
    }
}

fn counted(counters: &PortCounters) -> [u64; 4] {
    let counters = [
        &counters.tx_frames,
        &counters.tx_bytes,
        &counters.rx_frames,
        &counters.rx_bytes,
    ];
    counters.map(|counter| counter.load(Ordering::Relaxed))
}

impl Bed {
    /// Nobody says anything for a while: what was carried is told, and no more than that, and nothing
    /// is left of it.
    pub(super) fn be_quiet(&mut self) {
        self.batch = false;
        self.meanwhile = None;
        self.programs.borrow_mut().full = false;
        self.capture(false);
        for _ in 0..4 {
            self.pass(Duration::from_secs(20));
        }
        let programs = self.programs.borrow();
        assert!(programs.out.is_empty(), "{:?}", programs.out);
        assert!(programs.inward.is_empty(), "{:?}", programs.inward);
        for reader in &self.readers {
            assert_eq!(reader.shortcuts.table.len(), 0);
            assert_eq!(reader.shortcuts.pool.free(), reader.records, "records");
        }
        for (id, port) in &self.world.ports {
            let expected = self.counts.ports.get(id).copied().unwrap_or_default();
            // Workers count by themselves what they carry; here nobody does.
            assert_eq!(counted(&port.counters), expected, "{id:?}");
        }
        let replicas = (0..ENDPOINTS).filter(|at| self.world.is_replica(*at));
        for key in replicas.map(|at| self.world.key(at)) {
            let expected = self.counts.replicas.get(&key).copied();
            let tally = self.world.loads[&key].tally();
            let told = [tally.rx_bytes(), tally.tx_bytes()];
            assert_eq!(told, expected.unwrap_or_default(), "replica {key}");
        }
    }
}
