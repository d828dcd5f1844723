//! Clients that ask a service without a pause, and what they saw of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use weft_sys::netns::Netns;

use crate::patience::Patience;
use crate::tools::get::{Progress, fetch_noting};

/// A step of a request that takes longer has failed: much longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(10);

/// The shortest answer.
const SHORTEST: Duration = Duration::from_millis(10);

/// After a failure, so that a port that is closed is not asked for as often as the machine can.
const BREATHER: Duration = Duration::from_millis(20);

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Who was asked.
    pub to: SocketAddr,
    /// For what; `/slow/MS` is answered after so many milliseconds.
    pub path: String,
    /// How far the request came, and from which port.
    pub progress: Progress,
    /// Before the failure.
    pub took: Duration,
    /// Time of day, UTC, as logs have it.
    pub at: String,
    /// What went wrong.
    pub error: String,
}

/// What all clients saw.
#[derive(Debug)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    /// Requests of each client that have ended.
    ended: Vec<AtomicU64>,
    /// Held for no longer than it takes to add or take some.
    failures: Mutex<Vec<Failure>>,
    first: OnceLock<Failure>,
}

/// Clients that ask `demo-http`, each for one answer after the other, each on a connection of its
/// own. They end when this is dropped, within the time of a request.
#[derive(Debug)]
pub struct Crowd {
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Begins with so many clients in a namespace. Each asks one address after the other for answers
    /// that take from 10 ms to `longest`, short ones more often: of a tenth there are as many as of
    /// ten times that.
    ///
    /// # Errors
    /// No descriptors or threads for them.
    pub fn start(
        netns: &Netns,
        addresses: &[SocketAddr],
        clients: usize,
        longest: Duration,
    ) -> anyhow::Result<Self> {
        let seen = Arc::new(Seen {
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            ended: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            failures: Mutex::default(),
            first: OnceLock::new(),
        });
        let mut crowd = Self {
            seen: Arc::clone(&seen),
            clients: Vec::new(),
        };
        for number in 0..clients {
            let (seen, netns) = (Arc::clone(&seen), netns.try_clone()?);
            let addresses = addresses.to_vec();
            let client = std::thread::Builder::new()
                .name("client".to_owned())
                .spawn(move || {
                    let asked = netns.run_in(|| seen.ask(number, &addresses, longest));
                    if let Err(error) = asked {
                        let to = addresses.first().copied();
                        let progress = Progress::default();
                        seen.fail((to, String::new()), progress, Duration::ZERO, &error);
                    }
                })
                .context("cannot start a client")?;
            crowd.clients.push(client);
        }
        Ok(crowd)
    }

    /// Requests that were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::Relaxed)
    }

    /// Waits until every request that is under way now has ended.
    ///
    /// # Errors
    /// One has not in time, or the work is to end.
    pub fn settle(&self, patience: &Patience) -> anyhow::Result<()> {
        let counts = || {
            let ended = self.seen.ended.iter();
            ended.map(|count| count.load(Ordering::Relaxed))
        };
        let before: Vec<u64> = counts().collect();
        patience.until(|| {
            let waits = counts().zip(&before).filter(|(now, then)| now <= *then);
            let waits = waits.count();
            ensure!(waits == 0, "{waits} clients wait for an answer");
            Ok(())
        })
    }

    /// What failed since the last look.
    #[must_use]
    pub fn take_failures(&self) -> Vec<Failure> {
        let failures = self.seen.failures.lock();
        std::mem::take(&mut *failures.unwrap_or_else(PoisonError::into_inner))
    }

    /// What failed first of all, taken or not: who looks often sees it while its cause is there.
    #[must_use]
    pub fn first_failure(&self) -> Option<Failure> {
        self.seen.first.get().cloned()
    }

    /// Ends all clients and waits for them.
    pub fn stop(mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            // One that panicked has said so.
            drop(client.join());
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    /// One client, in the namespace of this thread.
    fn ask(&self, number: usize, addresses: &[SocketAddr], longest: Duration) {
        let mut times = Times::new(number as u64, longest);
        for to in addresses.iter().cycle().skip(number) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let path = format!("/slow/{}", times.next_ms());
            let begun = Instant::now();
            let mut progress = Progress::default();
            match fetch_noting(*to, &path, LIMIT, &mut progress) {
                Ok(_) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.fail((Some(*to), path), progress, begun.elapsed(), &error);
                    std::thread::sleep(BREATHER);
                }
            }
            if let Some(ended) = self.ended.get(number) {
                ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn fail(
        &self,
        (to, path): (Option<SocketAddr>, String),
        progress: Progress,
        took: Duration,
        error: &std::io::Error,
    ) {
        let failure = Failure {
            to: to.unwrap_or_else(|| ([0, 0, 0, 0], 0).into()),
            path,
            progress,
            took,
            at: time_of_day(),
            error: error.to_string(),
        };
        self.first.get_or_init(|| failure.clone());
        let failures = self.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        failures.push(failure);
    }
}

fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let seconds = now.as_secs() % (24 * 3600);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let millis = now.subsec_millis();
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}Z", seconds % 60)
}

/// How long answers are to take: the same for the same client.
#[derive(Debug)]
struct Times {
    /// Of a xorshift64, which is never 0.
    state: u64,
    /// The longest by the shortest.
    range: f64,
}

impl Times {
    fn new(seed: u64, longest: Duration) -> Self {
        Self {
            // By an odd number, so that it is another one for each seed, and 0 for none.
            state: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            range: (longest.as_secs_f64() / SHORTEST.as_secs_f64()).max(1.0),
        }
    }

    fn next_ms(&mut self) -> u128 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The upper bits of a number from 0 to 1.
        let share = (self.state >> 11) as f64 / (1_u64 << 53) as f64;
        SHORTEST.mul_f64(self.range.powf(share)).as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_from_the_shortest_to_the_longest_time() {
        let mut times = Times::new(3, Duration::from_secs(3));
        let drawn: Vec<u128> = (0..1000).map(|_| times.next_ms()).collect();
        assert!(drawn.iter().all(|ms| (10..=3000).contains(ms)), "{drawn:?}");
        let among = |from, to| drawn.iter().filter(|ms| (from..to).contains(*ms)).count();
        for (from, to) in [(10, 100), (100, 1000), (1000, 3001)] {
            assert!(among(from, to) > 100, "{from} to {to} ms");
        }
        let mut same = Times::new(3, Duration::from_secs(3));
        assert_eq!(same.next_ms(), drawn[0]);
        let mut short = Times::new(3, Duration::ZERO);
        assert_eq!(short.next_ms(), 10);
    }

    #[test]
    fn a_port_where_nobody_listens_is_a_failure_of_each_request() {
        let netns = Netns::create_anonymous().expect("a namespace");
        let nobody: SocketAddr = ([127, 0, 0, 1], 9).into();
        let crowd = Crowd::start(&netns, &[nobody], 2, Duration::ZERO).expect("clients");
        let patience = Patience::new(Duration::from_secs(20), &crate::Stop::default());
        crowd.settle(&patience).expect("both have failed");
        let failures = crowd.take_failures();
        assert!(failures.len() >= 2, "{failures:?}");
        assert!(failures.iter().all(|failure| failure.to == nobody));
        let first = crowd.first_failure().expect("one was the first");
        assert_eq!((first.to, first.at.len()), (nobody, "00:00:00.000Z".len()));
        assert_eq!(crowd.answered(), 0);
        crowd.stop();
    }
}
