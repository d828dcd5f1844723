//! What people are told of a change of the state: an event for each object that looks other than
//! before, with Docker's attributes (moby `daemon/events.go`) where it has the object.
//!
//! Two states are compared, and nothing is remembered: what came and went between them is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use weft_model::api::{Event, EventAction, EventActor, EventKind};
use weft_model::id::NodeId;
use weft_model::objects::{
    Endpoint, Meta, Network, Node, Payload, PayloadKind, Service, ServiceMode, Task, UpdateState,
};

use super::object::ObjectId;
use super::state::ClusterState;

/// The events between a state and a later one, in the order of their times. `now` in Unix
/// milliseconds is for what carries no time, such as an object that is gone.
#[must_use]
pub fn events(before: &ClusterState, after: &ClusterState, now: u64) -> Vec<Event> {
    let ids: BTreeSet<ObjectId> = match after.changed_since(before.version) {
        Some(ids) => ids.into_iter().cloned().collect(),
        None => before.ids().into_iter().chain(after.ids()).collect(),
    };
    let events = ids.iter().filter_map(|id| event(before, after, id, now));
    let mut events: Vec<Event> = events.collect();
    events.sort_by_key(Event::at_ms);
    events
}

/// The events of another manager leading, which is no part of the state.
#[must_use]
pub fn leader_events(
    state: &ClusterState,
    before: Option<&NodeId>,
    after: Option<&NodeId>,
    now: u64,
) -> Vec<Event> {
    if before == after {
        return Vec::new();
    }
    let told = [(before, false), (after, true)];
    let told = told.into_iter().filter_map(|(id, leads)| {
        let id = id?;
        let node = state.nodes.get(id);
        let name = node.map_or(id.as_str(), |node| &node.description.hostname);
        let mut attributes = Attributes::named(name);
        attributes.change("leader", &!leads, &leads);
        Some(attributes.event(EventKind::Node, EventAction::Update, id.as_str(), now))
    });
    told.collect()
}

fn event(before: &ClusterState, after: &ClusterState, id: &ObjectId, now: u64) -> Option<Event> {
    match id {
        ObjectId::Node(id) => {
            let step = Step::of(before.nodes.get(id), after.nodes.get(id))?;
            node_event(&step, now)
        }
        ObjectId::Network(id) => {
            let step = Step::of(before.networks.get(id), after.networks.get(id))?;
            network_event(&step, now)
        }
        ObjectId::Service(id) => {
            let step = Step::of(before.services.get(id), after.services.get(id))?;
            service_event(&step, now)
        }
        ObjectId::Task(id) => {
            let step = Step::of(before.tasks.get(id), after.tasks.get(id))?;
            task_event(&step, now)
        }
        ObjectId::Endpoint(id) => {
            let step = Step::of(before.endpoints.get(id), after.endpoints.get(id))?;
            let network = &step.object.attachment.network;
            let mut states = [after, before].into_iter();
            let network = states.find_map(|state| state.networks.get(network));
            endpoint_event(&step, network, now)
        }
        ObjectId::Payload(id) => {
            let step = Step::of(before.payloads.get(id), after.payloads.get(id))?;
            Some(payload_event(&step, now))
        }
        ObjectId::Cluster
        | ObjectId::Secrets
        | ObjectId::Counters
        | ObjectId::Cursor(_)
        | ObjectId::Ending(_)
        | ObjectId::Peer(_)
        | ObjectId::Removed(_) => None,
    }
}

/// What became of an object.
struct Step<'a, T> {
    action: EventAction,
    /// As it was, where it is still there.
    before: Option<&'a T>,
    /// As it is; of one that is gone, as it was.
    object: &'a T,
}

impl<'a, T: PartialEq> Step<'a, T> {
    fn of(before: Option<&'a T>, after: Option<&'a T>) -> Option<Self> {
        let (action, before, object) = match (before, after) {
            (None, Some(new)) => (EventAction::Create, None, new),
            (Some(old), Some(new)) if old != new => (EventAction::Update, Some(old), new),
            (Some(old), None) => (EventAction::Remove, None, old),
            (None, None) | (Some(_), Some(_)) => return None,
        };
        Some(Self {
            action,
            before,
            object,
        })
    }

    fn at(&self, meta: &Meta, now: u64) -> u64 {
        match self.action {
            EventAction::Create => meta.created_at,
            EventAction::Update => meta.updated_at,
            _ => now,
        }
    }
}

struct Attributes(BTreeMap<String, String>);

impl Attributes {
    fn named(name: &str) -> Self {
        Self(BTreeMap::from([("name".to_owned(), name.to_owned())]))
    }

    fn put(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// Tells a value that is another one. Names of states are those of the API, in lower case.
    fn change<T: PartialEq + Debug>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.put(&format!("{key}.old"), &word(old));
            self.put(&format!("{key}.new"), &word(new));
        }
    }

    fn event(self, kind: EventKind, action: EventAction, id: &str, at_ms: u64) -> Event {
        let actor = EventActor {
            id: id.to_owned(),
            attributes: self.0,
        };
        Event::new(kind, action, actor, at_ms)
    }
}

fn word(value: &impl Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// A new certificate, another wording and where its tasks' connections come from are no news.
fn node_event(step: &Step<'_, Node>, now: u64) -> Option<Event> {
    let node = step.object;
    let mut attributes = Attributes::named(&node.description.hostname);
    if let Some(old) = step.before {
        let same = old.spec == node.spec
            && old.description == node.description
            && old.status.state == node.status.state
            && old.status.addr == node.status.addr
            && old.status.impaired.is_some() == node.status.impaired.is_some()
            && old.manager_addr() == node.manager_addr();
        if same {
            return None;
        }
        let (was, is) = (&old.spec, &node.spec);
        attributes.change("availability", &was.availability, &is.availability);
        attributes.change("role", &was.role, &is.role);
        let (was, is) = (&old.status, &node.status);
        attributes.change("state", &was.state, &is.state);
        attributes.change("addr", &was.addr, &is.addr);
        attributes.change("impaired", &was.impaired.is_some(), &is.impaired.is_some());
    }
    let at = step.at(&node.meta, now);
    Some(attributes.event(EventKind::Node, step.action, node.id.as_str(), at))
}

fn payload_event(step: &Step<'_, Payload>, now: u64) -> Event {
    let payload = step.object;
    let kind = match payload.kind {
        PayloadKind::Secret => EventKind::Secret,
        PayloadKind::Config => EventKind::Config,
    };
    let at = step.at(&payload.meta, now);
    Attributes::named(&payload.spec.name).event(kind, step.action, payload.id.as_str(), at)
}

/// One that ends is news once it is gone.
fn network_event(step: &Step<'_, Network>, now: u64) -> Option<Event> {
    let network = step.object;
    if step.before.is_some_and(|old| old.spec == network.spec) {
        return None;
    }
    let attributes = Attributes::named(&network.spec.name);
    let at = step.at(&network.meta, now);
    Some(attributes.event(EventKind::Network, step.action, network.id.as_str(), at))
}

fn service_event(step: &Step<'_, Service>, now: u64) -> Option<Event> {
    let service = step.object;
    let mut attributes = Attributes::named(&service.spec.name);
    if let Some(old) = step.before {
        let state = |service: &Service| service.update_status.as_ref().map(|s| s.state);
        let (was, is) = (state(old), state(service));
        if old.spec == service.spec && old.endpoint == service.endpoint && was == is {
            return None;
        }
        if was != is {
            let word = |state: Option<UpdateState>| state.map_or("", UpdateState::word);
            attributes.put("updatestate.old", word(was));
            attributes.put("updatestate.new", word(is));
        }
        let image = |service: &Service| service.spec.task.container.image.clone();
        let (was, is) = (image(old), image(service));
        if was != is {
            attributes.put("image.old", &was);
            attributes.put("image.new", &is);
        }
        if let (
            ServiceMode::Replicated { replicas: was },
            ServiceMode::Replicated { replicas: is },
        ) = (old.spec.mode, service.spec.mode)
        {
            attributes.change("replicas", &was, &is);
        }
    }
    let at = step.at(&service.meta, now);
    Some(attributes.event(EventKind::Service, step.action, service.id.as_str(), at))
}

fn task_event(step: &Step<'_, Task>, now: u64) -> Option<Event> {
    let task = step.object;
    let mut attributes = Attributes::named(&task.name());
    if let Some(old) = step.before {
        let same = old.desired == task.desired
            && old.node == task.node
            && old.status.state == task.status.state
            && old.status.err == task.status.err;
        if same {
            return None;
        }
        attributes.change("desiredstate", &old.desired, &task.desired);
        attributes.change("state", &old.status.state, &task.status.state);
    }
    attributes.put("service", &task.service_name);
    if let Some(node) = &task.node {
        attributes.put("node", node.as_str());
    }
    if !task.status.err.is_empty() {
        attributes.put("error", &task.status.err);
    }
    if let Some(code) = task.status.container.exit_code {
        attributes.put("exitCode", &code.to_string());
    }
    let at = step.at(&task.meta, now);
    Some(attributes.event(EventKind::Task, step.action, task.id.as_str(), at))
}

/// As Docker tells of containers: an event of the network.
fn endpoint_event(step: &Step<'_, Endpoint>, on: Option<&Network>, now: u64) -> Option<Event> {
    let action = match step.action {
        EventAction::Create => EventAction::Connect,
        EventAction::Remove => EventAction::Disconnect,
        _ => return None,
    };
    let endpoint = step.object;
    let id = &endpoint.attachment.network;
    let mut attributes = Attributes::named(on.map_or(id.as_str(), |on| &on.spec.name));
    attributes.put("container", &endpoint.name);
    attributes.put("node", endpoint.node.as_str());
    attributes.put("type", "overlay");
    Some(attributes.event(EventKind::Network, action, id.as_str(), now))
}
