//! What the nodes of the cluster say, as it arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_gossip::{Config, Gossip, Identity, NetdbView};
use weft_model::records::Table;

use super::{ENDPOINTS_OF_EACH, NODES, REPLICAS_OF_EACH, VIEWS_IN_A_TICK};

/// What fits a datagram.
const BATCH: usize = 8;

pub(super) fn addr(node: usize) -> SocketAddr {
    let [_, _, hi, lo] = u32::try_from(node).unwrap().to_be_bytes();
    SocketAddr::from(([10, 1, hi, lo], 7946))
}

pub(super) fn node_id(node: usize) -> String {
    format!("node{node:021}")
}

pub(super) fn endpoint_id(endpoint: usize) -> String {
    // As long as others are, and with another beginning each.
    format!("{:0<25}", format!("e{endpoint:05}"))
}

/// Protobuf, as the members of gossip write it.
fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(out: &mut Vec<u8>, tag: u64, n: u64) {
    varint(out, tag << 3);
    varint(out, n);
}

fn field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    varint(out, (tag << 3) | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn wrapped(tag: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, tag, bytes);
    out
}

fn hello(node: usize) -> Vec<u8> {
    let SocketAddr::V4(at) = addr(node) else {
        panic!("IPv4");
    };
    let mut id = Vec::new();
    field(&mut id, 1, node_id(node).as_bytes());
    number(&mut id, 2, 1);
    field(&mut id, 4, &at.ip().octets());
    number(&mut id, 5, at.port().into());
    wrapped(3, &wrapped(1, &id))
}

/// This node's gossip, and what the others have said so far.
pub(super) struct Cluster {
    gossip: Gossip,
    now: Duration,
    sequence: Vec<u64>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let now = Duration::from_secs(1);
        let own = Identity::new(node_id(0).as_str().into(), addr(0), 1);
        let mut this = Self {
            gossip: Gossip::new(Config::default(), own, [7; 32], now),
            now,
            sequence: vec![0; NODES],
        };
        for node in 1..NODES {
            this.hear(node, &hello(node));
            let id = node_id(node);
            let first = node * ENDPOINTS_OF_EACH;
            let mut said: Vec<_> = (first..first + ENDPOINTS_OF_EACH)
                .map(|e| this.endpoint(node, e, true))
                .collect();
            said.push(this.update(node, Table::Node, &id, r#"{"mtu":1500}"#));
            this.updates(&said);
        }
        this
    }

    fn hear(&mut self, from: usize, datagram: &[u8]) {
        self.gossip
            .handle_datagram(self.now, addr(from), datagram)
            .unwrap();
        while self.gossip.poll_transmit().is_some() {}
        while self.gossip.poll_stream().is_some() {}
        while self.gossip.poll_event().is_some() {}
    }

    fn update(&mut self, node: usize, table: Table, key: &str, value: &str) -> Vec<u8> {
        self.sequence[node] += 1;
        let mut out = Vec::new();
        field(&mut out, 1, node_id(node).as_bytes());
        number(&mut out, 2, 1);
        number(&mut out, 3, self.sequence[node]);
        let code = match table {
            Table::Node => 1,
            Table::Endpoint => 2,
            Table::Load => 3,
        };
        number(&mut out, 4, code);
        field(&mut out, 5, key.as_bytes());
        field(&mut out, 6, value.as_bytes());
        out
    }

    pub(super) fn endpoint(&mut self, node: usize, endpoint: usize, ready: bool) -> Vec<u8> {
        let id = endpoint_id(endpoint);
        let value = format!(r#"{{"id":"{id}","ready":{ready}}}"#);
        self.update(node, Table::Endpoint, &id, &value)
    }

    pub(super) fn updates(&mut self, updates: &[Vec<u8>]) {
        for batch in updates.chunks(BATCH) {
            let mut out = Vec::new();
            for update in batch {
                field(&mut out, 1, update);
            }
            self.hear(1, &wrapped(2, &out));
        }
    }

    /// What a fifth of the nodes report in this round: each does so once in a tick.
    pub(super) fn reports(&mut self, round: usize) -> Vec<Vec<u8>> {
        let in_turn = VIEWS_IN_A_TICK as usize;
        let (turn, tick) = (round % in_turn, round / in_turn);
        let nodes = (1..NODES).filter(|node| node % in_turn == turn);
        let mut reports = Vec::new();
        for node in nodes {
            let replica = node * 97 + (tick % REPLICAS_OF_EACH) * 1013;
            let replica = endpoint_id(replica % (NODES * ENDPOINTS_OF_EACH));
            let active = 1 + (node * 31 + round) % 50;
            let value = format!(r#"{{"active":{active},"draining":false}}"#);
            reports.push(self.update(node, Table::Load, &replica, &value));
        }
        reports
    }

    pub(super) fn view(&self, before: &NetdbView) -> Arc<NetdbView> {
        Arc::new(self.gossip.view_after(before))
    }
}
