//! What gossip last said of the other nodes, kept in memory and on disk.
//!
//! A restarted agent has its ports again before anybody answers it. Their kernels lost their
//! neighbours with the carrier and ask for them at once, and ask again only after a second: the
//! first tables have to know the answers. And who restarts is there for the others before he has
//! said again what he has: no connection to him may end for that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weft_gossip::NetdbView;
use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, NodeRecord, Table};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use weft_sys::state_file::{self, Found};

use crate::blocking::blocking;
use crate::compile::heard::{Heard, Words};

/// How long a node that is not heard of counts as it was: after the start, and when it begins a new
/// life. Nodes that are known to be down do not count.
const BELIEVED: Duration = Duration::from_secs(5);
const RESTARTING: Duration = Duration::from_secs(2);

/// Between two writes, and so much longer for each thousand endpoints, as all is written each time.
const PACE: Duration = Duration::from_millis(200);
const ENDPOINTS_OF_A_PACE: usize = 1000;

/// What nodes said, by their ids.
type Spoken = BTreeMap<NodeId, Arc<Words>>;

/// The file: who speaks, and what.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Records {
    /// Of himself.
    nodes: Vec<(NodeId, Arc<NodeRecord>)>,
    endpoints: Vec<(NodeId, Arc<EndpointRecord>)>,
}

impl From<&Spoken> for Records {
    fn from(spoken: &Spoken) -> Self {
        let mut records = Self::default();
        for (id, words) in spoken {
            let node = words.node.iter();
            let node = node.map(|record| (id.clone(), Arc::clone(record)));
            records.nodes.extend(node);
            let endpoints = words.endpoints.iter();
            let endpoints = endpoints.map(|record| (id.clone(), Arc::clone(record)));
            records.endpoints.extend(endpoints);
        }
        records
    }
}

impl From<Records> for Spoken {
    fn from(records: Records) -> Self {
        let mut words: BTreeMap<NodeId, Words> = BTreeMap::new();
        for (id, record) in records.nodes {
            words.entry(id).or_default().node = Some(record);
        }
        for (id, record) in records.endpoints {
            words.entry(id).or_default().endpoints.push(record);
        }
        let words = words.into_iter();
        words.map(|(id, words)| (id, Arc::new(words))).collect()
    }
}

/// What the other nodes say, with what is remembered of those that are silent; and the file.
#[derive(Debug)]
pub(super) struct Remembered {
    path: PathBuf,
    /// What each node said last that spoke for itself.
    last: Spoken,
    /// Of these, who is silent, and until when it counts as it was.
    silent: BTreeMap<NodeId, Instant>,
    heard: Heard,
    written: Option<(u64, Instant)>,
}

impl Remembered {
    /// Reads the file. It only spares a moment of silence, so a missing or damaged one is empty.
    pub(super) fn load(path: PathBuf, now: Instant) -> Self {
        let records = match state_file::read(&path) {
            Ok(Found::Value(records)) => records,
            // A damaged file is in the log already.
            Ok(_) => Records::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read what was known");
                Records::default()
            }
        };
        let mut last = Spoken::from(records);
        last.retain(|_, words| words.node.is_some());
        let silent = last.keys().map(|id| (id.clone(), now + BELIEVED));
        Self {
            path,
            silent: silent.collect(),
            last,
            heard: Heard::default(),
            written: None,
        }
    }

    /// What the other nodes say, as far as it counts.
    pub(super) const fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Whether what is heard depends on the time.
    pub(super) fn waits(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Takes in what all but `own` say in `view`, where `before` was the last one; adds what is
    /// remembered of nodes that are silent and not known to be gone, which their words replace. A
    /// node speaks with its own record, which it sends after its endpoints.
    pub(super) fn follow(
        &mut self,
        before: &NetdbView,
        view: &NetdbView,
        own: &NodeId,
        now: Instant,
    ) {
        let mut look: BTreeSet<NodeId> = self.silent.keys().cloned().collect();
        for table in [Table::Node, Table::Endpoint] {
            look.extend(view.changed(table, before).into_iter().cloned());
        }
        look.remove(own);
        for id in look {
            let said = Words {
                node: view.node(&id).map(Arc::clone),
                endpoints: view.endpoints_of(&id).map(Arc::clone).collect(),
            };
            // A member that nobody knows yet is not known to be gone.
            let member = view.members.get(&id);
            let gone = member.is_some_and(|m| !m.state.is_active());
            self.hear(id, said, gone, now);
        }
    }

    fn hear(&mut self, id: NodeId, said: Words, gone: bool, now: Instant) {
        let said = Arc::new(said);
        let counts = if said.node.is_some() {
            self.silent.remove(&id);
            self.last.insert(id.clone(), Arc::clone(&said));
            said
        } else {
            // What it has said again so far is there already.
            self.still(&id, gone, now).unwrap_or(said)
        };
        if *counts == Words::default() {
            self.heard.remove(&id);
        } else if self.heard.get(&id) != Some(&counts) {
            self.heard.insert(id, counts);
        }
    }

    /// What a node that is silent said last, while that counts.
    fn still(&mut self, id: &NodeId, gone: bool, now: Instant) -> Option<Arc<Words>> {
        let last = Arc::clone(self.last.get(id)?);
        let until = self.silent.entry(id.clone());
        let until = *until.or_insert(now + RESTARTING);
        if gone || now >= until {
            self.last.remove(id);
            self.silent.remove(id);
            return None;
        }
        Some(last)
    }

    /// Writes what the tables of `epoch` were made from, unless that was done or is too soon.
    pub(super) fn keep(&mut self, epoch: u64, now: Instant) {
        if let Some((of, at)) = self.written
            && (of == epoch || now.duration_since(at) < self.pace())
        {
            return;
        }
        self.written = Some((epoch, now));
        let (path, heard) = (self.path.clone(), self.heard.words().clone());
        tokio::spawn(async move {
            let shown = path.display().to_string();
            let done = blocking(move || write(&path, &Records::from(&heard))).await;
            if let Err(error) = done.and_then(|r| r) {
                tracing::warn!(path = shown, %error, "what gossip says was not kept");
            }
        });
    }

    fn pace(&self) -> Duration {
        let heard = self.heard.words().values();
        let endpoints = heard.map(|words| words.endpoints.len());
        let longer = endpoints.sum::<usize>() / ENDPOINTS_OF_A_PACE;
        PACE.saturating_mul(u32::try_from(longer).unwrap_or(u32::MAX).saturating_add(1))
    }
}

fn write(path: &Path, records: &Records) -> anyhow::Result<()> {
    // Often, and good for a moment only: the disk is not waited for.
    let text = serde_json::to_vec(records)?;
    Ok(replace_file(path, &text, PRIVATE, Outlives::Process)?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weft_gossip::{Config, Gossip, Identity};
    use weft_model::id::EndpointId;

    use super::*;

    fn node(id: &str) -> (NodeId, Arc<NodeRecord>) {
        let record = NodeRecord {
            closed_ports: Vec::new(),
            mtu: 1500,
            heard: Vec::new(),
            merging_port: 0,
        };
        (NodeId(id.to_owned()), Arc::new(record))
    }

    fn endpoint(id: &str, of: &str) -> (NodeId, Arc<EndpointRecord>) {
        let record = EndpointRecord {
            id: EndpointId(id.to_owned()),
            ready: true,
            draining: false,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        (NodeId(of.to_owned()), Arc::new(record))
    }

    fn records(nodes: &[&str], endpoints: &[(&str, &str)]) -> Records {
        Records {
            nodes: nodes.iter().map(|n| node(n)).collect(),
            endpoints: endpoints.iter().map(|(e, n)| endpoint(e, n)).collect(),
        }
    }

    /// Everybody says this, and nothing else; what counts then.
    fn hear(known: &mut Remembered, said: &Records, gone: &[&str], now: Instant) -> Records {
        let said = Spoken::from(said.clone());
        let ids: BTreeSet<NodeId> = said.keys().chain(known.last.keys()).cloned().collect();
        for id in ids {
            let words = said.get(&id).map(|words| Words::clone(words));
            let gone = gone.contains(&id.as_str());
            known.hear(id, words.unwrap_or_default(), gone, now);
        }
        Records::from(known.heard().words())
    }

    #[test]
    fn a_silent_node_counts_as_it_was_for_a_while_and_one_that_speaks_at_its_word() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heard.json");
        let both = records(&["a", "b"], &[("a1", "a"), ("b1", "b")]);
        write(&path, &both).expect("written");
        let start = Instant::now();
        let mut known = Remembered::load(path, start);
        assert!(known.waits());
        assert_eq!(hear(&mut known, &Records::default(), &[], start), both);
        // `a` speaks, and has no endpoint any more.
        let said = records(&["a"], &[]);
        let counts = hear(&mut known, &said, &[], start);
        assert_eq!(counts, records(&["a", "b"], &[("b1", "b")]));
        assert!(known.waits());
        let counts = hear(&mut known, &said, &[], start + BELIEVED);
        assert_eq!((counts, known.waits()), (said, false));
    }

    #[test]
    fn a_node_that_restarts_keeps_its_endpoints_and_one_that_is_down_loses_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Instant::now();
        let mut known = Remembered::load(folder.path().join("heard.json"), now);
        let all = records(&["a", "b"], &[("a1", "a"), ("b1", "b")]);
        assert_eq!(hear(&mut known, &all, &[], now), all);
        assert!(!known.waits());
        // Both are silent; one of them is down.
        let some = records(&[], &[("a2", "a")]);
        let counts = hear(&mut known, &some, &["b"], now);
        assert_eq!(counts, records(&["a"], &[("a1", "a")]));
        assert!(known.waits());
        // It says what it has now; or nothing for too long.
        let said = records(&["a"], &[("a2", "a")]);
        assert_eq!(hear(&mut known, &said, &[], now), said);
        assert!(!known.waits());
        assert_eq!(hear(&mut known, &Records::default(), &[], now), said);
        assert!(known.waits());
        let later = now + RESTARTING;
        let counts = hear(&mut known, &Records::default(), &[], later);
        assert_eq!((counts, known.waits()), (Records::default(), false));
    }

    #[test]
    fn views_are_followed_and_what_stays_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Instant::now();
        let mut known = Remembered::load(folder.path().join("heard.json"), now);
        let id = Identity::new("a".into(), ([10, 0, 0, 1], 7946).into(), 1);
        let mut a = Gossip::new(Config::default(), id, [0; 32], Duration::ZERO);
        let mut says = |table, key: &str, value: &'static str| {
            let value = Bytes::from_static(value.as_bytes());
            let put = a.put(Duration::ZERO, table, key, value);
            assert!(put.unwrap());
            a.view()
        };
        let own = NodeId::from("own");
        let nobody = NetdbView::default();
        says(Table::Endpoint, "a1", r#"{"id": "a1", "ready": true}"#);
        let first = says(Table::Node, "a", r#"{"mtu": 1500}"#);
        known.follow(&nobody, &first, &own, now);
        let spoken = records(&["a"], &[("a1", "a")]);
        assert_eq!(Records::from(known.heard().words()), spoken);
        let words = |known: &Remembered| known.heard().words().values().next().map(Arc::clone);
        let said = words(&known).unwrap();
        let loaded = says(Table::Load, "a1", r#"{"active": 1}"#);
        known.follow(&first, &loaded, &own, now);
        assert!(words(&known).is_some_and(|now| Arc::ptr_eq(&said, &now)));
        let more = says(Table::Endpoint, "a2", r#"{"id": "a2", "ready": true}"#);
        known.follow(&loaded, &more, &own, now);
        let spoken = records(&["a"], &[("a1", "a"), ("a2", "a")]);
        assert_eq!(Records::from(known.heard().words()), spoken);
        // Its own words nobody needs; who went without a word is waited for.
        let mut mine = Remembered::load(folder.path().join("heard.json"), now);
        mine.follow(&nobody, &more, &"a".into(), now);
        assert!(mine.heard().words().is_empty());
        known.follow(&more, &nobody, &own, now);
        assert_eq!(Records::from(known.heard().words()), spoken);
        known.follow(&nobody, &nobody, &own, now + RESTARTING);
        assert!(known.heard().words().is_empty() && !known.waits());
    }

    #[tokio::test]
    async fn a_damaged_file_is_an_empty_one_and_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heard.json");
        std::fs::write(&path, "{").expect("written");
        let start = Instant::now();
        let mut known = Remembered::load(path.clone(), start);
        assert!(!known.waits());
        hear(&mut known, &records(&["a"], &[]), &[], start);
        known.keep(1, start);
        known.keep(1, start + PACE);
        known.keep(2, start + PACE / 2);
        assert_eq!(
            known.written,
            Some((1, start)),
            "written already, or too soon"
        );
        for _ in 0..1000 {
            let nodes = Remembered::load(path.clone(), start).last;
            if nodes.keys().map(|n| n.0.as_str()).eq(["a"]) {
                return;
            }
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the file was not written");
    }

    #[test]
    fn much_is_written_less_often() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Instant::now();
        let mut known = Remembered::load(folder.path().join("heard.json"), now);
        assert_eq!(known.pace(), PACE);
        let ids: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let endpoints: Vec<_> = ids.iter().map(|id| (id.as_str(), "a")).collect();
        hear(&mut known, &records(&["a"], &endpoints), &[], now);
        assert_eq!(known.pace(), 11 * PACE);
    }
}
