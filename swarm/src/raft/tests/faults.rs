//! The machine loses its power, or its disk, at each sync of a manager's life: what was acknowledged
//! is there afterwards, and what is there was proposed.

use std::time::Duration;

use openraft::SnapshotPolicy;
use tokio::time::timeout;

use super::platter::Platter;
use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// Ten changes, with snapshots between; those that were acknowledged.
async fn life(platter: &Platter, acknowledged: &mut Vec<String>) -> Result<(), String> {
    let mut often = setup(platter.clone());
    often.config.snapshot_policy = SnapshotPolicy::LogsSinceLast(3);
    often.config.max_in_snapshot_log_to_keep = 1;
    let store = RaftStore::open(often, Start::Found(member(1)), Nobody).await;
    let store = store.map_err(|e| e.to_string())?;
    for number in 0..10 {
        let name = format!("n{number}");
        let stored = timeout(LIMIT, put(&store, network(&name, 10))).await;
        let stored = stored.map_err(|e| e.to_string())?;
        stored.map_err(|e| e.to_string())?;
        acknowledged.push(name);
    }
    Ok(())
}

async fn live_and_fail(cut: impl Fn(u64) -> Option<u64>) {
    for sync in 1.. {
        let platter = Platter::default();
        platter.fail_at(sync);
        let mut acknowledged = Vec::new();
        let ended = life(&platter, &mut acknowledged).await;
        let has_failed = platter.has_failed();
        platter.cut_power(cut(sync));
        match again(platter).await {
            Ok(store) => {
                let found = names(&store);
                let next = format!("n{}", acknowledged.len());
                let mut more = acknowledged.clone();
                more.push(next);
                assert!(
                    found == acknowledged || found == more,
                    "sync {sync}: {found:?}, acknowledged were {acknowledged:?}"
                );
                assert_eq!(store.read().version, found.len() as u64, "sync {sync}");
                if store.leadership().borrow().leads() {
                    put(&store, network("z", 10)).await.expect("it goes on");
                }
            }
            Err(error) => assert!(acknowledged.is_empty(), "sync {sync}: {error}"),
        }
        if ended.is_ok() && !has_failed {
            assert_eq!(acknowledged.len(), 10);
            assert!(sync > 20, "a life has more syncs than {sync}");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_at_any_sync() {
    live_and_fail(|_| None).await;
}

/// Some of what was not synced is on the disk all the same.
#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_in_the_middle_of_any_sync() {
    live_and_fail(Some).await;
}
