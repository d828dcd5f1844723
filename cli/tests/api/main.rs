//! The commands against a node API that a test plays, over a real unix socket.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod containers;
mod images;
mod inspect;
mod lock;
mod nodes;
mod payloads;
mod stacks;
mod volumes;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use weft_cli::Printer;
use weft_cli::testing::{Cli, run as run_command};

/// One request that is expected, and the answer to it.
struct Exchange {
    request: &'static str,
    body: Value,
    status: u16,
    answer: Value,
}

fn get(path: &'static str, answer: Value) -> Exchange {
    exchange(path, Value::Null, 200, answer)
}

fn exchange(request: &'static str, body: Value, status: u16, answer: Value) -> Exchange {
    Exchange {
        request,
        body,
        status,
        answer,
    }
}

/// Plays a node: answers the expected requests in order, then goes away.
struct FakeNode {
    dir: tempfile::TempDir,
    thread: JoinHandle<Vec<String>>,
}

impl FakeNode {
    fn start(script: Vec<Exchange>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(listener, script))
        });
        Self { dir, thread }
    }

    fn run(&self, line: &str) -> (anyhow::Result<ExitCode>, String) {
        run(self.dir.path().join("s").as_path(), line)
    }

    /// What `weft OBJECT inspect NAME` prints with a template.
    fn inspect(&self, object: &str, name: &str, template: &str) -> String {
        let words = [object, "inspect", name, "--format", template];
        let socket = self.dir.path().join("s");
        let (result, text) = run_words(&socket, words.into_iter());
        assert_eq!(result.unwrap(), ExitCode::SUCCESS, "{template}");
        text
    }

    /// Requests that were not as expected.
    fn surprises(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, script: Vec<Exchange>) -> Vec<String> {
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let count = script.len();
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let surprises = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..count {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| {
            let (script, surprises) = (Arc::clone(&script), Arc::clone(&surprises));
            async move {
                let mut line = format!("{} {}", request.method(), request.uri());
                if request.headers().contains_key("weft-stale") {
                    line.push_str(" stale");
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let expected = script.lock().unwrap().pop_front().unwrap();
                if line != expected.request || body != expected.body {
                    surprises.lock().unwrap().push(format!("{line} {body}"));
                }
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(expected.status)
                        .body(Full::new(Bytes::from(expected.answer.to_string())))
                        .unwrap(),
                )
            }
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
            .unwrap();
    }
    surprises.lock().unwrap().drain(..).collect()
}

#[derive(Clone, Default)]
struct Output(Rc<RefCell<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run(socket: &Path, line: &str) -> (anyhow::Result<ExitCode>, String) {
    run_words(socket, line.split_whitespace())
}

fn run_words<'a>(
    socket: &Path,
    more: impl Iterator<Item = &'a str>,
) -> (anyhow::Result<ExitCode>, String) {
    let host = format!("unix://{}", socket.display());
    let first = ["weft", "-H", &host].map(str::to_owned);
    let words = first.into_iter().chain(more.map(str::to_owned));
    let output = Output::default();
    let mut printer = Printer::to(Box::new(output.clone()));
    let result = run_command(Cli::try_parse_from(words).unwrap(), &[], &mut printer);
    let text = String::from_utf8(output.0.borrow().clone()).unwrap();
    (result, text)
}

const NO_SURPRISES: [&str; 0] = [];

#[test]
fn init_tells_how_to_join() {
    let node = FakeNode::start(vec![exchange(
        "POST /v1/swarm/init",
        json!({
            "AdvertiseAddr": "10.77.0.1", "ListenAddr": null, "DataPathAddr": null,
            "DataPathPort": 5789, "DefaultAddrPool": ["10.20.0.0/16"], "SubnetSize": null,
            "AutoLockManagers": false, "Availability": "pause",
        }),
        200,
        json!({"NodeID": "abc", "WorkerToken": "SWMTKN-1-x-y", "ManagerAddr": "10.77.0.1:2377"}),
    )]);
    let (result, text) = node.run(
        "swarm init --advertise-addr 10.77.0.1 --data-path-port 5789 --default-addr-pool 10.20.0.0/16 \
         --availability pause",
    );
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        "\
Swarm initialized: current node (abc) is now a manager.

To add a worker to this swarm, run the following command:

    weft swarm join --token SWMTKN-1-x-y 10.77.0.1:2377

To add a manager to this swarm, run 'weft swarm join-token manager' and follow the instructions.

"
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn the_command_for_a_new_manager() {
    let token = json!({"Token": "SWMTKN-1-x-y", "ManagerAddr": "10.77.0.1:2377"});
    let node = FakeNode::start(vec![
        get("GET /v1/swarm/token/manager", token.clone()),
        get("GET /v1/swarm/token/manager", token),
    ]);
    let (result, text) = node.run("swarm join-token manager");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        "\
To add a manager to this swarm, run the following command:

    weft swarm join --token SWMTKN-1-x-y 10.77.0.1:2377

"
    );
    let (result, text) = node.run("swarm join-token -q manager");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "SWMTKN-1-x-y\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

fn swarm(digest: &str, rotates: bool, renewed: u32) -> Value {
    json!({
        "ID": "c", "Version": {"Index": 7},
        "CreatedAt": "2026-01-02T03:04:05Z", "UpdatedAt": "2026-01-02T03:04:05Z",
        "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "DataPathPort": 4789,
        "TLSInfo": {"TrustRoot": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        "RootRotationInProgress": rotates,
        "RootRotation": {
            "DesiredRootDigest": digest, "Renewed": renewed, "Total": 2, "Waiting": [], "Away": [],
        },
    })
}

#[test]
fn the_root_certificate_is_printed_and_replaced() {
    let rotate = json!({
        "SigningCACert": null, "SigningCAKey": null, "NodeCertExpiry": 7_200_000_000_000_u64,
    });
    let node = FakeNode::start(vec![
        get("GET /v1/swarm", swarm("sha256:05da", false, 2)),
        exchange(
            "POST /v1/swarm/ca/rotate",
            rotate,
            200,
            swarm("sha256:77", true, 0),
        ),
        get("GET /v1/swarm", swarm("sha256:77", true, 1)),
        get("GET /v1/swarm", swarm("sha256:77", true, 1)),
        get("GET /v1/swarm", swarm("sha256:77", false, 2)),
        get("GET /v1/swarm", swarm("sha256:77", false, 2)),
    ]);
    let root = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let (result, text) = node.run("swarm ca");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, root);
    let (result, text) = node.run("swarm ca --cert-expiry 2h");
    let error = result.unwrap_err().to_string();
    assert_eq!(
        error,
        "`--cert-expiry` flag requires the `--rotate` flag to update the CA"
    );
    assert_eq!(text, "");
    let (result, text) = node.run("swarm ca --rotate --cert-expiry 2h");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    let progress = "\
desired root digest: sha256:77
rotated TLS certificates: 1/2 nodes
rotated CA certificates: 0/2 nodes
rotated TLS certificates: 2/2 nodes
rotated CA certificates: 2/2 nodes
";
    assert_eq!(text, format!("{progress}{root}"));
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn settings_of_the_swarm_are_changed() {
    let update = json!({
        "TaskHistoryRetentionLimit": 3, "HeartbeatPeriod": 5_000_000_000_u64,
    });
    let node = FakeNode::start(vec![exchange(
        "POST /v1/swarm/update",
        update,
        200,
        swarm("sha256:05da", false, 2),
    )]);
    let (result, text) = node.run("swarm update");
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("nothing to change: give"), "{error}");
    assert_eq!(text, "");
    let (result, text) = node.run("swarm update --task-history-limit 3 --dispatcher-heartbeat 5s");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "Swarm updated.\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn a_refusal_is_told_in_the_nodes_words() {
    let message = "port '8000' is already in use by service 'web' (abc) as an ingress port";
    let node = FakeNode::start(vec![exchange(
        "POST /v1/swarm/join",
        json!({
            "JoinToken": "bad", "RemoteAddr": "10.77.0.1:2377", "AdvertiseAddr": null,
            "ListenAddr": null, "DataPathAddr": null, "Availability": "drain",
        }),
        409,
        json!({ "message": message }),
    )]);
    let (result, text) = node.run("swarm join --token bad --availability drain 10.77.0.1:2377");
    assert_eq!(result.unwrap_err().to_string(), message);
    assert_eq!(text, "");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn names_are_escaped_in_paths_and_the_rest_is_still_done() {
    let node = FakeNode::start(vec![
        exchange(
            "DELETE /v1/networks/a%2Fb",
            Value::Null,
            404,
            json!({"message": "network a/b not found"}),
        ),
        exchange("DELETE /v1/networks/front", Value::Null, 200, json!({})),
    ]);
    let (result, text) = node.run("network rm a/b front");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert_eq!(text, "front\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

const LONG_AGO: &str = "2026-01-02T03:04:05.678Z";

fn service(replicas: u32, running: u32) -> Value {
    json!({
        "ID": "svc1", "Version": {"Index": 12}, "CreatedAt": LONG_AGO, "UpdatedAt": LONG_AGO,
        "Spec": {
            "Name": "web",
            "Labels": {"tier": "front"},
            "TaskTemplate": {
                "Runtime": "host",
                "ContainerSpec": {"Image": "host", "Args": ["server"], "Env": ["A=1"]},
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64},
                "Networks": [{"Target": "net1", "Aliases": []}],
            },
            "Mode": {"Replicated": {"Replicas": replicas}},
            "EndpointSpec": {"Mode": "vip", "Ports": []},
        },
        "Endpoint": {
            "Ports": [{
                "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8000, "PublishMode": "ingress",
            }],
            "VirtualIPs": [{"NetworkID": "net1", "Addr": "10.0.1.2/24"}],
        },
        "ServiceStatus": {"RunningTasks": running, "DesiredTasks": replicas},
        "PortErrors": [],
    })
}

fn task(state: &str) -> Value {
    json!({
        "ID": "t1", "Version": {"Index": 1}, "CreatedAt": LONG_AGO, "UpdatedAt": LONG_AGO,
        "ServiceID": "svc1", "ServiceName": "web", "Slot": 1, "NodeID": "n1",
        "SpecVersion": {"Index": 1}, "Spec": service(1, 0)["Spec"]["TaskTemplate"],
        "NetworksAttachments": [], "DesiredState": "running",
        "Status": {
            "State": state, "Timestamp": LONG_AGO, "Message": "", "Err": "",
            "ContainerStatus": {"ExitCode": null},
        },
        "NodeName": "node1",
    })
}

#[test]
fn create_waits_until_the_service_has_converged() {
    let mut script = vec![
        exchange(
            "POST /v1/services",
            json!({
                "Name": "web",
                "Labels": {},
                "TaskTemplate": {
                    "Runtime": "host",
                    "ContainerSpec": {
                        "Image": "host", "Args": ["server", "-x"], "Env": [], "User": "",
                        "Privileges": {"NoNewPrivileges": false}, "CapabilityAdd": [],
                        "CapabilityDrop": [], "StopGracePeriod": 10_000_000_000_u64,
                    },
                    "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64},
                    "Networks": [{"Target": "front", "Aliases": ["www"]}],
                },
                "Mode": {"Replicated": {"Replicas": 1}},
                "EndpointSpec": {
                    "Mode": "vip",
                    "Ports": [{"HostIP": null, "PublishedPort": 8000, "TargetPort": 80,
                               "Protocol": "tcp", "PublishMode": "ingress",
                               "ClientAddress": "keep"}],
                },
                "Connections": {"Affinity": "client", "LocalFirst": true, "Limit": 100,
                                "LimitPerClient": 0},
                "Attach": true,
            }),
            200,
            service(1, 0),
        ),
        get("GET /v1/services/svc1", service(1, 0)),
        get("GET /v1/services/svc1/tasks", json!([task("preparing")])),
    ];
    // It has to stay up for a second: five looks 200 ms apart, and the first one.
    for _ in 0..6 {
        script.push(get("GET /v1/services/svc1", service(1, 1)));
        script.push(get("GET /v1/services/svc1/tasks", json!([task("running")])));
    }
    let node = FakeNode::start(script);
    let (result, text) = node.run(
        "service create --name web -p 8000:80 --network front,alias=www --affinity client \
         --local-first --limit-connections 100 --attach host server -x",
    );
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        "\
svc1
overall progress: 0 out of 1 tasks
1/1: preparing
overall progress: 1 out of 1 tasks
1/1: running
verify: Service svc1 converged
"
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn a_service_that_is_given_no_name_gets_one_that_nobody_has() {
    let create = |status, answer| exchange("POST /v1/services", Value::Null, status, answer);
    let taken = || {
        let text = "name conflicts with an existing object: service calm_otter already exists";
        create(409, json!({"message": text}))
    };
    let made = create(200, service(1, 0));
    let node = FakeNode::start(vec![taken(), taken(), made]);
    let (result, text) = node.run("service create -d host server");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "svc1\n");
    // The names are not known before, so every request is another one than expected.
    let name = |request: String| {
        let body = request.strip_prefix("POST /v1/services ").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        body["Name"].as_str().unwrap().to_owned()
    };
    let mut tried: Vec<String> = node.surprises().into_iter().map(name).collect();
    assert_eq!(tried.len(), 3);
    assert!(tried.iter().all(|name| name.contains('_')), "{tried:?}");
    tried.sort();
    tried.dedup();
    assert_eq!(tried.len(), 3, "{tried:?}");

    // Five are enough, and other refusals are told at once.
    let node = FakeNode::start((0..5).map(|_| taken()).collect());
    let (result, _) = node.run("service create -d host server");
    let said = result.unwrap_err().to_string();
    assert!(said.starts_with("name conflicts"), "{said}");
    assert_eq!(node.surprises().len(), 5);
    let busy = create(409, json!({"message": "port '8000' is already in use"}));
    let node = FakeNode::start(vec![busy]);
    let (result, _) = node.run("service create -d -p 8000:80 host server");
    let said = result.unwrap_err().to_string();
    assert_eq!(said, "port '8000' is already in use");
    assert_eq!(node.surprises().len(), 1);
}

#[test]
fn ports_are_published_and_taken_back_and_busy_ones_told() {
    let mut listed = service(1, 1);
    listed["PortErrors"] = json!(["port 8000/tcp on node n2 is held by nginx (pid 7)"]);
    let update = json!({
        "PublishAdd": [{"HostIP": "192.0.2.1", "PublishedPort": 8000, "TargetPort": 80,
                        "Protocol": "tcp", "PublishMode": "ingress",
                        "ClientAddress": "keep"}],
        "PublishRm": [{"HostIP": null, "PublishedPort": 0, "TargetPort": 53,
                       "Protocol": "udp", "PublishMode": "ingress",
                       "ClientAddress": "keep"}],
        "Affinity": null, "LocalFirst": false, "LimitConnections": null,
        "LimitClientConnections": 7, "Attach": true,
    });
    let spec = service(1, 1)["Spec"].clone();
    let node = FakeNode::start(vec![
        // Ports of the network replace no task: nothing is said of it.
        exchange(
            "POST /v1/services/web/plan",
            update.clone(),
            200,
            json!({"Before": spec, "After": spec, "Replaced": 0, "Tasks": 1, "Warnings": []}),
        ),
        exchange("POST /v1/services/web/update", update, 200, service(1, 1)),
        get("GET /v1/services", json!([listed])),
        exchange(
            "GET /v1/mesh/why/53%2Fudp",
            Value::Null,
            200,
            json!({"Asked": "53/udp", "Node": "n1", "Service": "", "Source": "",
                   "Found": ["no service publishes port 53/udp"], "Ports": [], "Replicas": []}),
        ),
    ]);
    let line = "service update -d --publish-add 192.0.2.1:8000:80 --publish-rm 53/udp \
                --local-first=false --limit-client-connections 7 --attach web";
    let (result, text) = node.run(line);
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "web\n");
    let (result, text) = node.run("service ls");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert!(text.contains("web"), "{text}");
    let (result, text) = node.run("why 53/udp");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "no service publishes port 53/udp\n");
    let (result, _) = node.run("service update web");
    let error = result.unwrap_err().to_string();
    assert_eq!(
        error,
        "nothing to change: give --replicas, --args, --env-add, --publish-add, --update-order, --force \
         or another flag of \"weft service update --help\""
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn an_update_changes_the_number_of_replicas_after_the_rest() {
    let scale = || {
        exchange(
            "POST /v1/services/web/scale",
            json!({"Replicas": 3}),
            200,
            service(3, 1),
        )
    };
    let update = exchange(
        "POST /v1/services/web/update",
        json!({
            "PublishAdd": [], "PublishRm": [], "Affinity": null, "LocalFirst": true,
            "LimitConnections": null, "LimitClientConnections": null, "Attach": null,
        }),
        200,
        service(1, 1),
    );
    let refused = exchange(
        "POST /v1/services/web/scale",
        json!({"Replicas": 0}),
        400,
        json!({"message": "scale can only be used with replicated mode"}),
    );
    let node = FakeNode::start(vec![scale(), update, scale(), refused]);
    for line in [
        "service update -d --replicas 3 web",
        "service update -d --replicas 3 --local-first web",
    ] {
        let (result, text) = node.run(line);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        assert_eq!(text, "web\n", "{line}");
    }
    let (result, text) = node.run("service update -d --replicas 0 web");
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "scale can only be used with replicated mode");
    assert_eq!(text, "");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

/// A whole specification goes back with the version that was read, after a look at what it does.
#[test]
fn an_update_says_what_it_does_and_is_made_anew_where_the_service_was_another_one() {
    let spec = json!({
        "Name": "web",
        "Labels": {"tier": "front"},
        "TaskTemplate": {
            "Runtime": "host",
            "ContainerSpec": {
                "Image": "host", "Args": ["server", "-v", "2"], "Env": ["A=1"], "User": "",
                "Privileges": {"NoNewPrivileges": false}, "CapabilityAdd": [],
                "CapabilityDrop": [], "StopGracePeriod": 10_000_000_000_u64,
            },
            "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64},
            "Networks": [{"Target": "net1", "Aliases": []}],
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "vip", "Ports": []},
        "Connections": {"Affinity": "none", "LocalFirst": false, "Limit": 0, "LimitPerClient": 0},
        "Attach": false,
    });
    let body = json!({
        "Spec": spec, "PublishAdd": [], "PublishRm": [], "Affinity": null, "LocalFirst": null,
        "LimitConnections": null, "LimitClientConnections": null, "Attach": null,
    });
    let plan = json!({
        "Before": service(1, 1)["Spec"], "After": spec, "Tasks": 1, "Replaced": 1,
        "Warnings": ["it has one task"],
    });
    let read = || get("GET /v1/services/web", service(1, 1));
    let planned = || {
        let path = "POST /v1/services/web/plan?version=12";
        exchange(path, body.clone(), 200, plan.clone())
    };
    let update = |status, answer| {
        let path = "POST /v1/services/web/update?version=12";
        exchange(path, body.clone(), status, answer)
    };
    let late = update(
        409,
        json!({"message": "update out of sequence: read it again"}),
    );
    let rollback = json!({
        "Rollback": true, "PublishAdd": [], "PublishRm": [], "Affinity": null, "LocalFirst": null,
        "LimitConnections": null, "LimitClientConnections": null, "Attach": null,
    });
    let node = FakeNode::start(vec![
        read(),
        planned(),
        read(),
        planned(),
        late,
        read(),
        planned(),
        update(200, service(1, 1)),
        exchange("POST /v1/services/web/update", rollback, 200, service(1, 1)),
    ]);
    let run = |words: &[&str]| {
        let socket = node.dir.path().join("s");
        let (result, text) = run_words(&socket, words.iter().copied());
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        text
    };
    let text = run(&[
        "service",
        "update",
        "--dry-run",
        "--args",
        "server -v 2",
        "web",
    ]);
    assert!(
        text.starts_with(
            "1 of 1 tasks of service web are replaced, 1 at a time, stop-first\n  \
             TaskTemplate.ContainerSpec.Args: [\"server\"] -> [\"server\",\"-v\",\"2\"]\n"
        ),
        "{text}"
    );
    assert!(text.ends_with("warning: it has one task\n"), "{text}");
    let text = run(&[
        "service",
        "update",
        "-d",
        "-q",
        "--args",
        "server -v 2",
        "web",
    ]);
    assert_eq!(text, "web\n");
    assert_eq!(run(&["service", "rollback", "-d", "web"]), "web\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn an_answer_of_another_form_is_an_error_with_a_next_step() {
    let node = FakeNode::start(vec![
        get("GET /v1/nodes", json!({"nodes": []})),
        exchange("GET /v1/nodes", Value::Null, 502, json!("<html>")),
    ]);
    let (result, _) = node.run("node ls");
    assert_eq!(
        result.unwrap_err().to_string(),
        "weftd's answer to /v1/nodes has an unexpected form: are weft and weftd of the same version?"
    );
    let (result, _) = node.run("node ls");
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains("answered 502 Bad Gateway: \"<html>\""),
        "{text}"
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let (result, _) = run(&socket, "node ls");
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "cannot connect to weftd at unix://{}: is it running? start it with `weftd`, or name another socket with -H",
            socket.display()
        )
    );
}

#[test]
fn the_doctor_fails_when_something_does_not_work() {
    let check = |health| json!({"Name": "nft", "Health": health, "Found": "f", "Next": "n"});
    for (worst, code) in [
        ("ok", ExitCode::SUCCESS),
        ("warn", ExitCode::SUCCESS),
        ("fail", ExitCode::FAILURE),
    ] {
        let node = FakeNode::start(vec![get(
            "GET /v1/doctor",
            json!([check("ok"), check(worst)]),
        )]);
        let (result, text) = node.run("doctor --format {{.Health}}:{{.Next}}");
        assert_eq!(result.unwrap(), code);
        assert_eq!(text, format!("ok:n\n{worst}:n\n"));
        assert_eq!(node.surprises(), NO_SURPRISES);
    }
}

#[test]
fn events_are_shown_as_they_are_asked_for() {
    let event = json!({
        "Type": "node", "Action": "update",
        "Actor": {"ID": "n1", "Attributes": {"name": "node1", "state.new": "down"}},
        "scope": "swarm", "time": 7, "timeNano": 7_000_000_000_u64,
    });
    let node = FakeNode::start(vec![
        get("GET /v1/events?since=7000&until=8000", event.clone()),
        get("GET /v1/events", event.clone()),
        get("GET /v1/events", event.clone()),
        exchange(
            "GET /v1/events",
            Value::Null,
            503,
            json!({"message": "This node is not a swarm manager."}),
        ),
    ]);
    let template = "{{.Type}}/{{.Action}}/{{.Actor.Attributes.name}}/{{.Scope}}/{{.Time}}";
    let (result, text) = node.run(&format!("events --since 7 --until 8 --format {template}"));
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "node/update/node1/swarm/7\n");
    let (_, text) = node.run("events --format json");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), event);
    let (_, text) = node.run("events -f type=service");
    assert_eq!(text, "");
    let (result, _) = node.run("events");
    let error = result.unwrap_err().to_string();
    assert!(error.contains("not a swarm manager"), "{error}");
    // Refused before the node is asked.
    for (line, says) in [
        ("events -f colour=red", "there is type, event"),
        ("events --since yesterday", "invalid time \"yesterday\""),
        ("events --format table", "a stream is no table"),
    ] {
        let error = node.run(line).0.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(node.surprises(), NO_SURPRISES);
}
