//! API objects as rows of docker's tables (docker/cli `cli/command/*/formatter.go`).

use std::cmp::{Ordering, Reverse};

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_images::ImageName;
use weft_model::api::{NodeRow, ServiceDetail, TaskRow, TlsStatus, Volume};
use weft_model::objects::{
    Network, NodeState, PortSpec, PublishMode, Reachability, Runtime, ServiceMode, TaskState,
};

use crate::output::{Listing, ago};

/// Longest error text in a table, in characters.
const MAX_ERROR: usize = 30;

/// `node ls`
pub(super) fn nodes(mut nodes: Vec<NodeRow>) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
            ("Self", ""),
            ("Hostname", "HOSTNAME"),
            ("Status", "STATUS"),
            ("Availability", "AVAILABILITY"),
            ("ManagerStatus", "MANAGER STATUS"),
            ("TLSStatus", "TLS STATUS"),
            ("EngineVersion", "ENGINE VERSION"),
            ("Addr", "ADDRESS"),
        ],
        "{{truncate .ID 12}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
        "ID",
    );
    nodes.sort_by(|a, b| {
        let (x, y) = (&a.node.description.hostname, &b.node.description.hostname);
        natural(x, y).then(a.node.id.cmp(&b.node.id))
    });
    for row in nodes {
        let manager = match &row.node.manager_status {
            Some(manager) if manager.leader => "Leader".to_owned(),
            // It has no place in the managers' log yet.
            Some(manager) if manager.reachability == Reachability::Unknown => String::new(),
            Some(manager) => word(&manager.reachability),
            None => String::new(),
        };
        listing.push(json!({
            "ID": row.node.id,
            "Self": row.is_self,
            "Hostname": row.node.description.hostname,
            "Status": status(&row),
            "Availability": word(&row.node.spec.availability),
            "Role": word(&row.node.spec.role),
            "ManagerStatus": manager,
            "TLSStatus": match row.tls {
                TlsStatus::Unknown => "Unknown",
                TlsStatus::Ready => "Ready",
                TlsStatus::NeedsRotation => "Needs Rotation",
            },
            "Labels": row.node.spec.labels,
            // Nobody waits to be accepted.
            "Membership": "Accepted",
            "EngineVersion": row.node.description.engine.version,
            "Addr": row.node.status.addr,
            "Message": message(&row),
        }));
    }
    listing
}

/// What there is to say about the state.
pub(super) fn message(row: &NodeRow) -> String {
    match (&row.node.status.impaired, row.cloned) {
        (Some(impaired), _) => impaired.reason.clone(),
        (None, Some(cloned)) => format!(
            "it is there twice: {} has the session, the data directory of {} is a copy",
            cloned.first, cloned.second
        ),
        (None, None) => row.node.status.message.clone(),
    }
}

/// Docker's word for the state of a node, and one of ours for a node that answers its manager and
/// carries no traffic.
pub(super) fn status(row: &NodeRow) -> String {
    match (row.node.status.state, &row.node.status.impaired) {
        (NodeState::Ready, Some(_)) => "Impaired".to_owned(),
        (state, _) if row.cloned.is_some() => format!("{} (cloned)", word(&state)),
        (state, _) => word(&state),
    }
}

/// `volume ls`, perhaps with a column for nodes.
pub(super) fn volumes(mut volumes: Vec<Volume>, with_nodes: bool) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Driver", "DRIVER"),
            ("Name", "VOLUME NAME"),
            ("Node", "NODE"),
        ],
        if with_nodes {
            "{{.Driver}}\t{{.Name}}\t{{.Node}}"
        } else {
            "{{.Driver}}\t{{.Name}}"
        },
        "Name",
    );
    volumes.sort_by(|a, b| natural(&a.name, &b.name).then_with(|| natural(&a.node, &b.node)));
    for volume in &volumes {
        listing.push(volume_row(volume));
    }
    listing
}

fn volume_row(volume: &Volume) -> Value {
    let labels = volume.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "Name": volume.name,
        "Driver": volume.driver,
        "Scope": volume.scope,
        "Mountpoint": volume.mountpoint,
        "Labels": labels.join(","),
        "Node": volume.node,
        "Links": volume.usage_data.map(|usage| usage.ref_count.to_string()),
    })
}

/// `network ls`
pub(super) fn networks(mut networks: Vec<Network>, no_trunc: bool) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "NETWORK ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("Scope", "SCOPE"),
            ("Subnets", "SUBNETS"),
            ("VNI", "VNI"),
        ],
        if no_trunc {
            "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
        } else {
            "{{truncate .ID 12}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
        },
        "ID",
    );
    networks.sort_by(|a, b| natural(&a.spec.name, &b.spec.name));
    for network in networks {
        let subnets = network.subnets().iter().map(|s| s.cidr.to_string());
        let subnets: Vec<_> = subnets.collect();
        let labels = network.spec.labels.iter();
        let labels: Vec<_> = labels.map(|(k, v)| format!("{k}={v}")).collect();
        listing.push(json!({
            "ID": network.id,
            "Name": network.spec.name,
            "Driver": network.spec.driver,
            "Scope": network.spec.scope,
            "Internal": network.spec.internal,
            "Attachable": network.spec.attachable,
            "IPv6": network.spec.ipv6,
            "Ingress": network.spec.ingress,
            "Labels": labels.join(","),
            "Subnets": subnets.join(","),
            "VNI": network.vni,
            "CreatedAt": time(network.meta.created_at),
        }));
    }
    listing
}

/// `service ls`
pub(super) fn services(mut services: Vec<ServiceDetail>) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Mode", "MODE"),
            ("Replicas", "REPLICAS"),
            ("Image", "IMAGE"),
            ("Ports", "PORTS"),
        ],
        "{{truncate .ID 12}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
        "ID",
    );
    services.sort_by(|a, b| natural(&a.service.spec.name, &b.service.spec.name));
    for detail in services {
        let spec = &detail.service.spec;
        listing.push(json!({
            "ID": detail.service.id,
            "Name": spec.name,
            "Mode": match spec.mode {
                ServiceMode::Replicated { .. } => "replicated",
                ServiceMode::Global => "global",
                ServiceMode::ReplicatedJob { .. } => "replicated job",
                ServiceMode::GlobalJob => "global job",
            },
            "Labels": spec.labels,
            "Replicas": replicas(&detail),
            "Image": image(&spec.task.container.image),
            "Ports": ports(&detail.service.endpoint.ports, PublishMode::Ingress),
            "PortErrors": detail.port_errors,
            "Waiting": detail.waiting,
        }));
    }
    listing
}

/// `1/2`, `1/2 (max 1 per node)`, of a job `1/1 (3/5 completed)`.
pub(super) fn replicas(detail: &ServiceDetail) -> String {
    let (status, spec) = (&detail.status, &detail.service.spec);
    let now = format!("{}/{}", status.running, status.desired);
    let most = spec.task.placement.max_replicas;
    match spec.mode {
        ServiceMode::Replicated { .. } if most > 0 => format!("{now} (max {most} per node)"),
        ServiceMode::Replicated { .. } | ServiceMode::Global => now,
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => format!("{now} ({}/{total_completions} completed)", status.completed),
        ServiceMode::GlobalJob => {
            let total = status.desired.saturating_add(status.completed);
            format!("{now} ({}/{total} completed)", status.completed)
        }
    }
}

/// How much of tasks is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TaskWords {
    /// Ids and errors as long as they are.
    pub(super) whole: bool,
    /// Ids of nodes and services in place of names.
    pub(super) ids: bool,
}

/// The name of an image as people write it, without the digest where it has a tag.
fn image(name: &str) -> String {
    match name.parse::<ImageName>() {
        Ok(image) if Runtime::of_image(name) == Runtime::Container && image.tag().is_some() => {
            image.familiar_short()
        }
        _ => name.to_owned(),
    }
}

/// `service ps`: newest first within a slot, older ones indented below.
pub(super) fn tasks(mut tasks: Vec<TaskRow>, words: TaskWords, now: Timestamp) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
            ("Indent", ""),
            ("Name", "NAME"),
            ("Image", "IMAGE"),
            ("Node", "NODE"),
            ("DesiredState", "DESIRED STATE"),
            ("CurrentState", "CURRENT STATE"),
            ("Error", "ERROR"),
            ("Ports", "PORTS"),
        ],
        if words.whole {
            "{{.ID}}\t{{.Indent}}{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}"
        } else {
            "{{truncate .ID 12}}\t{{.Indent}}{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}"
        },
        "ID",
    );
    tasks.sort_by(|a, b| {
        natural(&slot_name(a, words), &slot_name(b, words))
            .then(Reverse(a.task.meta.created_at).cmp(&Reverse(b.task.meta.created_at)))
            .then(a.task.id.cmp(&b.task.id))
    });
    let mut previous = String::new();
    for row in tasks {
        let task = &row.task;
        let name = slot_name(&row, words);
        let state = word(&task.status.state);
        listing.push(json!({
            "ID": task.id,
            "Name": name,
            "Indent": if name == previous { " \\_ " } else { "" },
            "TaskName": task.name(),
            "Service": task.service_name,
            "Slot": task.slot,
            "Image": if words.whole {
                task.spec.container.image.clone()
            } else {
                image(&task.spec.container.image)
            },
            "Node": match (&task.node, words.ids) {
                (Some(node), true) => node.as_str(),
                _ => &row.node_name,
            },
            "NodeID": task.node,
            "NodeName": row.node_name,
            "DesiredState": word(&task.desired),
            "State": state,
            "CurrentState": format!("{state} {}", ago(task.status.since, now)),
            "Error": quote(&task.status.err, words.whole),
            "Message": task.status.message,
            "ExitCode": task.status.container.exit_code,
            "Ports": ports(&row.host_ports, PublishMode::Host),
            "Addresses": task.attachments.iter().map(|a| json!({
                "Network": a.network,
                "IPs": a.ips().collect::<Vec<_>>(),
                "MAC": a.mac,
            })).collect::<Vec<_>>(),
        }));
        previous = name;
    }
    listing
}

/// `web.1`; for global services the node id stands in place of the slot.
fn slot_name(row: &TaskRow, words: TaskWords) -> String {
    let service = if words.ids {
        row.task.service.as_str()
    } else {
        &row.task.service_name
    };
    match (&row.task.node, row.task.slot) {
        (Some(node), 0) => format!("{service}.{node}"),
        (_, slot) => format!("{service}.{slot}"),
    }
}

fn quote(error: &str, no_trunc: bool) -> String {
    if error.is_empty() {
        String::new()
    } else if no_trunc || error.chars().count() <= MAX_ERROR {
        format!("\"{error}\"")
    } else {
        let short: String = error.chars().take(MAX_ERROR - 1).collect();
        format!("\"{short}…\"")
    }
}

/// `*:80->80/tcp`, with ports that follow each other as ranges (docker/cli `Ports`).
fn ports(ports: &[PortSpec], mode: PublishMode) -> String {
    let mut ports: Vec<_> = ports.iter().filter(|p| p.mode == mode).collect();
    ports.sort_by_key(|p| (p.protocol, p.host_ip, p.published, p.target));
    let mut runs: Vec<(&PortSpec, &PortSpec)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last))
                if last.protocol == port.protocol
                    && last.host_ip == port.host_ip
                    && last.published.checked_add(1) == Some(port.published)
                    && last.target.checked_add(1) == Some(port.target) =>
            {
                *last = port;
            }
            _ => runs.push((port, port)),
        }
    }
    let range = |first: u16, last: u16| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter()
        .map(|(first, last)| {
            format!(
                "{}:{}->{}/{}",
                first.host_ip.map_or_else(
                    || "*".to_owned(),
                    |ip| match ip {
                        std::net::IpAddr::V4(ip) => ip.to_string(),
                        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                    }
                ),
                range(first.published, last.published),
                range(first.target, last.target),
                first.protocol
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// The name of a state as people read it: `Running`.
pub(super) fn word<T: serde::Serialize>(state: &T) -> String {
    let Ok(Value::String(text)) = serde_json::to_value(state) else {
        return String::new();
    };
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// The name of a task's state as people read it.
pub(super) fn state_word(state: TaskState) -> String {
    word(&state).to_lowercase()
}

fn time(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map(|t| t.to_string())
        .unwrap_or_default()
}

/// Orders `node-2` before `node-10`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (left, right) = (digits(a), digits(b));
        if left > 0 && right > 0 {
            let (x, y) = (
                a[..left].trim_start_matches('0'),
                b[..right].trim_start_matches('0'),
            );
            match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
                Ordering::Equal => (a, b) = (&a[left..], &b[right..]),
                unequal => return unequal,
            }
            continue;
        }
        let (mut x, mut y) = (a.chars(), b.chars());
        match (x.next(), y.next()) {
            (None, None) => return Ordering::Equal,
            (x_first, y_first) if x_first != y_first => return x_first.cmp(&y_first),
            _ => (a, b) = (x.as_str(), y.as_str()),
        }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order() {
        let mut names = ["node-10", "node-2", "node-02a", "node", "a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "node", "node-2", "node-02a", "node-10"]);
    }

    #[test]
    fn ports_are_joined_to_ranges() {
        let port = |published, target| PortSpec {
            published,
            target,
            ..PortSpec::default()
        };
        let all = [port(81, 81), port(80, 80), port(8000, 80)];
        assert_eq!(
            ports(&all, PublishMode::Ingress),
            "*:80-81->80-81/tcp, *:8000->80/tcp"
        );
        assert_eq!(ports(&all, PublishMode::Host), "");
        let bound = PortSpec {
            host_ip: Some("::1".parse().unwrap()),
            ..port(53, 53)
        };
        assert_eq!(ports(&[bound], PublishMode::Ingress), "[::1]:53->53/tcp");
    }

    #[test]
    fn long_errors_are_cut() {
        assert_eq!(quote("", false), "");
        assert_eq!(quote("no such file", false), "\"no such file\"");
        let long = "0123456789012345678901234567890123456789";
        assert_eq!(quote(long, false), "\"01234567890123456789012345678…\"");
        assert_eq!(quote(long, true), format!("\"{long}\""));
    }
}
