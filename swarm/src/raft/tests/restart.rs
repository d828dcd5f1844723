//! Managers that start again: from the log, from a snapshot with the log after it, from what they
//! cannot read, and alone.

use openraft::SnapshotPolicy;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::task::JoinSet;

use super::platter::Platter;
use super::*;
use crate::raft::medium::OnDisk;
use crate::raft::tables;

#[tokio::test]
async fn a_lone_manager_leads_again_with_all_that_it_had() {
    let platter = Platter::default();
    let store = found(platter.clone()).await.unwrap();
    for name in ["a", "b", "c"] {
        put(&store, network(name, 10)).await.unwrap();
    }
    let before = store.read();
    assert_eq!(before.version, 3);
    // The power goes: nothing is told to anybody.
    platter.crash();
    drop(store);
    let store = again(platter.clone()).await.unwrap();
    assert!(store.leadership().borrow().leads(), "it waits for nobody");
    assert_eq!(store.read(), before, "what was acknowledged is there");
    put(&store, network("d", 10)).await.unwrap();
    assert_eq!(names(&store), ["a", "b", "c", "d"]);
    store.close().await;
    let error = put(&store, network("e", 10)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Closed), "{error}");
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_old_entries() {
    let platter = Platter::default();
    let mut often = setup(platter.clone());
    often.config.snapshot_policy = SnapshotPolicy::LogsSinceLast(10);
    often.config.max_in_snapshot_log_to_keep = 3;
    let store = RaftStore::open(often, Start::Found(member(1)), Nobody).await;
    let store = store.unwrap();
    for number in 0..60 {
        put(&store, network(&format!("n{number}"), 10))
            .await
            .unwrap();
    }
    let file = Arc::clone(&store.shared.file);
    let rows = || {
        let seal = file.seal.clone();
        file.read(move |rows| tables::entries(rows, &seal, 0..1000, usize::MAX))
    };
    let limit = std::time::Duration::from_secs(20);
    let waited = tokio::time::timeout(limit, async {
        // Entries are removed behind the back of those who wait for changes.
        while rows().await.unwrap().len() > 40 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("old entries go");
    drop(file);
    let before = store.read();
    platter.crash();
    drop(store);
    let store = again(platter).await.unwrap();
    assert_eq!(store.read(), before);
    put(&store, network("after", 10)).await.unwrap();
}

#[tokio::test]
async fn what_is_proposed_while_an_entry_is_written_goes_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = found(OnDisk(dir.path().join("raft.redb"))).await.unwrap();
    let store = Arc::new(store);
    let before = store.shared.file.known().last().unwrap().index;
    let mut writers = JoinSet::new();
    for number in 0..200 {
        let store = Arc::clone(&store);
        writers.spawn(async move { put(&store, network(&format!("n{number}"), 10)).await });
    }
    for written in writers.join_all().await {
        written.unwrap();
    }
    assert_eq!(store.read().version, 200, "each of them counts");
    let entries = store.shared.file.known().last().unwrap().index - before;
    assert!(entries < 50, "{entries} entries of the log");
    let stale = store.head();
    put(&store, network("other", 10)).await.unwrap();
    let error = store.propose(&stale, vec![network("late", 10)]).await;
    assert!(matches!(error, Err(ProposeError::Stale(_))), "{error:?}");
    store.settled(&store.head()).await.unwrap();
    assert_eq!(store.read().networks.len(), 201);
}

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("weft.meta");
const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft.raft.notes");

#[tokio::test]
async fn a_file_of_another_version_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let store = found(OnDisk(path.clone())).await.unwrap();
    put(&store, network("a", 10)).await.unwrap();
    let before = store.read();
    store.close().await;
    drop(store);
    let set_format = |format: u64| {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", format).unwrap();
        drop(meta);
        transaction.commit().unwrap();
    };
    let notes = || {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_read().unwrap();
        let notes = transaction.open_table(NOTES).unwrap();
        let rows = notes.iter().unwrap().map(|row| {
            let (name, value) = row.unwrap();
            (name.value().to_owned(), value.value().to_vec())
        });
        rows.collect::<Vec<_>>()
    };
    for format in [tables::FORMAT - 1, tables::FORMAT + 1] {
        set_format(format);
        let stored = notes();
        let error = again(OnDisk(path.clone())).await.unwrap_err();
        let is_named = matches!(&error, StoreError::Format { found, .. } if *found == format);
        let text = error.to_string();
        assert!(
            is_named
                && text.contains(&format!("raft.redb has format {format}"))
                && text.contains("nothing in it was changed")
                && text.contains("restore a backup"),
            "{text}"
        );
        assert_eq!(notes(), stored);
    }
    set_format(tables::FORMAT);
    let store = again(OnDisk(path.clone())).await.unwrap();
    assert_eq!(store.read(), before);
    let second = again(OnDisk(path)).await.unwrap_err();
    assert!(matches!(second, StoreError::Busy { .. }), "{second}");
}
