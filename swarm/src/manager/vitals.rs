//! What nodes say of themselves with their heartbeats, until it is so for long enough to count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_cluster::{ClusterState, Sight, Table, Vitals, judge};
use weft_model::id::NodeId;
use weft_model::objects::{Node, NodeState};

/// Gossip needs a moment to find everybody after a start, and to notice who is gone; and nodes do
/// not all notice at once. A node counts as cut off when it is so for this long.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two changes of one node: what nodes say costs the manager a write at each change.
const CHANGE_PERIOD: Duration = Duration::from_secs(1);
/// The same where only the words differ.
const WORDS_PERIOD: Duration = Duration::from_secs(10);

/// The last words of each node, in memory: after a start of the manager nodes say them anew.
#[derive(Debug, Default)]
pub(super) struct VitalsBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    entries: BTreeMap<NodeId, Entry>,
    /// What the nodes were at the last look, when all of them were as they had said; nothing where a look is
    /// needed.
    agreed: Option<Table<NodeId, Node>>,
}

#[derive(Debug)]
struct Entry {
    said: Vitals,
    /// Since when gossip counts it as cut off.
    cut_off: Option<Instant>,
    /// When its state was changed last.
    changed: Option<Instant>,
}

impl VitalsBook {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As after a start: what nodes said before this manager led is old.
    pub(super) fn forget(&self) {
        *self.book() = Book::default();
    }

    /// Takes note of a heartbeat.
    pub(super) fn note(&self, node: &NodeId, said: Vitals) {
        let said = said.bounded();
        let mut book = self.book();
        if let Some(entry) = book.entries.get_mut(node) {
            if entry.said == said {
                return;
            }
            entry.said = said;
        } else {
            let entry = Entry {
                said,
                cut_off: None,
                changed: None,
            };
            book.entries.insert(node.clone(), entry);
        }
        book.agreed = None;
    }

    /// Whom the gossip of a node saw when it said so last.
    pub(super) fn sight(&self, node: &NodeId) -> Option<Sight> {
        self.book().entries.get(node)?.said.sight.clone()
    }

    /// Nodes of which `state` does not say what is so, with what it is to say. `own` is the
    /// manager's node.
    pub(super) fn differences(
        &self,
        state: &ClusterState,
        own: &NodeId,
        now: Instant,
    ) -> Vec<(NodeId, Option<String>)> {
        let mut book = self.book();
        let Book { entries, agreed } = &mut *book;
        if agreed.as_ref().is_some_and(|nodes| nodes.is(&state.nodes)) {
            return Vec::new();
        }
        let mut is_agreed = true;
        entries.retain(|id, _| {
            let node = state.nodes.get(id);
            node.is_some_and(|n| n.status.state != NodeState::Down)
        });
        // A node without an open session says nothing: what it said last stays as it is.
        let ready = |id: &NodeId| {
            state
                .nodes
                .get(id)
                .is_some_and(|n| n.status.state == NodeState::Ready)
        };
        let said: BTreeMap<NodeId, Vitals> = entries
            .iter()
            .filter(|(id, _)| ready(id))
            .map(|(id, entry)| (id.clone(), entry.said.clone()))
            .collect();
        let name = |id: &NodeId| {
            let node = state.nodes.get(id);
            node.map_or_else(|| id.short().to_owned(), |n| n.description.hostname.clone())
        };
        let mut verdicts = judge(&said, own, name);
        let mut differences = Vec::new();
        for id in said.keys() {
            let (Some(entry), Some(node)) = (entries.get_mut(id), state.nodes.get(id)) else {
                continue;
            };
            let mut why = verdicts.remove(id);
            if why.is_some() && entry.said.off.is_none() {
                is_agreed = false;
                let since = *entry.cut_off.get_or_insert(now);
                why = why.filter(|_| now.saturating_duration_since(since) >= SETTLED);
            } else {
                entry.cut_off = None;
            }
            let known = node.status.impaired.as_ref().map(|i| &i.reason);
            if why.as_ref() == known {
                continue;
            }
            is_agreed = false;
            let pause = if why.is_some() && known.is_some() {
                WORDS_PERIOD
            } else {
                CHANGE_PERIOD
            };
            let early = entry
                .changed
                .is_some_and(|at| now.saturating_duration_since(at) < pause);
            if !early {
                entry.changed = Some(now);
                differences.push((id.clone(), why));
            }
        }
        *agreed = is_agreed.then(|| state.nodes.clone());
        differences
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use weft_model::objects::{Description, Impairment, Meta, Node, NodeSpec, NodeStatus};

    use super::*;

    pub(in crate::manager) fn nodes(names: &[&str]) -> ClusterState {
        let addr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let node = |name: &str| Node {
            id: name.into(),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: Description {
                hostname: name.to_owned(),
                ..Description::default()
            },
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                addr,
                impaired: None,
            },
            manager_status: None,
            data_path_addr: addr,
            gossip_port: 7946,
            certified: 0,
            certified_by: String::new(),
            ingress_ip: None,
        };
        let mut state = ClusterState::default();
        for name in names {
            state.put(node(name).into());
        }
        state
    }

    fn with_impaired(state: &ClusterState, name: &str, why: &str) -> ClusterState {
        let mut state = state.clone();
        let mut node = state.nodes[&NodeId::from(name)].clone();
        node.status.impaired = Some(Impairment {
            since: 1,
            reason: why.to_owned(),
        });
        state.put(node.into());
        state
    }

    fn seeing(unseen: &[&str]) -> Vitals {
        Vitals {
            off: None,
            sight: Some(Sight {
                others: 2,
                unseen: u32::try_from(unseen.len()).unwrap(),
                unseen_nodes: unseen.iter().map(|n| NodeId::from(*n)).collect(),
            }),
        }
    }

    fn off(why: &str) -> Vitals {
        Vitals {
            off: Some(why.to_owned()),
            sight: None,
        }
    }

    #[test]
    fn a_cut_counts_when_it_lasts_and_a_dead_data_plane_at_once() {
        let (book, start) = (VitalsBook::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let state = nodes(&["a", "b", "c"]);
        let own = NodeId::from("a");
        for (node, unseen) in [("a", &["c"][..]), ("b", &["c"]), ("c", &["a", "b"])] {
            book.note(&node.into(), seeing(unseen));
        }
        assert!(book.differences(&state, &own, at(0)).is_empty());
        assert!(book.differences(&state, &own, at(2900)).is_empty());
        let found = book.differences(&state, &own, at(3000));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, NodeId::from("c"));
        let why = found[0].1.clone().unwrap();
        assert!(why.contains("between it and a, b"), "{why}");
        // It is back.
        let state = with_impaired(&state, "c", &why);
        for node in ["a", "b", "c"] {
            book.note(&node.into(), seeing(&[]));
        }
        assert!(
            book.differences(&state, &own, at(3500)).is_empty(),
            "too soon"
        );
        let found = book.differences(&state, &own, at(4000));
        assert_eq!(found, [(NodeId::from("c"), None)]);

        let state = nodes(&["a", "b"]);
        book.note(&"b".into(), off("no address"));
        let found = book.differences(&state, &own, at(5000));
        assert!(
            found[0]
                .1
                .as_ref()
                .is_some_and(|w| w.contains("no address"))
        );
        // Who changes its words all the time does not make the manager write all the time.
        let state = with_impaired(&state, "b", found[0].1.as_deref().unwrap());
        let mut written = 0;
        for tick in 0..200 {
            book.note(&"b".into(), off(&format!("reason {tick}")));
            written += book.differences(&state, &own, at(5100 + tick * 100)).len();
        }
        assert!(written <= 2, "{written}");
    }
}
