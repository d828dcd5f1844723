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
use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, NodeRecord};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use weft_sys::state_file::{self, Found};

use crate::blocking::blocking;
use crate::compile::known::Heard;

/// How long a node that is not heard of counts as it was: after the start, and when it begins a new
/// life. Nodes that are known to be down do not count.
const BELIEVED: Duration = Duration::from_secs(5);
const RESTARTING: Duration = Duration::from_secs(2);

/// Between two writes.
const PACE: Duration = Duration::from_millis(200);

/// Records of other nodes.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Records {
    /// Who speaks, and what of himself.
    pub(super) nodes: Vec<(NodeId, Arc<NodeRecord>)>,
    pub(super) endpoints: Heard,
}

/// The file, and what each node said last.
#[derive(Debug)]
pub(super) struct Remembered {
    path: PathBuf,
    nodes: BTreeMap<NodeId, Last>,
    written: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Last {
    node: Arc<NodeRecord>,
    endpoints: Vec<Arc<EndpointRecord>>,
    /// Set while the node is silent.
    until: Option<Instant>,
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
        let mut this = Self {
            path,
            nodes: BTreeMap::new(),
            written: None,
        };
        this.take(&records);
        for last in this.nodes.values_mut() {
            last.until = Some(now + BELIEVED);
        }
        this
    }

    /// Adds what is remembered of nodes that are silent and not known to be `gone`; the word of the
    /// others replaces it. A node speaks with its own record, which it sends after its endpoints.
    /// True when the outcome depends on the time.
    pub(super) fn complete(
        &mut self,
        records: &mut Records,
        gone: impl Fn(&NodeId) -> bool,
        now: Instant,
    ) -> bool {
        self.take(records);
        let heard: BTreeSet<NodeId> = records.nodes.iter().map(|(id, _)| id.clone()).collect();
        self.nodes.retain(|id, last| {
            let until = *last.until.get_or_insert(now + RESTARTING);
            heard.contains(id) || (!gone(id) && now < until)
        });
        let mut added = false;
        for (id, last) in &mut self.nodes {
            if heard.contains(id) {
                last.until = None;
                continue;
            }
            added = true;
            // What it has said again so far is there already.
            records.endpoints.retain(|(owner, _)| owner != id);
            let endpoints = last.endpoints.iter();
            records
                .endpoints
                .extend(endpoints.map(|e| (id.clone(), Arc::clone(e))));
            records.nodes.push((id.clone(), Arc::clone(&last.node)));
        }
        added
    }

    fn take(&mut self, records: &Records) {
        let mut endpoints: BTreeMap<&NodeId, Vec<Arc<EndpointRecord>>> = BTreeMap::new();
        for (owner, said) in &records.endpoints {
            endpoints.entry(owner).or_default().push(Arc::clone(said));
        }
        for (id, node) in &records.nodes {
            let last = Last {
                node: Arc::clone(node),
                endpoints: endpoints.remove(id).unwrap_or_default(),
                until: None,
            };
            self.nodes.insert(id.clone(), last);
        }
    }

    /// Writes what the tables of `epoch` were made from, unless that was done or is too soon.
    pub(super) fn keep(&mut self, epoch: u64, now: Instant, records: impl FnOnce() -> Records) {
        let idle = self
            .written
            .is_some_and(|(of, at)| of == epoch || now.duration_since(at) < PACE);
        if idle {
            return;
        }
        self.written = Some((epoch, now));
        let (path, records) = (self.path.clone(), records());
        tokio::spawn(async move {
            let shown = path.display().to_string();
            let done = blocking(move || write(&path, &records)).await;
            if let Err(error) = done.and_then(|r| r) {
                tracing::warn!(path = shown, %error, "what gossip says was not kept");
            }
        });
    }
}

fn write(path: &Path, records: &Records) -> anyhow::Result<()> {
    // Often, and good for a moment only: the disk is not waited for.
    let text = serde_json::to_vec(records)?;
    Ok(replace_file(path, &text, PRIVATE, Outlives::Process)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::id::EndpointId;

    fn node(id: &str) -> (NodeId, Arc<NodeRecord>) {
        let record = NodeRecord {
            closed_ports: Vec::new(),
            mtu: 1500,
            heard: Vec::new(),
        };
        (NodeId(id.to_owned()), Arc::new(record))
    }

    fn endpoint(id: &str, of: &str) -> (NodeId, Arc<EndpointRecord>) {
        let record = EndpointRecord {
            id: EndpointId(id.to_owned()),
            ready: true,
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

    #[test]
    fn a_silent_node_counts_as_it_was_for_a_while_and_one_that_speaks_at_its_word() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heard.json");
        write(&path, &records(&["a", "b"], &[("a1", "a"), ("b1", "b")])).expect("written");
        let start = Instant::now();
        let mut known = Remembered::load(path, start);
        let nobody = |_: &NodeId| false;
        let mut heard = Records::default();
        assert!(known.complete(&mut heard, nobody, start));
        assert_eq!(heard, records(&["a", "b"], &[("a1", "a"), ("b1", "b")]));
        // `a` speaks, and has no endpoint any more.
        let mut heard = records(&["a"], &[]);
        assert!(known.complete(&mut heard, nobody, start));
        assert_eq!(heard, records(&["a", "b"], &[("b1", "b")]));
        let mut heard = records(&["a"], &[]);
        assert!(!known.complete(&mut heard, nobody, start + BELIEVED));
        assert_eq!(heard, records(&["a"], &[]));
    }

    #[test]
    fn a_node_that_restarts_keeps_its_endpoints_and_one_that_is_down_loses_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Instant::now();
        let mut known = Remembered::load(folder.path().join("heard.json"), now);
        let all = records(&["a", "b"], &[("a1", "a"), ("b1", "b")]);
        let nobody = |_: &NodeId| false;
        assert!(!known.complete(&mut all.clone(), nobody, now));
        // Both are silent; one of them is down.
        let down = |node: &NodeId| node.0 == "b";
        let mut heard = records(&[], &[("a2", "a")]);
        assert!(known.complete(&mut heard, down, now));
        assert_eq!(heard, records(&["a"], &[("a1", "a")]));
        // It says what it has now; or nothing for too long.
        let mut heard = records(&["a"], &[("a2", "a")]);
        assert!(!known.complete(&mut heard, nobody, now));
        assert_eq!(heard, records(&["a"], &[("a2", "a")]));
        let mut heard = Records::default();
        assert!(known.complete(&mut heard, nobody, now));
        let mut heard = Records::default();
        assert!(!known.complete(&mut heard, nobody, now + RESTARTING));
        assert_eq!(heard, Records::default());
    }

    #[tokio::test]
    async fn a_damaged_file_is_an_empty_one_and_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heard.json");
        std::fs::write(&path, "{").expect("written");
        let start = Instant::now();
        let mut known = Remembered::load(path.clone(), start);
        assert!(!known.complete(&mut Records::default(), |_| false, start));
        known.keep(1, start, || records(&["a"], &[]));
        known.keep(1, start + PACE, || unreachable!("written already"));
        known.keep(2, start, || unreachable!("too soon"));
        for _ in 0..1000 {
            let nodes = Remembered::load(path.clone(), start).nodes;
            if nodes.keys().map(|n| n.0.as_str()).eq(["a"]) {
                return;
            }
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the file was not written");
    }
}
