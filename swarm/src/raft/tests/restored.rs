//! A log that begins with the state of a backup, and rows that are not those that were written.

use redb::{ReadableTable as _, TableDefinition};

use super::platter::Platter;
use super::*;
use crate::raft::medium::OnDisk;

const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft.raft.notes");

fn backed_up() -> ClusterState {
    let mut state = ClusterState::default();
    for name in ["a", "b"] {
        state.apply(&[network(name, 10)]);
    }
    state
}

async fn alone(platter: Platter) -> RaftStore {
    let start = Start::Alone(member(4));
    RaftStore::open(setup(platter), start, Nobody)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_log_begins_with_the_state_of_a_backup() {
    let platter = Platter::default();
    let state = backed_up();
    lay_down(&platter, key(), member(4), state.clone()).unwrap();
    let second = lay_down(&platter, key(), member(4), state.clone()).unwrap_err();
    assert!(matches!(second, StoreError::Damaged { .. }), "{second}");
    let store = alone(platter.clone()).await;
    assert_eq!(*store.read(), state);
    assert!(store.leadership().borrow().leads());
    let members = store.members();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].node, member(4).node);
    put(&store, network("c", 10)).await.unwrap();
    drop(store);
    platter.crash();
    let store = again(platter).await.unwrap();
    assert_eq!(names(&store), ["a", "b", "c"]);
    assert_eq!(store.read().version, state.version + 1);
}

/// The machine loses its power at each sync: what is there then is nothing, or all of it.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_laid_down_is_there_or_not() {
    let state = backed_up();
    for (sync, seed) in (1..).flat_map(|sync| [(sync, None), (sync, Some(sync))]) {
        let platter = Platter::default();
        platter.fail_at(sync);
        let laid = lay_down(&platter, key(), member(4), state.clone());
        let has_failed = platter.has_failed();
        platter.cut_power(seed);
        let again = lay_down(&platter, key(), member(4), state.clone());
        let is_there = again.is_err_and(|error| error.to_string().contains("there already"));
        assert!(
            is_there || laid.is_err(),
            "sync {sync}: it was said to be there"
        );
        if is_there {
            let store = alone(platter).await;
            assert_eq!(*store.read(), state, "sync {sync}");
        }
        if !has_failed {
            return;
        }
    }
}

/// The machine loses its power at each sync on the way: its name and its list of members agree.
#[tokio::test(start_paused = true)]
async fn who_goes_on_alone_has_one_name_whatever_happens() {
    for sync in 1.. {
        let platter = Platter::default();
        let store = found(platter.clone()).await.unwrap();
        put(&store, network("a", 10)).await.unwrap();
        let before = store.member();
        drop(store);
        platter.crash();
        platter.fail_at(sync);
        let start = Start::Alone(member(4));
        let went = RaftStore::open(setup(platter.clone()), start, Nobody).await;
        let told = went.as_ref().ok().map(RaftStore::member);
        drop(went);
        let has_failed = platter.has_failed();
        platter.crash();
        let store = again(platter).await.unwrap();
        assert!(
            store.leadership().borrow().leads(),
            "sync {sync}: it is not on its own list"
        );
        assert_eq!(names(&store), ["a"], "sync {sync}");
        let name = store.member();
        assert!(told.is_none_or(|told| told == name), "sync {sync}");
        if !has_failed {
            assert_ne!(name, before);
            return;
        }
    }
}

#[tokio::test]
async fn a_row_at_the_place_of_another_or_of_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let store = found(OnDisk(path.clone())).await.unwrap();
    put(&store, network("secret-name", 10)).await.unwrap();
    store.close().await;
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    let is_there = bytes.windows(11).any(|part| part == b"secret-name");
    assert!(!is_there, "nothing of the state is readable in the file");

    let mut other = setup(OnDisk(path.clone()));
    other.key = SecretKey::from_bytes([8; 32]);
    let refused = RaftStore::open(other, Start::Again, Nobody).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("sealed with another key"), "{text}");

    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut notes = transaction.open_table(NOTES).unwrap();
        let vote = notes.get("vote").unwrap().unwrap().value().to_vec();
        notes.insert("committed", vote.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let text = again(OnDisk(path)).await.unwrap_err().to_string();
    assert!(text.contains("committed: it was changed"), "{text}");
}
