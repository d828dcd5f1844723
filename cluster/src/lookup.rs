//! How a name on the command line finds an object: full id, exact name, name in other case, unique
//! prefix of an id.

use weft_model::id::{EndpointId, NetworkId, NodeId, PayloadId, ServiceId, TaskId};
use weft_model::objects::{
    Endpoint, Network, Node, NodeState, Payload, PayloadKind, Service, Task,
};

use super::error::{CommandError, ErrorKind};
use super::index::{Key, folded};
use super::state::ClusterState;
use super::table::Table;

/// Ids that are listed where one name means several objects.
const IDS_SHOWN: usize = 5;

/// What a reference may lead to, by the index: the first of these that has something wins.
struct Candidates<'a, T> {
    /// The object of that id.
    by_id: Option<&'a T>,
    /// Objects of that name, as DNS compares. Clusters of earlier versions may have two names that
    /// differ in case only: those in the very letters go first.
    by_name: Vec<&'a T>,
    /// Objects whose ids begin with it.
    by_prefix: Vec<&'a T>,
}

impl<'a, T> Candidates<'a, T> {
    fn find(
        self,
        kind: &str,
        reference: &str,
        id: impl Fn(&T) -> &str,
        name: impl Fn(&T) -> &str,
    ) -> Result<&'a T, CommandError> {
        if let Some(found) = self.by_id {
            return Ok(found);
        }
        let exact = self.by_name.iter().copied();
        let exact = exact.filter(|one| name(one) == reference).collect();
        for found in [exact, self.by_name, self.by_prefix] {
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
                        "{kind} {reference} is ambiguous ({} matches found): say which one by its \
                         id: {}{more}",
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
}

/// Objects of a table whose ids begin with `reference`, which is `first` as an id.
fn with_prefix<'a, K: Ord, T>(
    table: &'a Table<K, T>,
    first: K,
    id: fn(&K) -> &str,
    reference: &str,
) -> Vec<&'a T> {
    if reference.is_empty() {
        return Vec::new();
    }
    let rest = table.starting_at(first);
    let with = rest.take_while(|(key, _)| id(key).starts_with(reference));
    with.map(|(_, object)| object).collect()
}

fn is_in_slot(task: &Task, slot: &str) -> bool {
    match &task.node {
        Some(node) if task.slot == 0 => node.as_str() == slot,
        _ => slot.parse() == Ok(task.slot),
    }
}

impl ClusterState {
    /// Finds a node by id, host name or unique id prefix. Of several with one name, as a host leaves
    /// behind that left and joined again, it is the only one that is not down.
    ///
    /// # Errors
    /// `no such node: X`, or `node X is ambiguous (N matches found)`.
    pub fn find_node(&self, reference: &str) -> Result<&Node, CommandError> {
        let first = NodeId::from(reference);
        let by_name: Vec<&Node> = self.nodes_at(Key::Name(folded(reference))).collect();
        let by_id = self.nodes.get(&first);
        let exact = by_name.iter().any(|n| n.description.hostname == reference);
        let mut there = by_name.iter().filter(|n| {
            n.status.state != NodeState::Down && (n.description.hostname == reference || !exact)
        });
        if let (Some(node), None, None) = (there.next(), there.next(), by_id) {
            return Ok(node);
        }
        let by_prefix = with_prefix(&self.nodes, first, NodeId::as_str, reference);
        let candidates = Candidates {
            by_id,
            by_name,
            by_prefix,
        };
        candidates.find(
            "node",
            reference,
            |n| n.id.as_str(),
            |n| &n.description.hostname,
        )
    }

    /// Finds a network by id, name or unique id prefix. One that ends has no name any more.
    ///
    /// # Errors
    /// `no such network: X`, or `network X is ambiguous (N matches found)`.
    pub fn find_network(&self, reference: &str) -> Result<&Network, CommandError> {
        let first = NetworkId::from(reference);
        let candidates = Candidates {
            by_id: self.networks.get(&first),
            by_name: self.networks_at(Key::Name(folded(reference))).collect(),
            by_prefix: with_prefix(&self.networks, first, NetworkId::as_str, reference),
        };
        candidates.find("network", reference, |n| n.id.as_str(), |n| &n.spec.name)
    }

    /// Finds a network that somebody new may come onto, as [`Self::find_network`].
    ///
    /// # Errors
    /// As of [`Self::find_network`], also where it was removed and waits for its last task.
    pub fn find_lasting_network(&self, reference: &str) -> Result<&Network, CommandError> {
        let network = self.find_network(reference)?;
        if network.ending {
            return Err(CommandError::not_found(format!(
                "no such network: {reference} ({} was removed, and ends with its last task)",
                network.spec.name
            )));
        }
        Ok(network)
    }

    /// Finds a secret or a config by id, name, in its very letters, or unique id prefix.
    ///
    /// # Errors
    /// `secret not found: X`, or `secret X is ambiguous (N matches found)`; the same of a config.
    pub fn find_payload(
        &self,
        kind: PayloadKind,
        reference: &str,
    ) -> Result<&Payload, CommandError> {
        let first = PayloadId::from(reference);
        let named = Key::PayloadName(kind, reference.to_owned());
        let of_kind = |payload: &&Payload| payload.kind == kind;
        let by_id = self.payloads.get(&first).filter(of_kind);
        let by_prefix = with_prefix(&self.payloads, first, PayloadId::as_str, reference);
        let candidates = Candidates {
            by_id,
            by_name: self.payloads_at(named).collect(),
            by_prefix: by_prefix.into_iter().filter(of_kind).collect(),
        };
        let found = candidates.find(
            &kind.to_string(),
            reference,
            |p| p.id.as_str(),
            |p| &p.spec.name,
        );
        found.map_err(|error| match error.kind {
            ErrorKind::NotFound => {
                CommandError::not_found(format!("{kind} not found: {reference}"))
            }
            _ => error,
        })
    }

    /// Finds a service by id, name or unique id prefix.
    ///
    /// # Errors
    /// `no such service: X`, or `service X is ambiguous (N matches found)`.
    pub fn find_service(&self, reference: &str) -> Result<&Service, CommandError> {
        let first = ServiceId::from(reference);
        let candidates = Candidates {
            by_id: self.services.get(&first),
            by_name: self.services_at(Key::Name(folded(reference))).collect(),
            by_prefix: with_prefix(&self.services, first, ServiceId::as_str, reference),
        };
        candidates.find("service", reference, |s| s.id.as_str(), |s| &s.spec.name)
    }

    /// Finds a task by id, by `SERVICE.SLOT`, which is the newest of the slot that has not ended, or else
    /// the newest, by that with its id behind it, or by unique id prefix. Of global services the id of
    /// the node stands for the slot.
    ///
    /// # Errors
    /// `no such task: X`, or `task X is ambiguous (N matches found)`.
    pub fn find_task(&self, reference: &str) -> Result<&Task, CommandError> {
        let first = TaskId::from(reference);
        let candidates = Candidates {
            by_id: self.tasks.get(&first),
            by_name: self.task_in_slot(reference).into_iter().collect(),
            by_prefix: with_prefix(&self.tasks, first, TaskId::as_str, reference),
        };
        candidates.find("task", reference, |t| t.id.as_str(), |t| &t.service_name)
    }

    fn task_in_slot(&self, reference: &str) -> Option<&Task> {
        let (service, slot) = reference.split_once('.')?;
        let service = self.services_at(Key::Name(folded(service))).next()?;
        let (slot, id) = match slot.split_once('.') {
            Some((slot, id)) => (slot, Some(id)),
            None => (slot, None),
        };
        let tasks = self
            .tasks_of(&service.id)
            .filter(|task| is_in_slot(task, slot) && id.is_none_or(|id| task.id.as_str() == id));
        tasks.max_by_key(|task| {
            let lives = !task.status.state.is_terminal();
            (lives, task.meta.created_at, task.id.clone())
        })
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
        let here = |endpoint: &&Endpoint| endpoint.attachment.network == network.id;
        let first = EndpointId::from(reference);
        let named = Key::NameOn(network.id.clone(), folded(reference));
        let by_id = self.endpoints.get(&first).filter(here);
        let by_prefix = with_prefix(&self.endpoints, first, EndpointId::as_str, reference);
        let candidates = Candidates {
            by_id,
            by_name: self.endpoints_at(named).collect(),
            by_prefix: by_prefix.into_iter().filter(here).collect(),
        };
        candidates.find(
            "endpoint",
            reference,
            |e| e.attachment.endpoint.as_str(),
            |e| &e.name,
        )
    }
}
