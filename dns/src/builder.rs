//! Making a [`Zone`] from what the agent knows.

use std::net::IpAddr;

use thiserror::Error;

use crate::name;
use crate::zone::{Entry, Holder, NetworkZone, Tier, Zone};

/// How a service's own name resolves (`--endpoint-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolutionMode {
    /// To its virtual addresses.
    #[default]
    Vip,
    /// To the addresses of its ready tasks.
    Dnsrr,
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

/// Why an object did not enter the zone. The zone is unchanged by the refused call; the other
/// objects still resolve.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// The network was not added before.
    #[error("network {network} is not in the zone; add it before its services and endpoints")]
    UnknownNetwork {
        /// Its id.
        network: String,
    },
    /// The name cannot be asked for over DNS.
    #[error(
        "{name:?} cannot be resolved: labels must be 1-63 printable ASCII characters, 253 in all; rename it"
    )]
    BadName {
        /// The name.
        name: String,
    },
}

/// Collects objects into a [`Zone`]. The order of calls does not matter, except that a network
/// comes before what is on it, and that addresses of merged names keep it.
#[derive(Debug, Default)]
pub struct ZoneBuilder {
    zone: Zone,
}

impl ZoneBuilder {
    /// An empty zone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a network, or renames it when `id` is known.
    ///
    /// # Errors
    /// [`ZoneError::BadName`].
    pub fn network(&mut self, id: &str, name: &str) -> Result<&mut Self, ZoneError> {
        let name = checked(name)?;
        let network = self.zone.networks.entry(id.to_owned()).or_default();
        network.name = name;
        Ok(self)
    }

    /// Adds a service with its `tasks.` names and, for its virtual addresses, PTR.
    ///
    /// # Errors
    /// Either variant of [`ZoneError`]. Aliases that DNS cannot carry are an error too.
    pub fn service(
        &mut self,
        network: &str,
        service: &ServiceNames,
    ) -> Result<&mut Self, ZoneError> {
        let name = checked(&service.name)?;
        let aliases = checked_all(&service.aliases)?;
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
        for vip in &service.vips {
            zone.reverse.entry(*vip).or_insert_with(|| name.clone());
        }
        let claims = std::iter::once((name, Tier::ServiceName))
            .chain(aliases.into_iter().map(|alias| (alias, Tier::ServiceAlias)));
        for (claim, tier) in claims {
            zone.claim(format!("tasks.{claim}"), tier, holder(&service.tasks));
            zone.claim(claim, tier, holder(own));
        }
        Ok(self)
    }

    /// Adds an endpoint with its PTR.
    ///
    /// # Errors
    /// Either variant of [`ZoneError`]. Aliases that DNS cannot carry are an error too.
    pub fn endpoint(
        &mut self,
        network: &str,
        endpoint: &EndpointNames,
    ) -> Result<&mut Self, ZoneError> {
        let name = checked(&endpoint.name)?;
        let aliases = checked_all(&endpoint.aliases)?;
        let hostnames = checked_all(&endpoint.hostnames)?;
        let zone = self.network_mut(network)?;
        for ip in &endpoint.ips {
            zone.reverse.insert(*ip, name.clone());
        }
        let claims = std::iter::once((name, Tier::EndpointName))
            .chain(
                aliases
                    .into_iter()
                    .map(|alias| (alias, Tier::EndpointAlias)),
            )
            .chain(hostnames.into_iter().map(|host| (host, Tier::Hostname)));
        for (claim, tier) in claims {
            let holder = Holder {
                stack: endpoint.stack.clone(),
                addresses: endpoint.ips.clone(),
                ports: Vec::new(),
            };
            zone.claim(claim, tier, holder);
        }
        Ok(self)
    }

    /// The snapshot.
    #[must_use]
    pub fn build(self) -> Zone {
        self.zone
    }

    fn network_mut(&mut self, id: &str) -> Result<&mut NetworkZone, ZoneError> {
        self.zone
            .networks
            .get_mut(id)
            .ok_or_else(|| ZoneError::UnknownNetwork {
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

fn checked(name: &str) -> Result<String, ZoneError> {
    name::from_config(name).ok_or_else(|| ZoneError::BadName {
        name: name.to_owned(),
    })
}

fn checked_all(names: &[String]) -> Result<Vec<String>, ZoneError> {
    names.iter().map(|name| checked(name)).collect()
}
