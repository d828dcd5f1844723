//! The snapshot that answers come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::name;

/// Every name of every network of the cluster, immutable. Built by
/// [`ZoneBuilder`](crate::ZoneBuilder).
///
/// Lookups are O(log names) for each of a client's networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    pub(crate) networks: BTreeMap<String, NetworkZone>,
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
    /// Stack of the sandbox. A short name that services of several stacks share on one network
    /// then means the service of this stack.
    pub stack: Option<String>,
}

/// A port that `_port._proto.service` may ask for (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub(crate) names: BTreeMap<String, Entry>,
    /// Address to the first name of its owner.
    pub(crate) reverse: BTreeMap<IpAddr, String>,
}

impl NetworkZone {
    pub(crate) fn is_named(&self, spelling: &str) -> bool {
        self.name.as_deref() == Some(spelling)
    }

    /// A name on this network as others know it, `name.network`; `None` when it is too long.
    pub(crate) fn full_name(&self, owner: &str) -> Option<Name> {
        match &self.name {
            Some(network) => name::to_wire(&format!("{owner}.{network}")),
            None => name::to_wire(owner),
        }
    }

    /// A spelling without the network's name behind it.
    pub(crate) fn bare<'n>(&self, spelling: &'n str) -> Option<&'n str> {
        let before = spelling.strip_suffix(self.name.as_deref()?)?;
        before.strip_suffix('.')
    }
}

/// A name: everything of the strongest tier that claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tier: Tier,
    pub(crate) holders: Vec<Holder>,
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

/// One claim of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) stack: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Ports that SRV queries may ask for.
    pub(crate) ports: Vec<ServicePort>,
}

impl Entry {
    /// The claims that count for a client: those of its own stack when there are any.
    pub(crate) fn holders_for<'e>(
        &'e self,
        stack: Option<&'e str>,
    ) -> impl Iterator<Item = &'e Holder> {
        let own = stack.filter(|stack| {
            self.holders
                .iter()
                .any(|holder| holder.stack.as_deref() == Some(stack))
        });
        self.holders
            .iter()
            .filter(move |holder| own.is_none() || holder.stack.as_deref() == own)
    }
}
