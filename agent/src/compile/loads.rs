//! Connection counts of replicas: kept across snapshots, fed by gossip, reported by gossip.
//!
//! What another node reports may be wrong, or a lie: see [`Figures`] for what is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_mesh::{PortLoad, ReplicaLoad, ServiceLoad};
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId};
use weft_model::objects::Protocol;
use weft_model::records::LoadRecord;
use weft_wire::Instant;

/// More connections than one node has to one replica: its flow tables hold fewer.
const MOST_OF_ONE_NODE: u32 = 1 << 24;

/// A figure that is small is believed whatever others say.
const BELIEVED: u32 = 16;

/// Connections that another node says it has open to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Who says so.
    pub(crate) by: NodeId,
    /// Of which replica.
    pub(crate) replica: EndpointId,
    /// So many.
    pub(crate) active: u32,
}

/// What all others have open to one replica, as far as it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Figures {
    /// For the limit of the service: what a node reports counts up to the limit, as it cannot have
    /// more. What one liar can take away by that is bounded by the share that this node always has.
    claimed: u32,
    /// For the choice among replicas. A liar that says four billion of all replicas but his own
    /// would draw all clients there. So a node's figure counts in full as long as it is like those
    /// that the same node reports of the service's other replicas: whoever balances has about as
    /// many everywhere, up to twice the least. What goes beyond that counts up to the largest figure
    /// that anybody else has for that replica, this node included, and [`BELIEVED`] connections: a
    /// liar moves the choice by no more than another node's honest load does.
    balanced: u32,
}

/// Replicas among which one is chosen: those of a service on one network.
pub(crate) type Group<'a> = (&'a ServiceId, &'a NetworkId);

/// A replica that there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balanced<'a> {
    /// Its endpoint.
    pub(crate) replica: &'a EndpointId,
    /// Among which others.
    pub(crate) group: Group<'a>,
    /// It takes new connections.
    pub(crate) ready: bool,
}

/// The figures of every replica, from what all others reported.
fn figures<'a>(
    reported: &'a [Reported],
    own: &BTreeMap<&'a EndpointId, u32>,
    replicas: &[Balanced<'a>],
    limits: &BTreeMap<&ServiceId, u32>,
) -> BTreeMap<&'a EndpointId, Figures> {
    let known: BTreeMap<&EndpointId, &Balanced<'_>> =
        replicas.iter().map(|r| (r.replica, r)).collect();
    let mut sizes: BTreeMap<Group<'_>, usize> = BTreeMap::new();
    for replica in known.values().filter(|r| r.ready) {
        *sizes.entry(replica.group).or_default() += 1;
    }
    // By node and group: of how many replicas that take connections it reports, and the least
    // figure.
    let mut profiles: BTreeMap<(&NodeId, Group<'_>), (usize, u32)> = BTreeMap::new();
    // By replica: the largest figure and who says it, and the second largest.
    let mut largest: BTreeMap<&EndpointId, (u32, Option<&NodeId>, u32)> = own
        .iter()
        .map(|(replica, active)| (*replica, (*active, None, 0)))
        .collect();
    for report in reported {
        let Some(Balanced { group, ready, .. }) = known.get(&report.replica).copied() else {
            continue;
        };
        let active = report.active.min(MOST_OF_ONE_NODE);
        if *ready {
            let profile = profiles.entry((&report.by, *group)).or_insert((0, active));
            *profile = (profile.0 + 1, profile.1.min(active));
        }
        let top = largest.entry(&report.replica).or_default();
        *top = if active > top.0 {
            (active, Some(&report.by), top.0)
        } else {
            (top.0, top.1, top.2.max(active))
        };
    }
    let mut figures: BTreeMap<&EndpointId, Figures> = BTreeMap::new();
    for report in reported {
        let Some(Balanced { group, .. }) = known.get(&report.replica).copied() else {
            continue;
        };
        let active = report.active.min(MOST_OF_ONE_NODE);
        let limit = limits.get(group.0).copied().filter(|limit| *limit > 0);
        let claimed = active.min(limit.unwrap_or(MOST_OF_ONE_NODE));
        // What is not reported is zero.
        let least = profiles
            .get(&(&report.by, *group))
            .filter(|(count, _)| Some(count) == sizes.get(group))
            .map_or(0, |(_, least)| *least);
        let others = match largest.get(&report.replica) {
            Some((_, Some(by), second)) if **by == report.by => *second,
            Some((first, ..)) => *first,
            None => 0,
        };
        let bound = others.saturating_add(BELIEVED).max(least.saturating_mul(2));
        let sum = figures.entry(&report.replica).or_default();
        sum.claimed = sum.claimed.saturating_add(claimed);
        sum.balanced = sum.balanced.saturating_add(active.min(bound));
    }
    figures
}

/// The counters that workers share, by endpoint of the replica.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    counters: BTreeMap<EndpointId, Arc<ReplicaLoad>>,
    services: BTreeMap<ServiceId, Arc<ServiceLoad>>,
    ports: BTreeMap<(ServiceId, Protocol, u16), Arc<PortLoad>>,
    /// Replicas that took connections once and take no more.
    draining: BTreeSet<EndpointId>,
    /// Workers that count.
    workers: usize,
    reported: BTreeMap<EndpointId, LoadRecord>,
}

impl Loads {
    /// Counters that so many workers share.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// The counter of a replica, made on first use.
    pub(crate) fn of(&mut self, endpoint: &EndpointId) -> Arc<ReplicaLoad> {
        let new = || Arc::new(ReplicaLoad::with_workers(self.workers));
        Arc::clone(self.counters.entry(endpoint.clone()).or_insert_with(new))
    }

    /// The counters of a service, made on first use.
    pub(crate) fn of_service(&mut self, service: &ServiceId) -> Arc<ServiceLoad> {
        Arc::clone(self.services.entry(service.clone()).or_default())
    }

    /// The counters of a port at the mesh address, made on first use.
    pub(crate) fn of_port(
        &mut self,
        service: &ServiceId,
        protocol: Protocol,
        mesh_port: u16,
    ) -> Arc<PortLoad> {
        let key = (service.clone(), protocol, mesh_port);
        let new = || Arc::new(PortLoad::with_workers(self.workers));
        Arc::clone(self.ports.entry(key).or_insert_with(new))
    }

    /// Notes which replicas take connections, and since when.
    pub(crate) fn set_ready(&mut self, ready: impl Fn(&EndpointId) -> bool, now: Instant) {
        for (endpoint, load) in &self.counters {
            match (ready(endpoint), load.ready_since()) {
                (true, None) => {
                    load.set_ready_since(Some(now));
                    self.draining.remove(endpoint);
                }
                (false, Some(_)) => {
                    load.set_ready_since(None);
                    self.draining.insert(endpoint.clone());
                }
                _ => {}
            }
        }
    }

    /// Says what each node may always take of a service's limit: an equal part, and one connection
    /// at least.
    pub(crate) fn set_shares(&self, limits: &BTreeMap<&ServiceId, u32>, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        for (service, load) in &self.services {
            let limit = limits.get(service).copied().unwrap_or(0);
            load.set_share((limit / nodes).max(1));
        }
    }

    /// Takes in what the other nodes say they have open, and when that was counted. Replicas that
    /// nobody reports count zero. `replicas` are all that there are.
    pub(crate) fn set_others(
        &mut self,
        reported: &[Reported],
        replicas: &[Balanced<'_>],
        limits: &BTreeMap<&ServiceId, u32>,
        counted: Instant,
    ) {
        let own = self.counters.iter();
        let own = own.map(|(replica, load)| (replica, load.own())).collect();
        let figures = figures(reported, &own, replicas, limits);
        for (endpoint, load) in &self.counters {
            let figures = figures.get(endpoint).copied().unwrap_or_default();
            load.set_others_at(figures.balanced, counted);
            load.set_claimed(figures.claimed);
        }
    }

    /// Forgets services that are not in `keep`.
    pub(crate) fn retain_services(&mut self, keep: impl Fn(&ServiceId) -> bool) {
        self.services.retain(|service, _| keep(service));
        self.ports.retain(|(service, _, _), _| keep(service));
    }

    /// Forgets replicas that are not in `keep` and have nothing open from here.
    pub(crate) fn retain(&mut self, keep: impl Fn(&EndpointId) -> bool) {
        self.counters
            .retain(|endpoint, load| keep(endpoint) || load.own() > 0);
        self.draining.retain(keep);
    }

    /// Own counts that differ from the last report: what gossip has to be told. `None` stands for
    /// an entry that is to be deleted.
    pub(crate) fn take_changes(&mut self) -> Vec<(EndpointId, Option<LoadRecord>)> {
        let mut changes = Vec::new();
        for (endpoint, load) in &self.counters {
            let own = load.own();
            load.note_reported(own);
            let draining = self.draining.contains(endpoint);
            let record = LoadRecord {
                active: own,
                draining,
            };
            let record = (own > 0 || draining).then_some(record);
            if self.reported.get(endpoint) != record.as_ref() {
                changes.push((endpoint.clone(), record));
            }
        }
        for endpoint in self.reported.keys() {
            if !self.counters.contains_key(endpoint) {
                changes.push((endpoint.clone(), None));
            }
        }
        for (endpoint, own) in &changes {
            match own {
                Some(own) => self.reported.insert(endpoint.clone(), *own),
                None => self.reported.remove(endpoint),
            };
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_changes_once_and_forgets_the_idle() {
        let mut loads = Loads::default();
        let (a, b) = (EndpointId::from("a"), EndpointId::from("b"));
        let flow = loads.of(&a).open();
        loads.of(&b);
        let one = LoadRecord {
            active: 1,
            draining: false,
        };
        assert_eq!(loads.take_changes(), [(a.clone(), Some(one))]);
        assert_eq!(loads.take_changes(), []);
        loads.retain(|_| false);
        assert_eq!(loads.take_changes(), [], "an open flow keeps its counter");
        drop(flow);
        assert_eq!(loads.take_changes(), [(a.clone(), None)]);
        let (service, network) = (ServiceId::from("s"), NetworkId::from("n"));
        let group = (&service, &network);
        let replica = Balanced {
            replica: &a,
            group,
            ready: true,
        };
        let reported = [reported("n", "a", 7)];
        loads.set_others(&reported, &[replica], &BTreeMap::new(), Instant(1));
        assert_eq!(loads.of(&a).total(), 7);
        loads.retain(|_| false);
        assert_eq!(loads.of(&a).total(), 0);
    }

    #[test]
    fn a_replica_that_was_not_ready_is_a_newcomer_again() {
        let mut loads = Loads::default();
        let load = loads.of(&EndpointId::from("a"));
        let mut since = |ready, now| {
            loads.set_ready(|_| ready, Instant(now));
            load.ready_since()
        };
        assert_eq!(since(false, 1), None);
        assert_eq!(since(true, 2), Some(Instant(2)));
        assert_eq!(since(true, 3), Some(Instant(2)));
        assert_eq!(since(false, 4), None);
        assert_eq!(since(true, 5), Some(Instant(5)));
    }

    #[test]
    fn tells_that_a_replica_gets_nothing_new() {
        let mut loads = Loads::default();
        let a = EndpointId::from("a");
        loads.of(&a);
        loads.set_ready(|_| false, Instant(1));
        assert_eq!(loads.take_changes(), [], "it starts");
        loads.set_ready(|_| true, Instant(2));
        let flow = loads.of(&a).open();
        let record = |active, draining| Some(LoadRecord { active, draining });
        assert_eq!(loads.take_changes(), [(a.clone(), record(1, false))]);
        loads.set_ready(|_| false, Instant(3));
        assert_eq!(loads.take_changes(), [(a.clone(), record(1, true))]);
        drop(flow);
        assert_eq!(loads.take_changes(), [(a.clone(), record(0, true))]);
        loads.retain(|_| false);
        assert_eq!(loads.take_changes(), [(a, None)]);
    }

    fn reported(by: &str, replica: &str, active: u32) -> Reported {
        Reported {
            by: by.into(),
            replica: replica.into(),
            active,
        }
    }

    /// What node `me` believes of replicas 0, 1, … of one service, of which it has `own` open.
    fn believed(own: &[u32], others: &[(&str, Vec<u32>)], limit: u32) -> Vec<Figures> {
        let (service, network) = (ServiceId::from("s"), NetworkId::from("n"));
        let ids: Vec<EndpointId> = (0..own.len())
            .map(|i| format!("r{i}").as_str().into())
            .collect();
        let replicas: Vec<_> = ids
            .iter()
            .map(|replica| Balanced {
                replica,
                group: (&service, &network),
                ready: true,
            })
            .collect();
        let all: Vec<Reported> = others
            .iter()
            .flat_map(|(by, counts)| {
                let counts = counts.iter().enumerate().filter(|(_, n)| **n > 0);
                counts.map(|(i, n)| reported(by, ids[i].as_str(), *n))
            })
            .collect();
        let own = ids.iter().zip(own.iter().copied()).collect();
        let limits = BTreeMap::from([(&service, limit)]);
        let figures = figures(&all, &own, &replicas, &limits);
        ids.iter()
            .map(|id| figures.get(id).copied().unwrap_or_default())
            .collect()
    }

    fn balanced(own: &[u32], others: &[(&str, Vec<u32>)]) -> Vec<u32> {
        let figures = believed(own, others, 0);
        figures.iter().map(|f| f.balanced).collect()
    }

    #[test]
    fn honest_figures_count_in_full() {
        // One node has nearly all of the traffic, spread as balancers do.
        let busy = ("b", vec![900, 1000, 1100]);
        assert_eq!(balanced(&[1, 0, 2], &[busy]), [900, 1000, 1100]);
        // A newcomer, and a node that has few.
        let all = [("b", vec![16, 9, 0]), ("c", vec![3, 0, 1])];
        assert_eq!(balanced(&[0, 0, 0], &all), [19, 9, 1]);
        // Like loads on two nodes of which one has a replica less.
        let all = [("b", vec![100, 110, 0]), ("c", vec![105, 100, 0])];
        assert_eq!(balanced(&[0, 0, 0], &all), [205, 210, 0]);
    }

    #[test]
    fn a_liar_draws_no_more_than_another_nodes_load() {
        let most = u32::MAX;
        let liar = ("z", vec![most, most, 0]);
        let honest = ("b", vec![40, 50, 60]);
        assert_eq!(
            balanced(&[10, 10, 10], &[honest, liar.clone()]),
            [40 + 40 + BELIEVED, 50 + 50 + BELIEVED, 60]
        );
        assert_eq!(balanced(&[5, 0, 0], &[liar]), [5 + BELIEVED, BELIEVED, 0]);
        // Absurd of all alike changes nothing in the choice, and overflows nothing.
        let all = [("y", vec![most; 3]), ("z", vec![most; 3])];
        assert_eq!(balanced(&[0, 0, 0], &all), [2 * MOST_OF_ONE_NODE; 3]);
    }

    #[test]
    fn strangers_to_a_service_count_nothing_and_limits_bound_the_rest() {
        let others = [("b", vec![7, 2]), ("z", vec![4_000_000_000, 4_000_000_000])];
        let claimed: Vec<u32> = believed(&[0, 0], &others, 1000)
            .iter()
            .map(|f| f.claimed)
            .collect();
        assert_eq!(claimed, [1007, 1002]);
        let elsewhere = [reported("z", "elsewhere", u32::MAX)];
        let none = figures(&elsewhere, &BTreeMap::new(), &[], &BTreeMap::new());
        assert!(none.is_empty());
    }

    #[test]
    fn a_share_is_an_equal_part_and_one_at_least() {
        let mut loads = Loads::default();
        let service = ServiceId::from("s");
        let load = loads.of_service(&service);
        let share = |limit, nodes| {
            loads.set_shares(&BTreeMap::from([(&service, limit)]), nodes);
            load.share()
        };
        assert_eq!(share(1000, 3), 333);
        assert_eq!(share(2, 3), 1);
        assert_eq!(share(10, 0), 10);
    }

    proptest::proptest! {
        /// However one of the others lies, no replica's figure differs from the honest one by more
        /// than the largest that an honest node has there, and [`BELIEVED`]; or it lies of all alike,
        /// within a factor of two.
        #[test]
        fn one_liar_moves_the_choice_by_one_honest_load(
            own in proptest::collection::vec(0_u32..500, 4),
            honest in proptest::collection::vec(proptest::collection::vec(100_u32..180, 4), 1..5),
            lie in proptest::collection::vec(proptest::num::u32::ANY, 4),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut others: Vec<(&str, Vec<u32>)> =
                names.iter().copied().zip(honest.iter().cloned()).collect();
            let without = balanced(&own, &others);
            others.push(("z", lie.clone()));
            let with = balanced(&own, &others);
            let least = lie.iter().copied().min().unwrap_or(0).min(MOST_OF_ONE_NODE);
            for i in 0..4 {
                let largest = honest.iter().map(|h| h[i]).chain([own[i]]).max().unwrap_or(0);
                let added = with[i] - without[i];
                let bound = (largest + BELIEVED).max(least.saturating_mul(2));
                proptest::prop_assert!(added <= bound, "{added} > {bound}");
            }
        }
    }
}
