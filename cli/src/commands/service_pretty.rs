//! `weft service inspect --pretty`, in docker's layout (docker/cli `cli/command/service/formatter.go`).

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use weft_client::{Client, Refused};
use weft_model::api::ServiceDetail;
use weft_model::objects::{ContainerSpec, Network, ServiceMode};

use crate::commands::finish;
use crate::output::{Printer, shown};

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
            Ok(service) => out.line(&pretty(&service, &names))?,
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

fn pretty(detail: &ServiceDetail, names: &Names) -> String {
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
    match spec.mode {
        ServiceMode::Replicated { replicas } => {
            lines.push("Service Mode:\tReplicated".to_owned());
            lines.push(format!(" Replicas:\t{replicas}"));
        }
        ServiceMode::Global => lines.push("Service Mode:\tGlobal".to_owned()),
    }
    container(&spec.task.container, &mut lines);
    let networks = spec.task.networks.iter().map(|network| {
        let name = names.get(&network.target).unwrap_or(&network.target);
        format!("{} ", shown(name))
    });
    let networks: String = networks.collect();
    if !networks.is_empty() {
        lines.push(format!("Networks: {networks}"));
    }
    lines.push(format!("Endpoint Mode:\t{}", word(spec.endpoint.mode)));
    ports(detail, &mut lines);
    lines.join("\n")
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

    use weft_model::api::ServiceStatus;
    use weft_model::objects::{
        EndpointSpec, Meta, NetworkAttachmentSpec, PortSpec, Service, ServiceEndpoint, ServiceSpec,
        TaskSpec,
    };

    use super::*;

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
            ..ContainerSpec::default()
        };
        let task = TaskSpec {
            container,
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
                endpoint: ServiceEndpoint {
                    ports: vec![port],
                    vips: Vec::new(),
                },
            },
            status: ServiceStatus::default(),
            port_errors: Vec::new(),
            waiting: Vec::new(),
        };
        let names = Names::from([("net1".to_owned(), "front".to_owned())]);
        let text = pretty(&detail, &names);
        assert!(!text.contains('\u{1b}'), "{text}");
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("Args")).collect();
        let wanted = "\nID:\t\ts1\nName:\t\tweb\nLabels:\n l=1\nService Mode:\tReplicated\n \
                      Replicas:\t2\nContainerSpec:\n Image:\t\thost\n Env:\t\tFOO=1 A=1 \n User: \
                      33:33\nCapabilities:\n Add: CAP_NET_ADMIN\nNetworks: front \nEndpoint \
                      Mode:\tvip\nPorts:\n PublishedPort = 8080\n  Protocol = tcp\n  TargetPort = \
                      80\n  PublishMode = ingress ";
        assert_eq!(lines.join("\n"), wanted);
    }
}
