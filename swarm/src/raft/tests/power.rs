//! The power goes at each sync of each thing that a member writes. What is on the disk then is what was
//! there before that thing, or after it.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::Duration;

use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::testing::log_id;
use openraft::{EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _};
use tokio::sync::watch;
use tokio::time::timeout;
use weft_cluster::Entry;

use super::platter::Platter;
use super::*;
use crate::raft::file::RaftFile;
use crate::raft::log::LogStore;
use crate::raft::machine::Machine;
use crate::raft::seal::Seal;
use crate::raft::types::{
    Batch, LogEntry, LogId, Membership, RaftId, SnapshotMeta, StorageError, Vote,
};

/// Names of members: the one whose disk this is, and another one.
const OWN: RaftId = 7;
const OTHER: RaftId = 8;
/// A snapshot that does not come to its end is tried again for ever.
const LIMIT: Duration = Duration::from_secs(30);
/// How often the power is cut at each place: once so that all is lost that was not synced, and twice
/// in the middle of it.
const CUTS: [Option<u64>; 3] = [None, Some(1), Some(2)];

/// An entry that makes a network of its own, of a log that has nothing else.
fn entry(term: u64, index: u64) -> LogEntry {
    entry_on(index, term, index)
}

/// The same, on the state of that version.
fn entry_on(base: u64, term: u64, index: u64) -> LogEntry {
    let changes = vec![network(&format!("n{index}"), 10)];
    let batch = Batch::new(vec![Entry { base, changes }]);
    LogEntry {
        log_id: log_id(term, OWN, index),
        payload: EntryPayload::Normal(batch),
    }
}

/// What a member does to its disk.
struct Member7 {
    log: LogStore,
    machine: Machine,
}

impl Member7 {
    const STEPS: usize = 10;

    fn begin(platter: &Platter) -> Result<Self, StoreError> {
        Self::begin_with(platter, key())
    }

    fn begin_with(platter: &Platter, keys: DataKeys) -> Result<Self, StoreError> {
        let medium = Box::new(platter.clone());
        let file = RaftFile::found(medium, Seal::new(keys), OWN, DiskThread::inline())?;
        let file = Arc::new(file);
        Ok(Self {
            log: LogStore(Arc::clone(&file)),
            machine: Machine {
                file,
                states: watch::Sender::new(Arc::default()),
            },
        })
    }

    async fn step(&mut self, number: usize) -> Result<(), StorageError> {
        match number {
            0 => self.log.save_vote(&Vote::new(1, OWN)).await,
            1 => {
                let entries = (0..5).map(|index| entry(1, index));
                self.log.blocking_append(entries).await
            }
            2 => self.log.save_vote(&Vote::new_committed(2, OTHER)).await,
            // Another leader has other entries.
            3 => self.log.truncate(log_id(1, OWN, 3)).await,
            4 => {
                let entries = (3..8).map(|index| entry(2, index));
                self.log.blocking_append(entries).await
            }
            5 => {
                let entries = (0..6).map(|index| entry(if index < 3 { 1 } else { 2 }, index));
                self.machine.apply(entries).await?;
                let mut builder = self.machine.get_snapshot_builder().await;
                builder.build_snapshot().await.map(drop)
            }
            6 => self.log.purge(log_id(2, OWN, 4)).await,
            7 => self.install().await,
            8 => self.log.purge(log_id(3, OTHER, 20)).await,
            _ => {
                let entries = (21..23).map(|index| entry(3, index));
                self.log.blocking_append(entries).await
            }
        }
    }

    /// Takes what a leader has from whom it is too far away.
    async fn install(&mut self) -> Result<(), StorageError> {
        let mut state = ClusterState::default();
        for name in ["x", "y"] {
            state.apply(&[network(name, 10)]);
        }
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(3, OTHER, 20)),
            snapshot_id: "of another".to_owned(),
            ..SnapshotMeta::default()
        };
        let bytes = Box::new(Cursor::new(encode_state(&state)));
        self.machine.install_snapshot(&meta, bytes).await
    }

    /// Does one thing after the other, so many at most; how many were done.
    async fn live(platter: &Platter, steps: usize) -> Option<usize> {
        let mut member = Self::begin(platter).ok()?;
        for number in 0..steps {
            match timeout(LIMIT, member.step(number)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Some(number),
            }
        }
        Some(steps)
    }
}

/// What somebody finds who opens the file anew.
#[derive(Debug, PartialEq)]
struct Found {
    vote: Option<Vote>,
    last: Option<LogId>,
    purged: Option<LogId>,
    snapshot: Option<SnapshotMeta>,
    state: Arc<ClusterState>,
    entries: Vec<LogEntry>,
}

async fn found_on(platter: &Platter) -> Result<Found, StoreError> {
    found_by(platter, key()).await
}

async fn found_by(platter: &Platter, keys: DataKeys) -> Result<Found, StoreError> {
    let medium = Box::new(platter.clone());
    let file = RaftFile::open(
        medium,
        Seal::new(keys),
        DiskThread::inline(),
        |_, _, (id, _)| Ok(id),
    )?;
    let file = Arc::new(file);
    let mut log = LogStore(Arc::clone(&file));
    let entries = log.try_get_log_entries(..).await.expect("it was opened");
    let known = file.known();
    Ok(Found {
        vote: known.vote,
        last: known.last(),
        purged: known.purged,
        snapshot: known.snapshot.clone(),
        state: Arc::clone(&known.applied.state),
        entries,
    })
}

#[tokio::test(start_paused = true)]
async fn each_step_is_on_the_disk_or_not() {
    let mut whole = Vec::new();
    for steps in 0..=Member7::STEPS {
        let platter = Platter::default();
        let done = Member7::live(&platter, steps).await;
        assert_eq!(done, Some(steps));
        platter.cut_power(None);
        whole.push(found_on(&platter).await.expect("it is whole"));
    }
    for cut in CUTS {
        for sync in 1.. {
            let platter = Platter::default();
            platter.fail_at(sync);
            let done = Member7::live(&platter, Member7::STEPS).await;
            let has_failed = platter.has_failed();
            platter.cut_power(cut.map(|seed| seed + 1000 * sync));
            match (found_on(&platter).await, done) {
                (Ok(found), done) => {
                    let done = done.unwrap_or(0);
                    let is_so = found == whole[done] || Some(&found) == whole.get(done + 1);
                    assert!(is_so, "{cut:?} sync {sync}: {done} were done: {found:#?}");
                }
                (Err(error), done) => assert_eq!(done, None, "{cut:?} sync {sync}: {error}"),
            }
            if !has_failed {
                assert_eq!(done, Some(Member7::STEPS));
                assert!(sync > 10, "each step has a sync of its own");
                break;
            }
        }
    }
}

/// The file is sealed by a new key, with the power cut at each sync of that: what is there then opens by
/// the keys of before and after, and once it is done by the new one alone.
#[tokio::test(start_paused = true)]
async fn what_is_sealed_anew_opens_at_each_moment() {
    for cut in CUTS {
        for sync in 1.. {
            let (platter, keys) = (Platter::default(), key());
            let mut member = Member7::begin_with(&platter, keys.clone()).expect("a disk");
            for number in 0..Member7::STEPS {
                member.step(number).await.expect("a disk");
            }
            platter.cut_power(None);
            let whole = found_on(&platter).await.expect("it is whole");
            let medium = Box::new(platter.clone());
            let seal = Seal::new(keys.clone());
            let file = RaftFile::open(medium, seal, DiskThread::inline(), |_, _, (id, _)| Ok(id));
            let file = Arc::new(file.expect("it is whole"));

            let old = keys.ring();
            keys.set(old.renewed());
            platter.fail_at(sync);
            let is_done = file.seal_anew().await.is_ok();
            let has_failed = platter.has_failed();
            platter.cut_power(cut.map(|seed| seed + 1000 * sync));
            drop((member, file));
            let found = found_by(&platter, keys.clone()).await;
            assert_eq!(found.expect("by both"), whole, "{cut:?} sync {sync}");
            if is_done {
                let new = keys.ring().settled().into();
                let found = found_by(&platter, new).await;
                assert_eq!(found.expect("by the new one"), whole);
                let refused = found_by(&platter, old.into()).await;
                let text = refused.expect_err("by the old one").to_string();
                assert!(text.contains("sealed with another key"), "{text}");
            }
            if !has_failed {
                assert!(is_done && sync > 2, "the file and its name are synced");
                break;
            }
        }
    }
}

/// A member of three, with entries of which it does not know whether the others have them.
async fn one_of_three(platter: &Platter) {
    let mut one = Member7::begin(platter).expect("a disk");
    let voters = [OWN, OTHER, 9];
    let nodes: BTreeMap<RaftId, Member> = voters.into_iter().zip((1..).map(member)).collect();
    let list = LogEntry {
        log_id: log_id(1, OTHER, 0),
        payload: EntryPayload::Membership(Membership::new(vec![voters.into()], nodes)),
    };
    let entries = (1..4).map(|index| entry_on(index - 1, 1, index));
    let entries: Vec<LogEntry> = [list].into_iter().chain(entries).collect();
    one.log.save_vote(&Vote::new(1, OTHER)).await.expect("room");
    one.log.blocking_append(entries).await.expect("room");
    drop(one);
    platter.cut_power(None);
}

async fn alone(platter: &Platter) -> Result<RaftStore, StoreError> {
    RaftStore::open(setup(platter.clone()), Start::Alone(member(4)), Nobody).await
}

/// `weft swarm init --force-new-cluster`, with the power cut at each sync of it, and tried again.
#[tokio::test(start_paused = true)]
async fn who_goes_on_alone_does_or_can_try_again() {
    for cut in CUTS {
        for sync in 1.. {
            let platter = Platter::default();
            one_of_three(&platter).await;
            platter.fail_at(sync);
            let is_done = alone(&platter).await.is_ok();
            let has_failed = platter.has_failed();
            platter.cut_power(cut.map(|seed| seed + 1000 * sync));
            let store = again(platter.clone()).await.expect("it is whole");
            assert!(
                store.shared.is_alone() || !is_done,
                "{cut:?} sync {sync}: it was said to be alone"
            );
            drop(store);
            platter.cut_power(None);
            let store = alone(&platter).await.expect("it is whole");
            assert!(store.leadership().borrow().leads(), "{cut:?} sync {sync}");
            assert_eq!(names(&store), ["n1", "n2", "n3"], "{cut:?} sync {sync}");
            assert_eq!(store.members().len(), 1);
            put(&store, network("z", 10)).await.expect("it goes on");
            if !has_failed {
                assert!(is_done);
                break;
            }
        }
    }
}
