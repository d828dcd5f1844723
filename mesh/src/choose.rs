//! Which replica takes a flow, and how it sees the client.

use weft_wire::DropReason;

use crate::balancer::Choice;
use crate::context::{Context, port_load, published, service_of};
use crate::flow::{Origin, ReplicaSide};
use crate::install::Install;
use crate::key::{Key, Scope};
use crate::replica::Replica;
use crate::seen_port::seen_port;
use crate::services::Service;
use crate::store::FlowId;
use crate::table::FlowTable;

/// Source ports tried, at most, when the client's own is taken on the way to a replica.
const PORT_PROBES: u16 = 128;
/// Source ports that may stand in for the client's own: above what services listen on.
const FIRST_PORT: u16 = 16_384;

impl FlowTable {
    /// Chooses a replica, and the addresses under which it sees the client.
    pub(crate) fn choose<'a>(
        &mut self,
        cx: &Context<'a>,
        origin: &Origin,
        key: &Key,
        tried: &[u64],
    ) -> Result<(ReplicaSide, &'a Replica, &'a Service), DropReason> {
        let (service, target_port) = service_of(cx, origin, key).ok_or(DropReason::NoService)?;
        let client_ip = match origin {
            Origin::Port { .. } => key.tuple.src,
            Origin::Mesh {
                keeps_client: true, ..
            } => key.tuple.src,
            Origin::Mesh { node_ip, .. } => *node_ip,
        };
        let choice = Choice {
            now: cx.now,
            client: Some(key.tuple.src),
            ipv6: client_ip.is_ipv6(),
            local_first: service.local_first,
            tried,
        };
        if client_ip.is_ipv6() != key.tuple.src.is_ipv6() {
            return Err(DropReason::NoService);
        }
        let replica = service
            .balancer
            .pick(&service.replicas, choice, &mut self.rng)
            .and_then(|at| service.replicas.get(at))
            .ok_or(DropReason::NoReplica)?;
        let mut tuple = key.tuple.reversed();
        tuple.src = replica.ip;
        tuple.sport = target_port;
        // A replica that is chosen for its own request would drop a packet from its own address:
        // it sees the service instead.
        tuple.dst = if replica.ip == client_ip {
            key.tuple.dst
        } else {
            client_ip
        };
        // A replica of this node may see the same client by another node.
        let node = match origin {
            Origin::Mesh {
                node_mac,
                keeps_client: true,
                ..
            } if replica.local => Some(*node_mac),
            _ => None,
        };
        if let Some(node) = node {
            tuple.dport = seen_port(node, tuple.dport);
        }
        let wanted = Key {
            scope: Scope::network(origin.vni()),
            tuple,
        };
        let reverse = self
            .free_reverse(wanted, node.is_some())
            .ok_or(DropReason::FlowTableFull)?;
        Ok((reverse, replica, service))
    }

    /// The key itself, or one with another client port when a flow has it already: two services
    /// may lead to one replica, and the client may use one port towards both. `shared` is a client
    /// outside at a replica of this node, whose connections other workers may keep as well.
    /// [`FlowTable::insert`] or [`FlowTable::move_reverse`] must follow.
    pub(crate) fn free_reverse(&mut self, mut key: Key, shared: bool) -> Option<ReplicaSide> {
        if let Some(side) = self.take(key, shared) {
            return Some(side);
        }
        let range = u16::MAX - FIRST_PORT;
        #[expect(clippy::cast_possible_truncation, reason = "below a 16-bit bound")]
        let start = self.rng.below(u32::from(range)) as u16;
        for i in 0..PORT_PROBES {
            let offset = (u32::from(start) + u32::from(i)) % u32::from(range);
            #[expect(clippy::cast_possible_truncation, reason = "below a 16-bit bound")]
            let port = FIRST_PORT + offset as u16;
            key.tuple.dport = port;
            if let Some(side) = self.take(key, shared) {
                return Some(side);
            }
        }
        None
    }

    /// The key, when nobody has it.
    fn take(&self, key: Key, shared: bool) -> Option<ReplicaSide> {
        let free =
            self.store.find_reverse(&key).is_none() && (!shared || self.config.claims.claim(&key));
        free.then_some(ReplicaSide {
            key,
            claimed: shared,
        })
    }

    /// Moves an unanswered connection to a replica that was not tried yet. `None` when there is
    /// none; else what the worker of the new replica needs.
    pub(crate) fn retry(&mut self, cx: &Context<'_>, at: FlowId) -> Option<Option<Install>> {
        let flow = self.store.get(at)?;
        let (origin, key, current, syn) = (flow.origin, flow.forward, flow.replica_key, flow.syn);
        let mut tried = [current; crate::syn_ring::MAX_TRIES];
        let mut tried_len = 1;
        if let Some(kept) = syn.and_then(|syn| self.syns.get_mut(syn)) {
            let before = kept.tried();
            tried_len = before.len().min(tried.len());
            tried.get_mut(..tried_len)?.copy_from_slice(before);
        }
        if tried_len >= tried.len() {
            return None;
        }
        let (reverse, replica, service) = self
            .choose(cx, &origin, &key, tried.get(..tried_len)?)
            .ok()?;
        if let Some(kept) = syn.and_then(|syn| self.syns.get_mut(syn)) {
            kept.add_tried(replica.key);
        }
        self.move_reverse(at, reverse);
        let worker = self.config.worker;
        let flow = self.store.get_mut(at)?;
        if let Some(open) = flow.open.take() {
            open.count_moved();
        }
        if let Some(published) = published(cx, &origin, &key) {
            published.load.tally().count_retried();
        }
        let port = port_load(cx, &origin, &key);
        let open = replica.load.open_at(&service.balancer.load, cx.now);
        flow.open = Some(open.at_port(port));
        flow.replica_key = replica.key;
        flow.replica_mac = replica.mac;
        flow.replica_local = replica.local;
        flow.epoch = cx.epoch;
        flow.last_seen = cx.now;
        let install = Install::of(flow, worker);
        self.counters.retried += 1;
        Some(install)
    }
}
