//! The snapshot that answers come from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;

use crate::name;
use crate::shards::Shards;

/// Every name of every network of the cluster, immutable. Built by
/// [`ZoneBuilder`](crate::ZoneBuilder).
///
/// Lookups are O(log names) for each of a client's networks. What two zones of one builder have in
/// common they share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    pub(crate) networks: BTreeMap<String, Arc<NetworkZone>>,
}

impl Zone {
    /// Number of networks.
    #[must_use]
    pub fn networks(&self) -> usize {
        self.networks.len()
    }

    /// Number of names over all networks, `tasks.` names included.
    #[must_use]
    pub fn names(&self) -> usize {
        self.networks.values().map(|n| n.names.len()).sum()
    }
}

/// What a sandbox may see: the networks that it is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientView {
    /// Network ids in the order in which they are searched: user overlays by priority. The
    /// `ingress` network must not be listed; nothing resolves there.
    pub networks: Vec<String>,
    /// Every network is `--internal`: nothing is forwarded outside.
    pub internal_only: bool,
    /// Stack of the sandbox. A name that a service of this stack has on one of the networks is that
    /// service's, whoever else has it on any of them.
    pub stack: Option<String>,
}

/// A port that `_port._proto.service` may ask for (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Name, for `_http._tcp.web`; the number is understood without one.
    pub name: Option<String>,
    /// Port on which the tasks listen.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// The names of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NetworkZone {
    /// In the zone's spelling; absent when DNS cannot carry it.
    pub(crate) name: Option<String>,
    pub(crate) names: Shards<String, Entry>,
    /// Address to the names of its owners.
    pub(crate) reverse: Shards<IpAddr, Owners>,
}

impl NetworkZone {
    pub(crate) fn is_named(&self, spelling: &str) -> bool {
        self.name.as_deref() == Some(spelling)
    }

    /// Name of whoever has an address.
    pub(crate) fn owner_of(&self, ip: &IpAddr) -> Option<&str> {
        self.reverse.get(ip)?.first()
    }

    /// A name on this network as others know it, `name.network`; `None` when it is too long.
    pub(crate) fn full_name(&self, owner: &str) -> Option<Name> {
        match &self.name {
            Some(network) => name::to_wire(&format!("{owner}.{network}")),
            None => name::to_wire(owner),
        }
    }
}

/// Everything that claims a name. What is told does not depend on who came first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// In order: the strongest tier comes first. One claim may be there several times.
    claims: Vec<Claim>,
}

/// One claim of a name. In this order: what one holder claims in both scopes lies together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) tier: Tier,
    pub(crate) holder: Arc<Holder>,
    pub(crate) scope: Scope,
}

/// Who is told of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Everybody,
    /// The members of the holder's stack.
    Stack,
}

/// Which claims count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose<'c> {
    /// Those of this stack, which its members are told first.
    Stack(&'c str),
    /// Those that everybody is told.
    Everybody,
}

/// Who wins when one name is claimed twice on a network; earlier is stronger. Claims of one tier
/// are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    ServiceName,
    ServiceAlias,
    EndpointName,
    EndpointAlias,
    Hostname,
}

/// What stands behind a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) stack: Option<Box<str>>,
    pub(crate) addresses: Box<[IpAddr]>,
    /// What only `all-tasks.` names have besides.
    pub(crate) others: Box<[IpAddr]>,
    /// Ports that SRV queries may ask for.
    pub(crate) ports: Box<[ServicePort]>,
}

impl Claim {
    fn counts(&self, whose: Whose<'_>) -> bool {
        match whose {
            Whose::Stack(stack) => self.holder.stack.as_deref() == Some(stack),
            Whose::Everybody => self.scope == Scope::Everybody,
        }
    }
}

impl Entry {
    pub(crate) fn add(&mut self, claim: Claim) {
        let at = self.claims.partition_point(|other| *other < claim);
        self.claims.insert(at, claim);
    }

    pub(crate) fn remove(&mut self, claim: &Claim) {
        if let Ok(at) = self.claims.binary_search(claim) {
            self.claims.remove(at);
        }
    }

    /// True where one of the claims counts.
    pub(crate) fn is_for(&self, whose: Whose<'_>) -> bool {
        self.claims.iter().any(|claim| claim.counts(whose))
    }

    /// Of the claims that count those of the strongest tier, each holder once.
    pub(crate) fn holders<'e>(&'e self, whose: Whose<'e>) -> impl Iterator<Item = &'e Holder> {
        let counting = self.claims.iter().filter(move |claim| claim.counts(whose));
        let strongest = counting.clone().next().map(|claim| claim.tier);
        let mut last: Option<&Holder> = None;
        counting
            .take_while(move |claim| Some(claim.tier) == strongest)
            .map(|claim| &*claim.holder)
            .filter(move |holder| last.replace(*holder) != Some(*holder))
    }
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OwnerKind {
    Endpoint,
    Service,
}

/// Names of those who have an address; there should be one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owners(Vec<(OwnerKind, Arc<str>)>);

impl Owners {
    pub(crate) fn add(&mut self, owner: (OwnerKind, Arc<str>)) {
        let at = self.0.partition_point(|other| *other < owner);
        self.0.insert(at, owner);
    }

    pub(crate) fn remove(&mut self, owner: &(OwnerKind, Arc<str>)) {
        if let Ok(at) = self.0.binary_search(owner) {
            self.0.remove(at);
        }
    }

    /// An endpoint goes before a service.
    pub(crate) fn first(&self) -> Option<&str> {
        self.0.first().map(|(_, name)| &**name)
    }
}
