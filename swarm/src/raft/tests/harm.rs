//! What happens to managers: ways and power are cut, disks are full, clocks are set, messages come late,
//! twice, or not at all; meanwhile managers come, go and move.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{Cluster, LIMIT, Part, SIZE};
use super::network::Weather;
use super::*;

/// How long somebody waits for a change of the members.
const PATIENCE: Duration = Duration::from_secs(4);
/// A day, in milliseconds: by so much a clock is set at most.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Something bad. Most of it lasts until it is mended.
fn harm(cluster: &Cluster) {
    let size = cluster.size();
    let (what, place, other, by) = cluster.ether.chance(|rng| {
        (
            rng.random_range(0..11),
            rng.random_range(0..size),
            rng.random_range(0..size),
            rng.random_range(-DAY..DAY),
        )
    });
    let leader = cluster.leader().unwrap_or(place);
    match what {
        0 => cluster.ether.isolate(leader, size),
        1 => cluster.ether.isolate(place, size),
        2 => cluster.ether.cut(place, other),
        3 => {
            // It is heard, and hears nothing.
            let others = (0..size).filter(|other| *other != leader);
            others.for_each(|other| cluster.ether.cut(other, leader));
        }
        4 => cluster
            .ether
            .split(|side| (side + place) % size < size / 2, size),
        5 => cluster.kill(place),
        6 => cluster.kill(leader),
        7 => (0..size).for_each(|place| cluster.kill(place)),
        8 => cluster.set_full(leader, true),
        9 => {
            cluster.set_full(place, true);
            cluster.set_clock(other, by);
        }
        _ => {
            cluster.set_clock(leader, by);
            cluster.ether.set_weather(Weather {
                delay: 60,
                lost: 0.05,
                repeated: 0.2,
            });
        }
    }
}

/// All of it is over, but for the clocks.
pub(super) async fn mend(cluster: &Cluster) {
    cluster.ether.heal();
    for place in 0..cluster.size() {
        cluster.set_full(place, false);
        if cluster.store(place).is_none() && cluster.part(place) != Part::Out {
            cluster.start(place, Start::Again).await;
        }
    }
}

/// Asks the leader to make a machine a manager, or none, or to tell the others of another address. Who
/// leads may be demoted too.
async fn reshape(cluster: &Cluster) {
    let Some(at) = cluster.leader() else { return };
    let Some(leader) = cluster.store(at) else {
        return;
    };
    let size = cluster.size();
    let (place, port, itself) = cluster.ether.chance(|rng| {
        (
            rng.random_range(0..size),
            rng.random_range(2000..3000),
            rng.random_bool(0.3),
        )
    });
    let place = if itself { at } else { place };
    let asked = member(place as u8);
    let managers = (0..size)
        .filter(|place| cluster.part(*place) == Part::In)
        .count();
    // What became of it is asked when all is whole again.
    match cluster.part(place) {
        Part::In if managers > SIZE => {
            cluster.set_part(place, Part::Unsure);
            drop(leader.remove_member(&asked.node).await);
        }
        Part::In => {
            let addr = SocketAddr::new(asked.addr.ip(), port);
            drop(leader.move_member(&asked.node, addr).await);
        }
        Part::Out => {
            cluster.set_part(place, Part::Unsure);
            cluster.set_full(place, false);
            let joined = cluster.start(place, Start::Join).await;
            drop(leader.add_member(joined.member(), asked).await);
        }
        Part::Unsure => {}
    }
}

/// Whether a machine is a manager, by a leader who knows.
async fn part_of(cluster: &Cluster, place: usize) -> Option<Part> {
    let leader = cluster.store(cluster.leader()?)?;
    // With this all that was begun before is decided.
    leader.propose(&leader.head(), Vec::new()).await.ok()?;
    let node = member(place as u8).node;
    let sight = leader.members().into_iter().find(|seen| seen.node == node);
    match sight {
        None => Some(Part::Out),
        Some(seen) if seen.votes => Some(Part::In),
        Some(_) => {
            // It listens, and nobody is left who would give it a vote.
            drop(leader.remove_member(&node).await);
            None
        }
    }
}

/// Finds out what became of those that were to become managers or none; who is none loses its disk.
pub(super) async fn settle(cluster: &Cluster) {
    let is_on = |place: &usize| cluster.part(*place) != Part::Out;
    for place in (0..cluster.size()).filter(is_on) {
        // A change that was left half done is done with the next one.
        cluster.set_part(place, Part::Unsure);
        let settled = async {
            while cluster.part(place) == Part::Unsure {
                match timeout(PATIENCE, part_of(cluster, place)).await {
                    Ok(Some(Part::Out)) => cluster.wipe(place),
                    Ok(Some(part)) => cluster.set_part(place, part),
                    Ok(None) | Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let settled = timeout(LIMIT, settled).await;
        settled.expect("a leader knows who is a manager");
    }
}

/// Bad things happen and are mended, until a time.
pub(super) async fn trouble(cluster: &Cluster, until: Instant) {
    while Instant::now() < until {
        let (is_more, is_reshaped, after, lasts, rest) = cluster.ether.chance(|rng| {
            (
                rng.random_bool(0.3),
                rng.random_bool(0.5),
                rng.random_range(0..400),
                rng.random_range(200..2500),
                rng.random_range(300..1500),
            )
        });
        let reshaped = async {
            if is_reshaped {
                sleep(Duration::from_millis(after)).await;
                // Who asked has given up then; it may be done or not.
                drop(timeout(PATIENCE, reshape(cluster)).await);
            }
        };
        let harmed = async {
            harm(cluster);
            if is_more {
                harm(cluster);
            }
            sleep(Duration::from_millis(lasts)).await;
            mend(cluster).await;
        };
        tokio::join!(reshaped, harmed);
        settle(cluster).await;
        sleep(Duration::from_millis(rest)).await;
    }
}
