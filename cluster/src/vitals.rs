//! Whether a node that answers carries traffic as well, from what all nodes say of themselves.
//!
//! An open session proves that a node reaches its manager. Its tasks need more: a data plane, and
//! the other nodes. Each node says with its heartbeats whether its data plane runs and whom its
//! gossip sees ([`Vitals`]); [`judge`] draws the conclusions. Words of one node can condemn that
//! node alone: who claims to see nobody is the one that is cut off.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::id::NodeId;
use weft_model::text::cleaned;

/// Longest reason that a node gives, in bytes.
const MAX_REASON: usize = 512;
/// Nodes named in one reason; the others are counted.
const NAMED: usize = 3;
/// Nodes that one node may name as not seen. A node that is cut off says so by the count.
pub const MAX_UNSEEN: usize = 256;

/// What a node says of itself with its heartbeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Why the data plane does not run; nothing while it does.
    pub off: Option<String>,
    /// What gossip sees; nothing where it does not run.
    pub sight: Option<Sight>,
}

/// Whom the gossip of a node sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Other members by its orders.
    pub others: u32,
    /// How many of them it does not see.
    pub unseen: u32,
    /// Which, as far as there is room for them: [`MAX_UNSEEN`].
    pub unseen_nodes: BTreeSet<NodeId>,
}

impl Vitals {
    /// The same within bounds, and safe to show.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.off = self.off.map(|why| cleaned(&why, MAX_REASON));
        if let Some(sight) = &mut self.sight {
            sight.unseen = sight.unseen.min(sight.others);
            while sight.unseen_nodes.len() > MAX_UNSEEN {
                sight.unseen_nodes.pop_last();
            }
        }
        self
    }
}

impl Sight {
    fn sees(&self, node: &NodeId) -> bool {
        self.unseen < self.others && !self.unseen_nodes.contains(node)
    }
}

/// Who carries no traffic, and why, of nodes with open sessions.
///
/// `said` holds the vitals of these nodes, as far as they have said any. Those whose gossip runs
/// fall into groups that see each other, by way of others too, as gossip does. The largest is the
/// cluster; of several it is the one with `first`, the manager's own node, or the smallest id.
/// `name` tells how a person calls a node.
#[must_use]
pub fn judge(
    said: &BTreeMap<NodeId, Vitals>,
    first: &NodeId,
    name: impl Fn(&NodeId) -> String,
) -> BTreeMap<NodeId, String> {
    let mut verdicts = BTreeMap::new();
    let mut gossips: BTreeMap<&NodeId, &Sight> = BTreeMap::new();
    for (node, vitals) in said {
        if let Some(why) = &vitals.off {
            verdicts.insert(node.clone(), format!("its data plane does not run: {why}"));
        } else if let Some(sight) = &vitals.sight {
            gossips.insert(node, sight);
        }
    }
    let groups = groups(&gossips);
    let rank = |group: &BTreeSet<&NodeId>| (group.len(), group.contains(first));
    // Groups come by their smallest id, and of equals the first one counts.
    let mut whole: Option<&BTreeSet<&NodeId>> = None;
    for group in &groups {
        if whole.is_none_or(|best| rank(group) > rank(best)) {
            whole = Some(group);
        }
    }
    let Some(whole) = whole else { return verdicts };
    for node in gossips.keys().filter(|node| !whole.contains(*node)) {
        let mut names: Vec<String> = whole.iter().map(|n| name(n)).collect();
        names.sort_unstable();
        names.truncate(NAMED);
        let more = whole.len() - names.len();
        let more = match more {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let why = format!(
            "gossip (UDP and TCP 7946) does not pass between it and {}{more}",
            names.join(", ")
        );
        verdicts.insert((*node).clone(), why);
    }
    verdicts
}

/// Nodes that see each other, directly or by way of others.
fn groups<'a>(gossips: &BTreeMap<&'a NodeId, &Sight>) -> Vec<BTreeSet<&'a NodeId>> {
    let mut left: BTreeSet<&NodeId> = gossips.keys().copied().collect();
    let mut groups = Vec::new();
    while let Some(start) = left.pop_first() {
        let mut group = BTreeSet::from([start]);
        let mut edge = vec![start];
        while let Some(node) = edge.pop() {
            let sight = gossips[node];
            let linked: Vec<&NodeId> = left
                .iter()
                .copied()
                .filter(|other| sight.sees(other) && gossips[other].sees(node))
                .collect();
            for other in linked {
                left.remove(other);
                group.insert(other);
                edge.push(other);
            }
        }
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        NodeId(format!("node{n}"))
    }

    /// Vitals of nodes 1 to `count`, each of which does not see some.
    fn said(count: usize, unseen: &[(usize, &[usize])]) -> BTreeMap<NodeId, Vitals> {
        let sight = |n: usize| {
            let blind = unseen.iter().find(|(of, _)| *of == n);
            let unseen_nodes: BTreeSet<NodeId> = blind
                .iter()
                .flat_map(|(_, to)| *to)
                .map(|n| id(*n))
                .collect();
            Sight {
                others: u32::try_from(count - 1).unwrap(),
                unseen: u32::try_from(unseen_nodes.len()).unwrap(),
                unseen_nodes,
            }
        };
        let vitals = |n| Vitals {
            off: None,
            sight: Some(sight(n)),
        };
        (1..=count).map(|n| (id(n), vitals(n))).collect()
    }

    fn lost(said: &BTreeMap<NodeId, Vitals>) -> Vec<String> {
        let verdicts = judge(said, &id(1), |n| n.0.clone());
        verdicts.into_keys().map(|n| n.0).collect()
    }

    #[test]
    fn who_is_cut_off_is_impaired_and_nobody_else() {
        assert!(lost(&said(1, &[])).is_empty());
        assert!(lost(&said(3, &[])).is_empty());
        // All agree that the third one is away, or only one side has noticed.
        let away: [(usize, &[usize]); 3] = [(1, &[3]), (2, &[3]), (3, &[1, 2])];
        for told in [&away[..], &away[..2], &away[2..]] {
            assert_eq!(lost(&said(3, told)), ["node3"], "{told:?}");
        }
        // One blocked pair: the others pass things on.
        assert!(lost(&said(3, &[(1, &[3]), (3, &[1])])).is_empty());
        // The manager's own node is the one that is alone.
        assert_eq!(lost(&said(3, &[(1, &[2, 3])])), ["node1"]);
        // Of two halves, it is the manager's that counts.
        assert_eq!(lost(&said(2, &[(1, &[2])])), ["node2"]);
        let halves: [(usize, &[usize]); 2] = [(3, &[1, 2]), (4, &[1, 2])];
        assert_eq!(lost(&said(4, &halves)), ["node3", "node4"]);
    }

    #[test]
    fn a_reason_names_what_does_not_run_or_whom_it_does_not_reach() {
        let mut told = said(6, &[(6, &[1, 2, 3, 4, 5])]);
        told.insert(
            id(7),
            Vitals {
                off: Some("no address".to_owned()),
                sight: None,
            },
        );
        let verdicts = judge(&told, &id(1), |n| n.0.replace("node", "host"));
        assert_eq!(
            verdicts[&id(6)],
            "gossip (UDP and TCP 7946) does not pass between it and host1, host2, host3 and 2 more"
        );
        assert_eq!(verdicts[&id(7)], "its data plane does not run: no address");
        assert_eq!(verdicts.len(), 2);
    }

    #[test]
    fn a_crowd_that_is_not_named_is_counted() {
        let mut told = said(3, &[]);
        let alone = told.get_mut(&id(2)).unwrap().sight.as_mut().unwrap();
        // It sees nobody of thousands, and had room for none of them.
        (alone.others, alone.unseen) = (2, 9);
        let bounded = told[&id(2)].clone().bounded();
        assert_eq!(bounded.sight.as_ref().unwrap().unseen, 2);
        told.insert(id(2), bounded);
        assert_eq!(lost(&told), ["node2"]);
        let long = Vitals {
            off: Some("x\n".repeat(4000)),
            sight: Some(Sight {
                unseen_nodes: (0..9000).map(id).collect(),
                ..Sight::default()
            }),
        };
        let long = long.bounded();
        assert!(long.off.unwrap().len() <= MAX_REASON + 3);
        assert_eq!(long.sight.unwrap().unseen_nodes.len(), MAX_UNSEEN);
    }
}
