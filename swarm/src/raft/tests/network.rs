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

#[derive(Debug)]
struct Inner {
    rng: StdRng,
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

    /// One of the ways carries nothing.
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.inner().cut.insert((from, to));
    }

    pub(super) fn heal(&self) {
        self.inner().cut.clear();
    }

    /// Whom a call reaches, after its way there.
    async fn reach(&self, from: Place, target: RaftId) -> Option<Arc<RaftStore>> {
        let delay = self.chance(|rng| rng.random_range(0..8));
        tokio::time::sleep(Duration::from_millis(delay)).await;
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
        let delay = self.chance(|rng| rng.random_range(0..8));
        tokio::time::sleep(Duration::from_millis(delay)).await;
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
#[derive(Debug)]
pub(super) struct Line {
    wire: Wire,
    target: RaftId,
}

impl Line {
    async fn there(&self) -> Option<Arc<RaftStore>> {
        self.wire.ether.reach(self.wire.from, self.target).await
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
