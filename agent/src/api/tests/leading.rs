//! Who answers a call about the swarm.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weft_model::api::NodeRow;
use weft_swarm::ApiCall;

use super::fake::{Fake, Server};
use crate::api::leading::{AskedBy, mark_self};
use crate::api::{answer, not_led};

/// A server whose node takes another one for the leader.
fn follower() -> (Server, Arc<Fake>) {
    let (server, leader) = (Server::start(), Arc::<Fake>::default());
    *server.fake.leader.lock().unwrap() = Some(Arc::clone(&leader));
    (server, leader)
}

fn calls(fake: &Fake) -> Vec<String> {
    std::mem::take(&mut *fake.calls.lock().unwrap())
}

/// GET of all nodes, as the node knows them.
async fn stale(server: &Server) -> (u16, String) {
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    let request =
        b"GET /v1/nodes HTTP/1.1\r\nhost: weft\r\nweft-stale: true\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn the_leader_gets_the_call_as_it_is() {
    let (server, leader) = follower();
    let spec = json!({"Name": "blue"}).to_string();
    let (status, network) = server.call("POST", "/v1/networks", &spec).await;
    assert_eq!(status, 200, "{network}");
    assert!(network.contains("\"Name\":\"blue\""), "{network}");
    assert_eq!(calls(&server.fake), ["passed on POST /v1/networks"]);
    assert_eq!(calls(&leader), ["network create blue"]);

    let path = "/v1/networks/a%20b?x=%2F";
    let (status, message) = server.message("GET", path, "").await;
    assert_eq!((status, message.as_str()), (404, "no network \"a b\""));
    assert_eq!(calls(&server.fake), [format!("passed on GET {path}")]);
    assert_eq!(calls(&leader), ["network a b"]);

    // What is wrong is told by the leader, and what is too large by nobody but this node.
    let (status, message) = server.message("POST", "/v1/networks", "{").await;
    assert_eq!(status, 400, "{message}");
    let huge = "x".repeat(2 << 20);
    let (status, message) = server.message("POST", "/v1/networks", &huge).await;
    assert_eq!(status, 413, "{message}");
    assert!(message.contains("POST /v1/networks"), "{message}");
    assert_eq!(calls(&server.fake), ["passed on POST /v1/networks"]);
    assert_eq!(calls(&leader), Vec::<String>::new());

    // A config may be longer, on the whole way.
    let config = json!({"Name": "app", "Data": "QUJD".repeat(300_000)}).to_string();
    assert!(config.len() > 1 << 20);
    let (status, answer) = server.call("POST", "/v1/configs", &config).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(calls(&server.fake), ["passed on POST /v1/configs"]);
    assert_eq!(calls(&leader), ["config create app 900000"]);
    let huge = "x".repeat((2 << 20) + 1);
    let (status, message) = server.message("POST", "/v1/configs", &huge).await;
    assert_eq!(status, 413, "{message}");
    assert_eq!(calls(&server.fake), Vec::<String>::new());
}

#[tokio::test]
async fn reads_are_the_newest_or_marked_by_who_asks() {
    let server = Server::start();
    server.fake.unsure.store(true, Ordering::SeqCst);
    let (status, message) = server.message("GET", "/v1/nodes", "").await;
    assert_eq!(status, 503);
    assert!(
        message.starts_with("The swarm does not have a leader."),
        "{message}"
    );
    let (status, _) = server.message("GET", "/v1/swarm/backup", "").await;
    assert_eq!(status, 503);
    assert_eq!(calls(&server.fake), Vec::<String>::new());
    assert_eq!(stale(&server).await, (200, "[]".to_owned()));
    assert_eq!(calls(&server.fake), ["nodes"]);
    // Changes prove the lead by themselves, and what is of the node itself needs none.
    for (method, path) in [("DELETE", "/v1/services/web"), ("GET", "/v1/info")] {
        let (status, answer) = server.call(method, path, "").await;
        assert_eq!(status, 200, "{answer}");
    }

    let (follower, leader) = follower();
    assert_eq!(stale(&follower).await, (200, "[]".to_owned()));
    assert_eq!(calls(&follower.fake), ["nodes"], "it answers itself");
    assert_eq!(calls(&leader), Vec::<String>::new());
}

#[tokio::test]
async fn who_loses_the_lead_tries_again() {
    let server = Server::start();
    *server.fake.refusals.lock().unwrap() = 2;
    assert_eq!(
        server.call("GET", "/v1/nodes", "").await,
        (200, "[]".to_owned())
    );
    assert_eq!(*server.fake.refusals.lock().unwrap(), 0);
    assert_eq!(calls(&server.fake), ["nodes"], "once");
}

#[tokio::test]
async fn other_managers_get_what_is_about_the_swarm_alone() {
    let fake = Arc::<Fake>::default();
    let ask = async |method: &str, path: &str| {
        let call = ApiCall {
            method: method.to_owned(),
            path: path.to_owned(),
            body: Bytes::new(),
        };
        answer(Arc::clone(&fake), "n2".into(), call).await
    };
    let reply = ask("GET", "/v1/nodes").await;
    assert_eq!((reply.status, reply.not_led), (200, false));
    assert_eq!(reply.content_type, "application/json");
    assert_eq!(reply.body, "[]");
    for path in ["/v1/swarm/leave", "/v1/networks/n/connect", "/metrics", "/"] {
        let reply = ask("POST", path).await;
        assert_eq!(reply.status, 404, "{path}");
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(body["message"].as_str().unwrap().contains(path), "{body}");
    }
    assert_eq!(ask("PATCH", "/v1/nodes").await.status, 405);
    assert_eq!(ask("no method", "/v1/nodes").await.status, 400);
    assert_eq!(ask("GET", "no path at all").await.status, 400);
    assert_eq!(calls(&fake), ["nodes"]);

    *fake.refusals.lock().unwrap() = 1;
    let reply = ask("GET", "/v1/nodes").await;
    assert_eq!((reply.status, reply.not_led), (503, true));
    let reply = not_led("ask another one").await;
    assert_eq!((reply.status, reply.not_led), (503, true));
}

fn row(id: &str) -> NodeRow {
    let at = "2026-01-02T03:04:05Z";
    let row = json!({
        "ID": id, "Version": {"Index": 1}, "CreatedAt": at, "UpdatedAt": at,
        "Spec": {"Role": "manager", "Availability": "active", "Labels": {}},
        "Description": {"Hostname": id, "Engine": {"EngineVersion": "0.1.0"}},
        "Status": {"State": "ready", "Message": "", "Addr": "10.77.0.1", "Impaired": null},
        "ManagerStatus": null, "DataPathAddr": "10.77.0.1", "GossipPort": 7946,
        "IngressIP": "10.0.0.2", "Self": id == "leader",
    });
    serde_json::from_value(row).unwrap()
}

#[test]
fn the_node_whose_user_asks_is_marked() {
    let asked_by = Extension(AskedBy("other".into()));
    for id in ["leader", "other", "third"] {
        let mut row = row(id);
        mark_self(&mut row, None);
        assert_eq!(row.is_self, id == "leader");
        mark_self(&mut row, Some(&asked_by));
        assert_eq!(row.is_self, id == "other");
    }
}
