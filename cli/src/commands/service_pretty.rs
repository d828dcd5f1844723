//! `weft service inspect --pretty`, in docker's layout (docker/cli `cli/command/service/formatter.go`).

use std::collections::BTreeMap;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use weft_client::{Client, Refused};
use weft_model::api::ServiceDetail;
use weft_model::objects::{
    ContainerSpec, HealthConfig, Mount, Network, PayloadKind, Placement, ResourceRequirements,
    ServiceMode, UpdateConfig, UpdateStatus,
};

use crate::commands::finish;
use crate::output::{Printer, ago, bytes, duration, shown};

/// Names of networks by their ids.
type Names = BTreeMap<String, String>;

/// Shows the services that there are. What is not there is told afterwards.
pub(super) async fn show(
    client: &Client,
    found: Vec<anyhow::Result<ServiceDetail>>,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let networks: Vec<Network> = client.get("/v1/networks").await?;
    let names = networks.into_iter().map(|n| (n.id.0, n.spec.name));
    let names: Names = names.collect();
    let mut refused = Vec::new();
    for result in found {
        match result {
            Ok(service) => out.line(&pretty(&service, &names, Timestamp::now()))?,
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    out.flush()?;
    finish(&refused)
}

/// The word of the node API.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn pretty(detail: &ServiceDetail, names: &Names, now: Timestamp) -> String {
    let service = &detail.service;
    let spec = &service.spec;
    let mut lines = vec![
        String::new(),
        format!("ID:\t\t{}", shown(service.id.as_str())),
        format!("Name:\t\t{}", shown(&spec.name)),
    ];
    if !spec.labels.is_empty() {
        lines.push("Labels:".to_owned());
    }
    for (key, value) in &spec.labels {
        lines.push(match value.as_str() {
            "" => format!(" {}", shown(key)),
            value => format!(" {}={}", shown(key), shown(value)),
        });
    }
    mode(spec.mode, &mut lines);
    if let Some(status) = &service.update_status {
        update_status(status, now, &mut lines);
    }
    placement(&spec.task.placement, &mut lines);
    if !spec.mode.is_job() {
        policy(
            &spec.update,
            ["UpdateConfig:", " Update order:      "],
            &mut lines,
        );
        policy(
            &spec.rollback,
            ["RollbackConfig:", " Rollback order:    "],
            &mut lines,
        );
    }
    container(&spec.task.container, &mut lines);
    resources(&spec.task.resources, &mut lines);
    let networks = spec.task.networks.iter().map(|network| {
        let name = names.get(&network.target).unwrap_or(&network.target);
        format!("{} ", shown(name))
    });
    let networks: String = networks.collect();
    if !networks.is_empty() {
        lines.push(format!("Networks: {networks}"));
    }
    lines.push(format!("Endpoint Mode:\t{}", word(spec.endpoint.mode)));
    if spec.names_before_healthy {
        lines.push("Names Before Healthy:\ttrue".to_owned());
    }
    ports(detail, &mut lines);
    if let Some(health) = &spec.task.container.health {
        healthcheck(health, &mut lines);
    }
    lines.join("\n")
}

fn mode(mode: ServiceMode, lines: &mut Vec<String>) {
    let word = match mode {
        ServiceMode::Replicated { .. } => "Replicated",
        ServiceMode::Global => "Global",
        ServiceMode::ReplicatedJob { .. } => "Replicated Job",
        ServiceMode::GlobalJob => "Global Job",
    };
    lines.push(format!("Service Mode:\t{word}"));
    match mode {
        ServiceMode::Replicated { replicas } => lines.push(format!(" Replicas:\t{replicas}")),
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => {
            lines.push(format!(" Max Concurrent:\t{max_concurrent}"));
            lines.push(format!(" Total Completions:\t{total_completions}"));
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {}
    }
}

fn update_status(status: &UpdateStatus, now: Timestamp, lines: &mut Vec<String>) {
    lines.push("UpdateStatus:".to_owned());
    lines.push(format!(" State:\t\t{}", word(status.state)));
    lines.push(format!(" Started:\t{}", ago(status.started_at, now)));
    if let Some(completed) = status.completed_at {
        lines.push(format!(" Completed:\t{}", ago(completed, now)));
    }
    lines.push(format!(" Message:\t{}", shown(&status.message)));
}

fn placement(placement: &Placement, lines: &mut Vec<String>) {
    if placement.is_empty() {
        return;
    }
    lines.push("Placement:".to_owned());
    if !placement.constraints.is_empty() {
        let constraints = placement.constraints.join(" ");
        lines.push(format!(" Constraints:\t[{}]", shown(&constraints)));
    }
    let preferences = placement.preferences.iter();
    let preferences: Vec<String> = preferences
        .map(|preference| format!("spread={}", preference.spread.spread_descriptor))
        .collect();
    if !preferences.is_empty() {
        lines.push(format!(
            " Preferences:   [{}]",
            shown(&preferences.join(" "))
        ));
    }
    if placement.max_replicas > 0 {
        let most = placement.max_replicas;
        lines.push(format!(" Max Replicas Per Node:   {most}"));
    }
}

/// With the words for the group and for the order.
fn policy(policy: &UpdateConfig, [group, order]: [&str; 2], lines: &mut Vec<String>) {
    lines.push(group.to_owned());
    lines.push(format!(" Parallelism:\t{}", policy.parallelism));
    if !policy.delay.is_zero() {
        lines.push(format!(" Delay:\t\t{}", duration(policy.delay)));
    }
    lines.push(format!(" On failure:\t{}", word(policy.failure_action)));
    if !policy.monitor.is_zero() {
        lines.push(format!(" Monitoring Period: {}", duration(policy.monitor)));
    }
    lines.push(format!(" Max failure ratio: {}", policy.max_failure_ratio));
    lines.push(format!("{order}{}", word(policy.order)));
}

fn resources(resources: &ResourceRequirements, lines: &mut Vec<String>) {
    if resources.is_empty() {
        return;
    }
    lines.push("Resources:".to_owned());
    let (reserved, limits) = (&resources.reservations, &resources.limits);
    for (group, nano_cpus, memory, pids) in [
        (
            " Reservations:",
            reserved.nano_cpus,
            reserved.memory_bytes,
            0,
        ),
        (
            " Limits:",
            limits.nano_cpus,
            limits.memory_bytes,
            limits.pids,
        ),
    ] {
        if (nano_cpus, memory, pids) == (0, 0, 0) {
            continue;
        }
        lines.push(group.to_owned());
        if nano_cpus > 0 {
            lines.push(format!("  CPU:\t\t{}", nano_cpus as f64 / 1e9));
        }
        if memory > 0 {
            lines.push(format!("  Memory:\t{}", bytes(memory)));
        }
        if pids > 0 {
            lines.push(format!("  PIDs:\t\t{pids}"));
        }
    }
}

fn healthcheck(health: &HealthConfig, lines: &mut Vec<String>) {
    lines.push(" Healthcheck:".to_owned());
    lines.push(format!("  Interval = {}", duration(health.interval)));
    lines.push(format!("  Retries = {}", health.retries));
    lines.push(format!(
        "  StartPeriod =\t{}",
        duration(health.start_period)
    ));
    lines.push(format!("  Timeout =\t{}", duration(health.timeout)));
    lines.push("  Tests:".to_owned());
    for word in &health.test {
        lines.push(format!("\t Test = {}", shown(word)));
    }
    if let Some(last) = lines.last_mut() {
        last.push(' ');
    }
}

fn container(container: &ContainerSpec, lines: &mut Vec<String>) {
    let all = |texts: &[String]| -> String {
        let texts = texts.iter().map(|text| format!("{} ", shown(text)));
        texts.collect()
    };
    lines.push("ContainerSpec:".to_owned());
    lines.push(format!(" Image:\t\t{}", shown(&container.image)));
    if !container.args.is_empty() {
        lines.push(format!(" Args:\t\t{}", all(&container.args)));
    }
    if !container.env.is_empty() {
        lines.push(format!(" Env:\t\t{}", all(&container.env)));
    }
    if !container.dir.is_empty() {
        lines.push(format!(" Dir:\t\t{}", shown(&container.dir)));
    }
    if let Some(init) = container.init {
        lines.push(format!(" Init:\t\t{init}"));
    }
    if let Some(ready) = &container.ready {
        lines.push(format!(" Ready:\t\t{}", shown(&ready.to_string())));
    }
    if !container.user.is_empty() {
        lines.push(format!(" User: {}", shown(&container.user)));
    }
    let (add, drop) = (&container.cap_add, &container.cap_drop);
    if !(add.is_empty() && drop.is_empty()) {
        lines.push("Capabilities:".to_owned());
    }
    for (name, capabilities) in [("Add", add), ("Drop", drop)] {
        if !capabilities.is_empty() {
            lines.push(format!(" {name}: {}", capabilities.join(", ")));
        }
    }
    kernel(container, lines);
    mounts(&container.mounts, lines);
    payloads(container, lines);
}

/// What the kernel is asked for.
fn kernel(container: &ContainerSpec, lines: &mut Vec<String>) {
    if !container.sysctls.is_empty() {
        lines.push("SysCtls:".to_owned());
    }
    for (name, value) in &container.sysctls {
        lines.push(match value.as_str() {
            "" => format!(" {}", shown(name)),
            value => format!(" {}: {}", shown(name), shown(value)),
        });
    }
    if !container.ulimits.is_empty() {
        lines.push("Ulimits:".to_owned());
    }
    for ulimit in &container.ulimits {
        let (soft, hard) = (ulimit.soft, ulimit.hard);
        lines.push(format!(" {}: {soft}:{hard}", shown(&ulimit.name)));
    }
}

fn mounts(mounts: &[Mount], lines: &mut Vec<String>) {
    if !mounts.is_empty() {
        lines.push("Mounts:".to_owned());
    }
    for mount in mounts {
        lines.push(format!(" Target:\t{}", shown(&mount.target)));
        lines.push(format!("  Source:\t{}", shown(&mount.source)));
        lines.push(format!("  ReadOnly:\t{}", mount.read_only));
        lines.push(format!("  Type:\t\t{}", word(mount.kind)));
    }
}

/// The secrets and configs that it sees as files.
fn payloads(container: &ContainerSpec, lines: &mut Vec<String>) {
    for (heading, kind) in [
        ("Configs:", PayloadKind::Config),
        ("Secrets:", PayloadKind::Secret),
    ] {
        let used = container.payloads().filter(|one| one.kind == kind);
        let used: Vec<_> = used.collect();
        if !used.is_empty() {
            lines.push(heading.to_owned());
        }
        for one in used {
            lines.push(format!(" Target:\t{}", shown(&one.file.name)));
            lines.push(format!("  Source:\t{}", shown(one.name)));
        }
    }
}

/// Those that it has, with the numbers that it was given.
fn ports(detail: &ServiceDetail, lines: &mut Vec<String>) {
    let ports = &detail.service.endpoint.ports;
    if ports.is_empty() {
        return;
    }
    lines.push("Ports:".to_owned());
    for port in ports {
        lines.push(format!(" PublishedPort = {}", port.published));
        lines.push(format!("  Protocol = {}", word(port.protocol)));
        lines.push(format!("  TargetPort = {}", port.target));
        lines.push(format!("  PublishMode = {}", word(port.mode)));
    }
    if let Some(last) = lines.last_mut() {
        last.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weft_model::api::ServiceStatus;
    use weft_model::objects::{
        ConfigReference, EndpointSpec, Meta, NetworkAttachmentSpec, PayloadFile, PortSpec,
        ResourceLimits, SecretReference, Service, ServiceEndpoint, ServiceSpec, TaskSpec, Ulimit,
        UpdateState, Version,
    };

    use super::*;

    #[test]
    fn a_container_is_shown_as_docker_shows_it() {
        let text = |text: &str| text.to_owned();
        let file = |name: &str| PayloadFile {
            name: text(name),
            ..PayloadFile::default()
        };
        let image = format!("nginx:1.27@sha256:{}", "0".repeat(64));
        let shown = ContainerSpec {
            image: image.clone(),
            args: vec![text("cmd"), text("arg 1")],
            dir: text("/www"),
            init: Some(true),
            user: text("33:33"),
            cap_drop: vec![text("ALL")],
            sysctls: BTreeMap::from([(text("net.core.somaxconn"), text("1024"))]),
            ulimits: vec![Ulimit {
                name: text("nofile"),
                soft: 100,
                hard: 200,
            }],
            mounts: vec![Mount {
                source: text("v"),
                target: text("/v"),
                ..Mount::default()
            }],
            secrets: vec![SecretReference {
                file: file("key"),
                name: text("key-2"),
                ..SecretReference::default()
            }],
            configs: vec![ConfigReference {
                file: file("/etc/app.conf"),
                name: text("app"),
                ..ConfigReference::default()
            }],
            ..ContainerSpec::default()
        };
        let mut lines = Vec::new();
        container(&shown, &mut lines);
        let wanted = [
            "ContainerSpec:",
            &format!(" Image:\t\t{image}"),
            " Args:\t\tcmd arg 1 ",
            " Dir:\t\t/www",
            " Init:\t\ttrue",
            " User: 33:33",
            "Capabilities:",
            " Drop: ALL",
            "SysCtls:",
            " net.core.somaxconn: 1024",
            "Ulimits:",
            " nofile: 100:200",
            "Mounts:",
            " Target:\t/v",
            "  Source:\tv",
            "  ReadOnly:\tfalse",
            "  Type:\t\tvolume",
            "Configs:",
            " Target:\t/etc/app.conf",
            "  Source:\tapp",
            "Secrets:",
            " Target:\tkey",
            "  Source:\tkey-2",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn the_layout_is_dockers() {
        let port = PortSpec {
            published: 8080,
            target: 80,
            ..PortSpec::default()
        };
        let container = ContainerSpec {
            image: "host".to_owned(),
            args: vec!["cmd".to_owned(), "arg\u{1b}".to_owned()],
            env: vec!["FOO=1".to_owned(), "A=1".to_owned()],
            user: "33:33".to_owned(),
            cap_add: vec!["CAP_NET_ADMIN".to_owned()],
            health: Some(HealthConfig {
                interval: Duration::from_secs(90),
                retries: 3,
                ..HealthConfig::shell("true")
            }),
            ..ContainerSpec::default()
        };
        let task = TaskSpec {
            container,
            placement: Placement {
                constraints: vec!["node.role==worker".to_owned()],
                max_replicas: 2,
                ..Placement::default()
            },
            resources: ResourceRequirements {
                limits: ResourceLimits {
                    nano_cpus: 500_000_000,
                    memory_bytes: 64 << 20,
                    pids: 100,
                },
                ..ResourceRequirements::default()
            },
            networks: vec![NetworkAttachmentSpec {
                target: "net1".to_owned(),
                ..NetworkAttachmentSpec::default()
            }],
            ..TaskSpec::default()
        };
        let spec = ServiceSpec {
            name: "web".to_owned(),
            labels: BTreeMap::from([("l".to_owned(), "1".to_owned())]),
            task: Arc::new(task),
            mode: ServiceMode::Replicated { replicas: 2 },
            endpoint: EndpointSpec {
                ports: vec![port.clone()],
                ..EndpointSpec::default()
            },
            ..ServiceSpec::default()
        };
        let detail = ServiceDetail {
            service: Service {
                id: "s1".into(),
                meta: Meta::default(),
                spec,
                previous_spec: None,
                endpoint: ServiceEndpoint {
                    ports: vec![port],
                    ..ServiceEndpoint::default()
                },
                update_status: Some(UpdateStatus {
                    state: UpdateState::Paused,
                    started_at: 0,
                    completed_at: None,
                    message: "update paused".to_owned(),
                    spec_version: Version::default(),
                    slots: 1,
                    failed: None,
                }),
                job_status: None,
                rebalancing: None,
                homes: Vec::new(),
            },
            status: ServiceStatus::default(),
            port_errors: Vec::new(),
            waiting: Vec::new(),
        };
        let names = Names::from([("net1".to_owned(), "front".to_owned())]);
        let now = Timestamp::from_second(120).unwrap();
        let text = pretty(&detail, &names, now);
        assert!(!text.contains('\u{1b}'), "{text}");
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("Args")).collect();
        let wanted = "\nID:\t\ts1\nName:\t\tweb\nLabels:\n l=1\nService Mode:\tReplicated\n \
                      Replicas:\t2\nUpdateStatus:\n State:\t\tpaused\n Started:\t2 minutes \
                      ago\n Message:\tupdate paused\nPlacement:\n \
                      Constraints:\t[node.role==worker]\n Max Replicas Per Node:   \
                      2\nUpdateConfig:\n Parallelism:\t1\n On failure:\tpause\n Monitoring \
                      Period: 5s\n Max failure ratio: 0\n Update order:      \
                      stop-first\nRollbackConfig:\n Parallelism:\t1\n On failure:\tpause\n \
                      Monitoring Period: 5s\n Max failure ratio: 0\n Rollback order:    \
                      stop-first\nContainerSpec:\n Image:\t\thost\n Env:\t\tFOO=1 A=1 \n User: \
                      33:33\nCapabilities:\n Add: CAP_NET_ADMIN\nResources:\n Limits:\n  \
                      CPU:\t\t0.5\n  Memory:\t64MiB\n  PIDs:\t\t100\nNetworks: front \nEndpoint \
                      Mode:\tvip\nPorts:\n PublishedPort = 8080\n  Protocol = tcp\n  TargetPort = \
                      80\n  PublishMode = ingress \n Healthcheck:\n  Interval = 1m30s\n  Retries = \
                      3\n  StartPeriod =\t0s\n  Timeout =\t0s\n  Tests:\n\t Test = \
                      CMD-SHELL\n\t Test = true ";
        assert_eq!(lines.join("\n"), wanted);
    }
}
