//! Flows that outlive the process: each has a record of fixed size outside of it, and the next
//! process takes them up again.
//!
//! A record is written when somebody has answered the flow, and cleared when the flow is over: a
//! packet costs nothing, an attempt that nobody answers neither. What changes with every packet is
//! not in it; the next packets tell.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use weft_wire::{FiveTuple, Instant, Mac, Vni};

use crate::flow::{Flow, FlowKind, Macs, Origin, ReplicaSide};
use crate::key::{Key, Scope};
use crate::state::FlowState;
use crate::store::FlowId;

/// Words of a record. The first one is zero in a record that holds nothing.
pub const RECORD_WORDS: usize = 16;

/// One flow, in a form that only this version of the crate reads.
pub type Record = [u64; RECORD_WORDS];

/// Changes with the meaning of a record.
pub const RECORD_VERSION: u64 = 1;

/// Keeps the records of one table, by the number of the flow's place.
pub trait Journal: Send + fmt::Debug {
    /// A flow, whole. The head has to be stored last.
    fn write(&mut self, place: u32, record: &Record);
    /// Another head for a record that is there, or zero: there is none any more.
    fn set_head(&mut self, place: u32, head: u64);
    /// Takes out all records, those of an earlier process among them.
    fn clear(&mut self);
}

/// Whose flow a record is, for the caller of [`crate::FlowTable::restore`] to say where that is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedOrigin {
    /// A sandbox with this address.
    Port {
        /// Its network.
        vni: Vni,
        /// Its address.
        ip: IpAddr,
    },
    /// The host, by `weft0`.
    Mesh {
        /// The ingress network.
        vni: Vni,
        /// Its client speaks IPv4.
        ipv4: bool,
        /// As [`Origin::Mesh`] has it.
        keeps_client: bool,
    },
}

const MESH: u64 = 1 << 16;
const KEEPS_CLIENT: u64 = 1 << 17;
const REPLICA_LOCAL: u64 = 1 << 18;

/// The journal of a table, where it has one.
#[derive(Debug, Default)]
pub(crate) struct Records(Option<Box<dyn Journal>>);

impl Records {
    /// Keeps records in `journal` from now on.
    pub(crate) fn set(&mut self, journal: Box<dyn Journal>) {
        self.0 = Some(journal);
    }

    /// Takes all records out.
    pub(crate) fn clear(&mut self) {
        if let Some(journal) = &mut self.0 {
            journal.clear();
        }
    }

    /// Brings the record of a flow up to date after it was `kept` before, or not.
    pub(crate) fn update(&mut self, id: FlowId, kept: bool, flow: &Flow) {
        let Some(journal) = &mut self.0 else {
            return;
        };
        match (kept, is_kept(flow)) {
            (true, true) => journal.set_head(id.get(), head(flow)),
            (false, true) => journal.write(id.get(), &encode(flow)),
            (true, false) => journal.set_head(id.get(), 0),
            (false, false) => {}
        }
    }

    /// Clears the record of a place that is free now.
    pub(crate) fn forget(&mut self, id: FlowId, flow: &Flow) {
        if let Some(journal) = &mut self.0
            && is_kept(flow)
        {
            journal.set_head(id.get(), 0);
        }
    }
}

/// The flow of a record, as far as the record tells: not what it is counted in, and not its number.
pub(crate) fn decode(
    record: &Record,
    now: Instant,
    origin: &mut impl FnMut(SavedOrigin) -> Option<Origin>,
) -> Option<Flow> {
    let [
        head,
        replica_key,
        vni,
        ports,
        f0,
        f1,
        f2,
        f3,
        r0,
        r1,
        r2,
        r3,
        client,
        service,
        replica,
        node,
    ] = *record;
    let state = state_of(head & 0xff)?;
    let worker = u16::try_from(head >> 32 & 0xffff).ok()?;
    let kind = match head >> 8 & 0xff {
        0 => FlowKind::Owned,
        1 => FlowKind::Guest { owner: worker },
        2 => FlowKind::Return,
        _ => return None,
    };
    let vni = Vni::new(u32::try_from(vni).ok()?)?;
    let proto = u8::try_from(head >> 24 & 0xff).ok()?;
    let port = |n: u32| (ports >> (16 * n) & 0xffff) as u16;
    let tuple = |src, dst, sport, dport| FiveTuple {
        src,
        dst,
        sport,
        dport,
        proto,
    };
    let forward = tuple(ip(f0, f1), ip(f2, f3), port(0), port(1));
    let reverse = tuple(ip(r0, r1), ip(r2, r3), port(2), port(3));
    let origin = match (kind, head & MESH != 0) {
        (FlowKind::Return, _) => Some(Origin::Mesh {
            vni,
            node_ip: forward.dst,
            node_mac: mac(node),
            keeps_client: true,
        }),
        (_, true) => origin(SavedOrigin::Mesh {
            vni,
            ipv4: forward.src.is_ipv4(),
            keeps_client: head & KEEPS_CLIENT != 0,
        }),
        (_, false) => origin(SavedOrigin::Port {
            vni,
            ip: forward.src,
        }),
    }?;
    let scope = if kind == FlowKind::Return {
        Scope::behind(mac(node))
    } else {
        origin.scope()
    };
    let forward = Key {
        scope,
        tuple: forward,
    };
    let reverse = ReplicaSide {
        key: Key {
            scope: Scope::network(vni),
            tuple: reverse,
        },
        claimed: false,
    };
    let macs = Macs {
        client: mac(client),
        service: mac(service),
        replica: mac(replica),
    };
    let mut flow = Flow::new(kind, origin, forward, reverse, macs, now);
    flow.state = state;
    flow.replica_key = replica_key;
    flow.replica_local = head & REPLICA_LOCAL != 0;
    Some(flow)
}

/// Whether a flow has a record: somebody has answered it, and it is not over. Entries for flows of
/// other workers do not know how far these are.
pub(crate) fn is_kept(flow: &Flow) -> bool {
    match flow.kind {
        FlowKind::Guest { .. } => true,
        FlowKind::Owned | FlowKind::Return => {
            !flow.state.is_over()
                && !matches!(flow.state, FlowState::SynSent | FlowState::Datagrams)
        }
    }
}

/// A client outside at a replica of this node, which other workers' connections must differ from.
pub(crate) fn is_shared(flow: &Flow) -> bool {
    let kept = matches!(
        flow.origin,
        Origin::Mesh {
            keeps_client: true,
            ..
        }
    );
    flow.kind == FlowKind::Return || (flow.kind == FlowKind::Owned && kept && flow.replica_local)
}

fn head(flow: &Flow) -> u64 {
    let (kind, worker) = match flow.kind {
        FlowKind::Owned => (0, 0),
        FlowKind::Guest { owner } => (1, owner),
        FlowKind::Return => (2, 0),
    };
    let mut head = code_of(flow.state)
        | kind << 8
        | u64::from(flow.forward.tuple.proto) << 24
        | u64::from(worker) << 32;
    if let Origin::Mesh { keeps_client, .. } = flow.origin {
        head |= MESH;
        if keeps_client {
            head |= KEEPS_CLIENT;
        }
    }
    if flow.replica_local {
        head |= REPLICA_LOCAL;
    }
    head
}

fn encode(flow: &Flow) -> Record {
    let (forward, reverse) = (flow.forward.tuple, flow.reverse.tuple);
    let ports = [forward.sport, forward.dport, reverse.sport, reverse.dport];
    let ports = ports
        .iter()
        .rev()
        .fold(0, |word, port| word << 16 | u64::from(*port));
    let ([f0, f1], [f2, f3]) = (words(forward.src), words(forward.dst));
    let ([r0, r1], [r2, r3]) = (words(reverse.src), words(reverse.dst));
    let node = match flow.origin {
        Origin::Mesh { node_mac, .. } => word(node_mac),
        Origin::Port { .. } => 0,
    };
    [
        head(flow),
        flow.replica_key,
        u64::from(flow.origin.vni().get()),
        ports,
        f0,
        f1,
        f2,
        f3,
        r0,
        r1,
        r2,
        r3,
        word(flow.client_mac),
        word(flow.service_mac),
        word(flow.replica_mac),
        node,
    ]
}

const STATES: [FlowState; 9] = [
    FlowState::SynSent,
    FlowState::SynAnswered,
    FlowState::Established,
    FlowState::FinClient,
    FlowState::FinReplica,
    FlowState::Closing,
    FlowState::Reset,
    FlowState::Datagrams,
    FlowState::DatagramsAnswered,
];

/// Never zero.
fn code_of(state: FlowState) -> u64 {
    let at = STATES.iter().position(|s| *s == state);
    at.map_or(0, |at| at as u64 + 1)
}

fn state_of(code: u64) -> Option<FlowState> {
    STATES
        .get(usize::try_from(code).ok()?.checked_sub(1)?)
        .copied()
}

fn words(ip: IpAddr) -> [u64; 2] {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = u128::from(v6);
    [(bits >> 64) as u64, bits as u64]
}

fn ip(high: u64, low: u64) -> IpAddr {
    let bits = u128::from(high) << 64 | u128::from(low);
    IpAddr::V6(Ipv6Addr::from(bits)).to_canonical()
}

fn word(mac: Mac) -> u64 {
    mac.0
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn mac(word: u64) -> Mac {
    let [_, _, rest @ ..] = word.to_be_bytes();
    Mac(rest)
}
