//! The API over a real unix socket, with a service that records what it was asked.

mod fake;
mod leading;
mod payloads;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weft_model::objects::Mac;

use self::fake::Server;
use super::ApiSocket;
use super::error::ErrorKind;
use super::socket::{SocketError, check_peer};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list: a row for each route")]
async fn every_route_reaches_its_method() {
    let server = Server::start();
    let follower = Server::start();
    *follower.fake.leader.lock().unwrap() = Some(Arc::default());
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
            "/v1/swarm/update?version=9",
            &json!({
                "AutoLockManagers": true, "TaskHistoryRetentionLimit": 2,
                "HeartbeatPeriod": 5_000_000_000_u64,
            }),
            503,
            "swarm update Some(9) Some(true) Some(2) Some(5s)",
        ),
        (
            "POST",
            "/v1/swarm/ca/rotate",
            &json!({"SigningCACert": "pem"}),
            503,
            "rotate Some(\"pem\")",
        ),
        (
            "POST",
            "/v1/swarm/unlock",
            &json!({"UnlockKey": "k"}),
            200,
            "unlock k",
        ),
        ("GET", "/v1/swarm/unlock-key", &none, 200, "unlock key"),
        (
            "POST",
            "/v1/swarm/unlock-key/rotate",
            &none,
            503,
            "rotate unlock key",
        ),
        (
            "POST",
            "/v1/swarm/restore?advertise_addr=eth0",
            &none,
            400,
            "restore Some(\"eth0\") 2 None",
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
            "scale web None 2",
        ),
        (
            "POST",
            "/v1/services/web/rebalance",
            &json!({"DryRun": true, "MaxMoves": 3}),
            503,
            "rebalance web true 3",
        ),
        (
            "POST",
            "/v1/services/web/update?version=7",
            &json!({"PublishAdd": [{"PublishedPort": 0, "TargetPort": 80}]}),
            503,
            "update web Some(7) 1",
        ),
        (
            "POST",
            "/v1/services/web/plan?version=7",
            &json!({"Rollback": true}),
            503,
            "plan web Some(7) true",
        ),
        (
            "POST",
            "/v1/nodes/n1/update?version=3",
            &json!({"Availability": "drain", "LabelAdd": {"disk": "ssd"}}),
            503,
            "update n1 Some(3) Some(Drain)",
        ),
        ("GET", "/v1/services/web/tasks", &none, 503, "tasks web"),
        ("GET", "/v1/secrets", &none, 200, "secret ls"),
        (
            "POST",
            "/v1/secrets",
            &json!({"Name": "key", "Data": "aHVudGVyMg=="}),
            200,
            "secret create key 7",
        ),
        ("GET", "/v1/secrets/a.b", &none, 404, "secret a.b"),
        ("DELETE", "/v1/secrets/a%20b", &none, 200, "secret rm a b"),
        (
            "POST",
            "/v1/secrets/key/update?version=4",
            &json!({"Name": "key", "Labels": {"a": "b"}}),
            503,
            "secret update key Some(4) {\"a\": \"b\"}",
        ),
        ("GET", "/v1/configs", &none, 200, "config ls"),
        (
            "POST",
            "/v1/configs",
            &json!({"Name": "app", "Data": "YQ==", "Templating": {"Name": "golang"}}),
            200,
            "config create app 1",
        ),
        ("GET", "/v1/configs/app", &none, 404, "config app"),
        ("DELETE", "/v1/configs/app", &none, 200, "config rm app"),
        (
            "POST",
            "/v1/configs/app/update",
            &json!({"Name": "app"}),
            503,
            "config update app None {}",
        ),
        ("GET", "/v1/volumes", &none, 200, "volumes None false List"),
        (
            "GET",
            "/v1/volumes/prune?node=n2",
            &none,
            200,
            "volumes Some(\"n2\") false Inspect { name: \"prune\" }",
        ),
        (
            "DELETE",
            "/v1/volumes/a?all=true&force=true",
            &none,
            200,
            "volumes None true Remove { name: \"a\", force: true }",
        ),
        (
            "POST",
            "/v1/volumes/prune",
            &json!({"All": true}),
            200,
            "volumes None false Prune(VolumePrune { all: true, labels: [], without_labels: [] })",
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"Name": "a"}),
            200,
            "volumes None false Create(VolumeRequest { name: \"a\", driver: \"\", options: {}, labels: {} })",
        ),
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
        ("GET", "/v1/images/json", &none, 200, "images"),
        (
            "GET",
            "/v1/images/registry.example:5000%2Fa%2Fb/json",
            &none,
            404,
            "image registry.example:5000/a/b",
        ),
        (
            "DELETE",
            "/v1/images/nginx:1?force=true",
            &none,
            200,
            "image rm nginx:1 true",
        ),
        (
            "POST",
            "/v1/images/prune?all=true",
            &none,
            200,
            "prune true",
        ),
        (
            "GET",
            "/v1/images/resolve?name=a%2Fb:1",
            &none,
            503,
            "resolve a/b:1 0",
        ),
    ];
    for (method, path, body, status, note) in calls {
        let (got, answer) = server.json(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert_eq!(server.fake.calls.lock().unwrap().last().unwrap(), note);
        if status >= 400 {
            assert!(answer["message"].is_string(), "{answer}");
        }
        follower.answers_as(method, path, body, (got, answer)).await;
    }
    assert_eq!(
        server.call("GET", "/metrics", "").await,
        (200, "# EOF\n".to_owned())
    );
    // It may be longer than what managers pass on: who is asked for it has it.
    for server in [&server, &follower] {
        let backup = server.call("GET", "/v1/swarm/backup", "").await;
        assert_eq!(backup, (200, "a backup".to_owned()));
        let calls = server.fake.calls.lock().unwrap();
        assert!(calls.ends_with(&["caught up".to_owned(), "backup".to_owned()]));
    }
    let (status, pieces) = server.call("GET", "/v1/capture?port=a&dir=drop", "").await;
    assert_eq!(status, 200);
    assert!(
        pieces.contains("one ") && pieces.contains("two"),
        "{pieces}"
    );
    for server in [&server, &follower] {
        let (status, lines) = server.call("GET", "/v1/events?since=7", "").await;
        assert!(status == 200 && lines.contains("{}\n"), "{lines}");
        let calls = server.fake.calls.lock().unwrap();
        assert_eq!(calls.last().unwrap(), "events Some(7) None", "its own");
    }
    for (query, says) in [
        ("events?since=today", "invalid digit"),
        ("services/web/logs?tail=few", "invalid digit"),
        ("services/web/logs?details=true", "unknown field `details`"),
        ("events?filter=node", "unknown field `filter`"),
        ("capture?dir=up", "up"),
        ("capture?filter=tcp", "unknown field `filter`"),
        ("drops?reason=tap_full", "unknown field `reason`"),
        ("mesh/conns?client=192.0.2.1", "unknown field `client`"),
        ("ping/node2?count=3", "unknown field `count`"),
        ("images/get?name=a", "unknown field `name`"),
        ("volumes?scope=local", "unknown field `scope`"),
        ("volumes?all=true&node=n1", "leave node or all out"),
    ] {
        let path = format!("/v1/{query}");
        let (status, answer) = server.message("GET", &path, "").await;
        assert_eq!(status, 400, "{query}: {answer}");
        assert!(answer.contains(says), "{query}: {answer}");
    }
    assert_eq!(
        server.call("DELETE", "/v1/services/web", "").await,
        (200, "{}".to_owned())
    );
}

#[tokio::test]
async fn archives_and_lines_about_images_come_as_they_come() {
    let server = Server::start();
    // Larger than the body of any other call.
    let archive = "x".repeat(3 << 20);
    let (status, lines) = server.call("POST", "/v1/images/load", &archive).await;
    assert!(
        status == 200 && lines.contains("{\"stream\":\"x\"}\n"),
        "{lines}"
    );
    let path = "/v1/images/create?fromImage=nginx&tag=1";
    let (status, lines) = server.call("POST", path, "").await;
    assert!(
        status == 200 && lines.contains("{\"status\":\"x\"}\n"),
        "{lines}"
    );
    let (status, whole) = server.call("GET", "/v1/images/get?names=a,b", "").await;
    assert!(status == 200 && whole.contains("half "), "{whole}");
    // The last chunk says that there is no more; one that broke off has none.
    assert!(whole.ends_with("0\r\n\r\n"), "{whole}");
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    let request = b"GET /v1/images/get?names=broken HTTP/1.1\r\nhost: weft\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut broken = Vec::new();
    stream.read_to_end(&mut broken).await.unwrap();
    assert!(!broken.ends_with(b"0\r\n\r\n"), "{broken:?}");
    let calls = server.fake.calls.lock().unwrap().clone();
    let says = [
        format!("load {}", archive.len()),
        "pull nginx Some(\"1\") 0".to_owned(),
        "save a,b".to_owned(),
        "save broken".to_owned(),
    ];
    assert_eq!(calls, says);
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
            "ForceUpdates": 1,
        },
    });
    let (status, message) = server
        .message("POST", "/v1/services", &placed.to_string())
        .await;
    assert_eq!(status, 400);
    assert!(
        message.contains("TaskTemplate") && message.contains("unknown field `ForceUpdates`"),
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
