//! How a name on the command line finds an object: full id, exact name, name in other case, unique
//! prefix of an id.

use super::error::CommandError;
use super::state::ClusterState;
use crate::names;
use crate::objects::{Endpoint, Network, Node, Service};

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
        let mut found = items.clone().filter(matches);
        match (found.next(), found.count()) {
            (None, _) => {}
            (Some(one), 0) => return Ok(one),
            (Some(_), more) => {
                return Err(CommandError::bad(format!(
                    "{kind} {reference} is ambiguous ({} matches found)",
                    more + 1
                )));
            }
        }
    }
    Err(CommandError::not_found(format!(
        "no such {kind}: {reference}"
    )))
}

impl ClusterState {
    /// Finds a node by id, host name or unique id prefix.
    ///
    /// # Errors
    /// `no such node: X`, or `node X is ambiguous (N matches found)`.
    pub fn find_node(&self, reference: &str) -> Result<&Node, CommandError> {
        find(
            "node",
            reference,
            self.nodes.values(),
            |n| n.id.as_str(),
            |n| &n.hostname,
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
