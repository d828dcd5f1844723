//! How many connections a service and each of its clients may have open.

use std::net::IpAddr;
use std::num::NonZeroU64;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::flow::{Flow, Origin};
use crate::key::Key;
use crate::services::Service;

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
    fn key(&self, service: &Service) -> NonZeroU64 {
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

    /// Whether a service takes one more connection.
    pub(crate) fn admits(&self, origin: &Origin, key: &Key, service: &Service) -> bool {
        let limits = service.limits;
        if limits.connections > 0 && !service.has_room(key.tuple.src.is_ipv6()) {
            return false;
        }
        match self.limited(origin, service) {
            Some(name) => self.held(name, key.tuple.src) < limits.per_client,
            None => true,
        }
    }

    /// The service of an own flow, where it is counted for its client.
    pub(crate) fn limited(&self, origin: &Origin, service: &Service) -> Option<NonZeroU64> {
        let known = match origin {
            Origin::Port { .. } => true,
            Origin::Mesh { keeps_client, .. } => *keeps_client,
        };
        (known && service.limits.per_client > 0).then(|| self.key(service))
    }
}
