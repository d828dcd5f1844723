//! The zone: names that came and went are taken into a builder that is kept.

use std::collections::BTreeMap;

use weft_dns::{
    EndpointNames, ResolutionMode, ServiceNames, ServicePort, UnknownNetwork, Zone, ZoneBuilder,
};
use weft_model::assignment::ServiceView;
use weft_model::id::{NetworkId, ServiceId};
use weft_model::objects::{EndpointMode, Network};

use super::{Look, Work};
use crate::compile::known::{KnownEndpoint, PlacedEndpoint};

/// The builder, and what it was given.
#[derive(Debug, Default)]
pub(super) struct NameTables {
    builder: ZoneBuilder,
    /// Of each service, on each of its networks.
    services: BTreeMap<ServiceId, Vec<(NetworkId, ServiceNames)>>,
}

impl NameTables {
    /// The zone of this moment.
    pub(super) fn make(&mut self, look: &Look<'_>, work: &mut Work) -> Zone {
        if look.anew {
            *self = Self::default();
            for network in networks(look) {
                self.builder
                    .network(network.id.as_str(), &network.spec.name);
            }
            for placed in look.endpoints.all() {
                work.names += usize::from(self.add(look, placed));
            }
        } else {
            for change in look.changes {
                let (before, after) = (change.before.as_ref(), change.after.as_ref());
                if before.map(names_of) == after.map(names_of) {
                    continue;
                }
                if let Some(before) = before {
                    self.remove(look, before);
                }
                if let Some(after) = after {
                    work.names += usize::from(self.add(look, after));
                }
            }
        }
        self.follow_services(look, work);
        self.builder.build()
    }

    /// Names that DNS cannot carry, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let refused = self.builder.refused().into_iter();
        refused.map(ToString::to_string)
    }

    fn follow_services(&mut self, look: &Look<'_>, work: &mut Work) {
        for id in &look.services {
            for (network, names) in self.services.remove(id).into_iter().flatten() {
                known(self.builder.remove_service(network.as_str(), &names));
            }
        }
        for service in &look.shared().services {
            if self.services.contains_key(&service.id) {
                continue;
            }
            let mut all = Vec::new();
            for network in networks(look) {
                let mut attached = service.networks.iter();
                let attached = attached.find(|n| n.target == network.id.as_str());
                let Some(attached) = attached else { continue };
                let names = service_names(look, service, &network.id, &attached.aliases);
                known(self.builder.service(network.id.as_str(), &names));
                all.push((network.id.clone(), names));
                work.names += 1;
            }
            self.services.insert(service.id.clone(), all);
        }
    }

    /// True where it has names at all.
    fn add(&mut self, look: &Look<'_>, placed: &PlacedEndpoint) -> bool {
        let record = &*placed.record;
        let has = has_names(look, record);
        if has {
            let names = endpoint_names(record);
            known(self.builder.endpoint(record.network.as_str(), &names));
        }
        has
    }

    fn remove(&mut self, look: &Look<'_>, placed: &PlacedEndpoint) {
        let record = &*placed.record;
        if has_names(look, record) {
            let names = endpoint_names(record);
            known(
                self.builder
                    .remove_endpoint(record.network.as_str(), &names),
            );
        }
    }
}

/// Networks are in the zone before what is on them.
fn known(result: Result<&mut ZoneBuilder, UnknownNetwork>) {
    debug_assert!(result.is_ok(), "{result:?}");
}

/// Networks with names: nothing resolves on the ingress network, which carries published ports only.
fn networks<'a>(look: &'a Look<'_>) -> impl Iterator<Item = &'a Network> {
    let networks = look.vnis.values().map(|(_, network)| *network);
    networks.filter(|network| !network.spec.ingress)
}

fn has_names(look: &Look<'_>, record: &KnownEndpoint) -> bool {
    let network = look.vnis.get(&record.network);
    record.ready && network.is_some_and(|(_, network)| !network.spec.ingress)
}

/// What the names of an endpoint follow from.
fn names_of(placed: &PlacedEndpoint) -> (bool, &NetworkId, EndpointNames) {
    let record = &placed.record;
    (record.ready, &record.network, endpoint_names(record))
}

fn endpoint_names(record: &KnownEndpoint) -> EndpointNames {
    let task = record.task.as_ref();
    let host = task.map_or_else(|| record.id.short(), |task| task.short());
    EndpointNames {
        name: record.name.clone(),
        stack: None,
        aliases: record.aliases.clone(),
        hostnames: vec![host.to_owned()],
        ips: record.ips.clone(),
    }
}

fn service_names(
    look: &Look<'_>,
    service: &ServiceView,
    network: &NetworkId,
    aliases: &[String],
) -> ServiceNames {
    let vips = service.vips.iter().filter(|v| v.network == *network);
    let tasks = look.endpoints.of_service(&service.id);
    let tasks = tasks.filter(|m| m.record.ready && m.record.network == *network);
    let ports = service.ports.iter().map(|p| ServicePort {
        name: None,
        port: p.target,
        protocol: p.protocol.to_string(),
    });
    ServiceNames {
        name: service.name.clone(),
        stack: None,
        aliases: aliases.to_vec(),
        mode: match service.endpoint_mode {
            EndpointMode::Vip => ResolutionMode::Vip,
            EndpointMode::Dnsrr => ResolutionMode::Dnsrr,
        },
        vips: vips.map(|v| v.addr.addr()).collect(),
        tasks: tasks.flat_map(|m| m.record.ips.iter().copied()).collect(),
        ports: ports.collect(),
    }
}
