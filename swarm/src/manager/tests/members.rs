//! What nodes are sent, and what of their words stays outside.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_sent_what_changed_and_nothing_of_others() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let mut secret = service("secret", 1);
    let container = &mut Arc::make_mut(&mut secret.task).container;
    container.args.push("--key=s3cret".to_owned());
    container.env = vec!["DB_PASSWORD=hunter2".to_owned()];
    manager.create_service(secret).await.unwrap();
    // It is placed on one of the two; both are told of it.
    let named = |o: &Assignment| o.shared.services.len() == 1;
    worker.orders(named).await;
    let placed = state(&manager, |s| s.tasks.values().any(|t| t.node.is_some())).await;
    let on = placed.tasks.values().next().unwrap().node.clone();
    let (with, without) = if on.as_ref() == Some(worker.session.identity().node_id()) {
        (&worker, &first)
    } else {
        (&first, &worker)
    };
    let before = with.orders(|o| o.own.tasks.len() == 1).await;
    let others_before = without.orders(named).await;
    // Orders are on disk before anybody is told of them.
    for file in ["assignment.json", "shared.json"] {
        let text = std::fs::read_to_string(without.dir.path().join(file)).unwrap();
        for word in ["hunter2", "s3cret", "/bin/true"] {
            assert!(!text.contains(word), "{word} is in {file}");
        }
    }
    let text = std::fs::read_to_string(with.dir.path().join("assignment.json")).unwrap();
    assert!(text.contains("hunter2") && text.contains("s3cret"));
    // A report comes back in the node's own half; the other one is not sent again.
    let status = TaskStatus {
        state: TaskState::Running,
        ..TaskStatus::default()
    };
    with.session.report(before.own.tasks[0].id.clone(), status);
    let running = |o: &Assignment| o.own.tasks[0].status.state == TaskState::Running;
    let after = with.orders(running).await;
    assert!(Arc::ptr_eq(&before.shared, &after.shared));
    // And who is told nothing new keeps what he has.
    manager.remove_service("secret").await.unwrap();
    let later = without.orders(|o| o.shared.services.is_empty()).await;
    assert!(Arc::ptr_eq(&later.own, &others_before.own));
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_and_hostile_words_of_nodes_stay_outside() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let token = manager.join_token(Role::Worker).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let attempt = |change: &dyn Fn(&mut NodeDescription)| {
        let mut params = join_params(dir.path(), "w2", &token.token, &token.manager_addr);
        change(&mut params.node);
        join(params)
    };
    let says = [
        attempt(&|node| node.engine_version = "9".repeat(3_900_000)).await,
        attempt(&|node| node.engine_version = "9".repeat(20_000)).await,
        attempt(&|node| node.hostname = "n".repeat(65)).await,
        attempt(&|node| node.hostname = "\u{1b}]0;x\u{7}".to_owned()).await,
        attempt(&|node| node.data_path_addr = description("w1").data_path_addr).await,
        attempt(&|node| *node = description("w1")).await,
    ];
    let expected = [
        "message length too large",
        "the description of the node has 20",
        "1 to 64 printable characters",
        "1 to 64 printable characters",
        "is that of node w1",
        "is that of node w1",
    ];
    for (said, expected) in says.into_iter().zip(expected) {
        let error = said.unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
    assert_eq!(manager.nodes().len(), 2, "nobody came in");

    // A member's session: the same, and the orders of the others do not grow.
    let (_, identity) = Membership::load(worker.dir.path()).unwrap().unwrap();
    drop(worker);
    let mut lying = description("w1");
    lying.engine_version = "9".repeat(15_000_000);
    let config = SessionConfig {
        data_dir: tempfile::tempdir().unwrap().path().to_owned(),
        managers: vec![manager.local_addr().to_string()],
        node: lying,
    };
    let session = Session::start(identity, config);
    timeout(LIMIT, async {
        while session.last_error().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(!session.connected());
    let orders = first.orders(|_| true).await;
    assert!(serde_json::to_vec(&*orders.shared).unwrap().len() < 8192);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_drained_never_gets_a_task() {
    let (manager, first) = cluster().await;
    let token = manager.join_token(Role::Worker).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let params = JoinParams {
        availability: Availability::Drain,
        ..join_params(dir.path(), "w1", &token.token, &token.manager_addr)
    };
    join(params).await.unwrap();
    let joined = manager.node("w1").unwrap().node;
    assert_eq!(joined.spec.availability, Availability::Drain);
    let (membership, identity) = Membership::load(dir.path()).unwrap().unwrap();
    let worker = Node::start(dir, identity, membership);
    worker.connected().await;
    manager.create_service(service("web", 3)).await.unwrap();
    first.orders(|o| o.own.tasks.len() == 3).await;
    assert_eq!(manager.node_tasks("w1").unwrap(), []);
    manager.stop().await;
}
