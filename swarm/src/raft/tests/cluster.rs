//! Managers in one process, on disks that lose what was not synced and a network that is cut. The clock
//! is virtual.

use std::sync::Mutex;
use std::time::Duration;

use openraft::SnapshotPolicy;
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};
use weft_cluster::Entropy;

use super::network::{Ether, Wire};
use super::platter::Platter;
use super::witness::Witness;
use super::*;

/// Managers, where a test does not say how many.
pub(super) const SIZE: usize = 3;
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Time of day when a cluster is made, in Unix milliseconds.
const BIRTH: u64 = 1_800_000_000_000;

/// Whether a machine is a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    In,
    Out,
    /// Somebody asked for the one or the other, and did not see it done.
    Unsure,
}

/// One machine.
struct Machine {
    platter: Platter,
    lives: u32,
    store: Option<Arc<RaftStore>>,
    part: Part,
    /// By how many milliseconds its time of day is wrong.
    ahead: i64,
}

/// All of them.
pub(super) struct Cluster {
    pub(super) ether: Arc<Ether>,
    machines: Mutex<Vec<Machine>>,
    witness: Witness,
    born: Instant,
}

impl Cluster {
    /// Three managers; the first has made the log, and added the others.
    pub(super) async fn new(seed: u64) -> Arc<Self> {
        Self::of(seed, SIZE, SIZE).await
    }

    /// So many managers, on some of the machines.
    pub(super) async fn of(seed: u64, managers: usize, machines: usize) -> Arc<Self> {
        let machine = || Machine {
            platter: Platter::default(),
            lives: 0,
            store: None,
            part: Part::Out,
            ahead: 0,
        };
        let cluster = Arc::new(Self {
            ether: Ether::new(seed),
            machines: Mutex::new((0..machines).map(|_| machine()).collect()),
            witness: Witness::default(),
            born: Instant::now(),
        });
        let first = cluster.start(0, Start::Found(member(0))).await;
        cluster.set_part(0, Part::In);
        for place in 1..managers {
            let joined = cluster.start(place, Start::Join).await;
            let added = first.add_member(joined.member(), member(place as u8)).await;
            added.expect("it takes what there is");
            cluster.set_part(place, Part::In);
        }
        cluster
    }

    /// Machines, managers or not.
    pub(super) fn size(&self) -> usize {
        self.machines.lock().unwrap().len()
    }

    pub(super) fn store(&self, place: usize) -> Option<Arc<RaftStore>> {
        self.machines.lock().unwrap()[place].store.clone()
    }

    pub(super) fn part(&self, place: usize) -> Part {
        self.machines.lock().unwrap()[place].part
    }

    pub(super) fn set_part(&self, place: usize, part: Part) {
        self.machines.lock().unwrap()[place].part = part;
    }

    pub(super) async fn start(&self, place: usize, start: Start) -> Arc<RaftStore> {
        let (platter, lives) = {
            let mut machines = self.machines.lock().unwrap();
            machines[place].lives += 1;
            (machines[place].platter.clone(), machines[place].lives)
        };
        let mut setup = setup(platter);
        setup.config.snapshot_policy = SnapshotPolicy::LogsSinceLast(200);
        setup.config.max_in_snapshot_log_to_keep = 20;
        let wire = Wire {
            ether: Arc::clone(&self.ether),
            from: (place, lives),
            links: Arc::clone(&setup.links),
        };
        let store = RaftStore::open(setup, start, wire).await;
        let store = Arc::new(store.expect("what was synced is whole"));
        self.ether.settle((place, lives), &store);
        self.witness.watch(&store);
        self.machines.lock().unwrap()[place].store = Some(Arc::clone(&store));
        store
    }

    /// Its power goes. What was not synced is lost, sometimes all of it.
    pub(super) fn kill(&self, place: usize) {
        let mut machines = self.machines.lock().unwrap();
        let platter = &machines[place].platter;
        self.ether.chance(|rng| {
            if rng.random_bool(0.5) {
                platter.crash_in_the_middle(rng);
            } else {
                platter.crash();
            }
        });
        machines[place].store = None;
        self.ether.vacate(place);
    }

    /// It is off, and gets another disk.
    pub(super) fn wipe(&self, place: usize) {
        self.kill(place);
        let mut machines = self.machines.lock().unwrap();
        machines[place].platter = Platter::default();
        machines[place].part = Part::Out;
    }

    /// Whether there is room on its disk.
    pub(super) fn set_full(&self, place: usize, is_full: bool) {
        let machines = self.machines.lock().unwrap();
        machines[place].platter.set_full(is_full);
    }

    /// Somebody sets its time of day.
    pub(super) fn set_clock(&self, place: usize, ahead: i64) {
        self.machines.lock().unwrap()[place].ahead = ahead;
    }

    /// What its time of day is, in Unix milliseconds.
    pub(super) fn time_of_day(&self, place: usize) -> u64 {
        let ahead = self.machines.lock().unwrap()[place].ahead;
        let right = BIRTH + self.steady().as_millis() as u64;
        right.saturating_add_signed(ahead)
    }

    /// A clock that nobody sets.
    pub(super) fn steady(&self) -> Duration {
        self.born.elapsed()
    }

    pub(super) fn entropy(&self) -> Entropy {
        Entropy::from_seed(self.ether.chance(|rng| rng.random()))
    }

    pub(super) fn leader(&self) -> Option<usize> {
        (0..self.size()).find(|place| {
            let store = self.store(*place);
            store.is_some_and(|store| store.leadership().borrow().leads())
        })
    }

    /// Changes something where the leader is; nothing when it is not acknowledged.
    async fn try_to_write(&self, name: &str) -> Option<Arc<RaftStore>> {
        let leader = self.store(self.leader()?)?;
        let written = put(&leader, network(name, 10)).await;
        written.is_ok().then_some(leader)
    }

    /// Changes something, whoever leads, until it is acknowledged.
    pub(super) async fn write(&self, name: &str) -> Arc<RaftStore> {
        let written = async {
            loop {
                if let Some(leader) = self.try_to_write(name).await {
                    return leader;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, written).await.expect("somebody leads")
    }

    /// Waits until all that runs have the same state, and returns it.
    pub(super) async fn same(&self) -> Arc<ClusterState> {
        let same = async {
            loop {
                let stores = (0..self.size()).filter_map(|place| self.store(place));
                let states: Vec<_> = stores.map(|store| store.read()).collect();
                if states.iter().all(|state| *state == states[0]) {
                    return Arc::clone(&states[0]);
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let state = timeout(LIMIT, same).await.expect("they agree");
        let seen = self.witness.faults();
        assert!(seen.is_empty(), "{seen:#?}");
        state
    }
}

pub(super) async fn until(what: &str, is: impl Fn() -> bool) {
    let waited = timeout(LIMIT, async {
        while !is() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect(what);
}
