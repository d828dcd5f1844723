//! The managers as one: whatever happens to them, their clients see one state, which has all that they
//! were told is done, and nothing is given out twice. What happens is drawn from a seed; openraft draws
//! the times of its elections by itself.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cluster::{Cluster, Part};
use super::harm::{mend, settle, trouble};
use super::history::History;
use super::load::{Load, give_birth};
use super::witness::twice;
use super::*;

const CLIENTS: usize = 4;

/// How a run is set up.
#[derive(Debug, Clone, Copy)]
struct Run {
    seed: u64,
    managers: usize,
    machines: usize,
    lasts: Duration,
}

/// All managers lose their power, and come back with what was on their disks.
async fn off_and_on(cluster: &Cluster) {
    for place in 0..cluster.size() {
        cluster.kill(place);
    }
    mend(cluster).await;
}

async fn survive(run: Run) {
    let cluster = Cluster::of(run.seed, run.managers, run.machines).await;
    give_birth(&cluster).await;
    let load = Arc::new(Load {
        cluster: Arc::clone(&cluster),
        history: History::default(),
    });
    let until = Instant::now() + run.lasts;
    let mut busy = JoinSet::new();
    for _ in 0..CLIENTS {
        busy.spawn(Arc::clone(&load).be_client(until));
    }
    for place in 0..run.machines {
        busy.spawn(Arc::clone(&load).plan(place, until));
    }
    trouble(&cluster, until).await;
    busy.join_all().await;
    mend(&cluster).await;
    settle(&cluster).await;
    load.write_at_last().await;
    load.read_at_last().await;
    let before = cluster.same().await;

    off_and_on(&cluster).await;
    load.write_at_last().await;
    load.read_at_last().await;
    let state = cluster.same().await;
    assert!(state.version > before.version, "{run:?}");
    let faults = load.history.faults(&state);
    assert!(faults.is_empty(), "{run:?}: {}", faults.join("\n"));
    assert_eq!(twice(&state), None, "{run:?}");
    let acknowledged = load.history.acknowledged();
    assert!(acknowledged > 100, "{run:?}: {acknowledged} changes");
    agree_on_members(&cluster, run);
}

/// Who is a manager is known to all of them, and at which address.
fn agree_on_members(cluster: &Cluster, run: Run) {
    let managers: Vec<usize> = (0..cluster.size())
        .filter(|place| cluster.part(*place) == Part::In)
        .collect();
    assert!(managers.len() >= 2, "{run:?}: {managers:?}");
    let lists = managers.iter().filter_map(|place| cluster.store(*place));
    let lists = lists.map(|store| {
        let members = store.members().into_iter();
        members
            .map(|m| (m.node, m.addr, m.votes))
            .collect::<Vec<_>>()
    });
    let lists: Vec<_> = lists.collect();
    assert_eq!(lists.len(), managers.len(), "{run:?}: all run");
    for list in &lists {
        assert_eq!(list, &lists[0], "{run:?}");
        assert_eq!(list.len(), managers.len(), "{run:?}");
        assert!(list.iter().all(|(_, _, votes)| *votes), "{run:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn managers_are_one_whatever_fails() {
    for (seed, managers, machines) in [(11, 3, 4), (12, 5, 5)] {
        let lasts = Duration::from_secs(30);
        survive(Run {
            seed,
            managers,
            machines,
            lasts,
        })
        .await;
    }
}

/// `WEFT_TEST_SEED` names the seed of one run; without it there are forty.
#[tokio::test(start_paused = true)]
#[ignore = "second tier: forty seeds take minutes"]
async fn managers_are_one_with_other_seeds() {
    let one: Option<u64> = std::env::var("WEFT_TEST_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seeds = one.map_or(100..140, |seed| seed..seed + 1);
    for seed in seeds {
        // Three, four or five of up to six machines.
        let managers = 3 + (seed % 3) as usize;
        let machines = managers + (seed / 3 % 2) as usize;
        survive(Run {
            seed,
            managers,
            machines,
            lasts: Duration::from_secs(60),
        })
        .await;
    }
}
