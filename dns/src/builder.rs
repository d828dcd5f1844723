//! Making a [`Zone`] from what the agent knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::name;
use crate::zone::{Claim, Holder, NetworkZone, OwnerKind, Scope, ServicePort, Tier, Zone};

/// How a service's own name resolves (`--endpoint-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolutionMode {
    /// To its virtual addresses.
    #[default]
    Vip,
    /// To the addresses of its ready tasks.
    Dnsrr,
}

/// A service on one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceNames {
    /// Full name, such as `shop_web`.
    pub name: String,
    /// Stack that it belongs to.
    pub stack: Option<String>,
    /// Further names: `--network name=…,alias=…`, the short name on networks of its own stack.
    pub aliases: Vec<String>,
    /// Further names that members of its stack alone are told: the short name on networks that
    /// several stacks share. Without a stack nobody is.
    pub stack_aliases: Vec<String>,
    /// What `name` and the aliases resolve to.
    pub mode: ResolutionMode,
    /// Virtual addresses on this network.
    pub vips: Vec<IpAddr>,
    /// Addresses on this network of the tasks that are ready, or count as such.
    pub tasks: Vec<IpAddr>,
    /// Addresses on this network of its other tasks, those that start or drain: `all-tasks.` names
    /// have them as well.
    pub other_tasks: Vec<IpAddr>,
    /// Ports for SRV queries.
    pub ports: Vec<ServicePort>,
}

/// An endpoint on one network: a task's, or one made by `network connect`. Ready ones only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointNames {
    /// Task name (`web.1.<id>`) or the name given on connecting; what PTR answers.
    pub name: String,
    /// Stack that it belongs to.
    pub stack: Option<String>,
    /// Names of this endpoint alone.
    pub aliases: Vec<String>,
    /// Host name of the sandbox, short id.
    pub hostnames: Vec<String>,
    /// Addresses on this network.
    pub ips: Vec<IpAddr>,
}

/// The network was not added before; the zone is unchanged by the refused call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("network {network} is not in the zone; add it before its services and endpoints")]
pub struct UnknownNetwork {
    /// Its id.
    pub network: String,
}

/// A name that cannot be asked for over DNS, and so is not in the zone. Its owner's other names are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error(
    "{owner}: the name {name:?} cannot be resolved, its other names can: labels must be 1-63 \
     printable ASCII characters, 253 in all; make it anew with another name"
)]
pub struct BadName {
    /// Kind and own name, such as `service web`.
    pub owner: String,
    /// The name.
    pub name: String,
}

/// Collects objects into a [`Zone`], and goes on doing so: services and endpoints come and go, and
/// each [`build`](Self::build) shares what has stayed. The order of calls does not matter, except
/// that a network comes before what is on it.
#[derive(Debug, Clone, Default)]
pub struct ZoneBuilder {
    zone: Zone,
    /// How often each name was left out.
    refused: BTreeMap<BadName, usize>,
}

impl ZoneBuilder {
    /// An empty zone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a network, or renames it when `id` is known. What is on one with a name that DNS cannot
    /// carry resolves without the network's name behind its own.
    pub fn network(&mut self, id: &str, name: &str) -> &mut Self {
        let mut names = Claims::of(format!("network {name}"));
        let spelling = names.checked(name);
        let network = self.zone.networks.entry(id.to_owned()).or_default();
        Arc::make_mut(network).name = spelling;
        self.refuse(names.bad);
        self
    }

    /// Adds a service with its `tasks.` and `all-tasks.` names and, for its virtual addresses, PTR.
    /// Names that DNS cannot carry are left out, and listed in [`refused`](Self::refused).
    ///
    /// # Errors
    /// The network is not known.
    pub fn service(
        &mut self,
        network: &str,
        service: &ServiceNames,
    ) -> Result<&mut Self, UnknownNetwork> {
        self.add(network, Claims::of_service(service))
    }

    /// Takes back what one call of [`service`](Self::service) with the same arguments added.
    ///
    /// # Errors
    /// The network is not known.
    pub fn remove_service(
        &mut self,
        network: &str,
        service: &ServiceNames,
    ) -> Result<&mut Self, UnknownNetwork> {
        self.remove(network, Claims::of_service(service))
    }

    /// Adds an endpoint with its PTR. Names that DNS cannot carry are left out, and listed in
    /// [`refused`](Self::refused).
    ///
    /// # Errors
    /// The network is not known.
    pub fn endpoint(
        &mut self,
        network: &str,
        endpoint: &EndpointNames,
    ) -> Result<&mut Self, UnknownNetwork> {
        self.add(network, Claims::of_endpoint(endpoint))
    }

    /// Takes back what one call of [`endpoint`](Self::endpoint) with the same arguments added.
    ///
    /// # Errors
    /// The network is not known.
    pub fn remove_endpoint(
        &mut self,
        network: &str,
        endpoint: &EndpointNames,
    ) -> Result<&mut Self, UnknownNetwork> {
        self.remove(network, Claims::of_endpoint(endpoint))
    }

    /// Names that were left out, in their order, each once.
    #[must_use]
    pub fn refused(&self) -> Vec<&BadName> {
        self.refused.keys().collect()
    }

    /// The snapshot of what was collected so far. It copies nothing but references.
    #[must_use]
    pub fn build(&self) -> Zone {
        self.zone.clone()
    }

    fn add(&mut self, network: &str, claims: Claims) -> Result<&mut Self, UnknownNetwork> {
        let zone = self.network_mut(network)?;
        for (name, claim) in claims.names {
            zone.names.change(name, |entry| entry.add(claim));
        }
        for (ip, kind, name) in claims.reverse {
            zone.reverse.change(ip, |owners| owners.add((kind, name)));
        }
        self.refuse(claims.bad);
        Ok(self)
    }

    fn remove(&mut self, network: &str, claims: Claims) -> Result<&mut Self, UnknownNetwork> {
        let zone = self.network_mut(network)?;
        for (name, claim) in claims.names {
            zone.names.change(name, |entry| entry.remove(&claim));
        }
        for (ip, kind, name) in claims.reverse {
            zone.reverse
                .change(ip, |owners| owners.remove(&(kind, name)));
        }
        for bad in claims.bad {
            if let Some(times) = self.refused.get_mut(&bad) {
                *times -= 1;
                if *times == 0 {
                    self.refused.remove(&bad);
                }
            }
        }
        Ok(self)
    }

    fn refuse(&mut self, bad: Vec<BadName>) {
        for bad in bad {
            *self.refused.entry(bad).or_default() += 1;
        }
    }

    fn network_mut(&mut self, id: &str) -> Result<&mut NetworkZone, UnknownNetwork> {
        let network = self.zone.networks.get_mut(id);
        network.map(Arc::make_mut).ok_or_else(|| UnknownNetwork {
            network: id.to_owned(),
        })
    }
}

/// What an object claims on its network.
#[derive(Debug)]
struct Claims {
    /// Kind and own name of the object.
    owner: String,
    names: Vec<(String, Claim)>,
    reverse: Vec<(IpAddr, OwnerKind, Arc<str>)>,
    bad: Vec<BadName>,
}

impl Claims {
    fn of(owner: String) -> Self {
        Self {
            owner,
            names: Vec::new(),
            reverse: Vec::new(),
            bad: Vec::new(),
        }
    }

    fn of_service(service: &ServiceNames) -> Self {
        let mut this = Self::of(format!("service {}", service.name));
        let holder = |addresses: &[IpAddr], others: &[IpAddr]| {
            Arc::new(Holder {
                stack: service.stack.as_deref().map(Into::into),
                addresses: addresses.into(),
                others: others.into(),
                ports: service.ports.as_slice().into(),
            })
        };
        let tasks = holder(&service.tasks, &service.other_tasks);
        let own = match service.mode {
            ResolutionMode::Vip => holder(&service.vips, &[]),
            ResolutionMode::Dnsrr => Arc::clone(&tasks),
        };
        let name = this.checked(&service.name);
        this.own(name.as_deref(), &service.vips, OwnerKind::Service);
        let names = name.into_iter();
        let names = names.map(|name| (name, Tier::ServiceName, Scope::Everybody));
        let aliases = this.checked_all(&service.aliases).into_iter();
        let aliases = aliases.map(|a| (a, Tier::ServiceAlias, Scope::Everybody));
        let inside = match service.stack {
            Some(_) => this.checked_all(&service.stack_aliases),
            None => Vec::new(),
        };
        let inside = inside.into_iter();
        let inside = inside.map(|a| (a, Tier::ServiceAlias, Scope::Stack));
        for (name, tier, scope) in names.chain(aliases).chain(inside) {
            let claim = |holder: &Arc<Holder>| Claim {
                tier,
                holder: Arc::clone(holder),
                scope,
            };
            let each = (format!("tasks.{name}"), claim(&tasks));
            this.names.push(each);
            this.names.push((name, claim(&own)));
        }
        this
    }

    fn of_endpoint(endpoint: &EndpointNames) -> Self {
        let mut this = Self::of(format!("endpoint {}", endpoint.name));
        let holder = Arc::new(Holder {
            stack: endpoint.stack.as_deref().map(Into::into),
            addresses: endpoint.ips.as_slice().into(),
            others: Box::default(),
            ports: Box::default(),
        });
        let name = this.checked(&endpoint.name);
        this.own(name.as_deref(), &endpoint.ips, OwnerKind::Endpoint);
        let names = name.into_iter().map(|name| (name, Tier::EndpointName));
        let aliases = this.checked_all(&endpoint.aliases);
        let aliases = aliases.into_iter().map(|a| (a, Tier::EndpointAlias));
        let hostnames = this.checked_all(&endpoint.hostnames);
        let hostnames = hostnames.into_iter().map(|host| (host, Tier::Hostname));
        for (name, tier) in names.chain(aliases).chain(hostnames) {
            let claim = Claim {
                tier,
                holder: Arc::clone(&holder),
                scope: Scope::Everybody,
            };
            this.names.push((name, claim));
        }
        this
    }

    fn own(&mut self, name: Option<&str>, ips: &[IpAddr], kind: OwnerKind) {
        if let Some(name) = name {
            let name: Arc<str> = name.into();
            let owned = ips.iter().map(|ip| (*ip, kind, Arc::clone(&name)));
            self.reverse.extend(owned);
        }
    }

    /// The zone's spelling; a name without one is noted.
    fn checked(&mut self, name: &str) -> Option<String> {
        let spelling = name::from_config(name);
        if spelling.is_none() {
            self.bad.push(BadName {
                owner: self.owner.clone(),
                name: name.to_owned(),
            });
        }
        spelling
    }

    fn checked_all(&mut self, names: &[String]) -> Vec<String> {
        names.iter().filter_map(|name| self.checked(name)).collect()
    }
}

#[cfg(test)]
mod tests;
