//! What must be so of every entry, after every step: written from the rules, and slow.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use weft_fastpath::{FlowCache, FlowKey, InEntry, OutEntry, RecordId, Rewrite, Scope, Way};
use weft_wire::ecn::Dscp;
use weft_wire::rewrite::Side;

use super::super::epochs::FlowEpochs;
use super::bed::Bed;
use super::connection::{Connection, End, Target};
use super::frames::SOURCE_PORT;
use super::programs::rewritten;
use super::world::{Place, SERVED, WORKERS, ip, number, own, vip, vni, vtep};

impl Bed {
    /// Each entry is of one connection. Each that a packet would find to hold now says what a worker
    /// would do with that packet, by the newest tables. `settled`: workers know these.
    pub(super) fn check(&self, settled: bool) {
        let programs = self.programs.borrow();
        // Who counts in a record: one connection, and one of its directions by each kind of entry.
        let mut out: HashMap<RecordId, usize> = HashMap::new();
        for (key, entry) in &programs.out {
            let (at, end) = self.whose(key);
            let other = out.insert(entry.record, at);
            assert_eq!(other, None, "two flows count in one record: {key:?}");
            if programs.holds(entry.network, entry.epoch, self.now) {
                self.check_open(at, entry.record, settled);
                self.check_out(&self.connections[at], end, entry);
            }
        }
        let mut inward: HashMap<RecordId, usize> = HashMap::new();
        for (key, entry) in &programs.inward {
            let (at, end) = self.whose(key);
            let other = inward.insert(entry.record, at);
            assert_eq!(other, None, "two flows count in one record: {key:?}");
            let leaves = out.get(&entry.record);
            assert!(leaves.is_none_or(|leaves| *leaves == at), "{key:?}");
            if programs.holds(entry.network, entry.epoch, self.now) {
                self.check_open(at, entry.record, settled);
                self.check_in(&self.connections[at], end, entry);
            }
        }
    }

    /// The connection that packets of a key are of, and the end that sends them.
    fn whose(&self, key: &FlowKey) -> (usize, End) {
        for (at, connection) in self.connections.iter().enumerate() {
            for end in End::BOTH {
                let is_scope = match key.scope {
                    Scope::Out(sandbox) => sandbox == number(connection.endpoint(end)),
                    Scope::In(network) => network == vni(),
                };
                if is_scope && connection.flow(end) == key.flow {
                    return (at, end);
                }
            }
        }
        panic!("an entry of no connection: {key:?}");
    }

    /// No entry outlives its connection: that of a service by what the balancer knows, any other one by
    /// what the worker that has written it was shown.
    fn check_open(&self, at: usize, record: RecordId, settled: bool) {
        let connection = &self.connections[at];
        if connection.is_balanced() {
            assert!(!settled || !connection.over, "{connection:?}");
            return;
        }
        let part = FlowCache::FLOWS as usize / WORKERS;
        let writer = record.number() as usize / part;
        let is_reading = self.readers[writer].is_reading;
        assert!(is_reading || !connection.ended[writer], "{connection:?}");
    }

    /// What one end of a connection sends from here.
    fn check_out(&self, connection: &Connection, end: End, entry: &OutEntry) {
        let world = &self.world;
        let [from, to] = [end, end.other()].map(|end| connection.endpoint(end));
        let Place::Here(port) = world.endpoints[from].place else {
            panic!("its sender is not here: {entry:?}");
        };
        let (way, largest) = match world.endpoints[to].place {
            Place::Here(receiver) => {
                let way = Way::Local {
                    device: world.shortcut(receiver).host_end,
                    other: number(to),
                    hardware: None,
                };
                (way, world.mtu)
            }
            Place::Behind(node) => {
                let route = world.routes[node];
                let port = route.second_port.unwrap_or(own().port());
                let way = Way::Remote {
                    device: route.device,
                    next_hop: route.next_hop,
                    from: SocketAddrV4::new(*own().ip(), SOURCE_PORT),
                    to: SocketAddrV4::new(vtep(node), port),
                    vni: vni(),
                    dst_mac: world.endpoints[to].mac,
                    src_mac: world.endpoints[from].mac,
                    dscp: Dscp::default(),
                };
                (way, world.mtu_to(node))
            }
            Place::Gone => panic!("its receiver is nowhere: {entry:?}"),
        };
        let expected = OutEntry {
            record: entry.record,
            network: FlowEpochs::place(vni()),
            epoch: entry.epoch,
            second: world.shortcut(port).second,
            largest,
            way,
            rewrite: rewrite(connection, end),
        };
        assert_eq!(*entry, expected, "{connection:?} {end:?}");
        // The far end sees what it answers.
        let seen = rewritten(connection.flow(end), entry.rewrite);
        let answered = connection.flow(end.other()).reversed();
        assert_eq!(seen, answered, "{connection:?} {end:?}");
    }

    /// What one end of a connection sends from another node.
    fn check_in(&self, connection: &Connection, end: End, entry: &InEntry) {
        let world = &self.world;
        let [from, to] = [end, end.other()].map(|end| connection.endpoint(end));
        let (Place::Behind(node), Place::Here(port)) =
            (world.endpoints[from].place, world.endpoints[to].place)
        else {
            panic!("nothing of it comes from another node: {entry:?}");
        };
        let expected = InEntry {
            record: entry.record,
            network: FlowEpochs::place(vni()),
            epoch: entry.epoch,
            device: world.shortcut(port).host_end,
            underlay: world.routes[node].device,
            from: vtep(node),
            to: own(),
            by_device: None,
            rewrite: rewrite(connection, end),
        };
        assert_eq!(*entry, expected, "{connection:?} {end:?}");
    }
}

/// What becomes of the addresses that one end sends.
fn rewrite(connection: &Connection, end: End) -> Option<Rewrite> {
    let Target::Service(service) = connection.target else {
        return None;
    };
    let (side, ip) = match end {
        End::Client => (Side::Destination, ip(connection.server)),
        End::Server => (Side::Source, vip(service)),
    };
    Some(Rewrite {
        side,
        ip,
        port: SERVED,
        // No two connections share a client's port.
        other_port: None,
    })
}
