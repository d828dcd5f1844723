//! What people, programs and the network get wrong.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use weft_netns_tests::{Cluster, Settings, eventually, get};

use crate::{PROGRAM, swarm};

#[test]
fn a_malformed_configuration_is_refused_with_all_its_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("weft.toml");
    fs::write(
        &config,
        "workerz = 3\nlog-format = \"xml\"\ngossip-port = 70000\n",
    )
    .expect("a file");
    let output = Command::new(PROGRAM)
        .arg0("weftd")
        .args(["--name", "no spaces", "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--config")
        .arg(&config)
        .output()
        .expect("weftd can be run");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(output.stdout.is_empty());
    for says in [
        "the configuration has 4 errors:",
        "weft.toml:1: unknown key \"workerz\": did you mean \"workers\"?",
        "weft.toml:2: log-format: \"xml\": expected \"text\" or \"json\"",
        "weft.toml:3: gossip-port: \"70000\": expected a port",
        "--name: name: \"no spaces\"",
    ] {
        assert!(text.contains(says), "{says} is missing in\n{text}");
    }
    assert!(!dir.path().join("data").exists(), "nothing is made");
}

#[test]
fn a_second_agent_on_the_same_data_is_refused() {
    let cluster = swarm(1);
    let data = cluster.lab().dir().join("node1/data").display().to_string();
    let other = format!("unix://{}", cluster.dir().join("other.sock").display());
    let weftd = cluster.weftd();
    let said = cluster.run(
        "node1",
        None,
        &[
            &weftd,
            "--name",
            "second",
            "--data-dir",
            &data,
            "-H",
            &other,
        ],
    );
    let info = cluster
        .weft("node1", &["info", "--format", "{{.Pid}}"])
        .ok();
    assert_eq!(said.code, 1, "{said:#?}");
    let holder = format!("another weftd (process {}) uses {data}", info.trim());
    assert!(said.err.contains(&holder), "{holder} is missing: {said:#?}");
    assert!(said.err.contains("--data-dir"), "{said:#?}");
    assert!(!cluster.dir().join("other.sock").exists());
    cluster.wait_ready(1);
}

#[test]
fn a_second_agent_in_the_same_namespace_takes_nothing_from_the_first() {
    let cluster = swarm(1);
    let socket = cluster.dir().join("other.sock");
    let host = format!("unix://{}", socket.display());
    let (data, run) = (cluster.dir().join("data"), cluster.dir().join("run"));
    let words = [
        &cluster.weftd(),
        "--name",
        "second",
        "--data-dir",
        &data.display().to_string(),
        "--run-dir",
        &run.display().to_string(),
        "-H",
        &host,
    ];
    let mut second = cluster
        .lab()
        .command("node1", &words)
        .expect("node1 is up")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process on node1");
    let weft = |words: &[&str]| {
        let words = [&[cluster.program(), "-H", &host], words].concat();
        cluster.run("node1", None, &words)
    };
    eventually("the second agent answers", || {
        let said = weft(&["info"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    let rules = || {
        let links = cluster.run("node1", None, &["ip", "-o", "link"]).ok();
        assert!(links.contains("weft0") && links.contains("weft_gwbridge"));
        // Without what the counters have counted.
        let list = ["nft", "--stateless", "list", "table", "inet", "weft"];
        cluster.run("node1", None, &list).ok()
    };
    // The last ones come with the first orders, in the background: what the node's own data path
    // needs, and which ports of the cluster no sandbox may reach.
    let last = ["untracked_out", "10.77.0.1 . tcp . 2377"];
    let before = eventually("the first agent has its rules", || {
        let rules = rules();
        let there = last.iter().all(|rule| rules.contains(rule));
        if there { Ok(rules) } else { Err(rules) }
    });
    let token = cluster.token();
    let info = cluster
        .weft("node1", &["info", "--format", "{{.Pid}}"])
        .ok();
    let holder = format!("another weftd (process {})", info.trim());
    let says = [holder.as_str(), "part of a swarm in this network namespace"];
    weft(&["swarm", "init", "--listen-addr", "10.77.0.1:3377"]).refused(&says);
    weft(&["swarm", "join", "--token", &token, "10.77.0.1:2377"]).refused(&says);
    assert_eq!(rules(), before);
    assert_eq!(cluster.rows(&["node", "ls"]).len(), 1);
    second.kill().expect("it runs");
    second.wait().expect("it was started here");
    cluster.wait_ready(1);
}

#[test]
fn a_join_that_cannot_open_its_ports_names_the_holder_and_leaves_no_node() {
    let cluster = Cluster::bare(
        PROGRAM,
        &Settings {
            nodes: 2,
            ..Settings::default()
        },
    );
    cluster.init("node1");
    let token = cluster.token();
    let words = [PROGRAM, "demo-http", "--port", "7946", "--name", "stranger"];
    let mut stranger = cluster
        .lab()
        .command("node2", &words)
        .expect("node2 is up")
        .stdin(Stdio::null())
        .spawn()
        .expect("a process on node2");
    let client = cluster.outside();
    eventually("the stranger answers", || {
        get(&client, cluster.at("node2", 7946))
    });
    let pid = cluster
        .run("node2", None, &["pgrep", "-f", "demo-http --port 7946"])
        .ok();
    let holder = format!("(pid {})", pid.trim());
    cluster.join("node2", &token).refused(&[
        "gossip port 7946 is in use: tcp",
        &holder,
        "--gossip-port",
    ]);
    cluster.run("node2", None, &["kill", pid.trim()]).done();
    stranger.wait().expect("it was started here");

    let there = cluster.netns("node2", None);
    let socket = there
        .run_in(|| UdpSocket::bind("0.0.0.0:4789"))
        .expect("a thread")
        .expect("a socket");
    cluster.join("node2", &token).refused(&[
        "UDP 10.77.0.2:4789 of the data path is held by another process",
        "weft swarm init --data-path-port",
    ]);
    drop(socket);
    assert_eq!(cluster.rows(&["node", "ls"]).len(), 1, "no node is left");
    let links = cluster.run("node2", None, &["ip", "-o", "link"]).ok();
    assert!(!links.contains("weft"), "{links}");
    cluster.join("node2", &token).done();
    cluster.wait_ready(2);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one swarm, and one thing after the other happens to it"
)]
fn names_ports_subnets_and_programs_that_cannot_be() {
    let cluster = swarm(3);
    cluster.web(1);
    let weft = |words: &[&str]| cluster.weft("node1", words);
    let create = |words: &[&str]| weft(&[&["service", "create", "--name"], words].concat());
    create(&["web", "-d", "host", "true"]).refused(&[
        "name conflicts with an existing object",
        "web already exists",
    ]);
    create(&["other", "-d", "-p", "8000:80", "host", "true"]).refused(&[
        "port '8000' is already in use by service 'web'",
        "as an ingress port",
    ]);
    create(&["other", "-d", "Nginx:latest", "nginx"]).refused(&[
        "ContainerSpec: \"Nginx:latest\" is not a valid repository/tag",
        "names in small letters",
    ]);
    create(&["not_a.name!", "-d", "host", "true"]).refused(&["valid as a DNS name component"]);
    create(&["WEB", "-d", "host", "true"]).refused(&["service web already exists"]);
    let alias = ["other", "-d", "--network", "name=front,alias=web."];
    create(&[&alias[..], &["host", "true"]].concat())
        .refused(&["invalid alias name \"web.\"", "that DNS can carry"]);
    // Larger than the API takes: status 0 and no word, once.
    create(&["other", "-d", "-p", "1-65535:1-65535", "host", "true"])
        .refused(&["nothing was sent", "fewer ports"]);
    create(&["other", "-d", "--network", "nope", "host", "true"])
        .refused(&["no such network: nope"]);
    weft(&["network", "create", "front"]).refused(&["network with name front already exists"]);
    weft(&["network", "create", "Front"]).refused(&["network with name front already exists"]);
    // A VPN that takes the default route in pieces is in nobody's way.
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        let route = ["ip", "route", "add", half, "via", "10.77.0.254"];
        cluster.run("node1", None, &route).done();
    }
    weft(&["network", "create", "--subnet", "10.50.0.0/24", "vpn"]).done();
    weft(&["network", "rm", "vpn"]).done();
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        cluster
            .run("node1", None, &["ip", "route", "del", half])
            .done();
    }
    weft(&["network", "create", "--subnet", "10.77.0.128/25", "bad"]).refused(&[
        "subnet 10.77.0.128/25",
        "overlaps with the host route 10.77.0.0/24 (dev eth0)",
        "--subnet",
    ]);
    weft(&["network", "create", "--subnet", "10.0.1.0/25", "bad"])
        .refused(&["10.0.1.0/25", "front"]);
    weft(&["network", "create", "--subnet", "172.18.0.0/24", "bad"]).refused(&[
        "overlaps with the host route 172.18.0.0/16 (dev weft_gwbridge, the gateway bridge)",
    ]);
    weft(&["network", "create", "-o", "encrypted", "bad"])
        .refused(&["network option \"encrypted\" is not known", "not encrypted"]);
    weft(&["network", "rm", "ingress"]).refused(&["ingress network ingress cannot be removed"]);
    // A route that only another node has.
    let route = ["ip", "route", "add", "10.66.0.0/16", "via", "10.77.0.1"];
    cluster.run("node2", None, &route).done();
    weft(&["network", "create", "--subnet", "10.66.7.0/24", "far"]).done();
    let warning = "network far (10.66.7.0/24) overlaps with the host route 10.66.0.0/16 (via 10.77.0.1 dev eth0)";
    eventually("the node with the route warns", || {
        let said = cluster.weft("node2", &["info"]);
        if said.out.contains(warning) {
            Ok(())
        } else {
            Err(said)
        }
    });
    weft(&["network", "rm", "far"]).done();
    weft(&["network", "rm", "front"]).refused(&["network front is in use by service web"]);
    let said = weft(&["service", "inspect", "nope"]);
    assert_eq!((said.code, said.out.as_str()), (1, "[]\n"), "{said:?}");
    assert!(said.err.contains("no such service: nope"), "{said:?}");
    assert_eq!(
        cluster.rows(&["service", "ls"]).len(),
        1,
        "nothing half-made"
    );
    let networks = cluster.rows(&["network", "ls"]);
    let networks: Vec<_> = networks.iter().filter_map(|n| n["Name"].as_str()).collect();
    assert_eq!(networks, ["front", "ingress"]);

    create(&[
        "broken",
        "-d",
        "--restart-condition",
        "none",
        "host",
        "/no/such/program",
    ])
    .done();
    eventually("the reason is shown", || {
        let said = weft(&["service", "ps", "--no-trunc", "broken"]);
        let words = [
            "Rejected",
            "program \"/no/such/program\" was not found on node ",
        ];
        if words.iter().all(|w| said.out.contains(w)) {
            Ok(())
        } else {
            Err(said)
        }
    });
    let said = create(&["b2", "--restart-delay", "10ms", "host", "/no/such/program"]);
    assert_eq!(said.code, 1, "{said:#?}");
    let error = "program \"/no/such/program\" was not found on node ";
    assert!(said.out.contains(&format!("1/1: {error}")), "{said:#?}");
    for says in [
        "service b2 does not start: task b2.1 failed ",
        error,
        "weft service rm b2",
    ] {
        assert!(said.err.contains(says), "{says}: {said:#?}");
    }
    let said = create(&[
        "b3",
        "--restart-condition",
        "none",
        "host",
        "/no/such/program",
    ]);
    assert_eq!(said.code, 1, "{said:#?}");
    assert!(
        said.err
            .contains("service b3 does not run, and is not to be restarted"),
        "{said:#?}"
    );
    // Wrong usage is told apart from refusal.
    assert_eq!(weft(&["service", "create"]).code, 2);
    assert_eq!(weft(&["nonsense"]).code, 2);
    let client = cluster.outside();
    eventually("web goes on", || get(&client, cluster.at("node2", 8000)));
}

#[test]
fn a_port_that_a_stranger_holds_is_reported_and_taken_over() {
    let cluster = swarm(3);
    let mut stranger = cluster
        .lab()
        .command(
            "node3",
            &[PROGRAM, "demo-http", "--port", "8000", "--name", "stranger"],
        )
        .expect("node3 is up")
        .stdin(Stdio::null())
        .spawn()
        .expect("a process on node3");
    let client = cluster.outside();
    let there = cluster.at("node3", 8000);
    eventually("the stranger answers", || get(&client, there));
    let pid = cluster
        .run("node3", None, &["pgrep", "-f", "demo-http --port 8000"])
        .ok();

    cluster.network("front");
    let words = [
        "service",
        "create",
        "--name",
        "web",
        "--network",
        "front",
        "-p",
        "8000:80",
        "--replicas",
        "3",
        "host",
        PROGRAM,
        "demo-http",
        "--port",
        "80",
    ];
    cluster.weft("node1", &words).done();
    let expected = format!(
        "port 8000/tcp on node node3 is held by weft-under-test (pid {})",
        pid.trim()
    );
    // The kernel keeps 15 bytes of a program's name.
    let expected = expected.replace("weft-under-test", &"weft-under-test"[..15]);
    eventually("the service names the port, the node and the owner", || {
        let said = cluster.weft("node1", &["service", "inspect", "web"]);
        if said.out.contains(&expected) {
            Ok(())
        } else {
            Err(said)
        }
    });
    let row = &cluster.rows(&["service", "ls"])[0];
    assert!(
        row["PortErrors"][0]
            .as_str()
            .is_some_and(|e| e.contains(&expected)),
        "{row}"
    );
    assert_eq!(row["Replicas"], "3/3", "the rest works");
    for node in ["node1", "node2"] {
        let answer = eventually("the other nodes accept", || {
            get(&client, cluster.at(node, 8000))
        });
        assert!(answer.starts_with("Hello from web."), "{node}: {answer}");
    }
    assert!(get(&client, there).is_ok_and(|a| a.starts_with("Hello from stranger")));

    cluster.run("node3", None, &["kill", pid.trim()]).done();
    stranger.wait().expect("it was started here");
    eventually("the port is taken when it is free", || {
        match get(&client, there) {
            Ok(answer) if answer.starts_with("Hello from web.") => Ok(()),
            other => Err(other),
        }
    });
    eventually("the complaint is gone", || {
        let row = cluster.rows(&["service", "ls"]).remove(0);
        if row["PortErrors"] == serde_json::json!([]) {
            Ok(())
        } else {
            Err(row)
        }
    });
}
