//! Objects as they are written: Docker's names and shapes, one form for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::api::{
    AddressUsage, EndpointRow, NetworkDetail, NodeRow, ServiceDetail, ServiceStatus, TaskRow,
    TlsStatus,
};
use crate::assignment::change::SharedChange;
use crate::id::{EndpointId, NetworkId, NodeId, PeerId, ServiceId, TaskId};

fn meta(index: u64) -> Meta {
    Meta {
        version: Version { index },
        created_at: 1_767_323_045_000,
        updated_at: 1_767_323_046_000,
    }
}

fn spec() -> ServiceSpec {
    let task = TaskSpec {
        container: ContainerSpec {
            image: "host".to_owned(),
            args: vec!["server".to_owned(), "-x".to_owned()],
            cap_add: vec!["CAP_NET_ADMIN".to_owned()],
            ..ContainerSpec::default()
        },
        networks: vec![NetworkAttachmentSpec {
            target: "net1".to_owned(),
            aliases: vec!["www".to_owned()],
            stack_aliases: Vec::new(),
        }],
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: "web".to_owned(),
        labels: BTreeMap::from([("my_label".to_owned(), "x".to_owned())]),
        task: Arc::new(task),
        mode: ServiceMode::Replicated { replicas: 2 },
        endpoint: EndpointSpec {
            ports: vec![PortSpec {
                published: 8000,
                target: 80,
                ..PortSpec::default()
            }],
            ..EndpointSpec::default()
        },
        ..ServiceSpec::default()
    }
}

fn service() -> Service {
    Service {
        id: ServiceId::from("svc1"),
        meta: meta(7),
        endpoint: ServiceEndpoint {
            ports: spec().endpoint.ports,
            vips: vec![Vip {
                network: NetworkId::from("net1"),
                addr: "10.0.1.2/24".parse().unwrap(),
            }],
            ..ServiceEndpoint::default()
        },
        job_status: None,
        rebalancing: None,
        homes: Vec::new(),
        spec: spec(),
        previous_spec: None,
        update_status: None,
    }
}

fn task() -> Task {
    let service = service();
    Task {
        id: TaskId::from("t1"),
        meta: meta(3),
        service: service.id.clone(),
        service_name: "web".to_owned(),
        slot: 1,
        node: Some(NodeId::from("n1")),
        spec_version: service.meta.version,
        job_iteration: None,
        spec: service.spec.task,
        attachments: vec![Attachment {
            endpoint: EndpointId::from("e1"),
            network: NetworkId::from("net1"),
            addresses: vec!["10.0.1.3/24".parse().unwrap()],
            mac: Mac([2, 0x42, 10, 0, 1, 3]),
            aliases: Vec::new(),
        }],
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::Failed,
            since: 1_767_323_045_678,
            message: "ended".to_owned(),
            err: "task: non-zero exit (3)".to_owned(),
            container: ContainerStatus {
                exit_code: Some(3),
                ..ContainerStatus::default()
            },
            running_since: None,
        },
        restarts: Vec::new(),
    }
}

fn node() -> Node {
    Node {
        id: NodeId::from("n1"),
        meta: meta(1),
        spec: NodeSpec {
            role: Role::Manager,
            ..NodeSpec::default()
        },
        description: Description {
            hostname: "node1".to_owned(),
            engine: Engine {
                version: "0.1.0".to_owned(),
                runtimes: Vec::new(),
            },
            ..Description::default()
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: "192.0.2.1".parse().unwrap(),
            impaired: Some(Impairment {
                since: 0,
                reason: "no address".to_owned(),
            }),
        },
        manager_status: Some(ManagerStatus {
            leader: false,
            reachability: Reachability::default(),
            addr: "192.0.2.1:2377".parse().unwrap(),
        }),
        data_path_addr: "192.0.2.1".parse().unwrap(),
        gossip_port: 7946,
        certified: 0,
        certified_by: String::new(),
        ingress_ip: Some("10.0.0.2".parse().unwrap()),
    }
}

fn network() -> Network {
    let subnets: [ipnet::IpNet; 2] = ["10.0.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    Network {
        id: NetworkId::from("net1"),
        meta: meta(1),
        spec: NetworkSpec {
            name: "front".to_owned(),
            ipv6: true,
            ipam: subnets.into_iter().collect(),
            ..NetworkSpec::default()
        },
        vni: 4097,
        ending: false,
    }
}

/// What is read is what was written.
fn written<T>(object: &T) -> Value
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(object).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *object, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_service_is_dockers() {
    let detail = ServiceDetail {
        service: service(),
        status: ServiceStatus {
            running: 1,
            outdated: 0,
            desired: 2,
            completed: 0,
        },
        port_errors: Vec::new(),
        waiting: Vec::new(),
    };
    let port = json!({
        "HostIP": null, "PublishedPort": 8000, "TargetPort": 80, "Protocol": "tcp",
        "PublishMode": "ingress", "ClientAddress": "keep",
    });
    assert_eq!(
        written(&detail),
        json!({
            "ID": "svc1",
            "Version": {"Index": 7},
            "CreatedAt": "2026-01-02T03:04:05Z",
            "UpdatedAt": "2026-01-02T03:04:06Z",
            "Spec": {
                "Name": "web",
                "Labels": {"my_label": "x"},
                "TaskTemplate": {
                    "Runtime": "host",
                    "ContainerSpec": {
                        "Image": "host",
                        "Args": ["server", "-x"],
                        "Env": [],
                        "User": "",
                        "Privileges": {"NoNewPrivileges": false},
                        "CapabilityAdd": ["CAP_NET_ADMIN"],
                        "CapabilityDrop": [],
                        "StopGracePeriod": 10_000_000_000_u64,
                    },
                    "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64},
                    "Networks": [{"Target": "net1", "Aliases": ["www"]}],
                },
                "Mode": {"Replicated": {"Replicas": 2}},
                "EndpointSpec": {"Mode": "vip", "Ports": [port]},
                "Connections": {
                    "Affinity": "none", "LocalFirst": false, "Limit": 0, "LimitPerClient": 0,
                },
                "Attach": false,
            },
            "Endpoint": {
                "Ports": [port],
                "VirtualIPs": [{"NetworkID": "net1", "Addr": "10.0.1.2/24"}],
            },
            "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2},
            "PortErrors": [],
        })
    );
    assert_eq!(written(&ServiceMode::Global), json!({"Global": {}}));
    assert_eq!(written(&ServiceMode::GlobalJob), json!({"GlobalJob": {}}));
    let job = ServiceMode::ReplicatedJob {
        max_concurrent: 2,
        total_completions: 5,
    };
    let text = json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}});
    assert_eq!(written(&job), text);
    // As Docker's daemon fills it in.
    let short: ServiceMode = serde_json::from_value(json!({"ReplicatedJob": {}})).unwrap();
    let once = ServiceMode::ReplicatedJob {
        max_concurrent: 1,
        total_completions: 1,
    };
    assert_eq!(short, once);
}

#[test]
fn a_task_is_dockers() {
    let row = TaskRow {
        task: task(),
        node_name: "node1".to_owned(),
        node_down: false,
        host_ports: Vec::new(),
    };
    let mut value = written(&row);
    let spec = value["Spec"].take();
    assert_eq!(spec, written(&*service().spec.task));
    assert_eq!(
        value,
        json!({
            "ID": "t1",
            "Version": {"Index": 3},
            "CreatedAt": "2026-01-02T03:04:05Z",
            "UpdatedAt": "2026-01-02T03:04:06Z",
            "ServiceID": "svc1",
            "ServiceName": "web",
            "Slot": 1,
            "NodeID": "n1",
            "SpecVersion": {"Index": 7},
            "Spec": null,
            "NetworksAttachments": [{
                "EndpointID": "e1", "Network": {"ID": "net1"}, "Addresses": ["10.0.1.3/24"],
                "MacAddress": "02:42:0a:00:01:03", "Aliases": [],
            }],
            "DesiredState": "running",
            "Status": {
                "State": "failed",
                "Timestamp": "2026-01-02T03:04:05.678Z",
                "Message": "ended",
                "Err": "task: non-zero exit (3)",
                "ContainerStatus": {"ExitCode": 3},
            },
            "NodeName": "node1",
            "NodeDown": false,
            "HostPorts": [],
        })
    );
}

#[test]
fn a_node_is_dockers() {
    let mut node = node();
    let stored = written(&node);
    assert_eq!(
        stored["ManagerStatus"],
        json!({"Leader": false, "Reachability": "unknown", "Addr": "192.0.2.1:2377"})
    );
    assert!(stored.get("Certified").is_none(), "{stored}");
    node.manager_status.as_mut().unwrap().leader = true;
    node.manager_status.as_mut().unwrap().reachability = Reachability::Reachable;
    node.certified = 1_767_323_045_000;
    let row = NodeRow {
        node,
        is_self: true,
        gossip: None,
        tls: TlsStatus::NeedsRotation,
        cloned: None,
    };
    assert_eq!(
        written(&row),
        json!({
            "ID": "n1",
            "Version": {"Index": 1},
            "CreatedAt": "2026-01-02T03:04:05Z",
            "UpdatedAt": "2026-01-02T03:04:06Z",
            "Spec": {"Role": "manager", "Availability": "active", "Labels": {}},
            "Description": {"Hostname": "node1", "Engine": {"EngineVersion": "0.1.0"}},
            "Status": {
                "State": "ready",
                "Message": "",
                "Addr": "192.0.2.1",
                "Impaired": {"Since": "1970-01-01T00:00:00Z", "Reason": "no address"},
            },
            "ManagerStatus": {
                "Leader": true, "Reachability": "reachable", "Addr": "192.0.2.1:2377",
            },
            "DataPathAddr": "192.0.2.1",
            "GossipPort": 7946,
            "Certified": "2026-01-02T03:04:05Z",
            "IngressIP": "10.0.0.2",
            "Self": true,
            "TLSStatus": "needs-rotation",
        })
    );
}

#[test]
fn a_network_is_dockers() {
    let network = network();
    assert_eq!(
        written(&network),
        json!({
            "Id": "net1",
            "Version": {"Index": 1},
            "Created": "2026-01-02T03:04:05Z",
            "UpdatedAt": "2026-01-02T03:04:06Z",
            "Name": "front",
            "Driver": "overlay",
            "Scope": "swarm",
            "EnableIPv6": true,
            "IPAM": {"Config": [
                {"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"},
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
            ]},
            "Internal": false,
            "Ingress": false,
            "Attachable": true,
            "Options": {},
            "Labels": {},
            "VNI": 4097,
        })
    );
    let on = |ip: &str| network.with_prefix(ip.parse().unwrap()).to_string();
    assert_eq!(on("10.0.1.9"), "10.0.1.9/24");
    assert_eq!(on("fd00::a00:109"), "fd00::a00:109/64");
    assert_eq!(on("192.0.2.1"), "192.0.2.1/32");
}

#[test]
fn an_endpoint_without_an_address_of_a_family_has_dockers_empty_text() {
    let row = EndpointRow {
        id: EndpointId::from("e1"),
        name: "web.1.t1".to_owned(),
        mac: Mac([2, 0x42, 10, 0, 1, 3]),
        ipv4: Some("10.0.1.3/24".parse().unwrap()),
        ipv6: None,
        node: "node1".to_owned(),
    };
    assert_eq!(
        written(&row),
        json!({
            "EndpointID": "e1", "Name": "web.1.t1", "MacAddress": "02:42:0a:00:01:03",
            "IPv4Address": "10.0.1.3/24", "IPv6Address": "", "Node": "node1",
        })
    );
}

#[test]
fn what_has_no_name_in_docker_has_one_in_its_manner() {
    let peer = StaticPeer {
        id: PeerId::from("p1"),
        network: NetworkId::from("net1"),
        ip: "10.0.1.200".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        vtep: "192.0.2.7".parse().unwrap(),
    };
    assert_eq!(
        written(&peer),
        json!({
            "ID": "p1", "NetworkID": "net1", "IP": "10.0.1.200",
            "MacAddress": "02:00:00:00:00:01", "VTEP": "192.0.2.7",
        })
    );
    let endpoint = Endpoint {
        name: "box".to_owned(),
        node: NodeId::from("n1"),
        attachment: task().attachments.remove(0),
        service: None,
    };
    assert_eq!(written(&endpoint)["NodeID"], "n1");
    let ending = EndingService {
        id: ServiceId::from("svc1"),
        name: "web".to_owned(),
        vips: service().endpoint.vips,
    };
    assert_eq!(written(&ending)["VirtualIPs"][0]["Addr"], "10.0.1.2/24");
    let cluster = Cluster {
        id: "c".to_owned(),
        meta: meta(1),
        spec: ClusterSpec::default(),
        default_address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix_len: 24,
        data_path_port: 4789,
    };
    let shown = written(&cluster);
    assert_eq!(shown["DefaultAddrPool"], json!(["10.0.0.0/8"]));
}

/// What Docker's clients leave out has Swarm's defaults.
#[test]
fn what_is_left_out_is_swarms_default() {
    let spec: ServiceSpec = serde_json::from_value(json!({
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {"Image": "host", "Args": ["true"]}},
        "Mode": {"Replicated": {}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80}]},
    }))
    .unwrap();
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 1 });
    assert_eq!(spec.task.restart.delay, Duration::from_secs(5));
    assert_eq!(spec.task.container.stop_grace, Duration::from_secs(10));
    assert_eq!(spec.task.runtime, Runtime::Host);
    assert_eq!(spec.endpoint.ports[0].published, 0);
    assert_eq!(Runtime::of_image("host"), Runtime::Host);
    assert_eq!(Runtime::of_image("nginx"), Runtime::Container);
}

/// Versions that do not know a setting refuse a service or a task for it, so only what somebody asked
/// for is written.
#[test]
fn what_nobody_asked_for_is_not_written() {
    let keys = |value: &Value| -> Vec<String> {
        let fields = value.as_object().expect("an object");
        let mut keys: Vec<String> = fields.keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    let plain = written(&ServiceSpec::default());
    let known = [
        "Attach",
        "Connections",
        "EndpointSpec",
        "Labels",
        "Mode",
        "Name",
        "TaskTemplate",
    ];
    assert_eq!(keys(&plain), known);
    let task = &plain["TaskTemplate"];
    let known = ["ContainerSpec", "Networks", "RestartPolicy", "Runtime"];
    assert_eq!(keys(task), known);
    let known = [
        "Args",
        "CapabilityAdd",
        "CapabilityDrop",
        "Env",
        "Image",
        "Privileges",
        "StopGracePeriod",
        "User",
    ];
    assert_eq!(keys(&task["ContainerSpec"]), known);
    assert_eq!(keys(&task["RestartPolicy"]), ["Condition", "Delay"]);

    // What is written is the whole, so that a reader needs no defaults of ours.
    let asked = ServiceSpec {
        task: Arc::new(TaskSpec {
            force_update: 2,
            ..TaskSpec::default()
        }),
        rollback: UpdateConfig {
            parallelism: 2,
            ..UpdateConfig::default()
        },
        ..ServiceSpec::default()
    };
    let text = written(&asked);
    assert_eq!(text["TaskTemplate"]["ForceUpdate"], 2);
    assert_eq!(text.get("UpdateConfig"), None);
    assert_eq!(
        text["RollbackConfig"],
        json!({
            "Parallelism": 2, "Delay": 0, "FailureAction": "pause", "Monitor": 5_000_000_000_u64,
            "MaxFailureRatio": 0.0, "Order": "stop-first", "Timeout": 300_000_000_000_u64,
        })
    );
    assert_eq!(serde_json::from_value::<ServiceSpec>(text).unwrap(), asked);
}

fn refusal<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
    serde_json::from_value::<T>(value)
        .expect_err("refused")
        .to_string()
}

#[test]
fn what_nobody_would_carry_out_is_refused_by_name() {
    let spec = |path: &str, setting: &str| {
        let mut spec = written(&spec());
        let mut at = &mut spec;
        for key in path.split('/').filter(|key| !key.is_empty()) {
            at = match key.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[key],
            };
        }
        at[setting] = json!({});
        refusal::<ServiceSpec>(spec)
    };
    for (path, setting) in [
        ("", "Isolation"),
        ("UpdateConfig", "MaxSurge"),
        ("TaskTemplate", "LogDriver"),
        ("TaskTemplate", "PluginSpec"),
        ("TaskTemplate/ContainerSpec", "Isolation"),
        ("TaskTemplate/ContainerSpec/Privileges", "SELinuxContext"),
        ("TaskTemplate/RestartPolicy", "Backoff"),
        ("TaskTemplate/Networks/0", "DriverOpts"),
        ("Mode/Replicated", "MaxConcurrent"),
        ("EndpointSpec/Ports/0", "Name"),
        ("Connections", "Weight"),
    ] {
        let said = spec(path, setting);
        let expected = format!("unknown field `{setting}`");
        assert!(said.starts_with(&expected), "{path}: {said}");
    }
    // One of an earlier version.
    let earlier = refusal::<ServiceSpec>(json!({"name": "web"}));
    assert!(earlier.starts_with("unknown field `name`"), "{earlier}");
    let runtime = refusal::<TaskSpec>(json!({"Runtime": "plugin", "ContainerSpec": {}}));
    assert!(runtime.starts_with("unknown variant `plugin`"), "{runtime}");

    let mut node = written(&NodeSpec::default());
    node["Zone"] = json!("a");
    let node = refusal::<NodeSpec>(node);
    assert!(node.starts_with("unknown field `Zone`"), "{node}");

    let network = |more: Value| {
        let mut spec = json!({"Name": "n"});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        refusal::<NetworkSpec>(spec)
    };
    for (more, says) in [
        (json!({"ConfigOnly": true}), "unknown field `ConfigOnly`"),
        (json!({"Driver": "bridge"}), "unknown variant `bridge`"),
        (json!({"Scope": "local"}), "unknown variant `local`"),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.0/25"}]}}),
            "unknown field `IPRange`",
        ),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9"}]}}),
            "10.1.0.9 cannot be the gateway of subnet 10.1.0.0/24: that is always the first \
             address, 10.1.0.1; leave it out",
        ),
    ] {
        let said = network(more);
        assert!(said.starts_with(says), "{said}");
    }
    let given = json!({"Name": "n", "IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]}});
    let spec: NetworkSpec = serde_json::from_value(given).unwrap();
    assert_eq!(spec.ipam.config[0].gateway.to_string(), "10.1.0.1");
}

/// Settings that lie beside facts, in the orders and the store as in a request.
#[test]
fn a_setting_beside_facts_is_refused_by_name_too() {
    fn with_setting<T: DeserializeOwned + std::fmt::Debug>(object: &impl Serialize) -> String {
        let mut value = serde_json::to_value(object).unwrap();
        value["Encrypted"] = json!(true);
        refusal::<T>(value)
    }
    let peer = StaticPeer {
        id: PeerId::from("p1"),
        network: NetworkId::from("net1"),
        ip: "10.0.1.200".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        vtep: "192.0.2.7".parse().unwrap(),
    };
    let endpoint = Endpoint {
        name: "box".to_owned(),
        node: NodeId::from("n1"),
        attachment: task().attachments.remove(0),
        service: None,
    };
    let cluster = Cluster {
        id: "c".to_owned(),
        meta: meta(1),
        spec: ClusterSpec::default(),
        default_address_pools: Vec::new(),
        subnet_prefix_len: 24,
        data_path_port: 4789,
    };
    let mut change = SharedChange::default();
    change.networks.put.push(network());
    let mut sent = serde_json::to_value(&change).unwrap();
    sent["networks"]["put"][0]["Encrypted"] = json!(true);
    for said in [
        with_setting::<Network>(&network()),
        with_setting::<Cluster>(&cluster),
        with_setting::<StaticPeer>(&peer),
        with_setting::<Endpoint>(&endpoint),
        refusal::<SharedChange>(sent),
    ] {
        assert!(said.starts_with("unknown field `Encrypted`"), "{said}");
    }
}

#[test]
fn a_fact_that_is_not_known_is_no_reason_to_refuse() {
    let mut sent = written(&node());
    sent["Platform"] = json!({"OS": "linux"});
    sent["Status"]["Load"] = json!(1);
    assert_eq!(serde_json::from_value::<Node>(sent).unwrap(), node());
    let detail = NetworkDetail {
        network: network(),
        mtu: 1450,
        containers: BTreeMap::new(),
        addresses: AddressUsage { used: 4, total: 9 },
    };
    let mut answer = written(&detail);
    answer["Peers"] = json!([]);
    let read = serde_json::from_value::<NetworkDetail>(answer).unwrap();
    assert_eq!(read, detail);
}

#[test]
fn a_network_that_was_stored_under_another_name_of_its_time_is_read() {
    let mut stored = written(&network());
    let created = stored.as_object_mut().unwrap().remove("Created").unwrap();
    stored["CreatedAt"] = created;
    assert_eq!(
        serde_json::from_value::<Network>(stored).unwrap(),
        network()
    );
}
