//! What the page shows: nodes, services and tasks by their names, images and states. What is not named
//! here, such as environments and files, is not passed on.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use weft_client::{Client, Refused, segment};
use weft_model::api::{NodeRow, ServiceDetail, TaskRow};
use weft_model::objects::{Availability, NodeState, TaskState};

/// How long one question may take.
pub(super) const QUESTION: Duration = Duration::from_secs(2);

/// How long all questions of a picture may take, so that whoever looks has one before he is hung up on.
pub(super) const PICTURE: Duration = Duration::from_secs(6);

/// The swarm, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Picture {
    /// By name.
    pub(super) nodes: Vec<ShownNode>,
    /// By name.
    pub(super) services: Vec<ShownService>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownNode {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    addr: IpAddr,
    state: NodeState,
    availability: Availability,
    /// `leader`, `manager` or `worker`.
    role: &'static str,
    /// By service and slot.
    tasks: Vec<ShownTask>,
    /// Why nobody could say what its tasks are: that there are none is not known then.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_asked: Option<String>,
}

/// A box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownTask {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    slot: u32,
    image: String,
    state: TaskState,
    desired: TaskState,
}

/// A line of the legend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownService {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    image: String,
    running: u32,
    wanted: u32,
    /// Empty outside of a stack.
    stack: String,
}

/// What was heard of a node's tasks, or why nothing was.
type Heard = Result<Vec<TaskRow>, String>;

/// Asks a manager.
///
/// # Errors
/// As of [`Client::get`]; no answer in time.
pub(super) async fn look(client: &Client) -> anyhow::Result<Picture> {
    let until = Instant::now() + PICTURE;
    let nodes: Vec<NodeRow> = ask(client, "/v1/nodes", until).await?;
    let services: Vec<ServiceDetail> = ask(client, "/v1/services", until).await?;
    let mut shown = Vec::new();
    for row in nodes {
        let path = format!("/v1/nodes/{}/tasks", segment(row.node.id.as_str()));
        let tasks = heard(ask(client, &path, until).await);
        shown.push((row, tasks));
    }
    Ok(of(shown, services))
}

/// One question, within its time and what is left of all of it.
async fn ask<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    until: Instant,
) -> anyhow::Result<T> {
    let limit = until.min(Instant::now() + QUESTION);
    let answer = timeout_at(limit, client.get(path)).await;
    answer.map_err(|_| anyhow!("weftd did not answer in time"))?
}

fn heard(answer: anyhow::Result<Vec<TaskRow>>) -> Heard {
    answer.or_else(|error| match error.downcast_ref::<Refused>() {
        // One that was removed meanwhile has none.
        Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(Vec::new()),
        _ => Err(format!("{error:#}")),
    })
}

fn of(nodes: Vec<(NodeRow, Heard)>, services: Vec<ServiceDetail>) -> Picture {
    let mut nodes: Vec<ShownNode> = nodes.into_iter().map(node).collect();
    nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let mut services: Vec<ShownService> = services.into_iter().map(service).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Picture { nodes, services }
}

fn node((row, heard): (NodeRow, Heard)) -> ShownNode {
    let node = row.node;
    let (tasks, not_asked) = match heard {
        Ok(tasks) => (tasks, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let mut tasks: Vec<ShownTask> = tasks.iter().filter(|row| is_there(row)).map(task).collect();
    tasks.sort_by(|a, b| (&a.service, a.slot, &a.id).cmp(&(&b.service, b.slot, &b.id)));
    ShownNode {
        id: node.id.to_string(),
        name: node.description.hostname,
        addr: node.status.addr,
        state: node.status.state,
        availability: node.spec.availability,
        role: match node.manager_status {
            Some(manager) if manager.leader => "leader",
            Some(_) => "manager",
            None => "worker",
        },
        tasks,
        not_asked,
    }
}

/// Whether a task is wanted, or still there though it is not.
fn is_there(row: &TaskRow) -> bool {
    row.task.desired <= TaskState::Running || !row.task.status.state.is_terminal()
}

fn task(row: &TaskRow) -> ShownTask {
    let task = &row.task;
    ShownTask {
        id: task.id.to_string(),
        service: task.service_name.clone(),
        slot: task.slot,
        image: image(&task.spec.container.image),
        state: task.status.state,
        desired: task.desired,
    }
}

fn service(detail: ServiceDetail) -> ShownService {
    let service = detail.service;
    ShownService {
        id: service.id.to_string(),
        image: image(&service.spec.task.container.image),
        stack: service.spec.stack().unwrap_or_default().to_owned(),
        name: service.spec.name,
        running: detail.status.running,
        wanted: detail.status.desired,
    }
}

/// The name of an image without its digest.
fn image(name: &str) -> String {
    name.split('@').next().unwrap_or(name).to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Rows as a manager has them, with what nobody is to be shown.
    pub(in crate::visualizer) fn rows() -> (Value, Value, Value) {
        let moment = "2026-01-01T00:00:00Z";
        let meta = |id: &str| json!({ "ID": id, "Version": { "Index": 1 }, "CreatedAt": moment, "UpdatedAt": moment });
        let with = |mut object: Value, more: Value| {
            if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
                object.extend(more.clone());
            }
            object
        };
        let nodes = json!([with(
            meta("n1"),
            json!({
                "Spec": { "Role": "manager", "Availability": "active", "Labels": { "k": "hidden-label" } },
                "Description": { "Hostname": "one", "Engine": { "EngineVersion": "1" } },
                "Status": { "State": "ready", "Message": "", "Addr": "10.77.0.1" },
                "ManagerStatus": { "Leader": true, "Reachability": "reachable", "Addr": "10.77.0.1:2377" },
                "DataPathAddr": "10.77.0.1", "GossipPort": 7946, "IngressIP": null, "Self": true,
            }),
        )]);
        let template = json!({
            "Runtime": "container",
            "ContainerSpec": {
                "Image": "web:1@sha256:00", "Env": ["PASSWORD=hidden-env"], "Args": ["hidden-arg"],
            },
        });
        let services = json!([with(
            meta("s1"),
            json!({
                "Spec": {
                    "Name": "shop_web",
                    "Labels": { "com.docker.stack.namespace": "shop" },
                    "TaskTemplate": template,
                },
                "Endpoint": { "Ports": [], "VirtualIPs": [] },
                "ServiceStatus": { "RunningTasks": 1, "DesiredTasks": 2 },
                "PortErrors": [],
            }),
        )]);
        let task = |id: &str, desired: &str, state: &str| {
            with(
                meta(id),
                json!({
                    "ServiceID": "s1", "ServiceName": "shop_web", "Slot": 1, "NodeID": "n1",
                    "SpecVersion": { "Index": 1 }, "Spec": template, "NetworksAttachments": [],
                    "DesiredState": desired, "NodeName": "one",
                    "Status": { "State": state, "Timestamp": moment, "Message": "", "Err": "hidden-error" },
                }),
            )
        };
        let tasks = json!([
            task("t1", "running", "running"),
            task("t2", "shutdown", "failed"),
            task("t3", "shutdown", "running"),
        ]);
        (nodes, services, tasks)
    }

    #[test]
    fn names_images_and_states_are_shown_and_nothing_else() {
        let (nodes, services, tasks) = rows();
        let nodes: Vec<NodeRow> = serde_json::from_value(nodes).unwrap();
        let services: Vec<ServiceDetail> = serde_json::from_value(services).unwrap();
        let tasks: Vec<TaskRow> = serde_json::from_value(tasks).unwrap();
        let shown = of(
            nodes
                .into_iter()
                .map(|row| (row, Ok(tasks.clone())))
                .collect(),
            services,
        );
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("hidden"), "{text}");
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            shown["Services"],
            json!([{
                "ID": "s1", "Name": "shop_web", "Image": "web:1", "Running": 1, "Wanted": 2, "Stack": "shop",
            }])
        );
        let node = &shown["Nodes"][0];
        assert_eq!(
            (&node["Name"], &node["Role"]),
            (&json!("one"), &json!("leader"))
        );
        assert_eq!(node.get("NotAsked"), None);
        let there: Vec<&Value> = node["Tasks"].as_array().unwrap().iter().collect();
        // One that has ended and is not wanted is history.
        let ids: Vec<&str> = there
            .iter()
            .filter_map(|task| task["ID"].as_str())
            .collect();
        assert_eq!(ids, ["t1", "t3"]);
        assert_eq!(
            (&there[1]["State"], &there[1]["Desired"]),
            (&json!("running"), &json!("shutdown"))
        );
    }
}
