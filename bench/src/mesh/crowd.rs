//! Many small requests at once: a loop over epoll that serves a share of the connections.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::Socket;
use weft_lab::Stop;
use weft_lab::tools::replica::{ANSWER, REQUEST, request};

use super::client::Front;
use crate::load::nanos;

/// Threads of the generator: one is kept busy by connections alone.
const THREADS: usize = 2;

/// A request without its answer for so long has failed. Longer than the kernel waits before it
/// repeats a SYN, twice.
const FAILED: Duration = Duration::from_secs(5);

/// How long answers are waited for after the last request of a schedule.
const GRACE: Duration = Duration::from_secs(1);

/// Pause between two looks at requests that may have failed.
const LOOK: Duration = Duration::from_millis(100);

/// Requests that begin at once when connections are opened to be kept.
const OPENING: usize = 64;

/// Longest time until all kept connections are open.
const OPENING_LIMIT: Duration = Duration::from_secs(60);

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// Requests that may be on their way at any time.
    pub(super) at_once: usize,
    /// Over kept connections; a new one for each request otherwise.
    pub(super) kept: bool,
    /// Requests per second; each connection asks again as soon as it has its answer otherwise.
    pub(super) rate: Option<f64>,
    /// Requests at most.
    pub(super) most: u64,
    /// No request begins later.
    pub(super) length: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Nanoseconds of each request that was answered; from the moment at which it was due.
    pub(super) times: Vec<u64>,
    /// When each request ended, in nanoseconds after the beginning, and whether with an answer.
    pub(super) ends: Vec<(u64, bool)>,
    pub(super) failed: u64,
    pub(super) took: Duration,
}

/// Asks, with its share on each thread.
pub(super) fn ask(front: &Front<'_>, order: Order, stop: &Stop) -> anyhow::Result<Answers> {
    let share = |index: usize| Order {
        at_once: portion(order.at_once as u64, index) as usize,
        rate: order.rate.map(|rate| rate / THREADS as f64),
        most: portion(order.most, index),
        ..order
    };
    let answers = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|index| {
                scope.spawn(move || {
                    front.client.run_in(|| {
                        let mut part = Part::new(front, share(index), stop)?;
                        part.open()?;
                        part.run()
                    })?
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            let part = thread.join();
            part.map_err(|_| anyhow!("the generator panicked"))?
        });
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    Ok(sum(answers))
}

/// Opens that many connections, with a request over each, and calls `look` while they are open;
/// returns how many there are.
pub(super) fn hold<T>(
    front: &Front<'_>,
    count: usize,
    stop: &Stop,
    look: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(usize, T)>
where
    T: Send,
{
    let order = Order {
        at_once: count,
        kept: true,
        rate: None,
        most: 0,
        length: Duration::ZERO,
    };
    front.client.run_in(|| {
        let mut part = Part::new(front, order, stop)?;
        part.open()?;
        let open = part.slots.iter().filter(|slot| slot.socket.is_some());
        Ok((open.count(), look()?))
    })?
}

fn portion(all: u64, index: usize) -> u64 {
    all / THREADS as u64 + u64::from((index as u64) < all % THREADS as u64)
}

fn sum(parts: Vec<Answers>) -> Answers {
    let mut all = Answers::default();
    for part in parts {
        all.times.extend(part.times);
        all.ends.extend(part.ends);
        all.failed += part.failed;
        all.took = all.took.max(part.took);
    }
    all.ends.sort_unstable();
    all
}

/// A place for one request at a time.
#[derive(Debug, Default)]
struct Slot {
    socket: Option<Socket>,
    /// Tells events of an earlier connection apart.
    generation: u32,
    state: State,
    received: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    /// The connection is being made, for a request that was due then and began then.
    Connecting(Instant, Instant),
    /// The request is sent.
    Asked(Instant, Instant),
}

/// One thread's share.
struct Part<'a> {
    front: &'a Front<'a>,
    order: Order,
    stop: &'a Stop,
    poll: std::os::fd::OwnedFd,
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    line: [u8; REQUEST],
    begun: Instant,
    looked: Instant,
    answers: Answers,
}

impl<'a> Part<'a> {
    fn new(front: &'a Front<'a>, order: Order, stop: &'a Stop) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            front,
            order,
            stop,
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: (0..order.at_once).map(|_| Slot::default()).collect(),
            free: (0..order.at_once).collect(),
            line: request(b"ping"),
            begun: now,
            looked: now,
            answers: Answers::default(),
        })
    }

    /// Opens kept connections beforehand; nothing of that counts.
    fn open(&mut self) -> anyhow::Result<()> {
        if !self.order.kept {
            return Ok(());
        }
        let order = Order {
            most: self.order.at_once as u64,
            length: OPENING_LIMIT,
            ..self.order
        };
        self.work(order, OPENING)?;
        self.answers = Answers::default();
        Ok(())
    }

    fn run(mut self) -> anyhow::Result<Answers> {
        let order = self.order;
        match order.rate {
            None => self.work(order, order.at_once)?,
            Some(rate) => self.follow(rate, order.length)?,
        }
        self.answers.took = self.begun.elapsed().min(order.length + GRACE);
        Ok(self.answers)
    }

    fn busy(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps that many requests on their way until the order is done.
    fn work(&mut self, order: Order, at_once: usize) -> anyhow::Result<()> {
        self.begun = Instant::now();
        let end = self.begun + order.length;
        let mut asked = 0;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            while asked < order.most && self.busy() < at_once {
                let Some(index) = self.free.pop_front() else {
                    break;
                };
                asked += 1;
                self.begin(index, Instant::now())?;
            }
            if asked == order.most && self.busy() == 0 {
                return Ok(());
            }
            // Those that failed at once left room, which the next turn uses.
            let wait = if self.busy() == 0 {
                Duration::ZERO
            } else {
                end - now
            };
            self.turn(wait.min(LOOK))?;
        }
    }

    /// Asks at equal distances, however long answers take. A request that finds no free connection
    /// begins later, and its time counts from when it was due.
    fn follow(&mut self, rate: f64, length: Duration) -> anyhow::Result<()> {
        self.begun = Instant::now();
        let (all, last) = (due_until(rate, length), self.begun + length + GRACE);
        let mut asked = 0;
        loop {
            let now = Instant::now();
            let due = |number: u64| self.begun + Duration::from_secs_f64(number as f64 / rate);
            if (asked == all && self.busy() == 0) || now >= last {
                break;
            }
            let mut wait = LOOK;
            if asked < all && !self.free.is_empty() {
                let moment = due(asked);
                if moment <= now {
                    asked += 1;
                    if let Some(index) = self.free.pop_front() {
                        self.begin(index, moment)?;
                    }
                    wait = Duration::ZERO;
                } else {
                    wait = moment - now;
                }
            }
            self.turn(wait.min(LOOK))?;
        }
        self.answers.failed += (all - asked) + self.busy() as u64;
        Ok(())
    }

    /// Waits for events and serves them.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let wait = Timespec::try_from(wait)?;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
        match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot wait for answers"),
        }
        for event in events {
            let data = event.data.u64();
            let index = (data & u64::from(u32::MAX)) as usize;
            if self.slots[index].generation == (data >> 32) as u32 {
                self.serve(index)?;
            }
        }
        let now = Instant::now();
        if now - self.looked >= LOOK {
            self.looked = now;
            self.stop.going_on()?;
            for index in 0..self.slots.len() {
                let (State::Connecting(_, begun) | State::Asked(_, begun)) =
                    self.slots[index].state
                else {
                    continue;
                };
                if now.saturating_duration_since(begun) > FAILED {
                    self.fail(index);
                }
            }
        }
        Ok(())
    }

    /// Begins a request that is due then.
    fn begin(&mut self, index: usize, due: Instant) -> anyhow::Result<()> {
        let now = Instant::now();
        let slot = &mut self.slots[index];
        slot.received = 0;
        if slot.socket.is_some() {
            slot.state = State::Connecting(due, now);
            return self.serve(index);
        }
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Connecting(due, now);
        let Some(socket) = self.front.connect()? else {
            self.fail(index);
            return Ok(());
        };
        use epoll::EventFlags as Flags;
        let data = u64::from(slot.generation) << 32 | index as u64;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&self.poll, &socket, epoll::EventData::new_u64(data), flags)?;
        slot.socket = Some(socket);
        Ok(())
    }

    /// Goes on with a request as far as the socket lets it.
    fn serve(&mut self, index: usize) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        let Some(mut socket) = slot.socket.as_ref() else {
            return Ok(());
        };
        if let State::Connecting(due, begun) = slot.state {
            match socket.write(&self.line) {
                Ok(REQUEST) => slot.state = State::Asked(due, begun),
                Err(e) if is_not_yet(&e) => return Ok(()),
                _ => {
                    self.fail(index);
                    return Ok(());
                }
            }
        }
        let mut answer = [0; 2 * ANSWER];
        loop {
            match socket.read(&mut answer) {
                Ok(0) => break,
                Ok(count) => slot.received += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_not_yet(&e) => return Ok(()),
                Err(_) => break,
            }
            if let (State::Asked(due, _), ANSWER) = (slot.state, slot.received) {
                let now = Instant::now();
                self.answers.times.push(nanos(now - due));
                self.answers.ends.push((nanos(now - self.begun), true));
                slot.state = State::Free;
                if !self.order.kept {
                    slot.socket = None;
                }
                self.free.push_back(index);
                return Ok(());
            }
        }
        // The connection ended, with a request on its way or between two.
        if slot.state == State::Free {
            slot.socket = None;
        } else {
            self.fail(index);
        }
        Ok(())
    }

    fn fail(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.socket = None;
        slot.state = State::Free;
        self.free.push_back(index);
        self.answers.failed += 1;
        let at = nanos(self.begun.elapsed());
        self.answers.ends.push((at, false));
    }
}

/// Requests that are due in that time, the first one at its beginning.
fn due_until(rate: f64, length: Duration) -> u64 {
    (rate * length.as_secs_f64()).floor().max(1.0) as u64
}

/// Not connected yet, or nothing to read.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_add_up() {
        for all in [0, 1, 7, 32] {
            assert_eq!(
                (0..THREADS).map(|index| portion(all, index)).sum::<u64>(),
                all
            );
        }
        assert_eq!(portion(7, 0), 4);
    }

    #[test]
    fn schedules_have_whole_requests() {
        assert_eq!(due_until(1000.0, Duration::from_millis(1500)), 1500);
        assert_eq!(due_until(0.1, Duration::from_secs(1)), 1);
    }

    #[test]
    fn parts_are_put_together_in_order() {
        let part = |ends: Vec<(u64, bool)>, took| Answers {
            times: vec![1],
            ends,
            failed: 1,
            took: Duration::from_secs(took),
        };
        let all = sum(vec![
            part(vec![(1, true), (5, false)], 2),
            part(vec![(3, true)], 3),
        ]);
        assert_eq!(all.ends, [(1, true), (3, true), (5, false)]);
        assert_eq!((all.failed, all.times.len()), (2, 2));
        assert_eq!(all.took, Duration::from_secs(3));
    }
}
