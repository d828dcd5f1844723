//! What other nodes report of replicas: by numbers instead of names, as there are thousands.
//!
//! What another node reports may be wrong, or a lie: see [`Figures`] for what is made of it.

use std::collections::BTreeMap;

use weft_gossip::LoadReports;
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId};

/// Of so many replicas that came or went it is looked up who reports on them; of more, everybody's
/// reports are read again.
const FEW: usize = 16;

/// More connections than one node has to one replica: its flow tables hold fewer.
const MOST_OF_ONE_NODE: u32 = 1 << 24;

/// A figure that is small is believed whatever others say.
const BELIEVED: u32 = 16;

/// What all others have open to one replica, as far as it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Figures {
    /// For the limit of the service: what a node reports counts up to the limit, as it cannot have
    /// more. What one liar can take away by that is bounded by the share that this node always has.
    pub(super) claimed: u32,
    /// For the choice among replicas. A liar that says four billion of all replicas but his own
    /// would draw all clients there. So a node's figure counts in full as long as it is like those
    /// that the same node reports of the service's other replicas: whoever balances has about as
    /// many everywhere, up to twice the least. What goes beyond that counts up to the largest figure
    /// that anybody else has for that replica, this node included, and [`BELIEVED`] connections: a
    /// liar moves the choice by no more than another node's honest load does.
    pub(super) balanced: u32,
}

/// Replicas among which one is chosen: those of a service on one network.
pub(super) type Group<'a> = (&'a ServiceId, &'a NetworkId);

/// A replica that there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balanced<'a> {
    /// Among which others.
    pub(super) group: Group<'a>,
    /// It takes new connections.
    pub(super) ready: bool,
}

/// A replica, whose number is its place.
#[derive(Debug)]
struct Replica {
    /// Place of its group.
    group: usize,
    ready: bool,
}

/// What there is to know of a [`Group`].
#[derive(Debug)]
struct Choice {
    of: (ServiceId, NetworkId),
    /// How many replicas there are.
    replicas: usize,
    /// How many of them take connections.
    ready: usize,
    /// What one node can have open to one of them.
    most: u32,
}

/// What one node has open to one replica: its number, connections.
type Named = (usize, u32);

/// What one node reports of a group: of how many replicas that take connections, and the least
/// figure.
#[derive(Debug, Clone, Copy, Default)]
struct Profile {
    count: usize,
    least: u32,
}

/// The largest figure of a replica, which of the others says it, and the second largest.
#[derive(Debug, Clone, Copy, Default)]
struct Largest {
    figure: u32,
    by: Option<usize>,
    second: u32,
}

/// The replicas that there are. Who stays keeps its number.
#[derive(Debug, Default)]
struct Replicas {
    numbers: BTreeMap<String, usize>,
    /// By number; some have nobody.
    all: Vec<Option<Replica>>,
    free: Vec<usize>,
    group_numbers: BTreeMap<(ServiceId, NetworkId), usize>,
    groups: Vec<Choice>,
    free_groups: Vec<usize>,
    /// Limits of services that have one.
    limits: BTreeMap<ServiceId, u32>,
}

/// Takes a place that is free, or a new one.
fn place<T>(all: &mut Vec<T>, free: &mut Vec<usize>, thing: T) -> usize {
    let number = free.pop().unwrap_or(all.len());
    match all.get_mut(number) {
        Some(place) => *place = thing,
        None => all.push(thing),
    }
    number
}

fn most(limits: &BTreeMap<ServiceId, u32>, service: &ServiceId) -> u32 {
    let limit = limits.get(service).copied().filter(|limit| *limit > 0);
    limit.unwrap_or(MOST_OF_ONE_NODE)
}

impl Replicas {
    fn set_limits(&mut self, limits: BTreeMap<ServiceId, u32>) {
        self.limits = limits;
        for choice in &mut self.groups {
            choice.most = most(&self.limits, &choice.of.0);
        }
    }

    /// Says what a replica is now; nothing where it is gone. True when it came or went.
    fn set(&mut self, id: &EndpointId, now: Option<Balanced<'_>>) -> bool {
        let known = self.number(id.as_str());
        let was = known.and_then(|number| self.all.get_mut(number)?.take());
        if let Some(was) = was {
            self.leave(&was);
        }
        let now_is = now.map(|now| Replica {
            group: self.join(now),
            ready: now.ready,
        });
        match (known, now_is) {
            (Some(number), Some(now)) => {
                if let Some(place) = self.all.get_mut(number) {
                    *place = Some(now);
                }
            }
            (Some(number), None) => {
                self.numbers.remove(id.as_str());
                self.free.push(number);
            }
            (None, Some(now)) => {
                let number = place(&mut self.all, &mut self.free, Some(now));
                self.numbers.insert(id.0.clone(), number);
            }
            (None, None) => {}
        }
        known.is_some() != now.is_some()
    }

    fn join(&mut self, now: Balanced<'_>) -> usize {
        let of = (now.group.0.clone(), now.group.1.clone());
        let known = self.group_numbers.get(&of).copied();
        let number = known.unwrap_or_else(|| {
            let choice = Choice {
                of: of.clone(),
                replicas: 0,
                ready: 0,
                most: most(&self.limits, &of.0),
            };
            let number = place(&mut self.groups, &mut self.free_groups, choice);
            self.group_numbers.insert(of, number);
            number
        });
        if let Some(choice) = self.groups.get_mut(number) {
            choice.replicas += 1;
            choice.ready += usize::from(now.ready);
        }
        number
    }

    fn leave(&mut self, was: &Replica) {
        if let Some(choice) = self.groups.get_mut(was.group) {
            choice.replicas -= 1;
            choice.ready -= usize::from(was.ready);
            if choice.replicas == 0 {
                self.group_numbers.remove(&choice.of);
                self.free_groups.push(was.group);
            }
        }
    }

    fn number(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    fn replica(&self, number: usize) -> Option<&Replica> {
        self.all.get(number)?.as_ref()
    }

    fn named<'a>(&self, said: impl Iterator<Item = (&'a str, u32)>) -> Vec<Named> {
        said.filter_map(|(id, active)| Some((self.number(id)?, active.min(MOST_OF_ONE_NODE))))
            .collect()
    }

    /// The figures of every replica, from what this node has open and what each of the others
    /// reported.
    fn figures<'a>(
        &self,
        own: &[u32],
        others: impl Iterator<Item = &'a [Named]> + Clone,
    ) -> Vec<Figures> {
        let own = own.iter().map(|figure| Largest {
            figure: *figure,
            ..Largest::default()
        });
        let mut largest: Vec<Largest> = own.collect();
        for (by, named) in others.clone().enumerate() {
            for (number, active) in named {
                if let Some(top) = largest.get_mut(*number) {
                    top.add(by, *active);
                }
            }
        }
        let mut figures = vec![Figures::default(); self.all.len()];
        let mut profiles = vec![Profile::default(); self.groups.len()];
        for (by, named) in others.enumerate() {
            self.profile(named, &mut profiles);
            for (number, active) in named {
                let Some(replica) = self.replica(*number) else {
                    continue;
                };
                let (Some(choice), Some(profile), Some(top), Some(sum)) = (
                    self.groups.get(replica.group),
                    profiles.get(replica.group),
                    largest.get(*number),
                    figures.get_mut(*number),
                ) else {
                    continue;
                };
                // What is not reported is zero.
                let least = if profile.count == choice.ready {
                    profile.least
                } else {
                    0
                };
                let bound = top.of_others(by).saturating_add(BELIEVED);
                let bound = bound.max(least.saturating_mul(2));
                let claimed = (*active).min(choice.most);
                sum.claimed = sum.claimed.saturating_add(claimed);
                sum.balanced = sum.balanced.saturating_add((*active).min(bound));
            }
        }
        figures
    }

    /// Sets the `profiles` of a node that reports this, where it reports anything.
    fn profile(&self, named: &[Named], profiles: &mut [Profile]) {
        for (number, _) in named {
            let group = self.replica(*number).map(|r| r.group);
            if let Some(profile) = group.and_then(|group| profiles.get_mut(group)) {
                *profile = Profile::default();
            }
        }
        for (number, active) in named {
            let Some(replica) = self.replica(*number).filter(|r| r.ready) else {
                continue;
            };
            if let Some(profile) = profiles.get_mut(replica.group) {
                profile.least = match profile.count {
                    0 => *active,
                    _ => profile.least.min(*active),
                };
                profile.count += 1;
            }
        }
    }
}

impl Largest {
    fn add(&mut self, by: usize, figure: u32) {
        if figure > self.figure {
            *self = Self {
                figure,
                by: Some(by),
                second: self.figure,
            };
        } else {
            self.second = self.second.max(figure);
        }
    }

    /// The largest that anybody but `by` says.
    fn of_others(&self, by: usize) -> u32 {
        if self.by == Some(by) {
            self.second
        } else {
            self.figure
        }
    }
}

/// What one node reported last.
#[derive(Debug)]
struct FromNode {
    by: NodeId,
    reports: LoadReports,
    named: Vec<Named>,
}

impl FromNode {
    fn read(&mut self, replicas: &Replicas) {
        let said = self.reports.iter();
        self.named = replicas.named(said.map(|(id, load)| (id, load.active)));
    }
}

/// The reports of all other nodes. Read again is only what changed.
#[derive(Debug, Default)]
pub(super) struct Reports {
    replicas: Replicas,
    /// By node id.
    nodes: Vec<FromNode>,
}

impl Reports {
    /// Limits of services; those that are not named have none.
    pub(super) fn set_limits(&mut self, limits: BTreeMap<ServiceId, u32>) {
        self.replicas.set_limits(limits);
    }

    /// Says of some replicas what they are now; nothing of those that are gone.
    pub(super) fn follow<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a EndpointId, Option<Balanced<'a>>)>,
    ) {
        let mut others = Vec::new();
        for (id, now) in changes {
            if self.replicas.set(id, now) {
                others.push(id.as_str());
            }
        }
        if others.is_empty() {
            return;
        }
        for node in &mut self.nodes {
            let names = |id: &&str| node.reports.names(id);
            if others.len() > FEW || others.iter().any(names) {
                node.read(&self.replicas);
            }
        }
    }

    /// The number of a replica, by which [`Self::figures`] has it.
    pub(super) fn number(&self, replica: &EndpointId) -> Option<usize> {
        self.replicas.number(replica.as_str())
    }

    /// Takes in what all others report, in the order of their ids; who is not named reports
    /// nothing.
    pub(super) fn hear<'a>(&mut self, said: impl Iterator<Item = (&'a NodeId, LoadReports)>) {
        let mut before = std::mem::take(&mut self.nodes).into_iter().peekable();
        for (by, reports) in said {
            while before.next_if(|node| node.by < *by).is_some() {}
            let known = before.next_if(|node| node.by == *by && node.reports.is(&reports));
            self.nodes.push(known.unwrap_or_else(|| {
                let mut node = FromNode {
                    by: by.clone(),
                    reports,
                    named: Vec::new(),
                };
                node.read(&self.replicas);
                node
            }));
        }
    }

    /// The figures of every replica, by number; of each this node has `own` open.
    pub(super) fn figures(&self, own: &[u32]) -> Vec<Figures> {
        let others = self.nodes.iter().map(|node| node.named.as_slice());
        self.replicas.figures(own, others)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_gossip::{Config, Gossip, Identity};
    use weft_model::records::{LoadRecord, Table};

    use super::*;

    fn all<'a>(
        ids: &'a [EndpointId],
        group: Group<'a>,
    ) -> impl Iterator<Item = (&'a EndpointId, Option<Balanced<'a>>)> {
        let now = Balanced { group, ready: true };
        ids.iter().map(move |id| (id, Some(now)))
    }

    /// What this node believes of replicas 0, 1, … of one service, of which it has `own` open.
    fn believed(own: &[u32], others: &[(&str, Vec<u32>)], limit: u32) -> Vec<Figures> {
        let (service, network) = (ServiceId::from("s"), NetworkId::from("n"));
        let ids: Vec<EndpointId> = (0..own.len())
            .map(|i| format!("r{i}").as_str().into())
            .collect();
        let mut replicas = Replicas::default();
        replicas.set_limits([(service.clone(), limit)].into());
        for (id, now) in all(&ids, (&service, &network)) {
            assert!(replicas.set(id, now));
        }
        let named: Vec<Vec<Named>> = others
            .iter()
            .map(|(_, counts)| {
                let counts = ids.iter().zip(counts).filter(|(_, n)| **n > 0);
                replicas.named(counts.map(|(id, n)| (id.as_str(), *n)))
            })
            .collect();
        replicas.figures(own, named.iter().map(Vec::as_slice))
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
        let named = Replicas::default().named([("elsewhere", u32::MAX)].into_iter());
        assert_eq!(named, []);
    }

    #[test]
    fn the_last_word_of_each_node_counts_and_of_who_is_gone_nothing() {
        let (service, network) = (ServiceId::from("s"), NetworkId::from("n"));
        let ids: Vec<EndpointId> = ["r0", "r1"].map(EndpointId::from).into();
        let mut reports = Reports::default();
        let balanced = |reports: &Reports| -> Vec<u32> {
            let own = vec![0; reports.replicas.all.len()];
            reports.figures(&own).iter().map(|f| f.balanced).collect()
        };
        let mut nodes = ["a", "b", "c"].map(|id| {
            let addr = ([10, 0, 0, 1], 7946).into();
            let id = Identity::new(id.into(), addr, 1);
            Gossip::new(Config::default(), id, [0; 32], Duration::ZERO)
        });
        let mut say = |node: usize, replica: &str, active| {
            let record = LoadRecord {
                active,
                draining: false,
            };
            let value = serde_json::to_vec(&record).unwrap().into();
            let node = &mut nodes[node];
            node.put(Duration::ZERO, Table::Load, replica, value)
                .unwrap();
            let (by, reports) = (node.identity().node.clone(), node.view());
            let reports = reports.reports().next().unwrap().1;
            (by, reports)
        };
        let hear = |reports: &mut Reports, said: &[&(NodeId, LoadReports)]| {
            reports.hear(said.iter().map(|(by, said)| (by, said.clone())));
        };
        let (a, b, c) = (say(0, "r0", 1), say(1, "r1", 2), say(2, "r1", 3));
        hear(&mut reports, &[&a, &c]);
        assert!(balanced(&reports).is_empty(), "no replica is known");
        let group = (&service, &network);
        reports.follow(all(&ids, group));
        assert_eq!(balanced(&reports), [1, 3]);
        let numbers = ["r0", "r1", "r2"].map(|id| reports.number(&id.into()));
        assert_eq!(numbers, [Some(0), Some(1), None]);
        hear(&mut reports, &[&a, &b, &c]);
        assert_eq!(balanced(&reports), [1, 5]);
        let b = say(1, "r0", 4);
        hear(&mut reports, &[&b, &c]);
        assert_eq!(balanced(&reports), [4, 5], "b told of one more, a is gone");
        reports.follow([(&ids[0], None)].into_iter());
        assert_eq!(balanced(&reports), [0, 5], "nobody has that number");
        let newcomer = [EndpointId::from("r2")];
        reports.follow(all(&newcomer, group));
        assert_eq!(balanced(&reports), [0, 5], "nor anything of who had it");
        hear(&mut reports, &[]);
        assert_eq!(balanced(&reports), [0, 0]);
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
