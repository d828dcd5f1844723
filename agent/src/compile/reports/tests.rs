use std::time::Duration;

use proptest::prelude::*;
use weft_gossip::{Config, Gossip, Identity, NetdbView};
use weft_model::records::{LoadRecord, Table};

use super::choice::BELIEVED;
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
    let mut reports = Reports::default();
    reports.set_limits([(service.clone(), limit)].into());
    reports.follow(all(&ids, (&service, &network)));
    for (by, counts) in others {
        let counts = ids.iter().zip(counts).filter(|(_, n)| **n > 0);
        for (id, n) in counts {
            reports.hear(&NodeId::from(*by), id.as_str(), Some(*n));
        }
    }
    reports.settle(|number| own.get(number).copied().unwrap_or(0));
    (0..own.len()).map(|n| reports.figures(n)).collect()
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
    let mut reports = Reports::default();
    reports.hear(&NodeId::from("b"), "elsewhere", Some(u32::MAX));
    assert_eq!(reports.number(&EndpointId::from("elsewhere")), None);
    assert!(reports.settle(|_| 0).replicas.is_empty());
}

#[test]
fn the_last_word_of_each_node_counts_and_of_who_is_gone_nothing() {
    let (service, network) = (ServiceId::from("s"), NetworkId::from("n"));
    let ids: Vec<EndpointId> = ["r0", "r1"].map(EndpointId::from).into();
    let newcomer = [EndpointId::from("r2")];
    let mut reports = Reports::default();
    let balanced = |reports: &mut Reports| {
        reports.settle(|_| 0);
        let of = |id: &str| {
            let number = reports.number(&EndpointId::from(id))?;
            Some(reports.figures(number).balanced)
        };
        [of("r0"), of("r1"), of("r2")]
    };
    let mut nodes = ["a", "b", "c"].map(|id| {
        let addr = ([10, 0, 0, 1], 7946).into();
        let id = Identity::new(id.into(), addr, 1);
        Gossip::new(Config::default(), id, [0; 32], Duration::ZERO)
    });
    let mut said = [(); 3].map(|()| NetdbView::default());
    // Node 0, 1 or 2 has so many open now; or it dies.
    let mut hear = |reports: &mut Reports, node: usize, says: Option<(&str, u32)>| {
        let view = says.map_or_else(NetdbView::default, |(replica, active)| {
            let record = LoadRecord {
                active,
                draining: false,
            };
            let value = serde_json::to_vec(&record).unwrap().into();
            let node = &mut nodes[node];
            node.put(Duration::ZERO, Table::Load, replica, value)
                .unwrap();
            node.view()
        });
        for (by, replica, load) in view.changed_loads(&said[node]) {
            reports.hear(by, replica, load.map(|load| load.active));
        }
        said[node] = view;
    };
    hear(&mut reports, 0, Some(("r0", 1)));
    hear(&mut reports, 2, Some(("r1", 3)));
    assert_eq!(balanced(&mut reports), [None; 3], "no replica is known");
    let group = (&service, &network);
    reports.follow(all(&ids, group));
    assert_eq!(balanced(&mut reports), [Some(1), Some(3), None]);
    hear(&mut reports, 1, Some(("r1", 2)));
    assert_eq!(balanced(&mut reports), [Some(1), Some(5), None]);
    hear(&mut reports, 1, Some(("r0", 4)));
    hear(&mut reports, 0, None);
    assert_eq!(balanced(&mut reports), [Some(4), Some(5), None]);
    reports.follow([(&ids[0], None)].into_iter());
    assert_eq!(balanced(&mut reports), [None, Some(5), None]);
    reports.follow(all(&newcomer, group));
    assert_eq!(balanced(&mut reports), [None, Some(5), Some(0)]);
    reports.follow(all(&ids, group));
    let again = [Some(4), Some(5), Some(0)];
    assert_eq!(balanced(&mut reports), again, "it is there again");
    reports.forget();
    assert_eq!(balanced(&mut reports), [Some(0); 3]);
    assert_eq!(reports.reporters.len(), 0);
}

/// What is known, plainly.
#[derive(Debug, Default)]
struct Plain {
    said: BTreeMap<(u8, u8), u32>,
    /// Group and whether it is ready, of each replica.
    replicas: BTreeMap<u8, (u8, bool)>,
    own: [u32; 8],
    limits: BTreeMap<u8, u32>,
}

impl Plain {
    /// By the rules, of everything.
    fn figures(&self, replica: u8) -> Option<Figures> {
        let (group, _) = *self.replicas.get(&replica)?;
        let of = |by: u8, replica: u8| {
            let figure = self.said.get(&(by, replica)).copied();
            figure.map(|figure| figure.min(MOST_OF_ONE_NODE))
        };
        let most = self.limits.get(&group).copied().filter(|most| *most > 0);
        let (mut claimed, mut balanced) = (0, 0);
        for by in 0..4 {
            let Some(figure) = of(by, replica) else {
                continue;
            };
            let others = (0..4).filter(|other| *other != by);
            let others = others.filter_map(|other| of(other, replica));
            let own = self.own[usize::from(replica)];
            let borne = others.chain([own]).max().unwrap_or(0) + BELIEVED;
            let ready = self.replicas.iter();
            let ready = ready.filter(|(_, (of, ready))| *of == group && *ready);
            let least = ready.map(|(other, _)| of(by, *other).unwrap_or(0)).min();
            claimed += figure.min(most.unwrap_or(MOST_OF_ONE_NODE));
            balanced += figure.min(borne.max(2 * least.unwrap_or(0)));
        }
        Some(Figures { claimed, balanced })
    }
}

fn id(replica: u8) -> EndpointId {
    EndpointId(format!("r{replica}"))
}

proptest! {
    /// Reports, replicas, limits and own connections come, go and change: figures that follow are
    /// those that the rules give, and what a look names is what has changed.
    #[test]
    fn figures_that_follow_are_those_made_of_everything(
        steps in prop::collection::vec((0_u8..12, 0_u8..4, 0_u8..8, 0_u32..120), 1..120),
    ) {
        let mut reports = Reports::default();
        let mut plain = Plain::default();
        let network = NetworkId::from("n");
        let service = |group: u8| ServiceId(format!("s{group}"));
        let mut last: BTreeMap<u8, Figures> = BTreeMap::new();
        for (what, by, replica, figure) in steps {
            let node = NodeId(format!("n{by}"));
            match what {
                0..=4 => {
                    let figure = if figure == 119 { u32::MAX } else { figure };
                    plain.said.insert((by, replica), figure);
                    reports.hear(&node, id(replica).as_str(), Some(figure));
                }
                5 => {
                    plain.said.remove(&(by, replica));
                    reports.hear(&node, id(replica).as_str(), None);
                }
                6..=8 => {
                    let (group, ready) = (by % 2, figure % 3 > 0);
                    plain.replicas.insert(replica, (group, ready));
                    let of = service(group);
                    let now = Balanced { group: (&of, &network), ready };
                    reports.follow([(&id(replica), Some(now))].into_iter());
                }
                9 => {
                    plain.replicas.remove(&replica);
                    reports.follow([(&id(replica), None)].into_iter());
                }
                10 => plain.own[usize::from(replica)] = figure,
                _ if figure < 10 => {
                    plain.said.clear();
                    reports.forget();
                }
                _ => {
                    plain.limits.insert(by % 2, figure % 40);
                    let limits = plain.limits.iter();
                    reports.set_limits(limits.map(|(of, most)| (service(*of), *most)).collect());
                }
            }
            let names: BTreeMap<usize, u8> = (0..8)
                .filter_map(|n| Some((reports.number(&id(n))?, n)))
                .collect();
            let own = |number: usize| names.get(&number).map_or(0, |n| plain.own[usize::from(*n)]);
            reports.follow_own(own);
            let settled = reports.settle(own);
            let told: BTreeSet<u8> = settled
                .replicas
                .iter()
                .filter_map(|number| names.get(number).copied())
                .collect();
            prop_assert_eq!(told.len(), settled.replicas.len());
            for n in 0..8 {
                let number = reports.number(&id(n));
                let now = number.map(|number| reports.figures(number));
                prop_assert_eq!(now, plain.figures(n), "replica {}", n);
                if now != last.get(&n).copied() && now.is_some() {
                    prop_assert!(told.contains(&n), "nobody was told of replica {}", n);
                }
                match now {
                    Some(now) => last.insert(n, now),
                    None => last.remove(&n),
                };
            }
            let mates: BTreeSet<usize> =
                settled.groups.iter().flat_map(|group| reports.members(*group)).collect();
            prop_assert!(settled.replicas.iter().all(|number| mates.contains(number)));
        }
        // Nothing stays of what is gone.
        reports.forget();
        for n in 0..8 {
            reports.follow([(&id(n), None)].into_iter());
        }
        prop_assert!(reports.numbers.is_empty() && reports.groups.is_empty());
        prop_assert!(reports.free.len() == reports.replicas.len());
    }

    /// However one of the others lies, no replica's figure differs from the honest one by more
    /// than the largest that an honest node has there, and [`BELIEVED`]; or it lies of all alike,
    /// within a factor of two.
    #[test]
    fn one_liar_moves_the_choice_by_one_honest_load(
        own in prop::collection::vec(0_u32..500, 4),
        honest in prop::collection::vec(prop::collection::vec(100_u32..180, 4), 1..5),
        lie in prop::collection::vec(any::<u32>(), 4),
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
            prop_assert!(added <= bound, "{added} > {bound}");
        }
    }
}
