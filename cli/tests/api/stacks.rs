//! `weft stack …` against a swarm that keeps what it is told.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{LONG_AGO, run};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const NONE: [&str; 0] = [];

/// What a manager keeps, as far as these tests look at it.
#[derive(Debug, Default)]
struct Swarm {
    networks: Vec<Value>,
    secrets: Vec<Value>,
    configs: Vec<Value>,
    services: Vec<Value>,
    /// Base64, by the ids of secrets.
    data: Vec<(String, Value)>,
    made: u64,
    /// Calls that change something.
    calls: Vec<String>,
    /// The next call that begins so, and whose body holds that name, is answered so.
    refuses: Option<(&'static str, &'static str, u16, &'static str)>,
}

fn named<'a>(list: &'a [Value], name: &str) -> Option<&'a Value> {
    list.iter().find(|there| there["Spec"]["Name"] == name)
}

impl Swarm {
    fn answer(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if method != "GET" {
            self.calls.push(format!("{method} {target}"));
        }
        if let Some((begins, name, status, message)) = self.refuses
            && format!("{method} {path}").starts_with(begins)
            && body.to_string().contains(name)
        {
            self.refuses = None;
            return (status, json!({ "message": message }));
        }
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        match (method, parts.as_slice()) {
            ("GET", ["images", "resolve"]) => {
                let name = query.trim_start_matches("name=").replace("%3A", ":");
                let name = format!("docker.io/library/{name}@{DIGEST}");
                let known = json!({"Name": name, "Digest": DIGEST, "Platforms": []});
                (200, known)
            }
            ("GET", ["services", _, "tasks"]) => (200, json!([])),
            ("GET", [kind]) => (200, json!(self.list(kind))),
            ("GET", [kind, reference]) => match self.find(kind, reference) {
                Some(index) => (200, self.list(kind)[index].clone()),
                None => (404, json!({"message": "no such object"})),
            },
            ("DELETE", [kind, reference]) => match self.find(kind, reference) {
                Some(index) => {
                    self.list(kind).remove(index);
                    (200, json!({}))
                }
                None => (404, json!({"message": "no such object"})),
            },
            ("POST", [kind]) => (200, self.create(kind, body)),
            ("POST", [kind, reference, "update"]) => self.update(kind, reference, query, body),
            _ => (
                400,
                json!({"message": format!("no such call: {method} {target}")}),
            ),
        }
    }

    fn list(&mut self, kind: &str) -> &mut Vec<Value> {
        match kind {
            "networks" => &mut self.networks,
            "secrets" => &mut self.secrets,
            "configs" => &mut self.configs,
            _ => &mut self.services,
        }
    }

    fn find(&mut self, kind: &str, reference: &str) -> Option<usize> {
        let list = self.list(kind);
        list.iter().position(|there| {
            let id = if kind == "networks" { "Id" } else { "ID" };
            there[id] == reference || there["Spec"]["Name"] == reference
        })
    }

    fn create(&mut self, kind: &str, body: &Value) -> Value {
        self.made += 1;
        let id = format!("id{}", self.made);
        let mut object = json!({
            "ID": id, "Version": {"Index": 1}, "CreatedAt": LONG_AGO, "UpdatedAt": LONG_AGO,
        });
        match kind {
            "networks" => {
                object = body.clone();
                object["Id"] = json!(id);
                object["Version"] = json!({"Index": 1});
                object["Created"] = json!(LONG_AGO);
                object["UpdatedAt"] = json!(LONG_AGO);
                object["VNI"] = json!(4096 + self.made);
            }
            "services" => {
                object["Spec"] = self.resolved(body);
                object["Endpoint"] = json!({"Ports": [], "VirtualIPs": []});
                let replicas = body["Mode"]["Replicated"]["Replicas"].clone();
                object["ServiceStatus"] =
                    json!({"RunningTasks": replicas.clone(), "DesiredTasks": replicas});
                object["PortErrors"] = json!([]);
            }
            kind => {
                object["Kind"] = json!(kind.trim_end_matches('s'));
                object["Spec"] = body.clone();
                if kind == "secrets" {
                    self.data.push((id, body["Data"].clone()));
                    object["Spec"].as_object_mut().unwrap().remove("Data");
                }
            }
        }
        self.list(kind).push(object.clone());
        object
    }

    fn update(&mut self, kind: &str, id: &str, query: &str, body: &Value) -> (u16, Value) {
        let Some(index) = self.find(kind, id) else {
            return (404, json!({"message": "no such object"}));
        };
        let spec = match kind {
            "services" => self.resolved(&body["Spec"]),
            _ => body.clone(),
        };
        let data = self.data.iter().find(|(of, _)| of == id);
        if data.is_some_and(|(_, data)| *data != spec["Data"]) {
            let message = "only updates to Labels are allowed";
            return (400, json!({ "message": message }));
        }
        let there = &mut self.list(kind)[index];
        let version = there["Version"]["Index"].as_u64().unwrap();
        assert_eq!(query, format!("version={version}"));
        if kind == "services" || there["Spec"]["Labels"] != spec["Labels"] {
            there["Spec"] = spec;
            there["Version"]["Index"] = json!(version + 1);
            there["Spec"].as_object_mut().unwrap().remove("Data");
        }
        (200, there.clone())
    }

    /// With ids in place of names.
    fn resolved(&self, spec: &Value) -> Value {
        let mut spec = spec.clone();
        let task = &mut spec["TaskTemplate"];
        for joined in task["Networks"].as_array_mut().unwrap() {
            let mut networks = self.networks.iter();
            let network = networks.find(|there| there["Name"] == joined["Target"]);
            joined["Target"] = network.unwrap()["Id"].clone();
        }
        for (list, id, name, there) in [
            ("Secrets", "SecretID", "SecretName", &self.secrets),
            ("Configs", "ConfigID", "ConfigName", &self.configs),
        ] {
            let used = task["ContainerSpec"].get_mut(list);
            let used = used.and_then(Value::as_array_mut);
            for used in used.into_iter().flatten() {
                let payload = named(there, used[name].as_str().unwrap());
                used[id] = payload.unwrap()["ID"].clone();
            }
        }
        spec
    }
}

/// The swarm behind a socket, and a folder for files.
struct Node {
    dir: tempfile::TempDir,
    swarm: Arc<Mutex<Swarm>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let swarm = Arc::new(Mutex::new(Swarm::default()));
        let (stop, stopped) = oneshot::channel();
        let behind = Arc::clone(&swarm);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, behind) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            dir,
            swarm,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// What `weft stack …` prints, and whether that worked.
    fn stack(&self, line: &str) -> (anyhow::Result<ExitCode>, String) {
        run(&self.path("s"), &format!("stack {line}"))
    }

    /// Deploys `vote.yml`.
    fn deploy(&self, flags: &str) -> (anyhow::Result<ExitCode>, String) {
        let file = self.path("vote.yml");
        self.stack(&format!("deploy -c {} {flags} vote", file.display()))
    }

    /// The same, where all is well.
    fn deployed(&self, flags: &str) -> String {
        let (result, text) = self.deploy(flags);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        text
    }

    /// Calls since the last time that changed something.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.swarm.lock().unwrap().calls)
    }

    fn image_of(&self, service: &str) -> Value {
        let swarm = self.swarm.lock().unwrap();
        let service = named(&swarm.services, service).unwrap();
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, swarm: Arc<Mutex<Swarm>>) {
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let swarm = Arc::clone(&swarm);
        let service = service_fn(move |request: Request<Incoming>| {
            let swarm = Arc::clone(&swarm);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let target = parts.uri.to_string();
                let mut swarm = swarm.lock().unwrap();
                let (status, answer) = swarm.answer(parts.method.as_str(), &target, &body);
                let answer = Full::new(Bytes::from(answer.to_string()));
                let answer = Response::builder().status(status).body(answer);
                Ok::<_, std::convert::Infallible>(answer.unwrap())
            }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        let served = connection.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(served.await) });
    }
}

const VOTE: &str = "
services:
  db:
    image: redis:7
  web:
    image: nginx:1.27
    depends_on: {db: {condition: service_healthy}}
    secrets: [key]
    configs: [conf]
secrets:
  key: {file: ./key}
configs:
  conf: {file: ./conf}
";

fn vote() -> Node {
    let node = Node::start();
    node.write("vote.yml", VOTE);
    node.write("key", "hunter2");
    node.write("conf", "a=b\n");
    node
}

fn yaml_without_payloads(replicas: u32) -> String {
    format!(
        "services:\n  db:\n    image: redis:7\n  web:\n    image: nginx:1.27\n    deploy: {{replicas: {replicas}}}\n"
    )
}

#[test]
fn a_stack_is_made_once() {
    let node = vote();
    assert_eq!(
        node.deployed("--dry-run"),
        "\
would create network vote_default
would create secret vote_key
would create config vote_conf
would create service vote_db
would create service vote_web
"
    );
    assert_eq!(node.calls(), NONE);
    assert_eq!(
        node.deployed("-d"),
        "\
Creating network vote_default
Creating secret vote_key
Creating config vote_conf
Creating service vote_db
Creating service vote_web
"
    );
    assert_eq!(
        node.calls(),
        [
            "POST /v1/networks",
            "POST /v1/secrets",
            "POST /v1/configs",
            "POST /v1/services",
            "POST /v1/services",
        ]
    );
    assert_eq!(node.image_of("vote_web"), format!("nginx:1.27@{DIGEST}"));
    // Managers alone know what the secret holds: they are asked, and nothing else is sent.
    assert_eq!(node.deployed("-d"), "");
    assert_eq!(node.calls(), ["POST /v1/secrets/id2/update?version=1"]);
    assert_eq!(node.deployed("--dry-run"), "");
    assert_eq!(node.calls(), NONE);
}

#[test]
fn other_bytes_behind_a_name_are_refused() {
    let node = vote();
    node.deployed("-d");
    node.calls();
    // Of a config everybody sees that before anything is sent.
    node.write("conf", "a=c\n");
    let error = node.deploy("-d").0.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "failed to update config vote_conf: only updates to Labels are allowed; what it holds"
        ),
        "{error}"
    );
    assert_eq!(node.calls(), NONE);
    node.write("conf", "a=b\n");
    node.write("key", "hunter3");
    let error = node.deploy("-d").0.unwrap_err().to_string();
    assert!(
        error.starts_with("failed to update secret vote_key: only updates to Labels are allowed"),
        "{error}"
    );
    assert!(
        error.ends_with("nothing was done; not done: secret vote_key; mend that and deploy again: nothing is done twice"),
        "{error}"
    );
    assert!(error.contains("`name: vote_key_v2`"), "{error}");
    assert!(!error.contains("hunter"), "{error}");
    std::fs::remove_file(node.path("key")).unwrap();
    let error = node.deploy("-d").0.unwrap_err().to_string();
    assert!(
        error.starts_with("invalid stack\n") && error.contains("secrets.key is to be the file"),
        "{error}"
    );
}

#[test]
fn what_differs_is_updated_and_what_is_left_over_pruned() {
    let node = Node::start();
    node.write("vote.yml", &yaml_without_payloads(1));
    node.deployed("-d");
    node.calls();
    assert_eq!(node.deployed("-d"), "");
    assert_eq!(node.calls(), NONE);
    node.write("vote.yml", &yaml_without_payloads(3));
    assert_eq!(
        node.deployed("--dry-run"),
        "would update service vote_web (replicas 1 → 3)\n"
    );
    assert_eq!(node.deployed("-d"), "Updating service vote_web (id: id3)\n");
    assert_eq!(node.calls(), ["POST /v1/services/id3/update?version=1"]);
    let text = yaml_without_payloads(3);
    let text = text.replace("  db:\n    image: redis:7\n", "");
    node.write("vote.yml", &text);
    assert_eq!(node.deployed("-d"), "");
    assert_eq!(node.deployed("--prune -d"), "Removing service vote_db\n");
    assert_eq!(node.calls(), ["DELETE /v1/services/id2"]);
}

#[test]
fn a_deployment_that_fails_half_way_says_how_far_it_got() {
    let node = Node::start();
    node.write("vote.yml", &yaml_without_payloads(1));
    let busy = "port '80' is already in use";
    let refuses = ("POST /v1/services", "vote_web", 409, busy);
    node.swarm.lock().unwrap().refuses = Some(refuses);
    let (result, text) = node.deploy("-d");
    assert_eq!(
        text,
        "\
Creating network vote_default
Creating service vote_db
Creating service vote_web
"
    );
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "failed to create service vote_web: {busy}\n\
             done: network vote_default, service vote_db; not done: service vote_web; mend that and \
             deploy again: nothing is done twice"
        )
    );
    node.calls();
    assert_eq!(node.deployed("-d"), "Creating service vote_web\n");
    assert_eq!(node.calls(), ["POST /v1/services"]);
}

#[test]
fn a_swarm_without_a_leader_is_asked_again() {
    let node = Node::start();
    node.write("vote.yml", &yaml_without_payloads(1));
    let lost = "the swarm has no leader";
    let refuses = ("POST /v1/services", "vote_db", 503, lost);
    node.swarm.lock().unwrap().refuses = Some(refuses);
    let error = node.deploy("-d").0.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "failed to create service vote_db: {lost}\n\
             done: network vote_default; not done: service vote_db, service vote_web; run the same \
             command again to finish"
        )
    );
}

#[test]
fn ports_that_others_have_are_told_with_their_places() {
    let node = Node::start();
    let ports = "    ports: [\"8080:80\", \"9090:90\"]\n";
    let file = format!("services:\n  web:\n    image: nginx:1.27\n{ports}");
    node.write("vote.yml", &file);
    let (result, _) = node.stack(&format!(
        "deploy -d -c {} other",
        node.path("vote.yml").display()
    ));
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    let port = |published: u16, target: u16| {
        json!({"Protocol": "tcp", "TargetPort": target, "PublishedPort": published,
               "PublishMode": "ingress"})
    };
    let ports = json!([port(8080, 80), port(9090, 90)]);
    node.swarm.lock().unwrap().services[0]["Endpoint"]["Ports"] = ports;
    node.calls();
    for flags in ["-d", "--dry-run"] {
        let error = node.deploy(flags).0.unwrap_err().to_string();
        let file = node.path("vote.yml");
        let file = file.display();
        assert_eq!(
            error,
            format!(
                "{file}:4:13: services.web.ports.0 port 8080/tcp is already in use by service other_web \
                 (stack other) as an ingress port; publish another port, or remove that service\n\
                 {file}:4:24: services.web.ports.1 port 9090/tcp is already in use by service other_web \
                 (stack other) as an ingress port; publish another port, or remove that service"
            )
        );
        assert_eq!(node.calls(), NONE);
    }
}

#[test]
fn what_another_one_changed_meanwhile_is_compared_anew() {
    let node = Node::start();
    node.write("vote.yml", &yaml_without_payloads(1));
    node.deployed("-d");
    node.write("vote.yml", &yaml_without_payloads(2));
    node.calls();
    let old = "update out of sequence: it was read at version 1 and is at 2";
    let refuses = ("POST /v1/services/id3/update", "vote_web", 409, old);
    node.swarm.lock().unwrap().refuses = Some(refuses);
    assert_eq!(node.deployed("-d"), "Updating service vote_web (id: id3)\n");
    let update = "POST /v1/services/id3/update?version=1";
    assert_eq!(node.calls(), [update, update]);
}

#[test]
fn stacks_are_listed_and_removed_by_their_label() {
    let node = vote();
    let (result, text) = node.stack("ls");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert!(text.split_whitespace().eq(["NAME", "SERVICES"]), "{text}");
    let error = node.stack("ps vote").0.unwrap_err().to_string();
    assert_eq!(error, "nothing found in stack: vote");
    let (result, text) = node.stack("services vote");
    assert_eq!((result.unwrap(), text), (ExitCode::SUCCESS, String::new()));
    node.deployed("-d");
    node.calls();
    assert_eq!(
        node.stack("ls --format {{.Name}}:{{.Services}}").1,
        "vote:2\n"
    );
    let (_, text) = node.stack("services --format {{.Name}} vote");
    assert_eq!(text, "vote_db\nvote_web\n");
    // There is nothing to wait for: no task ever ran.
    let (result, text) = node.stack("rm vote");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        "\
Removing service vote_db
Removing service vote_web
Removing secret vote_key
Removing config vote_conf
Removing network vote_default
"
    );
    assert_eq!(node.calls().len(), 5);
    let (result, text) = node.stack("rm vote");
    assert_eq!((result.unwrap(), text), (ExitCode::SUCCESS, String::new()));
    assert_eq!(node.calls(), NONE);
    // Its names are free again.
    assert!(node.deployed("-d").ends_with("Creating service vote_web\n"));
}

#[test]
fn what_cannot_be_removed_is_told_and_the_rest_goes() {
    let node = vote();
    node.deployed("-d");
    let used = "secret 'vote_key' is in use by the following service: other";
    node.swarm.lock().unwrap().refuses = Some(("DELETE /v1/secrets", "", 400, used));
    let (result, text) = node.stack("rm vote");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert!(text.ends_with("Removing network vote_default\n"), "{text}");
    let swarm = node.swarm.lock().unwrap();
    assert!(swarm.services.is_empty() && swarm.networks.is_empty());
    assert_eq!(swarm.secrets.len(), 1);
}
