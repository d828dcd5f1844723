use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::UnixListener;

use super::*;

const REFUSAL: &str = "The swarm does not have a leader.";

fn shown(client: Client, relay: bool) -> Shown {
    Shown {
        client,
        relay,
        local: true,
        last: Mutex::new(None),
    }
}

fn client(socket: &std::path::Path) -> Client {
    Client::new(&format!("unix://{}", socket.display())).unwrap()
}

/// What is said, with its status.
async fn asked(shown: &Shown, method: Method, path: &str, host: &'static str) -> (u16, String) {
    let host = HeaderValue::from_static(host);
    let answer = shown.answer(&method, path, Some(&host)).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A node that answers with the rows of [`picture::tests::rows`].
fn node(socket: &std::path::Path) {
    node_that_says(socket, StatusCode::OK);
}

/// The same with another status for who asks for tasks of a node.
fn node_that_says(socket: &std::path::Path, of_tasks: StatusCode) {
    let listener = UnixListener::bind(socket).unwrap();
    let (nodes, services, tasks) = picture::tests::rows();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| {
                let (status, body) = match request.uri().path() {
                    "/v1/nodes" => (StatusCode::OK, nodes.to_string()),
                    "/v1/services" => (StatusCode::OK, services.to_string()),
                    "/v1/nodes/n1/tasks" if of_tasks.is_success() => (of_tasks, tasks.to_string()),
                    "/v1/nodes/n1/tasks" => (of_tasks, json!({ "message": REFUSAL }).to_string()),
                    other => (StatusCode::OK, other.to_owned()),
                };
                let mut answer = Response::new(Full::new(Bytes::from(body)));
                *answer.status_mut() = status;
                async move { Ok::<_, Infallible>(answer) }
            });
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .unwrap();
        }
    });
}

#[tokio::test]
async fn there_is_a_page_a_state_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let shown = shown(client(&dir.path().join("nobody")), false);
    let (status, page) = asked(&shown, Method::GET, "/", "127.0.0.1:8080").await;
    assert_eq!(status, 200);
    assert!(page.contains("api/state"), "{page}");
    for (method, path, status) in [
        (Method::POST, "/", 405),
        (Method::DELETE, "/api/state", 405),
        (Method::GET, "/v1/services", 404),
        (Method::GET, "/api", 404),
    ] {
        let (found, _) = asked(&shown, method, path, "localhost").await;
        assert_eq!(found, status, "{path}");
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "10.0.0.1",
        "localhost.evil.example",
    ] {
        let (status, _) = asked(&shown, Method::GET, "/", host).await;
        assert_eq!(status, 403, "{host}");
    }
    for host in ["127.0.0.1", "[::1]:80", "LOCALHOST:1"] {
        let (status, _) = asked(&shown, Method::GET, "/", host).await;
        assert_eq!(status, 200, "{host}");
    }
    // A node that does not answer is told, and the page goes on.
    let (status, body) = asked(&shown, Method::GET, "/api/state", "localhost").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let message = body["Message"].as_str().unwrap();
    assert_eq!(status, 503);
    assert!(message.contains("cannot connect to weftd"), "{message}");
}

#[tokio::test]
async fn a_node_that_nobody_could_ask_about_is_not_shown_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    for (status, why) in [
        (StatusCode::SERVICE_UNAVAILABLE, json!(REFUSAL)),
        // It was removed meanwhile: that is an answer.
        (StatusCode::NOT_FOUND, Value::Null),
    ] {
        let socket = dir.path().join(status.as_str());
        node_that_says(&socket, status);
        let shown = shown(client(&socket), false);
        let (said, body) = asked(&shown, Method::GET, "/api/state", "localhost").await;
        assert_eq!(said, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let node = &body["Nodes"][0];
        assert_eq!(node["NotAsked"], why, "{node}");
        assert_eq!(node["Tasks"], json!([]), "{node}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_asked_once_for_all_who_look() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("deaf");
    let listener = UnixListener::bind(&socket).unwrap();
    let questions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&questions);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let shown = shown(client(&socket), false);
    let begun = Instant::now();
    let look = || asked(&shown, Method::GET, "/api/state", "localhost");
    let (first, second) = tokio::join!(look(), look());
    assert_eq!(first.0, 503, "{}", first.1);
    assert!(first.1.contains("did not answer in time"), "{}", first.1);
    assert_eq!(first, second);
    assert_eq!(look().await, first);
    let took = begun.elapsed();
    assert!(
        took >= picture::QUESTION && took < 2 * picture::QUESTION,
        "{took:?}"
    );
    tokio::task::yield_now().await;
    assert_eq!(questions.load(Ordering::Relaxed), 1);
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    for word in ["http:", "https:", "src=", "href=", "@import", "innerHTML"] {
        assert!(!PAGE.contains(word), "{word}");
    }
    assert!(PAGE.lines().count() < 300);
}

#[tokio::test]
async fn another_one_passes_on_what_one_says_of_a_manager() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, first) = (dir.path().join("manager"), dir.path().join("first"));
    node(&manager);
    let direct = Arc::new(shown(client(&manager), false));
    let (status, said) = asked(&direct, Method::GET, "/api/state", "localhost").await;
    assert_eq!(status, 200, "{said}");
    assert!(
        said.contains("shop_web") && !said.contains("hidden"),
        "{said}"
    );

    let listener = UnixListener::bind(&first).unwrap();
    let room = Arc::new(Semaphore::new(1));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let place = room.acquire_owned().await.unwrap();
        // Its client says `host: weftd`.
        let open = Shown {
            client: direct.client.clone(),
            relay: false,
            local: false,
            last: Mutex::new(None),
        };
        serve(stream, Arc::new(open), place).await;
    });
    let relay = shown(client(&first), true);
    let (status, passed_on) = asked(&relay, Method::GET, "/api/state", "localhost").await;
    assert_eq!((status, passed_on), (200, said.clone()));
    // Heard a moment ago: nobody is asked again, and nobody would answer.
    let again = asked(&relay, Method::GET, "/api/state", "localhost").await;
    assert_eq!(again, (200, said));
}
