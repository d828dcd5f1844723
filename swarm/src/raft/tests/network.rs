//! Networks between members that are in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, RaftNetwork, RaftNetworkFactory};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::raft::serve::Part;
use crate::raft::types::{RaftId, Types};
use crate::raft::wire::{Installed, SnapshotOf};

type Lost<E> = RPCError<RaftId, Member, RaftError<RaftId, E>>;

fn lost(why: &str) -> Unreachable {
    AnyError::error(why).into()
}

/// For a manager that is alone: there is nobody to call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nobody;

impl RaftNetworkFactory<Types> for Nobody {
    type Network = Self;

    async fn new_client(&mut self, _target: RaftId, _node: &Member) -> Self {
        *self
    }
}

impl RaftNetwork<Types> for Nobody {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        Err(lost("nobody").into())
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, Lost<InstallSnapshotError>> {
        Err(lost("nobody").into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<RaftId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        Err(lost("nobody").into())
    }
}

/// A machine in the test: its place, and how often it was started.
pub(super) type Place = (usize, u32);

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// The longest time on one way, in milliseconds; each takes one of its own, so that one overtakes
    /// another.
    pub(super) delay: u64,
    /// The share that does not arrive.
    pub(super) lost: f64,
    /// The share of entries that arrive once more, up to two seconds later.
    pub(super) repeated: f64,
}

/// As in one room.
const CALM: Weather = Weather {
    delay: 8,
    lost: 0.0,
    repeated: 0.0,
};

#[derive(Debug)]
struct Inner {
    rng: StdRng,
    weather: Weather,
    /// Where each member is.
    places: BTreeMap<RaftId, Place>,
    stores: BTreeMap<usize, (u32, Weak<RaftStore>)>,
    /// Ways that carry nothing, each in its direction.
    cut: BTreeSet<(usize, usize)>,
}

/// All machines, and the ways between them.
#[derive(Debug)]
pub(super) struct Ether(Mutex<Inner>);

impl Ether {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            rng: StdRng::seed_from_u64(seed),
            weather: CALM,
            places: BTreeMap::new(),
            stores: BTreeMap::new(),
            cut: BTreeSet::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn chance<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.inner().rng)
    }

    /// A member runs there from now on.
    pub(super) fn settle(&self, at: Place, store: &Arc<RaftStore>) {
        let mut inner = self.inner();
        inner.places.insert(store.member(), at);
        inner.stores.insert(at.0, (at.1, Arc::downgrade(store)));
    }

    /// Nothing runs there any more.
    pub(super) fn vacate(&self, place: usize) {
        self.inner().stores.remove(&place);
    }

    /// Nothing comes or goes there.
    pub(super) fn isolate(&self, place: usize, of: usize) {
        let mut inner = self.inner();
        for other in (0..of).filter(|other| *other != place) {
            inner.cut.extend([(place, other), (other, place)]);
        }
    }

    /// Nothing goes from one side to the other.
    pub(super) fn split(&self, is_here: impl Fn(usize) -> bool, of: usize) {
        let mut inner = self.inner();
        let ways = (0..of).flat_map(|from| (0..of).map(move |to| (from, to)));
        let ways = ways.filter(|(from, to)| is_here(*from) != is_here(*to));
        inner.cut.extend(ways);
    }

    /// One of the ways carries nothing.
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.inner().cut.insert((from, to));
    }

    /// All ways are open, and calm.
    pub(super) fn heal(&self) {
        let mut inner = self.inner();
        inner.cut.clear();
        inner.weather = CALM;
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// One way; whether something arrives at its end.
    async fn travel(&self) -> bool {
        let (delay, arrives) = {
            let mut inner = self.inner();
            let Weather { delay, lost, .. } = inner.weather;
            let delay = inner.rng.random_range(0..delay);
            (delay, !inner.rng.random_bool(lost))
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        arrives
    }

    /// After which time something arrives once more, if it does.
    fn repetition(&self) -> Option<Duration> {
        let mut inner = self.inner();
        let repeated = inner.weather.repeated;
        if !inner.rng.random_bool(repeated) {
            return None;
        }
        Some(Duration::from_millis(inner.rng.random_range(0..2000)))
    }

    /// Whom a call reaches, after its way there.
    async fn reach(&self, from: Place, target: RaftId) -> Option<Arc<RaftStore>> {
        if !self.travel().await {
            return None;
        }
        let inner = self.inner();
        let (to, _) = *inner.places.get(&target)?;
        let (_, store) = inner.stores.get(&to)?;
        let is_alive = inner
            .stores
            .get(&from.0)
            .is_some_and(|(life, _)| *life == from.1);
        let store = (is_alive && !inner.cut.contains(&(from.0, to))).then(|| store.upgrade());
        // Who is called by a name that it does not have any more does not answer.
        store.flatten().filter(|store| store.member() == target)
    }

    /// Whether the answer comes back.
    async fn comes_back(&self, from: Place, target: RaftId) -> bool {
        if !self.travel().await {
            return false;
        }
        let inner = self.inner();
        let to = inner.places.get(&target).map(|(to, _)| *to);
        to.is_some_and(|to| !inner.cut.contains(&(to, from.0)))
    }
}

/// The way out of one machine.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) ether: Arc<Ether>,
    pub(super) from: Place,
    pub(super) links: Arc<Links>,
}

impl RaftNetworkFactory<Types> for Wire {
    type Network = Line;

    async fn new_client(&mut self, target: RaftId, _node: &Member) -> Line {
        Line {
            wire: self.clone(),
            target,
        }
    }
}

/// The way from one machine to another.
#[derive(Debug, Clone)]
pub(super) struct Line {
    wire: Wire,
    target: RaftId,
}

impl Line {
    /// Who answers at its end, where this machine may speak.
    async fn there(&self) -> Option<Arc<RaftStore>> {
        let Wire { ether, from, links } = &self.wire;
        let there = ether.reach(*from, self.target).await?;
        let node = member(from.0 as u8).node;
        there.may_speak(&node, links.list()).then_some(there)
    }

    /// What was sent may arrive once more, when others have been there in between.
    fn repeat(&self, rpc: &AppendEntriesRequest<Types>) {
        if let Some(after) = self.wire.ether.repetition() {
            let (line, rpc) = (self.clone(), rpc.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                if let Some(there) = line.there().await {
                    drop(there.append(rpc).await);
                }
            });
        }
    }

    async fn back<T>(&self, answer: T) -> Option<T> {
        if !self
            .wire
            .ether
            .comes_back(self.wire.from, self.target)
            .await
        {
            return None;
        }
        self.wire.links.heard(self.target);
        Some(answer)
    }
}

impl RaftNetwork<Types> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        let there = self.there().await.ok_or_else(|| lost("no way there"))?;
        self.repeat(&rpc);
        let answer = there.append(rpc).await;
        let answer = answer.map_err(|error| lost(&error.to_string()))?;
        Ok(self.back(answer).await.ok_or_else(|| lost("no way back"))?)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, Lost<InstallSnapshotError>> {
        let there = self.there().await.ok_or_else(|| lost("no way there"))?;
        let part = Part {
            of: SnapshotOf {
                vote: rpc.vote,
                meta: rpc.meta,
            },
            offset: rpc.offset,
            data: rpc.data,
            done: rpc.done,
        };
        let answer = there.install(part).await;
        let answer = answer.map_err(|error| lost(&error.to_string()))?;
        match self.back(answer).await {
            Some(Installed::Answer(answer)) => Ok(answer),
            Some(Installed::Refused(error)) => {
                let error = RaftError::APIError(error);
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
            None => Err(lost("no way back").into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<RaftId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        let there = self.there().await.ok_or_else(|| lost("no way there"))?;
        let answer = there.vote(rpc).await;
        let answer = answer.map_err(|error| lost(&error.to_string()))?;
        Ok(self.back(answer).await.ok_or_else(|| lost("no way back"))?)
    }
}
