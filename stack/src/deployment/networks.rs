//! Networks (docker/cli `cli/compose/convert/compose.go`), and services on them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_model::names;
use weft_model::objects::{Ipam, NetworkAttachmentSpec, NetworkSpec};

use super::{StackNetwork, Work};
use crate::model::{External, Network, Service};
use crate::problem::{Position, below};

/// The network of services that name none.
const DEFAULT: &str = "default";
/// Networks of docker that are no networks of a swarm.
const PREDEFINED: [&str; 3] = ["host", "none", "bridge"];
/// Names of a service on one network, beside its own, as managers count them.
const MAX_ALIASES: usize = 32;

/// Those that services use. Others are not made, as docker makes none of them.
pub(super) fn networks(work: &mut Work<'_>) -> Vec<StackNetwork> {
    let stack = work.stack;
    let mut used: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in &stack.services {
        for key in keys(service) {
            used.entry(key).or_insert(service);
        }
    }
    let unwritten = Network::default();
    let mut networks: Vec<StackNetwork> = Vec::with_capacity(used.len());
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (key, service) in used {
        let (network, at) = match stack.networks.get(key) {
            Some(network) => (network, &network.at),
            None => (&unwritten, &service.at),
        };
        let made = convert(key, network, at, work);
        if !made.external
            && let Some(other) = owners.insert(made.spec.name.to_ascii_lowercase(), key)
        {
            let what = format!("has the name {:?}, as networks.{other} has", made.spec.name);
            let mend = "give one of them another `name`";
            let path = below("networks", key);
            work.findings.error(at, &path, what, mend);
        }
        networks.push(made);
    }
    networks
}

/// The networks of a service by their names in the file.
fn keys(service: &Service) -> Vec<&str> {
    if service.networks.is_empty() {
        return vec![DEFAULT];
    }
    service.networks.keys().map(String::as_str).collect()
}

/// The name of a network in the swarm.
fn name(key: &str, work: &Work<'_>) -> String {
    let network = work.stack.networks.get(key);
    work.named(network.and_then(|network| network.name.as_ref()), key)
}

fn convert(key: &str, network: &Network, at: &Position, work: &mut Work<'_>) -> StackNetwork {
    let path = below("networks", key);
    let name = name(key, work);
    let is_predefined = PREDEFINED.iter().any(|word| names::same(word, &name));
    if network.external == External::Yes {
        if is_predefined {
            let what = format!("is docker's network {name:?}, which no task can be on here");
            let mend = "take it away: a task reaches the outside by itself, and publishes ports with \
                        `mode: host` on its node";
            work.findings.error(at, &path, what, mend);
        }
        let spec = NetworkSpec {
            name,
            ..NetworkSpec::default()
        };
        return StackNetwork {
            key: key.to_owned(),
            spec,
            external: true,
        };
    }
    if is_predefined {
        let what = format!("{name} is a pre-defined network and cannot be created");
        work.findings
            .error(at, &path, what, "give it another `name`");
    } else if let Err(error) = names::check("network", &name) {
        let mend = "rename it, give it a `name`, or choose a shorter name for the stack";
        work.findings.error(at, &path, error.to_string(), mend);
    }
    if let Some(driver) = &network.driver
        && !matches!(driver.as_str(), "" | "overlay")
    {
        let what = format!("has the driver {driver:?}, and networks of a swarm are overlays");
        let mend = "write `driver: overlay`, or take the line away";
        work.findings.error(at, &path, what, mend);
    }
    for option in network.driver_opts.keys() {
        let mend = match option.as_str() {
            "encrypted" => {
                "traffic between nodes is not encrypted; leave it out, and where that is needed \
                 give the nodes an encrypted link (WireGuard, IPsec) with --data-path-addr"
            }
            "com.docker.network.driver.mtu" => {
                "the MTU follows from the link of the data path; leave it out"
            }
            _ => "leave it out",
        };
        let what = format!("has the driver option {option:?}, which weft does not know");
        work.findings.error(at, &path, what, mend);
    }
    let labels = work.labels(&network.labels);
    work.check_labels(&labels, at, &path);
    StackNetwork {
        key: key.to_owned(),
        spec: NetworkSpec {
            name,
            ipv6: network.enable_ipv6,
            ipam: ipam(network, at, &path, work),
            internal: network.internal,
            // As docker has it in a stack; services join in any case.
            attachable: network.attachable,
            labels,
            ..NetworkSpec::default()
        },
        external: false,
    }
}

fn ipam(network: &Network, at: &Position, path: &str, work: &mut Work<'_>) -> Ipam {
    let Some(ipam) = &network.ipam else {
        return Ipam::default();
    };
    if let Some(driver) = &ipam.driver
        && !matches!(driver.as_str(), "" | "default")
    {
        let what =
            format!("has the driver {driver:?} for its addresses, and weft has one of its own");
        let mend = "write `driver: default`, or take the line away";
        work.findings.error(at, &below(path, "ipam"), what, mend);
    }
    let mut subnets: Vec<IpNet> = Vec::new();
    for (index, subnet) in ipam.config.iter().enumerate() {
        let Some(text) = &subnet.subnet else {
            continue;
        };
        let path = below(path, format_args!("ipam.config.{index}.subnet"));
        match text.parse::<IpNet>() {
            Ok(subnet) if subnet.addr() == subnet.network() => subnets.push(subnet),
            Ok(subnet) => {
                let what = format!("invalid subnet {subnet}: it should be {}", subnet.trunc());
                work.findings.error(at, &path, what, "write that");
            }
            Err(_) => {
                let what = format!("is {text:?}, which is no subnet");
                work.findings
                    .error(at, &path, what, "write it as 10.1.0.0/24");
            }
        }
    }
    subnets.into_iter().collect()
}

/// Where a service is, and by which names: its own short one among those of its stack, and on the
/// networks of others for its stack alone.
pub(super) fn attachments(service: &Service, work: &mut Work<'_>) -> Vec<NetworkAttachmentSpec> {
    let mut attachments: Vec<NetworkAttachmentSpec> = Vec::new();
    let mut targets: BTreeSet<String> = BTreeSet::new();
    for key in keys(service) {
        let target = name(key, work);
        let path = below("networks", key);
        if !targets.insert(target.to_ascii_lowercase()) {
            let what = format!("is network {target} for the second time");
            work.refuse(service, &path, what, "take one of them away");
            continue;
        }
        let written = service.networks.get(key).and_then(Option::as_ref);
        if let Some(option) = written.and_then(|written| written.driver_opts.keys().next()) {
            let what = format!("has the driver option {option:?}, which weft does not know");
            work.refuse(service, &path, what, "leave it out");
        }
        let mut aliases: Vec<String> = Vec::new();
        for alias in written.iter().flat_map(|written| &written.aliases) {
            if let Err(error) = names::check("alias", alias) {
                work.refuse(service, &path, error.to_string(), "rename the alias");
            }
            if !aliases.contains(alias) {
                aliases.push(alias.clone());
            }
        }
        let network = work.stack.networks.get(key);
        let mut stack_aliases = Vec::new();
        let short = service.name.clone();
        if network.is_some_and(|network| network.external == External::Yes) {
            stack_aliases.push(short);
        } else if !aliases.contains(&short) {
            aliases.push(short);
        }
        if aliases.len() > MAX_ALIASES {
            let what = format!(
                "has {} aliases, with the name of the service, and there may be {MAX_ALIASES}",
                aliases.len()
            );
            work.refuse(service, &path, what, "take some away");
        }
        attachments.push(NetworkAttachmentSpec {
            target,
            aliases,
            stack_aliases,
        });
    }
    attachments.sort_by(|one, other| one.target.cmp(&other.target));
    attachments
}
