//! What changed in the swarm lately, for whoever watches it at this manager. Each manager tells what
//! it has applied itself, whoever leads.
//!
//! All readers read one list, each at his own pace. Who is slower than changes come finds the oldest
//! gone, and is told how many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weft_cluster::{events, leader_events};
use weft_model::api::Event;
use weft_sys::clock::unix_ms;

use super::Manager;
use super::engine::{Engine, stopped};

/// Events that are remembered; some 2 MB.
const KEPT: usize = 4096;
/// Events that a reader gets at once, at most.
const BATCH: usize = 256;

/// Events, in the order in which they were noticed.
#[derive(Debug, Default)]
pub struct EventBatch {
    /// So many before them are not remembered any more.
    pub missed: u64,
    /// The events.
    pub events: Vec<Arc<Event>>,
}

/// The last events, by number.
#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    /// Number of the oldest.
    first: u64,
}

impl Ring {
    /// Number of the next one.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn add(&mut self, events: Vec<Event>) {
        for event in events {
            if self.kept.len() == KEPT {
                self.kept.pop_front();
                self.first += 1;
            }
            self.kept.push_back(Arc::new(event));
        }
    }

    /// Number of the first one that is not older than this, in Unix milliseconds.
    fn since(&self, at_ms: u64) -> u64 {
        let older = |event: &Arc<Event>| event.at_ms() < at_ms;
        let older = self.kept.iter().take_while(|event| older(event)).count();
        self.first + older as u64
    }

    /// Those from a number on, and the number after them.
    fn read(&self, next: u64) -> (EventBatch, u64) {
        let missed = self.first.saturating_sub(next);
        let start = next.max(self.first);
        let behind = usize::try_from(start - self.first).unwrap_or(usize::MAX);
        let events: Vec<_> = self.kept.iter().skip(behind).take(BATCH).cloned().collect();
        let next = start + events.len() as u64;
        (EventBatch { missed, events }, next)
    }
}

/// The list, and those who wait for more of it.
#[derive(Debug)]
pub(super) struct EventLog {
    ring: Mutex<Ring>,
    /// Another number with each event.
    end: watch::Sender<u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            end: watch::Sender::new(0),
        }
    }
}

impl EventLog {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let end = {
            let mut ring = self.ring();
            ring.add(events);
            ring.end()
        };
        self.end.send_replace(end);
    }

    /// Takes note of what changes, until the manager stops.
    pub(super) async fn fill(self: Arc<Self>, core: Arc<Engine>) {
        let mut states = core.store.subscribe();
        let mut leadership = core.store.leadership();
        let mut stop = core.stop.subscribe();
        let mut state = Arc::clone(&states.borrow_and_update());
        let mut leader = core.leader();
        loop {
            let changed = tokio::select! {
                changed = states.changed() => changed,
                changed = leadership.changed() => changed,
                () = stopped(&mut stop) => return,
            };
            if changed.is_err() {
                return;
            }
            let now = unix_ms();
            let newest = Arc::clone(&states.borrow_and_update());
            // What a manager that is new is sent did not happen just now.
            let mut found = match &state.cluster {
                Some(_) => events(&state, &newest, now),
                None => Vec::new(),
            };
            let leads = core.leader();
            found.extend(leader_events(&newest, leader.as_ref(), leads.as_ref(), now));
            self.add(found);
            (state, leader) = (newest, leads);
        }
    }
}

/// Reads events as they come.
#[derive(Debug)]
pub struct EventReader {
    log: Arc<EventLog>,
    /// Number of the event that it reads next.
    next: u64,
    end: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
}

impl EventReader {
    /// Waits for the next ones; nothing when the manager has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<EventBatch> {
        loop {
            self.end.mark_unchanged();
            let (batch, next) = self.log.ring().read(self.next);
            if next != self.next {
                self.next = next;
                return Some(batch);
            }
            tokio::select! {
                changed = self.end.changed() => changed.ok()?,
                () = stopped(&mut self.stop) => return None,
            }
        }
    }
}

impl Manager {
    /// `weft events`: what changes from now on, and before that what is remembered since a moment, in
    /// Unix milliseconds.
    #[must_use]
    pub fn events(&self, since: Option<u64>) -> EventReader {
        let next = {
            let ring = self.events.ring();
            since.map_or_else(|| ring.end(), |since| ring.since(since))
        };
        EventReader {
            log: Arc::clone(&self.events),
            next,
            end: self.events.end.subscribe(),
            stop: self.core.stop.subscribe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_model::api::{EventAction, EventActor, EventKind};

    use super::*;

    fn event(at_ms: u64) -> Event {
        let actor = EventActor::default();
        Event::new(EventKind::Node, EventAction::Update, actor, at_ms)
    }

    fn times(batch: &EventBatch) -> Vec<u64> {
        batch.events.iter().map(|event| event.at_ms()).collect()
    }

    fn reader(log: &Arc<EventLog>, next: u64) -> (EventReader, watch::Sender<bool>) {
        let stop = watch::Sender::new(false);
        let reader = EventReader {
            log: Arc::clone(log),
            next,
            end: log.end.subscribe(),
            stop: stop.subscribe(),
        };
        (reader, stop)
    }

    #[tokio::test]
    async fn each_reader_has_its_own_pace_and_hears_of_the_end() {
        let log = Arc::new(EventLog::default());
        let (mut quick, _stop) = reader(&log, 0);
        let (mut late, stop) = reader(&log, 0);
        log.add(vec![event(1)]);
        assert_eq!(times(&quick.next().await.unwrap()), [1]);
        log.add(vec![event(2), event(3)]);
        assert_eq!(times(&quick.next().await.unwrap()), [2, 3]);
        let all = late.next().await.unwrap();
        assert_eq!((times(&all), all.missed), (vec![1, 2, 3], 0));
        stop.send_replace(true);
        assert!(late.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_missed() {
        let log = Arc::new(EventLog::default());
        let (mut slow, _stop) = reader(&log, 0);
        let count = KEPT as u64 + 7;
        log.add((0..count).map(event).collect());
        let mut seen = Vec::new();
        let mut missed = 0;
        while seen.last() != Some(&(count - 1)) {
            let batch = slow.next().await.unwrap();
            assert!(batch.events.len() <= BATCH);
            missed += batch.missed;
            seen.extend(times(&batch));
        }
        assert_eq!(missed, 7);
        assert_eq!(seen, (7..count).collect::<Vec<u64>>());
    }

    #[test]
    fn what_is_remembered_begins_at_a_moment() {
        let mut ring = Ring::default();
        assert_eq!(ring.since(0), 0);
        ring.add(vec![event(10), event(20), event(30)]);
        for (since, number) in [(0, 0), (10, 0), (11, 1), (30, 2), (31, 3)] {
            assert_eq!(ring.since(since), number, "{since}");
        }
    }
}
