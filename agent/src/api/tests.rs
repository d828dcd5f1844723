//! The API over a real unix socket, with a service that records what it was asked.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use weft_model::api::{
    CaRotate, CaptureQuery, Check, Connect, Connected, ConnsQuery, Disconnect, Drops, DropsQuery,
    Info, JoinToken, MeshConns, MeshPort, NetworkDetail, NodeRemove, NodeRow, NodeUpdate, PeerAdd,
    PingQuery, Pong, Scale, ServiceDetail, ServiceUpdate, SwarmDetail, SwarmInit, SwarmInitReply,
    SwarmJoin, SwarmJoinReply, SwarmLeave, SwarmState, SwarmUpdate, TaskRow, Why,
};
use weft_model::objects::{
    Mac, Meta, Network, NetworkSpec, Role, Service, ServiceSpec, StaticPeer,
};

use super::error::ErrorKind;
use super::service::Answer;
use super::socket::{SocketError, check_peer};
use super::{ApiError, ApiSocket, NodeService};

/// Notes each call; creations echo their argument, the rest fails with 503.
#[derive(Default)]
struct Fake {
    calls: Mutex<Vec<String>>,
    /// Removing the network "slow" waits for this.
    go_on: Notify,
    /// Told when it is removed.
    done: Notify,
    /// Told when its removal begins.
    begun: Notify,
}

impl Fake {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn absent<T>(&self, call: impl Into<String>) -> Answer<T> {
        self.note(call);
        Err(ApiError::unavailable("This node is not part of a swarm."))
    }
}

impl NodeService for Fake {
    async fn info(&self) -> Answer<Info> {
        self.note("info");
        Ok(Info {
            version: "0".into(),
            name: "n1".into(),
            pid: 7,
            swarm: SwarmState::Inactive,
            warnings: vec![],
        })
    }
    async fn swarm_init(&self, body: SwarmInit) -> Answer<SwarmInitReply> {
        self.note(format!("init {:?}", body.advertise_addr));
        Ok(SwarmInitReply {
            node_id: "n".into(),
            worker_token: "SWMTKN-1-a-b".into(),
            manager_addr: "192.0.2.1:2377".into(),
        })
    }
    async fn swarm_join(&self, body: SwarmJoin) -> Answer<SwarmJoinReply> {
        self.note(format!("join {}", body.remote_addr));
        Err(ApiError::conflict("This node is already part of a swarm."))
    }
    async fn swarm_leave(&self, body: SwarmLeave) -> Answer<()> {
        self.note(format!("leave {}", body.force));
        Ok(())
    }
    async fn swarm(&self) -> Answer<SwarmDetail> {
        self.absent("swarm")
    }
    async fn swarm_update(&self, body: SwarmUpdate) -> Answer<SwarmDetail> {
        self.absent(format!(
            "swarm update {:?} {:?}",
            body.task_history_retention_limit, body.heartbeat_period
        ))
    }
    async fn rotate_ca(&self, body: CaRotate) -> Answer<SwarmDetail> {
        self.absent(format!("rotate {:?}", body.signing_ca_cert))
    }
    async fn join_token(&self, role: Role) -> Answer<JoinToken> {
        self.absent(format!("token {role:?}"))
    }
    async fn rotate_join_token(&self, role: Role) -> Answer<JoinToken> {
        self.absent(format!("rotate {role:?}"))
    }
    async fn nodes(&self) -> Answer<Vec<NodeRow>> {
        self.note("nodes");
        Ok(vec![])
    }
    async fn node(&self, reference: String) -> Answer<NodeRow> {
        self.absent(format!("node {reference}"))
    }
    async fn node_update(
        &self,
        reference: String,
        body: NodeUpdate,
    ) -> Answer<weft_model::objects::Node> {
        self.absent(format!("update {reference} {:?}", body.availability))
    }

    async fn node_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        self.absent(format!("tasks of {reference}"))
    }

    async fn node_remove(&self, reference: String, body: NodeRemove) -> Answer<()> {
        self.note(format!("node rm {reference} {}", body.force));
        Ok(())
    }
    async fn networks(&self) -> Answer<Vec<Network>> {
        self.absent("networks")
    }
    async fn network_create(&self, spec: NetworkSpec) -> Answer<Network> {
        self.note(format!("network create {}", spec.name));
        Ok(Network {
            id: "x".into(),
            meta: Meta::default(),
            spec,
            vni: 4096,
        })
    }
    async fn network(&self, reference: String) -> Answer<NetworkDetail> {
        self.note(format!("network {reference}"));
        Err(ApiError::not_found(format!("no network {reference:?}")))
    }
    async fn network_remove(&self, reference: String) -> Answer<()> {
        self.note(format!("network rm {reference}"));
        assert_ne!(reference, "cursed", "a defect");
        if reference == "slow" {
            self.begun.notify_one();
            self.go_on.notified().await;
            self.done.notify_one();
        }
        Ok(())
    }
    async fn connect(&self, network: String, body: Connect) -> Answer<Connected> {
        self.absent(format!("connect {network} {}", body.netns))
    }
    async fn disconnect(&self, network: String, body: Disconnect) -> Answer<()> {
        self.note(format!("disconnect {network} {}", body.endpoint));
        Ok(())
    }
    async fn peers(&self, network: String) -> Answer<Vec<StaticPeer>> {
        self.absent(format!("peers {network}"))
    }
    async fn peer_add(&self, network: String, body: PeerAdd) -> Answer<StaticPeer> {
        self.note(format!("peer add {network} {}", body.ip));
        Ok(StaticPeer {
            id: "p".into(),
            network: "x".into(),
            ip: body.ip,
            mac: body.mac,
            vtep: body.vtep,
        })
    }
    async fn peer_remove(&self, network: String, ip: IpAddr) -> Answer<()> {
        self.note(format!("peer rm {network} {ip}"));
        Ok(())
    }
    async fn services(&self) -> Answer<Vec<ServiceDetail>> {
        self.absent("services")
    }
    async fn service_create(&self, spec: ServiceSpec) -> Answer<Service> {
        self.absent(format!("service create {}", spec.name))
    }
    async fn service(&self, reference: String) -> Answer<ServiceDetail> {
        self.absent(format!("service {reference}"))
    }
    async fn service_remove(&self, reference: String) -> Answer<()> {
        self.note(format!("service rm {reference}"));
        Ok(())
    }
    async fn service_scale(&self, reference: String, body: Scale) -> Answer<Service> {
        self.absent(format!("scale {reference} {}", body.replicas))
    }
    async fn service_update(&self, reference: String, body: ServiceUpdate) -> Answer<Service> {
        self.absent(format!("update {reference} {}", body.publish_add.len()))
    }
    async fn service_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        self.absent(format!("tasks {reference}"))
    }
    async fn mesh_conns(&self, query: ConnsQuery) -> Answer<MeshConns> {
        self.note(format!("mesh conns {:?} {:?}", query.service, query.limit));
        Ok(MeshConns::default())
    }
    async fn mesh_ports(&self) -> Answer<Vec<MeshPort>> {
        self.note("mesh ports");
        Ok(Vec::new())
    }
    async fn why(&self, asked: String) -> Answer<Why> {
        self.absent(format!("why {asked}"))
    }
    async fn ping(&self, node: String, query: PingQuery) -> Answer<Pong> {
        self.absent(format!(
            "ping {node} {:?} {:?}",
            query.size, query.timeout_ms
        ))
    }
    async fn drops(&self, query: DropsQuery) -> Answer<Drops> {
        self.note(format!("drops {}", query.port.unwrap_or_default()).trim());
        Ok(Drops::default())
    }
    async fn doctor(&self) -> Answer<Vec<Check>> {
        self.note("doctor");
        Ok(Vec::new())
    }
    async fn capture(&self, query: CaptureQuery) -> Answer<mpsc::Receiver<Bytes>> {
        self.note(format!("capture {:?} {:?}", query.port, query.dir));
        let (sender, receiver) = mpsc::channel(2);
        for piece in ["one ", "two"] {
            sender.try_send(piece.into()).expect("room");
        }
        Ok(receiver)
    }
    async fn metrics(&self) -> Answer<String> {
        self.note("metrics");
        Ok("# EOF\n".to_owned())
    }
}

struct Server {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = watch::channel(false);
        let socket = ApiSocket::bind(&dir.path().join("run/weft/weft.sock")).unwrap();
        let task = tokio::spawn(socket.serve(Arc::clone(&fake), stopped));
        Self {
            dir,
            fake,
            stop,
            task,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/weft/weft.sock")
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.call(method, path, &body.to_string()).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn message(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, text) = self.call(method, path, body).await;
        let value: Value = serde_json::from_str(&text).unwrap();
        (status, value["message"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list: a row for each route")]
async fn every_route_reaches_its_method() {
    let server = Server::start();
    let spec = json!({
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {"Image": "host", "Args": ["true"]}},
        "Mode": {"Global": {}},
    });
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let peer = json!({"IP": "10.0.0.9", "MacAddress": mac, "VTEP": "192.0.2.9"});
    let join = json!({"JoinToken": "t", "RemoteAddr": "192.0.2.1:2377"});
    let none = json!({});
    let calls = [
        ("GET", "/v1/info", &none, 200, "info"),
        ("POST", "/v1/swarm/init", &none, 200, "init None"),
        ("POST", "/v1/swarm/join", &join, 409, "join 192.0.2.1:2377"),
        (
            "POST",
            "/v1/swarm/leave",
            &json!({"Force": true}),
            200,
            "leave true",
        ),
        ("GET", "/v1/swarm", &none, 503, "swarm"),
        (
            "POST",
            "/v1/swarm/update",
            &json!({"TaskHistoryRetentionLimit": 2, "HeartbeatPeriod": 5_000_000_000_u64}),
            503,
            "swarm update Some(2) Some(5s)",
        ),
        (
            "POST",
            "/v1/swarm/ca/rotate",
            &json!({"SigningCACert": "pem"}),
            503,
            "rotate Some(\"pem\")",
        ),
        ("GET", "/v1/swarm/token/worker", &none, 503, "token Worker"),
        (
            "POST",
            "/v1/swarm/token/manager/rotate",
            &none,
            503,
            "rotate Manager",
        ),
        ("GET", "/v1/nodes", &none, 200, "nodes"),
        ("GET", "/v1/nodes/n1", &none, 503, "node n1"),
        ("GET", "/v1/nodes/n1/tasks", &none, 503, "tasks of n1"),
        ("DELETE", "/v1/nodes/n1", &none, 200, "node rm n1 false"),
        (
            "DELETE",
            "/v1/nodes/n1",
            &json!({"Force": true}),
            200,
            "node rm n1 true",
        ),
        ("GET", "/v1/networks", &none, 503, "networks"),
        (
            "POST",
            "/v1/networks",
            &json!({"Name": "blue"}),
            200,
            "network create blue",
        ),
        ("GET", "/v1/networks/blue", &none, 404, "network blue"),
        ("DELETE", "/v1/networks/a%20b", &none, 200, "network rm a b"),
        (
            "POST",
            "/v1/networks/blue/connect",
            &json!({"Netns": "12"}),
            503,
            "connect blue 12",
        ),
        (
            "POST",
            "/v1/networks/blue/disconnect",
            &json!({"Endpoint": "e"}),
            200,
            "disconnect blue e",
        ),
        ("GET", "/v1/networks/blue/peers", &none, 503, "peers blue"),
        (
            "POST",
            "/v1/networks/blue/peers",
            &peer,
            200,
            "peer add blue 10.0.0.9",
        ),
        (
            "DELETE",
            "/v1/networks/blue/peers/fd00::9",
            &none,
            200,
            "peer rm blue fd00::9",
        ),
        ("GET", "/v1/services", &none, 503, "services"),
        ("POST", "/v1/services", &spec, 503, "service create web"),
        ("GET", "/v1/services/web", &none, 503, "service web"),
        ("DELETE", "/v1/services/web", &none, 200, "service rm web"),
        (
            "POST",
            "/v1/services/web/scale",
            &json!({"Replicas": 2}),
            503,
            "scale web 2",
        ),
        (
            "POST",
            "/v1/services/web/update",
            &json!({"PublishAdd": [{"PublishedPort": 0, "TargetPort": 80}]}),
            503,
            "update web 1",
        ),
        ("GET", "/v1/services/web/tasks", &none, 503, "tasks web"),
        ("GET", "/v1/mesh/ports", &none, 200, "mesh ports"),
        (
            "GET",
            "/v1/mesh/conns?service=web&limit=5",
            &none,
            200,
            "mesh conns Some(\"web\") Some(5)",
        ),
        ("GET", "/v1/mesh/why/53%2Fudp", &none, 503, "why 53/udp"),
        ("GET", "/v1/drops", &none, 200, "drops"),
        (
            "GET",
            "/v1/ping/node2?size=64",
            &none,
            503,
            "ping node2 Some(64) None",
        ),
        ("GET", "/v1/doctor", &none, 200, "doctor"),
        ("GET", "/v1/drops?port=web.1", &none, 200, "drops web.1"),
    ];
    for (method, path, body, status, note) in calls {
        let (got, answer) = server.json(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert_eq!(server.fake.calls.lock().unwrap().last().unwrap(), note);
        if status >= 400 {
            assert!(answer["message"].is_string(), "{answer}");
        }
    }
    assert_eq!(
        server.call("GET", "/metrics", "").await,
        (200, "# EOF\n".to_owned())
    );
    let (status, pieces) = server.call("GET", "/v1/capture?port=a&dir=drop", "").await;
    assert_eq!(status, 200);
    assert!(
        pieces.contains("one ") && pieces.contains("two"),
        "{pieces}"
    );
    let (status, answer) = server.message("GET", "/v1/capture?dir=up", "").await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(
        server.call("DELETE", "/v1/services/web", "").await,
        (200, "{}".to_owned())
    );
}

#[tokio::test]
async fn wrong_bodies_are_named_and_never_reach_the_service() {
    let server = Server::start();
    let (status, message) = server
        .message(
            "POST",
            "/v1/swarm/join",
            r#"{"JoinToken": 5, "RemoteAddr": "x"}"#,
        )
        .await;
    assert_eq!(status, 400);
    assert!(
        message.contains("JoinToken") && message.contains("line 1"),
        "{message}"
    );

    let (status, message) = server.message("POST", "/v1/swarm/join", "").await;
    assert_eq!(status, 400);
    assert!(message.contains("missing field `JoinToken`"), "{message}");

    let (status, message) = server
        .message("POST", "/v1/services/web/scale", "{\n  \"Replicas\": -1\n}")
        .await;
    assert_eq!(status, 400);
    assert!(
        message.contains("Replicas") && message.contains("line 2"),
        "{message}"
    );

    // What nobody would carry out is not dropped without a word, however deep it lies.
    let placed = json!({
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host", "Args": ["true"]},
            "Placement": {"Constraints": ["node.role==worker"]},
        },
    });
    let (status, message) = server
        .message("POST", "/v1/services", &placed.to_string())
        .await;
    assert_eq!(status, 400);
    assert!(
        message.contains("TaskTemplate") && message.contains("unknown field `Placement`"),
        "{message}"
    );

    let (status, message) = server.message("POST", "/v1/networks", "{\"Name\": ").await;
    assert_eq!(status, 400);
    assert!(message.contains("POST /v1/networks"), "{message}");

    let (status, message) = server.message("GET", "/v1/swarm/token/boss", "").await;
    assert_eq!(status, 400);
    assert!(
        message.contains("\"boss\"") && message.contains("manager"),
        "{message}"
    );

    let (status, message) = server
        .message("DELETE", "/v1/networks/blue/peers/nowhere", "")
        .await;
    assert_eq!(status, 400);
    assert!(message.contains("\"nowhere\""), "{message}");

    let (status, message) = server.message("GET", "/v1/networks/%ff", "").await;
    assert_eq!(status, 400);
    assert!(message.contains("UTF-8"), "{message}");

    let huge = format!("{{\"Name\": \"{}\"}}", "x".repeat(1 << 20));
    let (status, message) = server.message("POST", "/v1/networks", &huge).await;
    assert_eq!(status, 413);
    assert!(message.contains("1048576"), "{message}");

    assert!(server.fake.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn unknown_paths_and_methods_tell_the_next_step() {
    let server = Server::start();
    for (method, path, wanted) in [
        ("GET", "/v2/nothing", 404),
        ("GET", "/", 404),
        ("PATCH", "/v1/info", 405),
    ] {
        let (status, message) = server.message(method, path, "").await;
        assert_eq!(status, wanted);
        assert!(
            message.contains(path) && message.contains("weft --version"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn the_socket_is_private_and_gone_after_shutdown() {
    let server = Server::start();
    let path = server.path();
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(path.parent().unwrap()) & 0o755, 0o755);
    assert_eq!(server.call("GET", "/v1/info", "").await.0, 200);
    server.stop.send(true).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
    let server = Server::start();
    let error = ApiSocket::bind(&server.path()).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert_eq!(server.call("GET", "/v1/info", "").await.0, 200);

    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("weft.sock");
    // The standard library leaves the file behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let socket = ApiSocket::bind(&stale).unwrap();
    assert_eq!(socket.path(), stale);

    let file = dir.path().join("precious");
    std::fs::write(&file, "text").unwrap();
    let error = ApiSocket::bind(&file).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
}

#[tokio::test]
async fn a_replaced_socket_file_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.sock");
    let socket = ApiSocket::bind(&path).unwrap();
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    std::fs::write(&path, "somebody else's").unwrap();
    drop(socket);
    assert!(path.exists());
}

#[test]
fn only_root_and_the_own_user_pass() {
    assert!(check_peer(1000, Some(0)).is_ok());
    assert!(check_peer(1000, Some(1000)).is_ok());
    for peer in [Some(1001), None] {
        let error = check_peer(1000, peer).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden);
    }
    assert!(check_peer(0, Some(1000)).is_err());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_shutdown_up() {
    let server = Server::start();
    let idle = UnixStream::connect(server.path()).await.unwrap();
    // A second call proves that the first connection was accepted.
    assert_eq!(server.call("GET", "/v1/info", "").await.0, 200);
    server.stop.send(true).unwrap();
    server.task.await.unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_change_ends_although_the_client_went_away() {
    let server = Server::start();
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    stream
        .write_all(b"DELETE /v1/networks/slow HTTP/1.1\r\nhost: weft\r\n\r\n")
        .await
        .unwrap();
    server.fake.begun.notified().await;
    drop(stream);
    // Another whole call after the hang-up: the server has seen it by then.
    assert_eq!(server.call("GET", "/v1/info", "").await.0, 200);
    server.fake.go_on.notify_one();
    server.fake.done.notified().await;
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let server = Server::start();
    let (status, message) = server.message("DELETE", "/v1/networks/cursed", "").await;
    assert_eq!(status, 500);
    assert!(message.contains("defect"), "{message}");
    assert_eq!(server.call("GET", "/v1/info", "").await.0, 200);
}
