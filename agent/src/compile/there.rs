//! The endpoints that are there, this node's and the others', kept from one look to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use weft_model::assignment::Shared;
use weft_model::id::{EndpointId, NodeId, ServiceId};

use super::believed::{Believed, Lists};
use super::heard::Heard;
use super::known::{KnownEndpoint, LocalPort, PlacedEndpoint};

/// The endpoints of a service, on all of its networks.
type Members = BTreeMap<EndpointId, PlacedEndpoint>;

/// By service. A copy shares all but what changes later.
type OfServices = RedBlackTreeMapSync<ServiceId, Arc<Members>>;

/// An endpoint that came, went, or is another one.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) id: EndpointId,
    pub(crate) before: Option<PlacedEndpoint>,
    pub(crate) after: Option<PlacedEndpoint>,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) changes: Vec<Change>,
    /// Others speak for themselves than before.
    pub(super) speakers: bool,
    /// Others say what is not so.
    pub(super) lies: bool,
}

/// Every endpoint that is there, as the last tables have it: for those who look. Its parts are shared
/// with the ones before and after.
#[derive(Debug, Default)]
pub(crate) struct There {
    /// By id.
    local: Vec<Arc<KnownEndpoint>>,
    /// By node.
    others: Lists,
    services: OfServices,
}

impl There {
    /// All of them, this node's first; one that moved here is here, whatever gossip still says.
    pub(crate) fn all(&self) -> impl Iterator<Item = &KnownEndpoint> {
        let is_here = |known: &KnownEndpoint| {
            let found = self.local.binary_search_by(|here| here.id.cmp(&known.id));
            found.is_ok()
        };
        let others = self.others.values().flat_map(|list| list.iter());
        let others = others.filter(move |known| !is_here(known));
        self.local.iter().chain(others).map(|known| &**known)
    }

    /// Those of a service.
    pub(crate) fn of_service(&self, service: &ServiceId) -> impl Iterator<Item = &KnownEndpoint> {
        let members = self.services.get(service).into_iter();
        let members = members.flat_map(|members| members.values());
        members.map(|placed| &*placed.record)
    }
}

/// The endpoints, by what one looks for.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    believed: Believed,
    local: BTreeMap<EndpointId, LocalPort>,
    /// An endpoint that moved here is not also remote, whatever gossip still says.
    there: BTreeMap<EndpointId, PlacedEndpoint>,
    services: OfServices,
}

impl Endpoints {
    /// Takes in what orders, the others and the own ports say now.
    pub(super) fn update(
        &mut self,
        orders: &Arc<Shared>,
        own: &NodeId,
        heard: &Heard,
        local: &[LocalPort],
    ) -> Found {
        let differs = self.believed.update(orders, own, heard);
        let mut found = Found {
            changes: Vec::new(),
            speakers: differs.speakers,
            lies: differs.lies,
        };
        let mut ids = differs.endpoints;
        ids.extend(self.with_other_port(local));
        for id in ids {
            let before = self.there.get(&id).cloned();
            let after = self.place(&id);
            let same = match (&before, &after) {
                (Some(before), Some(after)) => before.is(after),
                (None, None) => true,
                _ => false,
            };
            if same {
                continue;
            }
            if let Some(before) = &before {
                self.leave_service(&id, before);
                self.there.remove(&id);
            }
            if let Some(after) = &after {
                self.join_service(&id, after);
                self.there.insert(id.clone(), after.clone());
            }
            found.changes.push(Change { id, before, after });
        }
        found
    }

    /// All of them, by id.
    pub(super) fn all(&self) -> impl Iterator<Item = &PlacedEndpoint> {
        self.there.values()
    }

    /// Those of a service.
    pub(super) fn of_service(
        &self,
        service: &ServiceId,
    ) -> impl Iterator<Item = &PlacedEndpoint> + Clone {
        let members = self.services.get(service).into_iter();
        members.flat_map(|members| members.values())
    }

    /// Nodes that speak for themselves.
    pub(super) fn speakers(&self) -> impl Iterator<Item = &NodeId> {
        self.believed.speakers()
    }

    /// Who says what is not so, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.believed.problems()
    }

    /// The same for those who look.
    pub(super) fn shown(&self) -> There {
        let local = self.local.values();
        There {
            local: local.map(|port| Arc::clone(&port.record)).collect(),
            others: self.believed.lists().clone(),
            services: self.services.clone(),
        }
    }

    fn place(&self, id: &EndpointId) -> Option<PlacedEndpoint> {
        let local = self.local.get(id).map(PlacedEndpoint::from);
        local.or_else(|| {
            Some(PlacedEndpoint {
                record: Arc::clone(self.believed.get(id)?),
                port: None,
            })
        })
    }

    fn with_other_port(&mut self, local: &[LocalPort]) -> Vec<EndpointId> {
        let mut pairs = self.local.values().zip(local);
        if self.local.len() == local.len() && pairs.all(|(was, is)| was.is(is)) {
            return Vec::new();
        }
        let now = local
            .iter()
            .map(|port| (port.record.id.clone(), port.clone()));
        let now: BTreeMap<EndpointId, LocalPort> = now.collect();
        let differs = |id: &&EndpointId| match (self.local.get(*id), now.get(*id)) {
            (Some(was), Some(is)) => !was.is(is),
            _ => true,
        };
        let ids: BTreeSet<&EndpointId> = self.local.keys().chain(now.keys()).collect();
        let others = ids.into_iter().filter(differs).cloned().collect();
        self.local = now;
        others
    }

    fn leave_service(&mut self, id: &EndpointId, placed: &PlacedEndpoint) {
        let Some(service) = &placed.record.service else {
            return;
        };
        if let Some(members) = self.services.get_mut(service) {
            let members = Arc::make_mut(members);
            members.remove(id);
            if members.is_empty() {
                self.services.remove_mut(service);
            }
        }
    }

    fn join_service(&mut self, id: &EndpointId, placed: &PlacedEndpoint) {
        if let Some(service) = &placed.record.service {
            if let Some(members) = self.services.get_mut(service) {
                Arc::make_mut(members).insert(id.clone(), placed.clone());
            } else {
                let members = Members::from([(id.clone(), placed.clone())]);
                self.services.insert_mut(service.clone(), Arc::new(members));
            }
        }
    }
}
