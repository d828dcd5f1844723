//! Logs on real disks that are full, or whose file is damaged under a running manager.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use openraft::testing::log_id;
use weft_cluster::Entry;
use weft_sys::namespaces::unmounted_tmpfs;

use super::*;
use crate::raft::medium::OnDisk;
use crate::raft::tables;
use crate::raft::types::{Batch, LogEntry};

/// A disk of its own, by a path through its descriptor.
struct Disk {
    dir: PathBuf,
    _mount: OwnedFd,
}

impl Disk {
    fn new(bytes: u64) -> Self {
        let mount = unmounted_tmpfs(bytes).expect("a small disk");
        Self {
            dir: PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
            _mount: mount,
        }
    }

    fn file(&self) -> OnDisk {
        OnDisk(self.dir.join("raft.redb"))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        std::fs::write(self.dir.join("filler"), vec![0; 64 << 20]).expect_err("it does not fit");
    }

    fn empty(&self) {
        std::fs::remove_file(self.dir.join("filler")).expect("removed");
    }
}

fn file_in(dir: &Path) -> OnDisk {
    OnDisk(dir.join("raft.redb"))
}

#[tokio::test]
async fn a_full_disk_costs_the_change_that_did_not_fit_and_nothing_else() {
    let disk = Disk::new(6 << 20);
    let store = found(disk.file()).await.expect("a store");
    put(&store, network("a", 10)).await.expect("there is room");
    disk.fill();
    let refused = put(&store, network("big", 3 << 20)).await;
    let refused = refused.expect_err("no room").to_string();
    assert!(
        refused.contains("cannot store the change: the disk of ")
            && refused.contains("raft.redb has no room for it")
            && refused.contains("nothing was changed; make room there and try again"),
        "{refused}"
    );
    assert_eq!(names(&store), ["a"], "what was refused is not in memory");
    assert!(store.trouble().borrow().is_some());
    assert!(store.leadership().borrow().leads(), "it goes on");
    store.confirm_lead().await.expect("it is read as before");
    disk.empty();
    put(&store, network("b", 10)).await.expect("room again");
    assert!(store.trouble().borrow().is_none());
    put(&store, network("c", 500_000))
        .await
        .expect("room again");
    let before = store.read();
    store.close().await;
    drop(store);
    let again = again(disk.file()).await.expect("a store");
    assert_eq!(again.read(), before, "all of it is on the disk");
}

#[tokio::test]
async fn the_disk_is_tried_again_without_a_change() {
    let disk = Disk::new(6 << 20);
    let store = found(disk.file()).await.expect("a store");
    disk.fill();
    let refused = put(&store, network("big", 3 << 20)).await;
    refused.expect_err("no room");
    disk.empty();
    assert!(store.shared.file.mend().await);
    assert!(store.trouble().borrow().is_none());
    assert_eq!(store.read().version, 0, "nothing was changed by that");
}

/// What others fill the disk with does not stop the manager at once.
#[tokio::test]
async fn room_is_held_for_changes() {
    let disk = Disk::new(16 << 20);
    let store = found(disk.file()).await.expect("a store");
    put(&store, network("a", 10)).await.expect("there is room");
    disk.fill();
    for name in ["b", "c", "d"] {
        let room = put(&store, network(name, 300_000)).await;
        room.expect("room of its own");
    }
    let before = store.read();
    store.close().await;
    drop(store);
    assert_eq!(again(disk.file()).await.expect("a store").read(), before);
}

/// A transaction may be on the disk although the disk said that it failed.
#[tokio::test]
async fn a_refused_change_that_is_in_the_file_is_taken_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = found(file_in(dir.path())).await.expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    let file = &store.shared.file;
    let last = file.known().last().expect("an entry");
    let refused = LogEntry {
        log_id: log_id(last.leader_id.term, file.member, last.index + 1),
        payload: EntryPayload::Normal(Batch::new(vec![Entry {
            base: store.read().version,
            changes: vec![network("refused", 10)],
        }])),
    };
    file.lose(|database| {
        tables::transact(database, |transaction| {
            tables::append(transaction, &file.seal, &[refused])
        })
        .expect("written");
    });
    put(&store, network("b", 10)).await.expect("stored");
    let after = store.read();
    assert_eq!(names(&store), ["a", "b"]);
    store.close().await;
    drop(store);
    let again = again(file_in(dir.path())).await.expect("a store");
    assert_eq!(again.read(), after);
}

/// The state in memory is whole, so a file that was damaged under it is written anew.
#[tokio::test]
async fn a_file_damaged_while_the_manager_runs_is_written_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("raft.redb");
    let store = found(file_in(dir.path())).await.expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    store.shared.file.lose(|_| ());
    std::fs::write(&path, "no database at all".repeat(1000)).expect("written");
    put(&store, network("b", 10)).await.expect("stored");
    let after = store.read();
    store.close().await;
    drop(store);
    let again = again(file_in(dir.path())).await.expect("a store");
    assert_eq!(again.read(), after);
    put(&again, network("c", 10)).await.expect("it leads");
    let aside = std::fs::read_dir(dir.path()).expect("a folder").flatten();
    let aside = aside
        .filter(|e| e.file_name().to_string_lossy().contains("damaged-"))
        .count();
    assert_eq!(aside, 1);
}

#[tokio::test]
async fn what_is_sealed_anew_is_no_good_for_the_key_of_before() {
    let disk = Disk::new(32 << 20);
    let with = |keys: DataKeys| Setup {
        keys,
        ..setup(disk.file())
    };
    let keys = key();
    let store = RaftStore::open(with(keys.clone()), Start::Found(member(1)), Nobody).await;
    let store = store.expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    let old = keys.ring();
    keys.set(old.renewed());
    put(&store, network("b", 10)).await.expect("by the new one");

    disk.fill();
    let refused = store.seal_anew().await.expect_err("no room for another");
    let text = refused.to_string();
    assert!(text.contains("raft.redb"), "{text}");
    disk.empty();
    put(&store, network("c", 10)).await.expect("it goes on");
    store.seal_anew().await.expect("room again");
    put(&store, network("d", 10)).await.expect("it goes on");
    keys.set(keys.ring().settled());
    put(&store, network("e", 10)).await.expect("it goes on");
    let before = store.read();
    store.close().await;
    drop(store);
    let files = std::fs::read_dir(&disk.dir).expect("a folder").count();
    assert_eq!(files, 1, "the file of before is gone");

    let stolen = RaftStore::open(with(old.into()), Start::Again, Nobody).await;
    let text = stolen.expect_err("the key of before").to_string();
    assert!(text.contains("sealed with another key"), "{text}");
    let again = RaftStore::open(with(keys), Start::Again, Nobody).await;
    assert_eq!(again.expect("by the new key").read(), before);
}

#[tokio::test]
async fn a_file_that_is_away_for_a_moment_is_opened_again() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("sub")).expect("a folder");
    let store = found(file_in(&dir.path().join("sub")))
        .await
        .expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    store.shared.file.lose(|_| ());
    std::fs::rename(dir.path().join("sub"), dir.path().join("away")).expect("moved");
    let refused = put(&store, network("b", 10)).await.expect_err("no folder");
    assert!(refused.to_string().contains("No such file"), "{refused}");
    assert_eq!(names(&store), ["a"], "it is read all the same");
    std::fs::rename(dir.path().join("away"), dir.path().join("sub")).expect("moved");
    let limit = std::time::Duration::from_secs(20);
    let stored = async {
        while put(&store, network("c", 10)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, stored)
        .await
        .expect("it is tried again");
    assert_eq!(names(&store), ["a", "c"]);
}
