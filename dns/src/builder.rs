//! Making a [`Zone`] from what the agent knows.

use std::net::IpAddr;

use thiserror::Error;

use crate::name;
use crate::zone::{Entry, Holder, NetworkZone, ServicePort, Tier, Zone};

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
    /// Further names: the short name in its stack, `--network name=…,alias=…`.
    pub aliases: Vec<String>,
    /// What `name` and `aliases` resolve to.
    pub mode: ResolutionMode,
    /// Virtual addresses on this network.
    pub vips: Vec<IpAddr>,
    /// Addresses on this network of the tasks that are ready.
    pub tasks: Vec<IpAddr>,
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
#[derive(Debug, Clone, PartialEq, Eq, Error)]
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

/// Collects objects into a [`Zone`]. The order of calls does not matter, except that a network
/// comes before what is on it, and that addresses of merged names keep it.
#[derive(Debug, Default)]
pub struct ZoneBuilder {
    zone: Zone,
    refused: Vec<BadName>,
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
        let spelling = self.checked(&format!("network {name}"), name);
        let network = self.zone.networks.entry(id.to_owned()).or_default();
        network.name = spelling;
        self
    }

    /// Adds a service with its `tasks.` names and, for its virtual addresses, PTR. Names that DNS
    /// cannot carry are left out, and listed in [`refused`](Self::refused).
    ///
    /// # Errors
    /// The network is not known.
    pub fn service(
        &mut self,
        network: &str,
        service: &ServiceNames,
    ) -> Result<&mut Self, UnknownNetwork> {
        self.network_mut(network)?;
        let owner = format!("service {}", service.name);
        let name = self.checked(&owner, &service.name);
        let aliases = self.checked_all(&owner, &service.aliases);
        let zone = self.network_mut(network)?;
        let holder = |addresses: &[IpAddr]| Holder {
            stack: service.stack.clone(),
            addresses: addresses.to_vec(),
            ports: service.ports.clone(),
        };
        let own = match service.mode {
            ResolutionMode::Vip => &service.vips,
            ResolutionMode::Dnsrr => &service.tasks,
        };
        if let Some(name) = &name {
            for vip in &service.vips {
                zone.reverse.entry(*vip).or_insert_with(|| name.clone());
            }
        }
        let names = name.into_iter().map(|name| (name, Tier::ServiceName));
        let aliases = aliases.into_iter().map(|a| (a, Tier::ServiceAlias));
        for (claim, tier) in names.chain(aliases) {
            zone.claim(format!("tasks.{claim}"), tier, holder(&service.tasks));
            zone.claim(claim, tier, holder(own));
        }
        Ok(self)
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
        self.network_mut(network)?;
        let owner = format!("endpoint {}", endpoint.name);
        let name = self.checked(&owner, &endpoint.name);
        let aliases = self.checked_all(&owner, &endpoint.aliases);
        let hostnames = self.checked_all(&owner, &endpoint.hostnames);
        let zone = self.network_mut(network)?;
        if let Some(name) = &name {
            for ip in &endpoint.ips {
                zone.reverse.insert(*ip, name.clone());
            }
        }
        let names = name.into_iter().map(|name| (name, Tier::EndpointName));
        let aliases = aliases.into_iter().map(|a| (a, Tier::EndpointAlias));
        let hostnames = hostnames.into_iter().map(|host| (host, Tier::Hostname));
        for (claim, tier) in names.chain(aliases).chain(hostnames) {
            let holder = Holder {
                stack: endpoint.stack.clone(),
                addresses: endpoint.ips.clone(),
                ports: Vec::new(),
            };
            zone.claim(claim, tier, holder);
        }
        Ok(self)
    }

    /// Names that were left out, in the order in which they came.
    #[must_use]
    pub fn refused(&self) -> &[BadName] {
        &self.refused
    }

    /// The snapshot.
    #[must_use]
    pub fn build(self) -> Zone {
        self.zone
    }

    /// The zone's spelling; a name without one is noted.
    fn checked(&mut self, owner: &str, name: &str) -> Option<String> {
        let spelling = name::from_config(name);
        if spelling.is_none() {
            self.refused.push(BadName {
                owner: owner.to_owned(),
                name: name.to_owned(),
            });
        }
        spelling
    }

    fn checked_all(&mut self, owner: &str, names: &[String]) -> Vec<String> {
        let spellings = names.iter().map(|name| self.checked(owner, name));
        spellings
            .collect::<Vec<_>>()
            .into_iter()
            .flatten()
            .collect()
    }

    fn network_mut(&mut self, id: &str) -> Result<&mut NetworkZone, UnknownNetwork> {
        self.zone
            .networks
            .get_mut(id)
            .ok_or_else(|| UnknownNetwork {
                network: id.to_owned(),
            })
    }
}

impl NetworkZone {
    fn claim(&mut self, name: String, tier: Tier, holder: Holder) {
        let entry = self.names.entry(name).or_insert_with(|| Entry {
            tier,
            holders: Vec::new(),
        });
        if tier > entry.tier {
            return;
        }
        if tier < entry.tier {
            entry.tier = tier;
            entry.holders.clear();
        }
        if !entry.holders.contains(&holder) {
            entry.holders.push(holder);
        }
    }
}
