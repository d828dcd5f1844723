//! Nodes: their lists, filters and tasks.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{FakeNode, LONG_AGO, NO_SURPRISES, exchange, get, task};

pub(super) fn info_of_a_manager() -> Value {
    json!({
        "ServerVersion": "0", "Name": "node1", "Pid": 7, "Warnings": [],
        "Swarm": {
            "LocalNodeState": "active", "Cluster": {"ID": "c"}, "NodeID": "n1",
            "NodeAddr": "10.77.0.1", "ControlAvailable": true,
            "RemoteManagers": [{"Addr": "10.77.0.1:2377"}], "Connected": true,
            "Error": null, "ErrorAt": null,
        },
    })
}

fn row(id: &str, name: &str, role: &str) -> Value {
    let manager = json!({"Leader": true, "Reachability": "reachable", "Addr": "10.77.0.1:2377"});
    json!({
        "ID": id, "Version": {"Index": 1}, "CreatedAt": LONG_AGO, "UpdatedAt": LONG_AGO,
        "Spec": {"Role": role, "Availability": "active", "Labels": {}},
        "Description": {"Hostname": name, "Engine": {"EngineVersion": "0.1.0"}},
        "Status": {"State": "ready", "Message": "", "Addr": "10.77.0.1", "Impaired": null},
        "ManagerStatus": if role == "manager" { manager } else { Value::Null },
        "DataPathAddr": "10.77.0.1", "GossipPort": 7946, "IngressIP": "10.0.0.2",
        "Self": role == "manager",
    })
}

/// Templates that people have for docker.
#[test]
fn nodes_take_dockers_templates() {
    let leads =
        "{{if .ManagerStatus}}{{.ManagerStatus.Leader}} {{.ManagerStatus.Reachability}}{{end}}";
    let manager = [
        ("{{.Spec.Role}} {{.Spec.Availability}}", "manager active"),
        ("{{.Description.Hostname}}", "node1"),
        ("{{.Description.Engine.EngineVersion}}", "0.1.0"),
        ("{{.Status.State}} {{.Status.Addr}}", "ready 10.77.0.1"),
        ("{{.ManagerStatus.Addr}}", "10.77.0.1:2377"),
        (leads, "true reachable"),
    ];
    let of_manager = |_| get("GET /v1/nodes/node1", row("aa1", "node1", "manager"));
    let mut script: Vec<_> = manager.iter().map(of_manager).collect();
    script.push(get("GET /v1/nodes/node2", row("aa2", "node2", "worker")));
    let node = FakeNode::start(script);
    for (template, shown) in manager {
        let text = node.inspect("node", "node1", template);
        assert_eq!(text, format!("{shown}\n"), "{template}");
    }
    assert_eq!(node.inspect("node", "node2", leads), "\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn the_tasks_of_a_node_are_listed_as_those_of_a_service() {
    let mut failed = task("failed");
    failed["ID"] = json!("t2");
    failed["ServiceName"] = json!("db");
    failed["DesiredState"] = json!("shutdown");
    let error = "an error that is longer than a table has room for";
    failed["Status"]["Err"] = json!(error);
    let tasks = json!([task("running"), failed]);
    let node = FakeNode::start(vec![
        get("GET /v1/info", info_of_a_manager()),
        get("GET /v1/nodes/n1/tasks", tasks.clone()),
        exchange(
            "GET /v1/nodes/nosuch/tasks",
            Value::Null,
            404,
            json!({"message": "no such node: nosuch"}),
        ),
        get("GET /v1/nodes/node1/tasks", tasks.clone()),
        get("GET /v1/nodes/node1/tasks", tasks.clone()),
        get("GET /v1/nodes/node1/tasks", tasks),
    ]);
    // Without a name it is the node that answers.
    let (result, text) = node.run("node ps");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split("   ").collect()).collect();
    let cells = |line: usize| -> Vec<&str> {
        let cells = lines[line].iter().map(|cell| cell.trim());
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    let headings = "ID,NAME,IMAGE,NODE,DESIRED STATE,CURRENT STATE,ERROR,PORTS";
    assert_eq!(cells(0).join(","), headings, "{text}");
    assert_eq!(
        cells(1)[..5],
        ["t2", "db.1", "host", "node1", "Shutdown"],
        "{text}"
    );
    assert_eq!(
        cells(2)[..5],
        ["t1", "web.1", "host", "node1", "Running"],
        "{text}"
    );
    assert!(!text.contains(error), "the error is not cut: {text}");

    let (result, text) = node.run(
        "node ps nosuch node1 --no-trunc --filter desired-state=shutdown --format {{.Name}}:{{.Error}}",
    );
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert_eq!(text, format!("db.1:\"{error}\"\n"));
    let (result, text) = node.run("node ps -q -f name=web node1");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "t1\n");
    let (_, text) = node.run("node ps --no-resolve --format {{.Name}}@{{.Node}} -f id=t1 node1");
    assert_eq!(text, "svc1.1@n1\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn nodes_are_filtered_as_dockers_and_what_they_do_not_have_is_refused() {
    let mut shop = row("bb3", "shop", "worker");
    shop["Spec"]["Labels"] = json!({"disk": "ssd", "zone": "a=b"});
    let rows = json!([
        row("aa1", "node1", "manager"),
        row("aa2", "node2", "worker"),
        shop,
    ]);
    let questions = [
        ("role=worker", "node2 shop"),
        ("role=Manager", "node1"),
        ("role=worker --filter name=node", "node2"),
        ("id=aa", "node1 node2"),
        ("name=none", ""),
        ("node.label=disk", "shop"),
        ("node.label=disk=ssd", "shop"),
        ("node.label=zone=a=b", "shop"),
        ("node.label=disk=hdd", ""),
        ("membership=accepted", "node1 node2 shop"),
        ("membership=pending", ""),
    ];
    let asked = questions.map(|_| get("GET /v1/nodes", rows.clone()));
    let node = FakeNode::start(asked.into_iter().collect());
    for (filter, names) in questions {
        let line = format!("node ls --filter {filter} --format {{{{.Hostname}}}}");
        let (result, text) = node.run(&line);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.join(" "), names, "{filter}");
    }
    // These are refused before the node is asked.
    for (filter, said) in [
        (
            "label=a",
            "invalid filter 'label': weftd has no labels of its own; node.label=a asks for",
        ),
        (
            "membership=maybe",
            "Invalid membership filter: 'maybe'; write membership=accepted",
        ),
        (
            "role=boss",
            "Invalid role filter: 'boss'; write role=manager or role=worker",
        ),
        (
            "image=host",
            "invalid filter 'image': there is id, name, role, node.label, membership",
        ),
    ] {
        let (result, _) = node.run(&format!("node ls --filter {filter}"));
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn nodes_are_removed_and_peers_listed_as_they_can_be_removed() {
    let node = FakeNode::start(vec![
        exchange(
            "DELETE /v1/nodes/n2",
            json!({"Force": true}),
            200,
            json!({}),
        ),
        get(
            "GET /v1/networks/front/peers",
            json!([{"ID": "p1", "NetworkID": "x", "IP": "10.0.1.200",
                    "MacAddress": "02:42:0a:00:01:c8", "VTEP": "192.0.2.7"}]),
        ),
        exchange(
            "POST /v1/networks/front/disconnect",
            json!({"Endpoint": "box", "Force": true}),
            200,
            json!({}),
        ),
    ]);
    assert_eq!(node.run("node rm --force n2").1, "n2\n");
    assert_eq!(node.run("network peer ls -q front").1, "10.0.1.200\n");
    let (result, _) = node.run("network disconnect --force front box");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn a_node_without_a_swarm_says_so_to_people() {
    let alone = json!({
        "ServerVersion": "0", "Name": "node1", "Pid": 7, "Warnings": [],
        "Swarm": {"LocalNodeState": "inactive"},
    });
    let node = FakeNode::start(vec![
        get("GET /v1/info", alone.clone()),
        get("GET /v1/info", alone),
        get("GET /v1/info", info_of_a_manager()),
        get("GET /v1/info", info_of_a_manager()),
    ]);
    let (result, text) = node.run("info");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert!(text.contains("Swarm.LocalNodeState   inactive"), "{text}");
    // A program gets what it asked for.
    assert_eq!(node.run("info --format {{.Name}}").1, "node1\n");
    let text = node.run("info").1;
    assert!(text.contains("Swarm.NodeID"), "{text}");
    assert!(!text.contains("inactive"), "{text}");
    assert!(!text.contains("Swarm.Error"), "{text}");
    let script = "info --format {{.Swarm.LocalNodeState}}:{{.Swarm.ControlAvailable}}";
    assert_eq!(node.run(script).1, "active:true\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn promote_and_demote_say_it_in_dockers_words() {
    let updated = |role: &str| {
        let mut node = row("aa2", "node2", role);
        node["Warnings"] = json!(["two of them"]);
        node
    };
    let update = |role: &str, answer: Value| {
        let path = "POST /v1/nodes/node2/update";
        exchange(path, json!({ "Role": role }), 200, answer)
    };
    let node = FakeNode::start(vec![
        get("GET /v1/nodes/node2", row("aa2", "node2", "worker")),
        update("manager", updated("manager")),
        get("GET /v1/nodes/node2", row("aa2", "node2", "manager")),
        update("manager", row("aa2", "node2", "manager")),
        get("GET /v1/nodes/node2", row("aa2", "node2", "manager")),
        update("worker", row("aa2", "node2", "worker")),
        get("GET /v1/nodes/node2", row("aa2", "node2", "manager")),
        exchange(
            "POST /v1/nodes/node2/update",
            json!({"Role": "worker", "Force": true}),
            200,
            updated("worker"),
        ),
        exchange(
            "POST /v1/nodes/node2/update",
            json!({"Availability": "drain", "Role": "worker", "AdvertiseAddr": "192.0.2.9"}),
            200,
            row("aa2", "node2", "worker"),
        ),
        exchange(
            "POST /v1/nodes/node2/update",
            json!({"LabelAdd": {"disk": "ssd", "big": ""}, "LabelRm": ["zone"]}),
            200,
            row("aa2", "node2", "worker"),
        ),
    ]);
    for (line, said) in [
        (
            "node promote node2",
            "Node node2 promoted to a manager in the swarm.\n",
        ),
        ("node promote node2", "Node node2 is already a manager.\n"),
        ("node demote node2", "Manager node2 demoted in the swarm.\n"),
        (
            "node demote --force node2",
            "Manager node2 demoted in the swarm.\n",
        ),
        (
            "node update --availability drain --role worker --advertise-addr 192.0.2.9 node2",
            "node2\n",
        ),
        (
            "node update --label-add disk=ssd --label-add big --label-rm zone node2",
            "node2\n",
        ),
    ] {
        let (result, text) = node.run(line);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS, "{line}");
        assert_eq!(text, said);
    }
    let (result, _) = node.run("node update node2");
    let error = result.unwrap_err().to_string();
    assert!(error.contains("nothing to change"), "{error}");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn what_a_manager_last_knew_is_asked_for_and_changes_nothing() {
    let rows = json!([row("aa1", "node1", "manager")]);
    let node = FakeNode::start(vec![
        get("GET /v1/nodes stale", rows.clone()),
        get("GET /v1/nodes", rows),
    ]);
    for line in ["--stale node ls -q", "node ls -q"] {
        let (result, text) = node.run(line);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        assert_eq!(text, "aa1\n");
    }
    // Refused before the node is asked.
    for line in ["service rm --stale web", "info --stale"] {
        let (result, _) = node.run(line);
        let said = result.unwrap_err().to_string();
        assert!(
            said.starts_with("--stale is for commands that show"),
            "{said}"
        );
    }
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn inspect_is_pretty_in_dockers_layout() {
    let mut labelled = row("aa1", "node1", "manager");
    labelled["Spec"]["Labels"] = json!({"big": "", "disk": "ssd"});
    let mut worker = row("aa2", "node2", "worker");
    worker["Status"]["State"] = json!("down");
    worker["Status"]["Message"] = json!("the node left the swarm");
    let node = FakeNode::start(vec![
        get("GET /v1/info", info_of_a_manager()),
        get("GET /v1/nodes/n1", labelled),
        get("GET /v1/nodes/node2", worker),
    ]);
    let (result, text) = node.run("node inspect --pretty self node2");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    let joined = text
        .lines()
        .find(|line| line.starts_with("Joined at:"))
        .unwrap();
    assert_eq!(
        text,
        format!(
            "\
ID:\t\t\taa1
Labels:
 - big
 - disk=ssd
Hostname:              \tnode1
{joined}
Status:
 State:\t\t\tReady
 Availability:         \tActive
 Address:\t\t10.77.0.1
Manager Status:
 Address:\t\t10.77.0.1:2377
 Raft Status:\t\tReachable
 Leader:\t\tYes
Engine Version:\t\t0.1.0
ID:\t\t\taa2
Hostname:              \tnode2
{joined}
Status:
 State:\t\t\tDown
 Message:              \tthe node left the swarm
 Availability:         \tActive
 Address:\t\t10.77.0.1
Engine Version:\t\t0.1.0
"
        )
    );
    assert!(joined.ends_with(" +0000 utc"), "{joined}");
    assert_eq!(node.surprises(), NO_SURPRISES);
}
