//! The event loop of a worker: it waits, looks at everything that is ready, and ends each round with
//! one flush.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weft_sys::affinity::yield_cpu;
use weft_sys::clock::monotonic_nanos;
use weft_sys::epoll::{Epoll, Ready};
use weft_wire::{Instant, PortId};

use crate::company::Company;
use crate::listing::PAUSE;
use crate::place::Place;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::spin::{Spin, Step};
use crate::worker::{ADMIT_BUDGET, EXPIRE_BUDGET, SWEEP_BUDGET, Worker, context};

/// Token of the VXLAN socket; ports use their number.
const UNDERLAY: u64 = u64::MAX;
/// Token of the letter box.
const WAKEUP: u64 = u64::MAX - 1;

/// A worker with what wakes it.
#[derive(Debug)]
pub(crate) struct EventLoop {
    worker: Worker,
    spin: Spin,
    place: Place,
    company: Company,
    epoll: Epoll,
    ready: Vec<Ready>,
    watched: HashMap<PortId, Arc<Port>, RandomState>,
    epoch: u64,
    sweeping: bool,
    /// Clients that wait are left to look at.
    admitting: bool,
}

impl EventLoop {
    /// A worker that looks for more work for as long as `spin` says before it sleeps, and has the
    /// CPU to itself at `place` while that is worth it.
    ///
    /// # Errors
    /// The kernel has no epoll set, or does not watch the socket.
    pub(crate) fn new(worker: Worker, spin: Spin, place: Place) -> std::io::Result<Self> {
        let epoll = Epoll::new(64)?;
        epoll.add(&worker.underlay, UNDERLAY)?;
        epoll.add(&worker.shared.inboxes[worker.index].wakeup, WAKEUP)?;
        Ok(Self {
            worker,
            spin,
            place,
            company: Company::default(),
            epoll,
            ready: Vec::with_capacity(64),
            watched: HashMap::default(),
            epoch: u64::MAX,
            sweeping: false,
            admitting: false,
        })
    }

    /// Runs until the agent stops the data plane.
    pub(crate) fn run(mut self) {
        self.place(self.spin.polls());
        while !self.worker.shared.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.wait() {
                let worker = self.worker.index;
                tracing::error!(worker, %error, "epoll failed; the worker stops");
                return;
            }
            self.round();
        }
    }

    /// Waits for work: awake for a moment after the last, then asleep.
    fn wait(&mut self) -> std::io::Result<()> {
        let timeout = self.timeout();
        if timeout == Some(Duration::ZERO) {
            self.poll(timeout)?;
            return Ok(());
        }
        let mut now = Instant(monotonic_nanos());
        self.spin.idle(now, || self.company.is_there(now));
        if self.place(self.spin.polls()) && self.look_out(&mut now)? {
            return Ok(());
        }
        self.spin.sleeps();
        self.poll(timeout)?;
        Ok(())
    }

    /// Has a CPU for itself, or goes where there is room; true when it may poll.
    fn place(&mut self, polls: bool) -> bool {
        self.place.follow(polls, &self.worker.counters().cpu)
    }

    /// Polls for as long as it is worth it; true when there is work.
    fn look_out(&mut self, now: &mut Instant) -> std::io::Result<bool> {
        while self.spin.step(*now) != Step::Sleep {
            if self.poll(Some(Duration::ZERO))? {
                return Ok(true);
            }
            let before = Instant(monotonic_nanos());
            yield_cpu();
            *now = Instant(monotonic_nanos());
            if self.spin.yielded(before, *now) {
                self.company.begins(*now);
                self.place(false);
            }
        }
        Ok(false)
    }

    /// Asks the kernel what is ready; true when anything is.
    fn poll(&mut self, timeout: Option<Duration>) -> std::io::Result<bool> {
        self.ready.clear();
        self.ready.extend(self.epoll.wait(timeout)?);
        Ok(!self.ready.is_empty())
    }

    fn timeout(&self) -> Option<Duration> {
        if self.sweeping || self.admitting {
            return Some(Duration::ZERO);
        }
        let pause = self.worker.question.as_ref().map(|_| PAUSE);
        let deadline = self.worker.flows.next_deadline();
        let deadline = deadline.map(|at| at.since(self.worker.now));
        let shortcuts = self.worker.shortcuts.as_ref();
        let look = shortcuts.and_then(|s| s.sleep(self.worker.now));
        [pause, deadline, look].into_iter().flatten().min()
    }

    /// One round: tables, letter box, everything that is ready, then one flush.
    fn round(&mut self) {
        self.worker.now = Instant(monotonic_nanos());
        if !self.ready.is_empty() {
            self.spin.worked(self.worker.now);
        }
        let snapshot = self.worker.shared.snapshot.load_full();
        self.worker.capture = self.worker.shared.capture.load_full();
        if snapshot.epoch != self.epoch {
            self.epoch = snapshot.epoch;
            let in_use = &self.worker.counters().epoch;
            in_use.store(self.epoch, Ordering::Release);
            if snapshot.epoch > 0 {
                self.worker.restore(&snapshot);
            }
            self.watch_ports(&snapshot);
            self.sweeping = true;
        }
        let mut asked = self.worker.question.is_some();
        for i in 0..self.ready.len() {
            let ready = self.ready[i];
            match ready.token {
                UNDERLAY => self.worker.read_underlay(&snapshot),
                WAKEUP => {
                    self.worker.shared.inboxes[self.worker.index].wakeup.drain();
                    self.worker.take_entries();
                    self.worker.send_loopbacks();
                    asked = true;
                }
                token => self.port_ready(&snapshot, token, ready.closed),
            }
        }
        self.worker.take_handovers(&snapshot);
        self.worker.send_for_node(&snapshot);
        if self.sweeping {
            self.sweep(&snapshot);
        }
        if self.worker.flows.has_waiting() {
            self.admit(&snapshot);
        } else {
            self.admitting = false;
        }
        if asked {
            self.worker.tell_flows();
        }
        self.worker.flows.expire(self.worker.now, EXPIRE_BUDGET);
        self.worker.hand_removals(&snapshot);
        let counters = &self.worker.shared.counters[self.worker.index];
        self.worker.queue.flush(counters);
        // What was read has left: nothing of a flow overtakes it.
        self.worker.keep_shortcuts(&snapshot);
        let counters = &self.worker.shared.counters[self.worker.index];
        counters.rounds.fetch_add(1, Ordering::Relaxed);
        counters.store_flows(&self.worker.flows);
    }

    fn port_ready(&mut self, snapshot: &Snapshot, token: u64, closed: bool) {
        let Ok(id) = u32::try_from(token) else {
            return;
        };
        let Some(port) = self.watched.get(&PortId(id)).map(Arc::clone) else {
            return;
        };
        if !self.worker.read_port(snapshot, &port) && closed {
            // The device is gone with its namespace; the agent will notice. Level-triggered
            // readiness would spin until then.
            self.unwatch(snapshot, PortId(id));
        }
    }

    /// Makes the set of watched ports the one of the snapshot.
    fn watch_ports(&mut self, snapshot: &Snapshot) {
        let gone: Vec<PortId> = self
            .watched
            .keys()
            .filter(|id| !snapshot.ports.contains_key(*id))
            .copied()
            .collect();
        for id in gone {
            self.unwatch(snapshot, id);
        }
        for (id, port) in &snapshot.ports {
            if port.worker != self.worker.index || self.watched.contains_key(id) {
                continue;
            }
            match self.epoll.add(&*port.tap, u64::from(id.0)) {
                Ok(()) => {
                    self.watched.insert(*id, Arc::clone(port));
                }
                Err(error) => {
                    tracing::warn!(port = %port.name, %error, "cannot watch the port");
                }
            }
        }
    }

    /// Forgets a port, and ends the flows of the clients behind it: nobody else would, and each of
    /// them counts as load of its replica.
    fn unwatch(&mut self, snapshot: &Snapshot, id: PortId) {
        let Some(port) = self.watched.remove(&id) else {
            return;
        };
        if let Err(error) = self.epoll.delete(&*port.tap) {
            tracing::debug!(port = %port.name, %error, "port was not watched any more");
        }
        self.worker.end_shortcuts_of(snapshot, id);
        let mut resets = Vec::new();
        self.worker.flows.close_port(id, |reset| {
            resets.push((reset.to, Box::<[u8]>::from(reset.frame)));
        });
        for (to, frame) in resets {
            self.worker.send_reset(snapshot, to, &frame);
        }
    }

    /// Tells clients whose replica is gone, a bounded number of flows at a time.
    fn sweep(&mut self, snapshot: &Snapshot) {
        let context = context(self.worker.now, snapshot);
        let mut resets = Vec::new();
        let done = self.worker.flows.sweep(&context, SWEEP_BUDGET, |reset| {
            resets.push((reset.to, Box::<[u8]>::from(reset.frame)));
        });
        for (to, frame) in resets {
            self.worker.send_reset(snapshot, to, &frame);
        }
        self.sweeping = !done;
    }

    /// Lets clients in whose service has a replica again, and refuses those that waited long enough.
    fn admit(&mut self, snapshot: &Snapshot) {
        let context = context(self.worker.now, snapshot);
        let mut frames = Vec::new();
        let done = self
            .worker
            .flows
            .admit(&context, ADMIT_BUDGET, |admission, frame| {
                frames.push((admission, Box::<[u8]>::from(frame)));
            });
        for (admission, frame) in frames {
            self.worker.admit(snapshot, admission, &frame);
        }
        self.admitting = !done;
    }
}
