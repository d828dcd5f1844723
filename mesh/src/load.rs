//! What is known of the load of replicas and services: counters that all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use weft_wire::Instant;

use crate::ejection::Health;
use crate::pressure::NodePressure;
use crate::traffic::Tally;

/// Not known, in a counter whose other values are.
const UNKNOWN: u32 = u32::MAX;
/// How long a count has to last before it is taken for steady.
const STEADY: Duration = Duration::from_secs(1);
/// Lifetimes that the mean looks back on.
const LIFETIMES: u64 = 64;

/// What is known of the connections of one service, shared by all workers and by the agent across
/// snapshots: kept like [`ReplicaLoad`], as long as the service lives.
#[derive(Debug, Default)]
pub struct ServiceLoad {
    mean_nanos: AtomicU64,
    ended: AtomicU64,
    share: AtomicU32,
}

impl ServiceLoad {
    /// Connections of this node that the service's limit never refuses, whatever other nodes
    /// report; 0 before anybody said.
    #[must_use]
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// Sets [`Self::share`].
    pub fn set_share(&self, connections: u32) {
        self.share.store(connections, Ordering::Relaxed);
    }

    /// How long a connection lives, from its first packet to its last: a moving average.
    /// None before one has ended.
    #[must_use]
    pub fn mean_lifetime(&self) -> Option<Duration> {
        let nanos = self.mean_nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Connections that have ended, since the agent started.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Takes in the lifetime of one connection that has ended.
    ///
    /// Workers that do so at the same time may lose one of their lifetimes to the other, which a
    /// mean does not notice.
    pub fn note_lifetime(&self, lifetime: Duration) {
        let nanos = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        let seen = self.ended.fetch_add(1, Ordering::Relaxed);
        // The first ones count for more, lest the mean start from nowhere.
        let share = seen.saturating_add(1).min(LIFETIMES);
        let mean = self.mean_nanos.load(Ordering::Relaxed);
        let next = mean - mean / share + nanos / share;
        self.mean_nanos.store(next.max(1), Ordering::Relaxed);
    }
}

/// What became of connections to one published port that reached the balancer with their client's own
/// address, shared by all workers and by the agent across snapshots. Others were accepted by a
/// listener of the agent, which counts them.
///
/// Retries are counted here whoever accepted the connection.
#[derive(Debug)]
pub struct PortLoad {
    open: AtomicU64,
    tally: Tally,
}

impl Default for PortLoad {
    fn default() -> Self {
        Self::with_workers(1)
    }
}

impl PortLoad {
    /// Counters for so many workers.
    #[must_use]
    pub fn with_workers(workers: usize) -> Self {
        Self {
            open: AtomicU64::new(0),
            tally: Tally::with_workers(workers),
        }
    }

    /// What became of them: refused are those that no replica took, retried says how often one went
    /// on to another replica.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Connections that are open, or being opened.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// Open connections of one replica and its health, shared by all workers and by the agent across
/// snapshots.
///
/// The agent keeps one of these for each replica as long as the replica lives, and hands the same
/// one to every [`Services`](crate::Services) that names it.
#[derive(Debug)]
pub struct ReplicaLoad {
    own: AtomicU32,
    others: AtomicU32,
    claimed: AtomicU32,
    reported: AtomicU32,
    others_at: AtomicU64,
    /// Fewest connections of others in this window and in the one before.
    least: AtomicU32,
    least_before: AtomicU32,
    window_at: AtomicU64,
    ready_since: AtomicU64,
    health: Health,
    tally: Tally,
    node: Arc<NodePressure>,
}

impl Default for ReplicaLoad {
    fn default() -> Self {
        Self::with_workers(1)
    }
}

impl ReplicaLoad {
    /// Counters for so many workers, of a replica on a node of which nothing else is known.
    #[must_use]
    pub fn with_workers(workers: usize) -> Self {
        Self::on_node(workers, Arc::default())
    }

    /// Counters for so many workers, of a replica on this node.
    #[must_use]
    pub fn on_node(workers: usize, node: Arc<NodePressure>) -> Self {
        Self {
            own: AtomicU32::new(0),
            others: AtomicU32::new(0),
            claimed: AtomicU32::new(0),
            reported: AtomicU32::new(UNKNOWN),
            others_at: AtomicU64::new(0),
            least: AtomicU32::new(UNKNOWN),
            least_before: AtomicU32::new(UNKNOWN),
            window_at: AtomicU64::new(0),
            ready_since: AtomicU64::new(0),
            health: Health::default(),
            tally: Tally::with_workers(workers),
            node,
        }
    }

    /// Connections that the balancers of this node have open to the replica.
    #[must_use]
    pub fn own(&self) -> u32 {
        self.own.load(Ordering::Relaxed)
    }

    /// Connections that other nodes said they have open to it.
    #[must_use]
    pub fn others(&self) -> u32 {
        self.others.load(Ordering::Relaxed)
    }

    /// Connections that other nodes said they have open to it, for the limit of the service: what
    /// the choice among replicas does not believe may count there.
    #[must_use]
    pub fn claimed(&self) -> u32 {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Sets [`Self::claimed`] apart from [`Self::others`], which sets both.
    pub fn set_claimed(&self, connections: u32) {
        self.claimed.store(connections, Ordering::Relaxed);
    }

    /// Sets what the other nodes said, summed up; of unknown age, taken for fresh.
    pub fn set_others(&self, connections: u32) {
        self.claimed.store(connections, Ordering::Relaxed);
        self.others.store(connections, Ordering::Relaxed);
        self.others_at.store(0, Ordering::Relaxed);
    }

    /// Sets what the other nodes said, summed up, and when it was true: the mean of their reports.
    pub fn set_others_at(&self, connections: u32, counted: Instant) {
        self.claimed.store(connections, Ordering::Relaxed);
        self.others.store(connections, Ordering::Relaxed);
        let last = Instant(self.others_at.swap(counted.0.max(1), Ordering::Relaxed));
        let window = Instant(self.window_at.load(Ordering::Relaxed));
        if counted.since(window) >= STEADY {
            // Whoever reports seldom says nothing of the time between.
            let often = counted.since(last) < STEADY;
            let least = self.least.load(Ordering::Relaxed);
            let before = if often { least } else { UNKNOWN };
            self.least_before.store(before, Ordering::Relaxed);
            self.least.store(connections, Ordering::Relaxed);
            self.window_at.store(counted.0, Ordering::Relaxed);
        } else {
            self.least.fetch_min(connections, Ordering::Relaxed);
        }
    }

    /// Says that the others have as many open as was said last, as of `counted`.
    pub fn set_counted(&self, counted: Instant) {
        self.others_at.store(counted.0.max(1), Ordering::Relaxed);
    }

    /// Connections that the other nodes have had open for a while, or others in their place: the
    /// fewest that they told of in the last one or two seconds. They do not get old as reports do.
    /// None where reports are rarer than that.
    #[must_use]
    pub fn steady(&self) -> u32 {
        let least = self.least.load(Ordering::Relaxed);
        let before = self.least_before.load(Ordering::Relaxed);
        if before == UNKNOWN {
            return 0;
        }
        least.min(before).min(self.others())
    }

    /// Age of [`Self::others`], where it was said.
    #[must_use]
    pub fn age_of_others(&self, now: Instant) -> Option<Duration> {
        let at = self.others_at.load(Ordering::Relaxed);
        (at > 0).then(|| now.since(Instant(at)))
    }

    /// Notes the own count that the other nodes were told, each time that a report went out, be it
    /// the same as before. A balancer infers from the change since then what it was not told yet.
    pub fn note_reported(&self, own: u32) {
        self.reported.store(own.min(UNKNOWN - 1), Ordering::Relaxed);
    }

    /// The own count that other nodes know of; none before the first report.
    #[must_use]
    pub fn reported(&self) -> Option<u32> {
        let reported = self.reported.load(Ordering::Relaxed);
        (reported != UNKNOWN).then_some(reported)
    }

    /// Connections open cluster-wide, as far as this node knows.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.own().saturating_add(self.others())
    }

    /// Says since when the replica takes connections, from which its slow start is counted.
    pub fn set_ready_since(&self, since: Option<Instant>) {
        self.ready_since
            .store(since.map_or(0, |s| s.0.max(1)), Ordering::Relaxed);
    }

    /// Since when it takes connections; none where nobody said so, and then it is no newcomer.
    #[must_use]
    pub fn ready_since(&self) -> Option<Instant> {
        let since = self.ready_since.load(Ordering::Relaxed);
        (since > 0).then_some(Instant(since))
    }

    /// The pressure of the node that it is on.
    #[must_use]
    pub fn node(&self) -> &NodePressure {
        &self.node
    }

    /// What became of this node's connections to it: refused are also those that it left unanswered,
    /// and retried those among them that went on to another replica; the others failed.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What its answers say of it.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Counts one connection of this node until the returned value is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> OpenFlow {
        self.counted(None)
    }

    /// As [`Self::open`], for a connection that begins at `now` and whose lifetime counts for its
    /// service. It is the trial of a replica whose ejection is over.
    #[must_use]
    pub fn open_at(self: &Arc<Self>, service: &Arc<ServiceLoad>, now: Instant) -> OpenFlow {
        self.health.begin_trial(now);
        self.counted(Some((Arc::clone(service), now)))
    }

    fn counted(self: &Arc<Self>, of: Option<(Arc<ServiceLoad>, Instant)>) -> OpenFlow {
        self.own.fetch_add(1, Ordering::Relaxed);
        OpenFlow {
            load: Arc::clone(self),
            of,
            port: None,
        }
    }
}

/// One connection counted in [`ReplicaLoad::own`]; dropping it takes the count back, once.
#[derive(Debug)]
pub struct OpenFlow {
    load: Arc<ReplicaLoad>,
    of: Option<(Arc<ServiceLoad>, Instant)>,
    port: Option<Arc<PortLoad>>,
}

impl OpenFlow {
    /// Counts it at a published port, too.
    #[must_use]
    pub fn at_port(mut self, port: Option<&Arc<PortLoad>>) -> Self {
        if let Some(port) = port {
            port.open.fetch_add(1, Ordering::Relaxed);
        }
        self.port = port.map(Arc::clone);
        self
    }

    /// The published port that it is counted at.
    #[must_use]
    pub fn port(&self) -> Option<&Arc<PortLoad>> {
        self.port.as_ref()
    }

    /// Counts data from the client.
    pub(crate) fn count_rx(&self, worker: u16, bytes: u64) {
        self.load.tally.count_rx(worker, bytes);
        if let Some(port) = &self.port {
            port.tally.count_rx(worker, bytes);
        }
    }

    /// The replica has answered.
    pub(crate) fn note_connected(&self, now: Instant) {
        let Some(opened) = self.opened() else { return };
        self.load.tally.note_connected(now.since(opened));
        if let Some(port) = &self.port {
            port.tally.note_connected(now.since(opened));
        }
    }

    /// The replica did not take it, and no other one will.
    pub(crate) fn count_failed(&self) {
        self.load.tally.count_refused();
        if let Some(port) = &self.port {
            port.tally.count_refused();
        }
    }

    /// The replica did not take it, and another one is asked.
    pub(crate) fn count_moved(&self) {
        self.load.tally.count_refused();
        self.load.tally.count_retried();
    }

    pub(crate) fn count_accepted(&self) {
        self.load.tally.count_accepted();
        if let Some(port) = &self.port {
            port.tally.count_accepted();
        }
    }

    /// The counters that it is counted in.
    #[must_use]
    pub fn load(&self) -> &ReplicaLoad {
        &self.load
    }

    /// When it was opened, where that was said.
    #[must_use]
    pub fn opened(&self) -> Option<Instant> {
        self.of.as_ref().map(|(_, opened)| *opened)
    }

    /// Takes the count back and notes how long the connection has lived. Drop it instead when it
    /// never came to life.
    pub fn close(self, now: Instant) {
        if let Some((service, opened)) = &self.of {
            service.note_lifetime(now.since(*opened));
        }
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        self.load.own.fetch_sub(1, Ordering::Relaxed);
        if let Some(port) = &self.port {
            port.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_flow_is_counted_exactly_once() {
        let load = Arc::new(ReplicaLoad::default());
        load.set_others(3);
        let a = load.open();
        let b = load.open();
        assert_eq!((load.own(), load.total()), (2, 5));
        drop(a);
        assert_eq!(b.load().own(), 1);
        drop(b);
        assert_eq!((load.own(), load.total()), (0, 3));
    }

    #[test]
    fn what_others_hold_for_a_while_is_steady_where_they_report_often() {
        let tick = |n: u64| Instant(1_000_000_000_000 + n * 250_000_000);
        let load = ReplicaLoad::default();
        for n in 0..4 {
            load.set_others_at(7, tick(n));
        }
        assert_eq!(load.steady(), 0, "not yet");
        for n in 4..12 {
            load.set_others_at(if n % 2 == 0 { 9 } else { 7 }, tick(n));
        }
        assert_eq!(load.steady(), 7);
        load.set_counted(tick(12));
        assert_eq!((load.others(), load.steady()), (7, 7), "as it was");
        assert_eq!(load.age_of_others(tick(12)), Some(Duration::ZERO));
        load.set_others_at(3, tick(12));
        assert_eq!(load.steady(), 3, "gone at once");
        let rare = ReplicaLoad::default();
        for n in 0..20 {
            rare.set_others_at(7, tick(n * 8));
        }
        assert_eq!(rare.steady(), 0);
    }

    #[test]
    fn the_mean_lifetime_follows_what_ends_and_ignores_what_is_dropped() {
        let service = Arc::new(ServiceLoad::default());
        let load = Arc::new(ReplicaLoad::default());
        let second = Duration::from_secs(1);
        let open = || load.open_at(&service, Instant(5));
        drop(open());
        assert_eq!((service.mean_lifetime(), load.own()), (None, 0));
        open().close(Instant(5).after(second));
        assert_eq!(service.mean_lifetime(), Some(second));
        for _ in 0..1000 {
            open().close(Instant(5).after(3 * second));
        }
        let mean = service.mean_lifetime().unwrap();
        assert!(mean > second * 29 / 10 && mean <= 3 * second, "{mean:?}");
        // Never mind a clock that steps back, or a lifetime beyond all measure.
        open().close(Instant(0));
        service.note_lifetime(Duration::MAX);
        assert_eq!((service.ended(), load.own()), (1003, 0));
    }

    #[test]
    fn what_was_never_said_is_not_known() {
        let load = ReplicaLoad::default();
        let now = Instant(10);
        assert_eq!(load.age_of_others(now), None);
        assert_eq!((load.reported(), load.ready_since()), (None, None));
        load.set_others_at(7, Instant(4));
        load.note_reported(2);
        load.set_ready_since(Some(Instant(0)));
        assert_eq!(load.age_of_others(now), Some(Duration::from_nanos(6)));
        assert_eq!((load.others(), load.reported()), (7, Some(2)));
        assert_eq!(load.ready_since(), Some(Instant(1)));
    }
}
