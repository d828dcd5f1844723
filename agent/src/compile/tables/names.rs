//! The zone: names that came and went are taken into a builder that is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_dns::{
    EndpointNames, ResolutionMode, ServiceNames, ServicePort, UnknownNetwork, Zone, ZoneBuilder,
};
use weft_model::assignment::ServiceView;
use weft_model::id::{EndpointId, NetworkId, ServiceId};
use weft_model::names;
use weft_model::objects::{EndpointMode, Network, NetworkAttachmentSpec};

use super::{Look, Work};
use crate::compile::known::{KnownEndpoint, PlacedEndpoint};

/// The builder, and what it was given.
#[derive(Debug, Default)]
pub(super) struct NameTables {
    builder: ZoneBuilder,
    /// Of each service, on each of its networks.
    services: BTreeMap<ServiceId, Vec<(NetworkId, ServiceNames)>>,
    /// Those whose tasks have names before they are ready.
    early: BTreeSet<ServiceId>,
}

impl NameTables {
    /// The zone of this moment.
    pub(super) fn make(&mut self, look: &Look<'_>, work: &mut Work) -> Zone {
        let early = early(look);
        if look.anew {
            *self = Self {
                early,
                ..Self::default()
            };
            for network in networks(look) {
                self.builder
                    .network(network.id.as_str(), &network.spec.name);
            }
            for placed in look.endpoints.all() {
                work.names += usize::from(self.add(look, placed));
            }
        } else {
            let were_early = std::mem::replace(&mut self.early, early);
            self.follow_endpoints(look, &were_early, work);
            self.follow_switches(look, &were_early, work);
        }
        self.follow_services(look, work);
        self.builder.build()
    }

    /// Names that DNS cannot carry, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let refused = self.builder.refused().into_iter();
        refused.map(ToString::to_string)
    }

    fn follow_endpoints(
        &mut self,
        look: &Look<'_>,
        were_early: &BTreeSet<ServiceId>,
        work: &mut Work,
    ) {
        for change in look.changes {
            let (before, after) = (change.before.as_ref(), change.after.as_ref());
            let was = before.map(|placed| names_of(placed, were_early));
            if was == after.map(|placed| names_of(placed, &self.early)) {
                continue;
            }
            if let Some(before) = before {
                self.remove(look, before, were_early);
            }
            if let Some(after) = after {
                work.names += usize::from(self.add(look, after));
            }
        }
    }

    /// Endpoints that are as they were, of services that have names before theirs are ready, and had
    /// not, or the other way round.
    fn follow_switches(
        &mut self,
        look: &Look<'_>,
        were_early: &BTreeSet<ServiceId>,
        work: &mut Work,
    ) {
        let switched = were_early.symmetric_difference(&self.early);
        let switched: Vec<ServiceId> = switched.cloned().collect();
        if switched.is_empty() {
            return;
        }
        let changes = look.changes.iter();
        let changed: BTreeSet<&EndpointId> = changes.map(|change| &change.id).collect();
        for placed in switched.iter().flat_map(|id| look.endpoints.of_service(id)) {
            let record = &placed.record;
            let [was, is] = [were_early, &self.early].map(|early| is_told(record, early));
            if was == is || changed.contains(&record.id) {
                continue;
            }
            if was {
                self.remove(look, placed, were_early);
            } else {
                work.names += usize::from(self.add(look, placed));
            }
        }
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
                let names = service_names(look, service, &network.id, attached);
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
        let has = has_names(look, record, &self.early);
        if has {
            let names = endpoint_names(record);
            known(self.builder.endpoint(record.network.as_str(), &names));
        }
        has
    }

    fn remove(&mut self, look: &Look<'_>, placed: &PlacedEndpoint, early: &BTreeSet<ServiceId>) {
        let record = &*placed.record;
        if has_names(look, record, early) {
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

/// Services that have names before their tasks are ready.
fn early(look: &Look<'_>) -> BTreeSet<ServiceId> {
    let services = look.shared().services.iter();
    let early = services.filter(|service| service.names_before_healthy);
    early.map(|service| service.id.clone()).collect()
}

fn is_told(record: &KnownEndpoint, early: &BTreeSet<ServiceId>) -> bool {
    let service = record.service.as_ref();
    record.is_told(service.is_some_and(|id| early.contains(id)))
}

fn has_names(look: &Look<'_>, record: &KnownEndpoint, early: &BTreeSet<ServiceId>) -> bool {
    let network = look.vnis.get(&record.network);
    is_told(record, early) && network.is_some_and(|(_, network)| !network.spec.ingress)
}

/// What the names of an endpoint follow from.
fn names_of<'p>(
    placed: &'p PlacedEndpoint,
    early: &BTreeSet<ServiceId>,
) -> (bool, &'p NetworkId, EndpointNames) {
    let record = &placed.record;
    let told = is_told(record, early);
    (told, &record.network, endpoint_names(record))
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
    attached: &NetworkAttachmentSpec,
) -> ServiceNames {
    let vips = service.vips.iter().filter(|v| v.network == *network);
    let there = look.endpoints.of_service(&service.id);
    let there = there.filter(|m| m.record.network == *network);
    let early = service.names_before_healthy;
    let (told, others): (Vec<&PlacedEndpoint>, Vec<&PlacedEndpoint>) =
        there.partition(|m| m.record.is_told(early));
    let ips = |of: &[&PlacedEndpoint]| -> Vec<IpAddr> {
        let ips = of.iter().flat_map(|m| &m.record.ips);
        ips.copied().collect()
    };
    let ports = service.ports.iter().map(|p| ServicePort {
        name: None,
        port: p.target,
        protocol: p.protocol.to_string(),
    });
    ServiceNames {
        name: service.name.clone(),
        stack: service.stack.clone(),
        aliases: attached.aliases.clone(),
        stack_aliases: stack_aliases(service, attached),
        mode: match service.endpoint_mode {
            EndpointMode::Vip => ResolutionMode::Vip,
            EndpointMode::Dnsrr => ResolutionMode::Dnsrr,
        },
        vips: vips.map(|v| v.addr.addr()).collect(),
        tasks: ips(&told),
        other_tasks: ips(&others),
        ports: ports.collect(),
    }
}

/// Names that members of its stack are told: those that it was given as such, and what it is called in
/// the file of the stack, whoever made it.
fn stack_aliases(service: &ServiceView, attached: &NetworkAttachmentSpec) -> Vec<String> {
    let mut aliases = attached.stack_aliases.clone();
    if let Some(short) = short_name(service) {
        let mut given = attached.aliases.iter().chain(&aliases);
        if !given.any(|alias| names::same(alias, short)) {
            aliases.push(short.to_owned());
        }
    }
    aliases
}

/// `web` of service `shop_web` in stack `shop`.
fn short_name(service: &ServiceView) -> Option<&str> {
    let stack = service.stack.as_deref()?;
    let short = service.name.strip_prefix(stack)?.strip_prefix('_')?;
    (!short.is_empty()).then_some(short)
}
