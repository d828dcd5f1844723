//! What openraft is told about this log: who its members are, what an entry holds, how long to wait.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use openraft::impls::{OneshotResponder, TokioRuntime};
use openraft::{Config, RaftTypeConfig, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use weft_cluster::{Entry, Reply};
use weft_model::id::NodeId;

/// Names a member of the log. Drawn by chance when its file is made, and never that of another file: a
/// node that is demoted and promoted comes back under another one, unless it was away all the time.
pub(crate) type RaftId = u64;

/// One manager's end of the log.
pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type LogId = openraft::LogId<RaftId>;
pub(super) type LogEntry = openraft::Entry<Types>;
pub(super) type Vote = openraft::Vote<RaftId>;
pub(super) type Membership = openraft::Membership<RaftId, Member>;
pub(super) type StoredMembership = openraft::StoredMembership<RaftId, Member>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<RaftId, Member>;
pub(super) type StorageError = openraft::StorageError<RaftId>;
pub(super) type Metrics = openraft::RaftMetrics<RaftId, Member>;

/// A manager, as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Which node it is.
    pub(crate) node: NodeId,
    /// Where the others reach it.
    pub(crate) addr: SocketAddr,
}

/// Nobody: openraft asks for one, and uses it where a voter has no member, which does not happen.
impl Default for Member {
    fn default() -> Self {
        Self {
            node: NodeId::default(),
            addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}

/// What one entry of the log holds: all that was proposed while the one before was on its way to the
/// disks. A copy is a pointer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Batch(pub(super) Arc<Vec<Entry>>);

impl Batch {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self(Arc::new(entries))
    }
}

/// What became of each of a batch, in its order; empty for entries of openraft's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Replies(pub(super) Vec<Reply>);

/// The types of this log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Batch;
    type R = Replies;
    type NodeId = RaftId;
    type Node = Member;
    type Entry = openraft::Entry<Self>;
    type SnapshotData = Cursor<Vec<u8>>;
    type AsyncRuntime = TokioRuntime;
    type Responder = OneshotResponder<Self>;
}

/// Between two heartbeats of a leader, in milliseconds. Also until an attempt to send entries counts
/// as lost.
const HEARTBEAT_MS: u64 = 100;
/// A leader has the word for the longest of these after its last heartbeat, and then a member waits
/// for one of them, drawn by chance when it starts, before it stands for election: a leader that is
/// silent is replaced in 0.8 to 1.2 s, and one whose connections ended when its word is over (`life`).
/// One round is enough: of two members that stand in one term the greater name wins, and one that lacks
/// entries is overtaken at once by one that has them (`serve`).
const ELECTION_MIN_MS: u64 = 300;
const ELECTION_MAX_MS: u64 = 500;
/// So long after it was last heard of a leader has the word: nobody gets a vote.
pub(super) const LEASE: Duration = Duration::from_millis(ELECTION_MAX_MS);
/// Until a part of a snapshot is answered: the last part is, when all of it is on the disk.
const SNAPSHOT_TIMEOUT_MS: u64 = 20_000;
/// Bytes of one part of a snapshot.
pub(crate) const SNAPSHOT_CHUNK: u64 = 1 << 20;
/// Entries after which a snapshot is made, and how many before it stay for members that are behind.
const SNAPSHOT_AFTER: u64 = 4096;
const KEPT_ENTRIES: u64 = 1024;
/// Entries in one message at most; what counts in practice is their length.
const MAX_ENTRIES: u64 = 256;

/// How openraft is to run.
pub(crate) fn config() -> Config {
    let config = Config {
        cluster_name: "weft".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        max_payload_entries: MAX_ENTRIES,
        ..Config::default()
    };
    config
        .validate()
        .expect("elections are longer than heartbeats")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_dead_leader_is_replaced_in_time() {
        let config = config();
        // The lease of the dead one, the wait of the first to stand, and a tick of each: openraft
        // looks at its clock every one and a half heartbeats.
        let tick = config.heartbeat_interval * 3 / 2;
        let longest = config.election_timeout_max * 2 + tick * 2;
        assert!(longest <= 1300, "{longest} ms");
        assert!(
            config.election_timeout_min >= tick * 2,
            "a late heartbeat is no death"
        );
    }

    #[test]
    fn a_batch_travels_as_the_list_that_it_is() {
        let batch = Batch::new(vec![Entry {
            base: 7,
            changes: Vec::new(),
        }]);
        let text = serde_json::to_string(&batch).unwrap();
        assert_eq!(text, r#"[{"base":7,"changes":[]}]"#);
        assert_eq!(serde_json::from_str::<Batch>(&text).unwrap(), batch);
        let member = Member {
            node: NodeId::from("n"),
            addr: SocketAddr::from(([192, 0, 2, 1], 2377)),
        };
        let nodes = BTreeMap::from([(u64::MAX, member)]);
        let membership = Membership::new(vec![[u64::MAX].into()], nodes);
        let text = serde_json::to_string(&membership).unwrap();
        assert_eq!(
            serde_json::from_str::<Membership>(&text).unwrap(),
            membership
        );
    }
}
