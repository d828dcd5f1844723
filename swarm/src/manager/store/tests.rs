//! Stores on real disks that are full.

use std::os::fd::{AsRawFd as _, OwnedFd};

use weft_model::id::{NetworkId, PeerId};
use weft_model::objects::{Meta, Network, NetworkSpec};
use weft_sys::namespaces::unmounted_tmpfs;

use super::*;

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

    fn store(&self) -> RedbStore {
        RedbStore::open(&self.path()).expect("a store")
    }

    fn path(&self) -> PathBuf {
        self.dir.join("manager.redb")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        std::fs::write(self.dir.join("filler"), vec![0; 64 << 20]).expect_err("it does not fit");
    }

    fn empty(&self) {
        std::fs::remove_file(self.dir.join("filler")).expect("removed");
    }
}

/// A network whose label is so long.
fn network(name: &str, len: usize) -> Change {
    let network = Network {
        id: NetworkId(name.to_owned()),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            labels: [("l".to_owned(), "x".repeat(len))].into(),
            ..NetworkSpec::default()
        },
        vni: 4096,
    };
    Change::Put(network.into())
}

async fn put(store: &RedbStore, change: Change) -> Result<(), String> {
    let entry = Entry {
        base: store.read().version,
        changes: vec![change],
    };
    store
        .propose(entry)
        .await
        .map(drop)
        .map_err(|e| e.to_string())
}

fn names(store: &RedbStore) -> Vec<String> {
    let state = store.read();
    state.networks.keys().map(|id| id.0.clone()).collect()
}

#[tokio::test]
async fn a_full_disk_costs_the_change_that_did_not_fit_and_nothing_else() {
    let disk = Disk::new(3 << 20);
    let store = disk.store();
    put(&store, network("a", 10)).await.expect("there is room");
    disk.fill();
    let refused = put(&store, network("big", 2 << 20)).await;
    let refused = refused.expect_err("no room");
    assert!(
        refused.contains("cannot store the change: the disk of ")
            && refused.contains("manager.redb has no room for it")
            && refused.contains("nothing was changed; make room there and try again"),
        "{refused}"
    );
    assert_eq!(names(&store), ["a"], "what was refused is not in memory");
    assert!(store.trouble().borrow().is_some());
    disk.empty();
    put(&store, network("b", 10)).await.expect("room again");
    assert!(store.trouble().borrow().is_none());
    put(&store, network("c", 500_000))
        .await
        .expect("room again");
    let before = store.read();
    store.close().await;
    drop(store);
    let again = disk.store();
    assert_eq!(again.read(), before, "all of it is on the disk");
}

#[tokio::test]
async fn the_disk_is_tried_again_without_a_change() {
    let disk = Disk::new(3 << 20);
    let store = disk.store();
    disk.fill();
    put(&store, network("big", 2 << 20))
        .await
        .expect_err("no room");
    disk.empty();
    assert!(store.mend().await);
    assert!(store.trouble().borrow().is_none());
    assert_eq!(store.read().version, 0, "nothing was changed by that");
}

/// What others fill the disk with does not stop the manager at once.
#[tokio::test]
async fn room_is_held_for_changes() {
    let disk = Disk::new(12 << 20);
    let store = disk.store();
    put(&store, network("a", 10)).await.expect("there is room");
    disk.fill();
    for name in ["b", "c", "d"] {
        put(&store, network(name, 300_000))
            .await
            .expect("room of its own");
    }
    let before = store.read();
    store.close().await;
    drop(store);
    assert_eq!(disk.store().read(), before);
}

/// A transaction may be on the disk although the disk said that it failed.
#[tokio::test]
async fn a_refused_change_that_is_in_the_file_is_taken_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("manager.redb");
    let store = RedbStore::open(&path).expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    let before = store.read();
    let ahead = {
        let mut state = ClusterState::clone(&before);
        state.apply(&[network("refused", 10), Change::Delete(network("a", 0).id())]);
        state
    };
    {
        let mut file = lock(&store.shared.file);
        let StoreFile::Open(database) = &*file else {
            panic!("the store is open");
        };
        commit_all(database, &ahead).expect("written");
        *file = StoreFile::Lost {
            why: "the test says so".to_owned(),
            pause: REOPEN_MIN,
            next: Instant::now(),
        };
    }
    put(&store, network("b", 10)).await.expect("stored");
    let after = store.read();
    assert_eq!(names(&store), ["a", "b"]);
    store.close().await;
    drop(store);
    let again = RedbStore::open(&path).expect("a store");
    assert_eq!(again.read(), after);
}

/// The state in memory is whole, so a file that was damaged under it is written anew.
#[tokio::test]
async fn a_file_damaged_while_the_manager_runs_is_written_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("manager.redb");
    let store = RedbStore::open(&path).expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    *lock(&store.shared.file) = StoreFile::Lost {
        why: "the test says so".to_owned(),
        pause: REOPEN_MIN,
        next: Instant::now(),
    };
    std::fs::write(&path, "no database at all".repeat(1000)).expect("written");
    put(&store, network("b", 10)).await.expect("stored");
    let after = store.read();
    store.close().await;
    drop(store);
    let again = RedbStore::open(&path).expect("a store");
    assert_eq!(again.read(), after);
    let aside = std::fs::read_dir(dir.path()).expect("a folder").flatten();
    let aside = aside
        .filter(|e| e.file_name().to_string_lossy().contains("damaged-"))
        .count();
    assert_eq!(aside, 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_again_is_not_tried_at_every_change() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("sub/manager.redb");
    std::fs::create_dir(dir.path().join("sub")).expect("a folder");
    let store = RedbStore::open(&path).expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    *lock(&store.shared.file) = StoreFile::Lost {
        why: "the test says so".to_owned(),
        pause: REOPEN_MAX,
        next: Instant::now(),
    };
    std::fs::rename(dir.path().join("sub"), dir.path().join("away")).expect("moved");
    let first = put(&store, network("b", 10)).await.expect_err("no folder");
    assert!(first.contains("No such file"), "{first}");
    std::fs::rename(dir.path().join("away"), dir.path().join("sub")).expect("moved");
    let second = put(&store, network("b", 10)).await.expect_err("too soon");
    assert_eq!(second, first);
    {
        let mut file = lock(&store.shared.file);
        let StoreFile::Lost { next, .. } = &mut *file else {
            panic!("the store is lost");
        };
        *next = Instant::now();
    }
    put(&store, network("b", 10)).await.expect("stored");
    assert_eq!(names(&store), ["a", "b"]);
}

/// Gives a store that is closed the format of another version.
fn set_format(path: &Path, format: u64) {
    let database = Database::create(path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    {
        let mut meta = transaction.open_table(META).expect("a table");
        meta.insert("format", format).expect("written");
    }
    transaction.commit().expect("written");
}

#[tokio::test]
async fn the_state_of_another_version_is_refused_and_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("manager.redb");
    let store = RedbStore::open(&path).expect("a store");
    put(&store, network("a", 10)).await.expect("stored");
    let before = store.read();
    store.close().await;
    drop(store);
    for format in [FORMAT - 1, FORMAT + 1] {
        set_format(&path, format);
        let error = RedbStore::open(&path).expect_err("another format");
        let is_named = matches!(&error, StoreError::Format { found, .. } if *found == format);
        let text = error.to_string();
        assert!(
            is_named
                && text.contains("manager.redb has format")
                && text.contains("nothing in it was changed")
                && text.contains("restore a backup"),
            "{text}"
        );
    }
    set_format(&path, FORMAT);
    let again = RedbStore::open(&path).expect("a store");
    assert_eq!(again.read(), before);
}

/// `ids` and `get` are what the whole state is written by.
#[test]
fn every_object_has_its_id_in_the_list() {
    let mut state = ClusterState::default();
    state.apply(&[network("a", 1), network("b", 1)]);
    let ids = state.ids();
    for id in [
        ObjectId::Counters,
        ObjectId::Network(NetworkId("a".to_owned())),
        ObjectId::Network(NetworkId("b".to_owned())),
    ] {
        assert!(ids.contains(&id), "{id:?}");
    }
    assert!(!ids.contains(&ObjectId::Peer(PeerId("a".to_owned()))));
    let mut copy = ClusterState::default();
    for id in &ids {
        copy.put(state.get(id).expect("it is there"));
    }
    copy.version = state.version;
    assert_eq!(copy, state);
}
