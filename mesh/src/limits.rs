//! How many connections a service and each of its clients may have open.

use std::net::IpAddr;
use std::num::NonZeroU64;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::flow::{Flow, Key, Origin, Role};
use crate::services::Service;
use crate::table::FlowTable;

/// Limits of a service on one network; 0 is none. Who reaches one is refused; what is open stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Connections of all clients to all replicas, cluster-wide as far as this node knows: several
    /// nodes may pass it together by what they take between two reports, and by the share that each
    /// always has ([`crate::ServiceLoad::share`]), so that no report closes a service.
    pub connections: u32,
    /// Connections of one client address through one worker, which is all of the client's on this
    /// node. Clients whose address the balancer does not see are the business of who does.
    pub per_client: u32,
}

/// Connections by service and client, for services with a limit of them.
#[derive(Debug)]
pub(crate) struct Clients {
    hasher: FixedState,
    open: HashMap<(NonZeroU64, IpAddr), u32, FixedState>,
}

impl Clients {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            open: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Names a service as long as the process lives, whatever the network.
    pub(crate) fn key(&self, service: &Service) -> NonZeroU64 {
        use std::hash::BuildHasher as _;
        NonZeroU64::new(self.hasher.hash_one(&*service.id)).unwrap_or(NonZeroU64::MIN)
    }

    fn held(&self, service: NonZeroU64, client: IpAddr) -> u32 {
        self.open.get(&(service, client)).copied().unwrap_or(0)
    }

    /// Counts a flow that belongs to a service with a limit.
    pub(crate) fn enter(&mut self, flow: &Flow) {
        if let Some(service) = flow.limited {
            let open = self.open.entry((service, flow.forward.tuple.src));
            *open.or_default() += 1;
        }
    }

    /// Takes the count of [`Self::enter`] back, once.
    pub(crate) fn leave(&mut self, flow: &mut Flow) {
        let Some(service) = flow.limited.take() else {
            return;
        };
        let key = (service, flow.forward.tuple.src);
        if let Some(open) = self.open.get_mut(&key) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&key);
            }
        }
    }
}

impl FlowTable {
    /// Whether a service takes one more connection.
    pub(crate) fn is_admitted(&self, origin: &Origin, key: &Key, service: &Service) -> bool {
        let limits = service.limits;
        if limits.connections > 0 && !service.has_room(key.tuple.src.is_ipv6()) {
            return false;
        }
        match self.limited(origin, Role::Owner, service) {
            Some(name) => self.clients.held(name, key.tuple.src) < limits.per_client,
            None => true,
        }
    }

    /// The service of a flow whose client is counted.
    pub(crate) fn limited(
        &self,
        origin: &Origin,
        role: Role,
        service: &Service,
    ) -> Option<NonZeroU64> {
        let known = match origin {
            Origin::Port { .. } => true,
            Origin::Mesh { keeps_client, .. } => *keeps_client,
        };
        let counted = known && role == Role::Owner && service.limits.per_client > 0;
        counted.then(|| self.clients.key(service))
    }
}

impl Service {
    /// Whether the limit, or this node's share of it, is not yet reached by the connections open to
    /// all replicas with such an address.
    fn has_room(&self, ipv6: bool) -> bool {
        let (mut own, mut all) = (0_u32, 0_u32);
        for replica in self.replicas.iter().filter(|r| r.ip.is_ipv6() == ipv6) {
            let mine = replica.load.own();
            own = own.saturating_add(mine);
            all = all.saturating_add(mine.saturating_add(replica.load.claimed()));
        }
        all < self.limits.connections || own < self.balancer.load.share()
    }
}
