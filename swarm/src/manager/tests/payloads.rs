//! Secrets and configs: from a command to the nodes that have a task which uses them, and to nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weft_model::id::PayloadId;
use weft_model::objects::{
    ConfigReference, Payload, PayloadFile, PayloadKind, PayloadSpec, Runtime, SecretReference,
};

use super::managers::beside;
use super::*;

const SECRET: &[u8] = b"correct horse battery staple";
const CONFIG: &[u8] = b"color = blue";

fn spec(name: &str, data: &[u8]) -> PayloadSpec {
    PayloadSpec {
        name: name.to_owned(),
        data: data.to_vec().into(),
        ..PayloadSpec::default()
    }
}

/// A service on workers that uses both.
fn using(name: &str, secret: &Payload, config: &Payload) -> ServiceSpec {
    let mut spec = service(name, 1);
    let task = Arc::make_mut(&mut spec.task);
    task.runtime = Runtime::Container;
    task.container.image = "registry.example/web:1".to_owned();
    let file = |name: &str| PayloadFile {
        name: name.to_owned(),
        ..PayloadFile::default()
    };
    task.container.secrets = vec![SecretReference {
        file: file("key"),
        id: secret.id.clone(),
        name: secret.spec.name.clone(),
    }];
    task.container.configs = vec![ConfigReference {
        file: file("/app.conf"),
        id: config.id.clone(),
        name: config.spec.name.clone(),
    }];
    task.placement.constraints = vec!["node.role==worker".to_owned()];
    spec
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    let coded = STANDARD.encode(what);
    let mut forms = [what, coded.as_bytes()].into_iter();
    forms.any(|form| bytes.windows(form.len()).any(|part| part == form))
}

/// Files of a folder, and of those in it, that have the bytes.
fn on_disk(folder: &Path, what: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(on_disk(&path, what));
        } else if has(&std::fs::read(&path).unwrap_or_default(), what) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn bytes<'a>(orders: &'a Assignment, id: &PayloadId) -> &'a [u8] {
    orders.payloads[id].data.expose()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_of_a_task_that_uses_them_has_their_bytes_and_in_memory_alone() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let made = manager.create_payload(PayloadKind::Secret, spec("key", SECRET));
    let secret = made.await.unwrap();
    let made = manager.create_payload(PayloadKind::Config, spec("app", CONFIG));
    let config = made.await.unwrap();
    for shown in [
        &secret,
        &manager.payload(PayloadKind::Secret, "key").unwrap(),
        &manager.payloads(PayloadKind::Secret)[0],
    ] {
        assert_eq!(shown.id, secret.id);
        assert!(shown.spec.data.is_empty(), "nobody is shown it");
    }
    let shown = manager.payload(PayloadKind::Config, "app").unwrap();
    assert_eq!(shown.spec.data.expose(), CONFIG);
    assert_eq!(manager.payloads(PayloadKind::Config).len(), 1);
    let other = manager.payload(PayloadKind::Config, "key").unwrap_err();
    assert_eq!(other.kind, ErrorKind::NotFound, "that is a secret");

    let web = using("web", &secret, &config);
    manager.create_service(web).await.unwrap();
    let orders = worker.orders(|o| o.own.tasks.len() == 1).await;
    assert_eq!(orders.payloads.len(), 2, "they come no later than the task");
    assert_eq!(bytes(&orders, &secret.id), SECRET);
    assert_eq!(bytes(&orders, &config.id), CONFIG);
    let halves = serde_json::to_vec(&(&*orders.own, &*orders.shared)).unwrap();
    for text in [halves.as_slice(), format!("{orders:?}").as_bytes()] {
        assert!(!has(text, SECRET) && !has(text, CONFIG));
    }
    let others = first.orders(|o| o.shared.services.len() == 1).await;
    assert!(others.payloads.is_empty());

    // Another session of the node has them again, and another agent none before.
    let Node { dir, session } = worker;
    let identity = Identity::clone(&session.identity());
    session.end().await;
    drop(session);
    let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
    let worker = Node::start(dir, identity, membership);
    let orders = worker.orders(|o| o.payloads.len() == 2).await;
    assert_eq!(bytes(&orders, &secret.id), SECRET);

    // What uses them keeps them.
    let refused = manager.remove_payload(PayloadKind::Secret, "key").await;
    assert!(refused.is_err());
    manager.remove_service("web").await.unwrap();
    let task = orders.own.tasks[0].id.clone();
    let status = TaskStatus {
        state: TaskState::Shutdown,
        ..TaskStatus::default()
    };
    worker.session.report(task, status);
    let orders = worker.orders(|o| o.own.tasks.is_empty()).await;
    assert!(orders.payloads.is_empty(), "the node forgets them");
    for (kind, name) in [(PayloadKind::Secret, "key"), (PayloadKind::Config, "app")] {
        manager.remove_payload(kind, name).await.unwrap();
        assert!(manager.payloads(kind).is_empty());
    }
    manager.stop().await;
    for dir in [first.dir.path(), worker.dir.path()] {
        for what in [SECRET, CONFIG] {
            assert_eq!(on_disk(dir, what), [""; 0]);
        }
    }
}

/// One config is an entry of the log that is longer than what goes into one with others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_share_the_longest_config_and_pass_on_the_call_that_makes_it() {
    let (first, _node) = cluster().await;
    let (second, _dir) = beside(&first, "m2").await;
    let worker = Node::join(&first, "w1").await;
    worker.connected().await;
    let longest = vec![b'x'; PayloadKind::Config.max_bytes()];
    let body = serde_json::to_vec(&spec("app", &longest)).unwrap();
    assert!(body.len() > 1 << 20, "{}", body.len());
    let call = ApiCall {
        method: "POST".to_owned(),
        path: "/v1/configs".to_owned(),
        body: body.clone().into(),
    };
    let reply = second.pass_on(&call).await.unwrap().unwrap();
    assert_eq!(reply.status, 418);
    let said = String::from_utf8_lossy(&reply.body).into_owned();
    let whole = format!("POST /v1/configs {} ", body.len());
    assert!(said.contains(&whole), "{said}");

    // Docker takes a byte less.
    let longest = &longest[1..];
    let made = first.create_payload(PayloadKind::Config, spec("app", longest));
    let config = made.await.unwrap();
    let made = first.create_payload(PayloadKind::Secret, spec("key", SECRET));
    let secret = made.await.unwrap();
    state(&second, |s| s.payloads.len() == 2).await;
    let there = second.payload(PayloadKind::Config, "app").unwrap();
    assert!(there.id == config.id && there.spec == config.spec);
    let web = using("web", &secret, &config);
    first.create_service(web).await.unwrap();
    let orders = worker.orders(|o| o.own.tasks.len() == 1).await;
    assert!(bytes(&orders, &config.id) == longest);
    second.stop().await;
    first.stop().await;
}
