//! Opening segments of clients that wait for a replica.
//!
//! Room for them is bounded, for each service and in all. Where there is none left, the oldest goes:
//! its client is the likeliest to have given up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weft_wire::{Instant, PortId};

use crate::flow::Origin;
use crate::key::Key;
use crate::syn_ring::SYN_BYTES;

/// How long a client waits at most. Longer than a replica takes to drain and the next one to start,
/// where both are quick, and shorter than most programs wait for a connection: a refusal tells them
/// more than their own limit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The part of all room that one service may take.
const PART: usize = 4;

/// One client that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Client to service, as the client sees it.
    pub(crate) key: Key,
    pub(crate) origin: Origin,
    service: Arc<str>,
    until: Instant,
    len: usize,
    bytes: [u8; SYN_BYTES],
}

impl Waiting {
    /// Its segment as it came, with a complete checksum.
    pub(crate) fn frame(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn set_frame(&mut self, frame: &[u8]) {
        if let Some(place) = self.bytes.get_mut(..frame.len()) {
            place.copy_from_slice(frame);
            self.len = frame.len();
        }
    }
}

/// All that wait. Numbers are in the order in which they came, and so in that of their ends.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    capacity: usize,
    next: u64,
    by_number: BTreeMap<u64, Waiting>,
    by_key: HashMap<Key, u64, FixedState>,
    by_service: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// Who made room, and has to be told.
    out: VecDeque<Waiting>,
    /// Epoch of the tables that they were looked at with, and the next number to look at.
    looked: (u64, u64),
}

impl WaitingRoom {
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        Self {
            capacity: capacity.max(1),
            next: 0,
            by_number: BTreeMap::new(),
            by_key: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_service: BTreeMap::new(),
            out: VecDeque::new(),
            looked: (0, 0),
        }
    }

    /// True when nobody waits and nobody has to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty() && self.out.is_empty()
    }

    /// When the first one has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (_, first) = self.by_number.first_key_value()?;
        Some(first.until)
    }

    /// Takes in a segment of at most [`SYN_BYTES`]. False when the client asks again: its segment
    /// takes the place of the one before, and waits no longer than that.
    pub(crate) fn keep(
        &mut self,
        now: Instant,
        origin: &Origin,
        key: &Key,
        service: &Arc<str>,
        frame: &[u8],
    ) -> bool {
        let known = self.by_key.get(key);
        if let Some(waiting) = known.and_then(|number| self.by_number.get_mut(number)) {
            waiting.origin = *origin;
            waiting.set_frame(frame);
            return false;
        }
        self.make_room(service);
        let mut waiting = Waiting {
            key: *key,
            origin: *origin,
            service: Arc::clone(service),
            until: now.after(PATIENCE),
            len: 0,
            bytes: [0; SYN_BYTES],
        };
        waiting.set_frame(frame);
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, waiting);
        self.by_key.insert(*key, number);
        let of_service = self.by_service.entry(Arc::clone(service)).or_default();
        of_service.insert(number);
        true
    }

    /// Sends the oldest one out where the service, or all together, have no room for one more.
    fn make_room(&mut self, service: &Arc<str>) {
        let part = self.capacity.div_ceil(PART);
        let of_service = self.by_service.get(service);
        let oldest = match of_service {
            Some(numbers) if numbers.len() >= part => numbers.first().copied(),
            _ if self.by_number.len() >= self.capacity => {
                self.by_number.first_key_value().map(|(number, _)| *number)
            }
            _ => None,
        };
        let Some(waiting) = oldest.and_then(|number| self.take(number)) else {
            return;
        };
        // Bounded, should nobody ask for them.
        if self.out.len() >= self.capacity {
            self.out.pop_front();
        }
        self.out.push_back(waiting);
    }

    /// The next one that waits no longer: it made room, or its time is up.
    pub(crate) fn pop_over(&mut self, now: Instant) -> Option<Waiting> {
        if let Some(waiting) = self.out.pop_front() {
            return Some(waiting);
        }
        let (&number, first) = self.by_number.first_key_value()?;
        if first.until > now {
            return None;
        }
        self.take(number)
    }

    /// The next one that was not looked at with the tables of `epoch`, and its number.
    pub(crate) fn look(&mut self, epoch: u64) -> Option<(u64, &Waiting)> {
        if self.looked.0 != epoch {
            self.looked = (epoch, 0);
        }
        let (&number, waiting) = self.by_number.range(self.looked.1..).next()?;
        self.looked.1 = number + 1;
        Some((number, waiting))
    }

    /// Takes one out.
    pub(crate) fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.by_number.remove(&number)?;
        self.by_key.remove(&waiting.key);
        if let Some(numbers) = self.by_service.get_mut(&waiting.service) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_service.remove(&waiting.service);
            }
        }
        Some(waiting)
    }

    /// Forgets clients behind a port that is gone.
    pub(crate) fn forget_port(&mut self, port: PortId) {
        let theirs = |origin: &Origin| matches!(origin, Origin::Port { port: p, .. } if *p == port);
        let all = self.by_number.iter();
        let gone: Vec<u64> = all
            .filter(|(_, waiting)| theirs(&waiting.origin))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.take(number);
        }
        self.out.retain(|waiting| !theirs(&waiting.origin));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use weft_wire::frame::TCP;
    use weft_wire::{FiveTuple, Vni};

    use super::*;
    use crate::key::Scope;

    fn origin(port: u32) -> Origin {
        Origin::Port {
            vni: Vni::new(4096).unwrap(),
            port: PortId(port),
        }
    }

    fn key(sport: u16) -> Key {
        Key {
            scope: Scope::network(Vni::new(4096).unwrap()),
            tuple: FiveTuple {
                src: Ipv4Addr::new(10, 0, 0, 5).into(),
                dst: Ipv4Addr::new(10, 0, 0, 2).into(),
                sport,
                dport: 80,
                proto: TCP,
            },
        }
    }

    fn ports(over: &mut WaitingRoom, now: Instant) -> Vec<u16> {
        std::iter::from_fn(|| over.pop_over(now))
            .map(|waiting| waiting.key.tuple.sport)
            .collect()
    }

    #[test]
    fn the_oldest_of_a_full_service_goes_and_others_stay() {
        let mut room = WaitingRoom::new(8, 1);
        let (web, api): (Arc<str>, Arc<str>) = ("web".into(), "api".into());
        let now = Instant(1);
        assert!(room.keep(now, &origin(1), &key(1), &api, &[1; 54]));
        for sport in 2..=4 {
            assert!(room.keep(now, &origin(1), &key(sport), &web, &[1; 54]));
        }
        // A quarter of eight is two.
        assert_eq!(ports(&mut room, now), [2]);
        assert_eq!(room.by_number.len(), 3);
        assert_eq!(ports(&mut room, now.after(PATIENCE)), [1, 3, 4]);
        assert!(room.is_empty() && room.by_key.is_empty() && room.by_service.is_empty());
    }

    #[test]
    fn the_oldest_of_all_goes_where_many_services_wait() {
        let mut room = WaitingRoom::new(4, 1);
        for sport in 1..=6 {
            let service: Arc<str> = format!("service-{sport}").into();
            room.keep(Instant(1), &origin(1), &key(sport), &service, &[1; 54]);
        }
        assert_eq!(ports(&mut room, Instant(1)), [1, 2]);
    }

    #[test]
    fn whoever_asks_again_waits_no_longer_and_its_newest_segment_counts() {
        let mut room = WaitingRoom::new(8, 1);
        let web: Arc<str> = "web".into();
        let begin = Instant(1);
        assert!(room.keep(begin, &origin(1), &key(1), &web, &[1; 54]));
        let later = begin.after(Duration::from_secs(3));
        assert!(!room.keep(later, &origin(1), &key(1), &web, &[2; 60]));
        assert_eq!(room.next_deadline(), Some(begin.after(PATIENCE)));
        let (_, waiting) = room.look(1).unwrap();
        assert_eq!(waiting.frame(), [2; 60]);
        assert!(room.look(1).is_none(), "once for each epoch");
        assert!(room.look(2).is_some());
    }

    #[test]
    fn clients_behind_a_port_that_is_gone_are_forgotten() {
        let mut room = WaitingRoom::new(2, 1);
        let web: Arc<str> = "web".into();
        for (port, sport) in [(1, 1), (2, 2), (1, 3)] {
            room.keep(Instant(1), &origin(port), &key(sport), &web, &[1; 54]);
        }
        room.forget_port(PortId(1));
        assert_eq!(ports(&mut room, Instant(1)), [2], "it made room");
        assert!(room.is_empty());
    }
}
