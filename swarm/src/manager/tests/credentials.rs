//! Credentials that nodes fetch images with: who gets to see them, and what lies on disks.

use std::os::unix::fs::PermissionsExt as _;

use serde::Serialize;
use weft_model::api::ServiceUpdate;
use weft_model::objects::{PullOptions, Runtime};

use super::*;
use crate::assignment_file::ASSIGNMENT_FILE;

const SECRET: &str = "VEhFU0VDUkVUT0ZUSEVSRUdJU1RSWQ==";

/// Of an image of somebody's own, on workers.
fn private(name: &str) -> ServiceSpec {
    let mut spec = service(name, 1);
    let task = Arc::make_mut(&mut spec.task);
    task.runtime = Runtime::Container;
    task.container.image = "registry.example/web:1".to_owned();
    task.container.pull_options = PullOptions {
        registry_auth: SECRET.to_owned(),
    };
    task.placement.constraints = vec!["node.role==worker".to_owned()];
    spec
}

fn has_secret(answer: &impl Serialize) -> bool {
    serde_json::to_string(answer).unwrap().contains(SECRET)
}

/// Whether a file of a folder has the text.
fn on_disk(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let files = files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
    let with = files.filter(|file| {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        bytes
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes())
    });
    with.map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_for_the_nodes_that_fetch_the_image() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let made = manager.create_service(private("web")).await.unwrap();
    assert!(!has_secret(&made));
    let orders = worker.orders(|o| o.own.tasks.len() == 1).await;
    assert!(has_secret(&*orders.own), "who fetches the image");
    assert!(!has_secret(&*orders.shared));

    // Nobody who asks, whatever he changes.
    let scaled = manager.scale_service("web", None, 2).await.unwrap();
    assert!(!has_secret(&scaled));
    let mut spec = manager.service("web").unwrap().service.spec;
    assert!(spec.task.container.pull_options.is_empty());
    Arc::make_mut(&mut spec.task).container.env = vec!["A=1".to_owned()];
    let update = ServiceUpdate {
        spec: Some(spec),
        ..ServiceUpdate::default()
    };
    let plan = manager.plan_update("web", None, &update).unwrap();
    assert!(!has_secret(&plan));
    let updated = manager.update_service("web", None, &update).await.unwrap();
    assert!(!has_secret(&updated));
    for service in manager.services() {
        assert!(service.service.previous_spec.is_some());
        assert!(!has_secret(&service));
    }
    let rows = manager.tasks("web").unwrap();
    assert!(!rows.is_empty() && !has_secret(&rows));
    assert!(!has_secret(
        &manager.task(rows[0].task.id.as_str()).unwrap()
    ));
    assert!(!has_secret(&manager.node_tasks("w1").unwrap()));

    // What was not said stays, for all that comes.
    let kept = manager.state();
    let kept = kept.find_service("web").unwrap();
    let asks = &kept.spec.task.container.pull_options;
    assert_eq!(asks.registry_auth, SECRET);

    // The manager's own node has no task of it, and its disk is sealed.
    let own = first.orders(|o| o.shared.services.len() == 1).await;
    assert!(!has_secret(&*own.own));
    assert_eq!(on_disk(first.dir.path()), [""; 0]);
    let there = on_disk(worker.dir.path());
    assert!(
        there.iter().all(|file| file == ASSIGNMENT_FILE),
        "{there:?}"
    );
    let orders = std::fs::metadata(worker.dir.path().join(ASSIGNMENT_FILE)).unwrap();
    assert_eq!(orders.permissions().mode() & 0o077, 0);
}
