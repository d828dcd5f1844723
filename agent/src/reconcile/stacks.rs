//! Of which stack the sandboxes of this node are, for their resolvers: names inside a stack are told
//! to its members. A label of a service says so, and replaces no task, so resolvers follow the orders.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::assignment::Assignment;
use weft_model::id::{EndpointId, ServiceId};

use super::places::Place;
use crate::dns::DnsServer;

/// The stack of who is of these services; of two stacks the first by its name.
pub(super) fn stack_of<'s>(
    orders: &Assignment,
    services: impl Iterator<Item = &'s ServiceId>,
) -> Option<String> {
    let stacks = services.filter_map(|id| {
        let mut known = orders.shared.services.iter();
        known.find(|known| known.id == *id)?.stack.as_deref()
    });
    stacks.min().map(str::to_owned)
}

/// Tells the resolvers of tasks. Those of a service that was removed keep the names that they have
/// until they have ended.
pub(super) fn tell_tasks(dns: &DnsServer, orders: &Assignment) {
    let services = stacks(orders);
    for task in &orders.own.tasks {
        if let Some(stack) = services.get(&task.service) {
            dns.set_stack(task.id.as_str(), *stack);
        }
    }
}

/// Tells the resolvers of sandboxes that somebody else owns.
pub(super) fn tell_places(
    dns: &DnsServer,
    orders: &Assignment,
    known: &BTreeMap<EndpointId, Place>,
) {
    let endpoints = orders.own.endpoints.iter();
    let mut of_services = endpoints
        .filter_map(|endpoint| Some((endpoint, endpoint.service.as_ref()?)))
        .peekable();
    if of_services.peek().is_none() {
        return;
    }
    let services = stacks(orders);
    let mut places: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (endpoint, service) in of_services {
        let place = known.get(&endpoint.attachment.endpoint);
        if let (Some(place), Some(stack)) = (place, services.get(service)) {
            let of_place = places.entry(place.resolver()).or_default();
            of_place.extend(*stack);
        }
    }
    for (resolver, stacks) in places {
        dns.set_stack(&resolver, stacks.first().copied());
    }
}

fn stacks(orders: &Assignment) -> BTreeMap<&ServiceId, Option<&str>> {
    let services = orders.shared.services.iter();
    let stacks = services.map(|service| (&service.id, service.stack.as_deref()));
    stacks.collect()
}
