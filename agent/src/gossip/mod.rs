//! Gossip on real sockets: UDP for datagrams, TCP for comparisons, both sealed.

mod answer;
mod bind;
mod seal;
mod stats;
mod stream;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use weft_gossip::{Blocked, Config, Forgery, Gossip, Identity, Members, NetdbView};
use weft_model::assignment::GossipKey;
use weft_model::id::NodeId;
use weft_model::records::Table;

pub(crate) use stats::GossipStats;

use seal::Sealer;
use task::{Core, Shared};
use weft_swarm::door::DoorSample;

/// What [`GossipHandle::start`] needs to know.
#[derive(Debug, Clone)]
pub(crate) struct GossipConfig {
    /// This node.
    pub(crate) node: NodeId,
    /// Messages of other clusters are not understood.
    pub(crate) cluster_id: String,
    /// Address and port of the UDP and the TCP socket; port 0 takes a free one.
    pub(crate) bind: SocketAddr,
    /// Where other nodes reach these sockets; port 0 stands for the port that was bound.
    pub(crate) advertise: SocketAddr,
    /// The first seals, all open.
    pub(crate) keys: Vec<GossipKey>,
    /// Who is a member; everybody with a key when absent.
    pub(crate) members: Option<Members>,
    /// Milliseconds since 1970 at the start of this process: later lives win over earlier ones.
    pub(crate) incarnation: u64,
    /// For everything random.
    pub(crate) seed: [u8; 32],
}

/// The gossip keys of a node, without the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeysHeld {
    /// Number of the key that seals.
    pub(crate) sealing_epoch: u32,
    /// Since when it does, in Unix milliseconds by the managers' clock; 0 where they never said.
    pub(crate) sealing_since_ms: u64,
    /// Keys that open: two or three.
    pub(crate) held: usize,
}

/// Gossip of this node. Dropping it ends it without a word, as if the node had died.
#[derive(Debug)]
pub(crate) struct GossipHandle {
    shared: Arc<Shared>,
    view: watch::Receiver<Arc<NetdbView>>,
    #[cfg(test)]
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl GossipHandle {
    /// Binds both sockets and starts the task. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken or not this host's, or `keys` is empty.
    pub(crate) fn start(config: GossipConfig) -> anyhow::Result<Self> {
        let sealer = Sealer::new(config.cluster_id, config.keys)?;
        let (udp, listener) = bind::bind(config.bind)?;
        let mut addr = config.advertise;
        if addr.port() == 0 {
            addr.set_port(udp.local_addr()?.port());
        }
        let identity = Identity::new(config.node, addr, config.incarnation);
        let shared = Arc::new(Shared::new(sealer));
        let (publish, view) = watch::channel(Arc::default());
        let (core, _) = Core::new(
            |now| {
                let mut gossip = Gossip::new(Config::default(), identity, config.seed, now);
                if let Some(members) = config.members {
                    gossip.set_members(now, members);
                }
                gossip
            },
            udp,
            Arc::clone(&shared),
            publish,
            addr.ip(),
        );
        let task = tokio::spawn(core.run(listener));
        Ok(Self {
            shared,
            view,
            #[cfg(test)]
            addr,
            task,
        })
    }

    /// The advertised address.
    #[cfg(test)]
    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Replaces the key ring: the first key seals, all open.
    ///
    /// # Errors
    /// When `keys` is empty; the ring stays as it was.
    pub(crate) fn set_keys(&self, keys: Vec<GossipKey>) -> anyhow::Result<()> {
        self.shared.sealer.set_keys(keys)
    }

    /// The gossip keys that this node holds.
    #[must_use]
    pub(crate) fn keys(&self) -> KeysHeld {
        let (sealing_epoch, sealing_since_ms, held) = self.shared.sealer.held();
        KeysHeld {
            sealing_epoch,
            sealing_since_ms,
            held,
        }
    }

    /// Says who is a member and where: from now on nobody else is heard or heard of.
    pub(crate) fn set_members(&self, members: Members) {
        self.shared.wish(|w| w.members = Some(members));
    }

    /// What members, or others with the key, said in the last `span` that cannot be so. A few of
    /// them, where there are many; all are counted.
    #[must_use]
    pub(crate) fn lies(&self, span: Duration) -> Vec<Forgery> {
        self.shared.lies(span)
    }

    /// Ways that gossip's datagrams do not pass while its streams do, as of the last second.
    #[must_use]
    pub(crate) fn blocked(&self) -> Vec<Blocked> {
        let blocked = self.shared.blocked.lock();
        blocked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Greets these addresses until members answer there, and again whenever none is there.
    ///
    /// Addresses add up; this node's own is ignored, so the whole cluster can be given.
    pub(crate) fn join(&self, seeds: Vec<SocketAddr>) {
        self.shared.wish(|w| w.seeds.extend(seeds));
    }

    /// Nodes of the cluster, and the addresses that they speak from: strangers cannot take their
    /// places at this node's TCP port. Replaces what was said before.
    pub(crate) fn expect(&self, nodes: BTreeMap<NodeId, BTreeSet<IpAddr>>) {
        self.shared.door.set_known(nodes);
    }

    /// Counters of the TCP port.
    #[must_use]
    pub(crate) fn door(&self) -> DoorSample {
        self.shared.door.sample()
    }

    /// Publishes an entry of this node; a value that did not change costs nothing.
    pub(crate) fn put(&self, table: Table, key: String, value: Vec<u8>) {
        self.shared
            .wish(|w| drop(w.writes.insert((table, key), Some(Bytes::from(value)))));
    }

    /// Withdraws an entry of this node.
    pub(crate) fn delete(&self, table: Table, key: String) {
        self.shared
            .wish(|w| drop(w.writes.insert((table, key), None)));
    }

    /// Members and visible entries, this node's own included; a new value at most every 10 ms,
    /// at once when a member fails.
    #[must_use]
    pub(crate) fn view(&self) -> watch::Receiver<Arc<NetdbView>> {
        self.view.clone()
    }

    /// Counters.
    #[must_use]
    pub(crate) fn stats(&self) -> GossipStats {
        self.shared.counters.snapshot()
    }

    /// Says goodbye, so that the others drop this node's entries at once, and ends.
    pub(crate) async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.shared.wish(|w| w.leave = Some(done));
        if left.await.is_err() {
            tracing::debug!("gossip had already ended");
        }
    }
}

impl Drop for GossipHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
