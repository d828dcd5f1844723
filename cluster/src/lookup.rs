//! How a name on the command line finds an object: full id, exact name, name in other case, unique
//! prefix of an id.

use weft_model::names;
use weft_model::objects::{Endpoint, Network, Node, NodeState, Service};

use super::error::CommandError;
use super::state::ClusterState;

/// Ids that are listed where one name means several objects.
const IDS_SHOWN: usize = 5;

/// In order: earlier ones win.
#[derive(Debug, Clone, Copy)]
enum By {
    Name,
    /// As DNS compares. Clusters of earlier versions may have two names that differ in case only.
    NameInAnyCase,
    IdPrefix,
}

fn find<'a, T>(
    kind: &str,
    reference: &str,
    items: impl Iterator<Item = &'a T> + Clone,
    id: impl Fn(&T) -> &str,
    name: impl Fn(&T) -> &str,
) -> Result<&'a T, CommandError> {
    if let Some(found) = items.clone().find(|i| id(i) == reference) {
        return Ok(found);
    }
    for by in [By::Name, By::NameInAnyCase, By::IdPrefix] {
        let matches = |i: &&'a T| match by {
            By::Name => name(i) == reference,
            By::NameInAnyCase => names::same(name(i), reference),
            By::IdPrefix => !reference.is_empty() && id(i).starts_with(reference),
        };
        let found: Vec<&T> = items.clone().filter(matches).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let ids: Vec<&str> = several.iter().take(IDS_SHOWN).map(|i| id(i)).collect();
                let more = if several.len() > ids.len() {
                    ", …"
                } else {
                    ""
                };
                return Err(CommandError::bad(format!(
                    "{kind} {reference} is ambiguous ({} matches found): say which one by its id: \
                     {}{more}",
                    several.len(),
                    ids.join(", ")
                )));
            }
        }
    }
    Err(CommandError::not_found(format!(
        "no such {kind}: {reference}"
    )))
}

impl ClusterState {
    /// Finds a node by id, host name or unique id prefix. Of several with one name, as a host leaves
    /// behind that left and joined again, it is the only one that is not down.
    ///
    /// # Errors
    /// `no such node: X`, or `node X is ambiguous (N matches found)`.
    pub fn find_node(&self, reference: &str) -> Result<&Node, CommandError> {
        let nodes = self.nodes.values();
        let exact = nodes.clone().any(|n| n.description.hostname == reference);
        let mut there = nodes.clone().filter(|n| {
            n.status.state != NodeState::Down
                && (n.description.hostname == reference
                    || !exact && names::same(&n.description.hostname, reference))
        });
        let an_id = nodes.clone().any(|n| n.id.as_str() == reference);
        if let (Some(node), None, false) = (there.next(), there.next(), an_id) {
            return Ok(node);
        }
        find(
            "node",
            reference,
            self.nodes.values(),
            |n| n.id.as_str(),
            |n| &n.description.hostname,
        )
    }

    /// Finds a network by id, name or unique id prefix.
    ///
    /// # Errors
    /// `no such network: X`, or `network X is ambiguous (N matches found)`.
    pub fn find_network(&self, reference: &str) -> Result<&Network, CommandError> {
        find(
            "network",
            reference,
            self.networks.values(),
            |n| n.id.as_str(),
            |n| &n.spec.name,
        )
    }

    /// Finds a service by id, name or unique id prefix.
    ///
    /// # Errors
    /// `no such service: X`, or `service X is ambiguous (N matches found)`.
    pub fn find_service(&self, reference: &str) -> Result<&Service, CommandError> {
        find(
            "service",
            reference,
            self.services.values(),
            |s| s.id.as_str(),
            |s| &s.spec.name,
        )
    }

    /// Finds an endpoint of one network by id, name or unique id prefix.
    ///
    /// # Errors
    /// `no such endpoint: X`, or `endpoint X is ambiguous (N matches found)`.
    pub fn find_endpoint(
        &self,
        network: &Network,
        reference: &str,
    ) -> Result<&Endpoint, CommandError> {
        find(
            "endpoint",
            reference,
            self.endpoints
                .values()
                .filter(|e| e.attachment.network == network.id),
            |e| e.attachment.endpoint.as_str(),
            |e| &e.name,
        )
    }
}
