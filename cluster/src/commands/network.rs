//! Networks.

use weft_model::id::NetworkId;
use weft_model::names;
use weft_model::objects::{Meta, Network, NetworkSpec};

use super::super::conditions::is_active;
use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::index::{Key, folded};
use super::super::object::Change;
use super::super::routes::HostRoute;
use super::super::state::ClusterState;
use super::super::{ending, sizes, subnets};

/// No option is known yet: one that changed nothing would promise what is not there.
fn check_options(spec: &NetworkSpec) -> Result<(), CommandError> {
    let Some(key) = spec.options.keys().next() else {
        return Ok(());
    };
    let instead = match key.as_str() {
        "encrypted" => {
            "traffic between nodes is not encrypted; leave it out, and where that is needed give the \
             nodes an encrypted link (WireGuard, IPsec) with --data-path-addr"
        }
        "com.docker.network.driver.mtu" => {
            "the MTU follows from the link of the data path; leave it out"
        }
        _ => "leave it out",
    };
    Err(CommandError::bad(format!(
        "network option {key:?} is not known (there are none in this version): {instead}"
    )))
}

/// Adds the network to the draft.
pub(super) fn build(
    draft: &mut Draft<'_>,
    mut spec: NetworkSpec,
    reserved: &[HostRoute],
) -> Result<Network, CommandError> {
    let vni = subnets::next_vni(&draft.state)?;
    let (ipam, from_pool) = subnets::allocate(&draft.state, &spec, vni, reserved)?;
    spec.ipam = ipam;
    let mut counters = draft.state.counters.clone();
    counters.last_vni = vni;
    counters.last_subnet = from_pool.or(counters.last_subnet);
    draft.put(counters);
    let id = NetworkId::from_entropy(draft.entropy.next_u128());
    draft.put(Network {
        id: id.clone(),
        meta: Meta::default(),
        spec,
        vni,
        ending: false,
    });
    let network = draft.state.networks.get(&id).cloned();
    network.ok_or_else(|| CommandError::unavailable("the new network vanished"))
}

/// `weft network create`. `reserved` are the routes of the manager's host: no subnet may overlap
/// with one that is a claim ([`HostRoute::is_claim`]).
///
/// # Errors
/// A name in use or not valid, an option that is not known, a subnet that overlaps (the text says
/// with what), no room in the pools, a second ingress network.
pub fn create_network(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    spec: NetworkSpec,
    reserved: &[HostRoute],
) -> Result<Planned<Network>, CommandError> {
    names::check("network", &spec.name)?;
    names::check_labels(&spec.labels)?;
    sizes::check_labels(&spec.labels)?;
    let predefined = ["host", "none", "bridge"];
    if predefined.iter().any(|name| names::same(name, &spec.name)) {
        return Err(CommandError::forbidden(format!(
            "{} is a pre-defined network and cannot be created",
            spec.name
        )));
    }
    let mut networks = state.networks_at(Key::Name(folded(&spec.name)));
    if let Some(other) = networks.next() {
        return Err(CommandError::conflict(format!(
            "network with name {} already exists",
            other.spec.name
        )));
    }
    if let Some(ingress) = state.ingress().filter(|_| spec.ingress) {
        return Err(CommandError::conflict(format!(
            "ingress network ({}) is already present",
            ingress.spec.name
        )));
    }
    check_options(&spec)?;
    let mut draft = Draft::new(state, now, entropy);
    let network = build(&mut draft, spec, reserved)?;
    Ok(draft.plan(network))
}

/// `weft network rm`: also forgets the network's static peers. Where tasks that are to stop are still
/// on it, its name is free at once, and it goes with the last of them ([`Network::ending`]). That is
/// swarmkit's rule, by which a stack can be removed in one go.
///
/// # Errors
/// It does not exist, is the ingress network, or a service, a task that is wanted or an endpoint is
/// attached to it; the text says what.
pub fn remove_network(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
) -> Result<Vec<Change>, CommandError> {
    let network = state.find_lasting_network(reference)?;
    let name = &network.spec.name;
    if network.spec.ingress {
        return Err(CommandError::forbidden(format!(
            "ingress network {name} cannot be removed: every node accepts published ports through it"
        )));
    }
    let here = || Key::Network(network.id.clone());
    for service in state.services_at(here()) {
        let networks = &service.spec.task.networks;
        if networks.iter().any(|n| n.target == network.id.0) {
            return Err(CommandError::conflict(format!(
                "network {name} is in use by service {}; remove the service first",
                service.spec.name
            )));
        }
    }
    let mut tasks = state.tasks_at(here());
    if let Some(task) = tasks.find(|task| is_active(task)) {
        return Err(CommandError::conflict(format!(
            "network {name} is in use by task {}; try again when it has stopped",
            task.name()
        )));
    }
    if let Some(endpoint) = state.endpoints_at(here()).next() {
        let node = state
            .nodes
            .get(&endpoint.node)
            .map_or(endpoint.node.as_str(), |n| &n.description.hostname);
        return Err(CommandError::conflict(format!(
            "network {name} is in use by endpoint {} on node {node}; run \"weft network disconnect \
             {name} {}\" there first, or with --force here",
            endpoint.name, endpoint.name
        )));
    }
    let mut draft = Draft::new(state, now, entropy);
    if ending::is_held(state, &network.id) {
        draft.put(Network {
            ending: true,
            ..network.clone()
        });
    } else {
        ending::forget(&mut draft, &network.id);
    }
    Ok(draft.into_changes())
}
