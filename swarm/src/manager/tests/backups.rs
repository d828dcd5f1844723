//! Backups of a swarm, and swarms that begin again from one.

use weft_model::objects::NetworkSpec;

use super::*;

fn restore_params(backup: Vec<u8>, unlock_key: Option<UnlockKey>) -> RestoreParams {
    RestoreParams {
        backup,
        unlock_key,
        node: description("restored"),
    }
}

/// What becomes of a backup on a machine that is in no swarm.
async fn restored(
    backup: Vec<u8>,
    unlock_key: Option<UnlockKey>,
) -> (
    TempDir,
    Result<(Manager, Identity, Membership), CommandError>,
) {
    let dir = tempfile::tempdir().unwrap();
    let params = restore_params(backup, unlock_key);
    let made = Manager::restore(config(dir.path(), any_port()), params).await;
    (dir, made)
}

async fn refused(backup: Vec<u8>, unlock_key: Option<UnlockKey>) -> String {
    let (dir, made) = restored(backup, unlock_key).await;
    assert!(Membership::load(dir.path()).unwrap().is_none());
    assert!(!dir.path().join(STORE_FILE).exists(), "nothing is left");
    let error = made.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest, "{error}");
    error.message
}

/// With a worker, a network and a service.
async fn swarm() -> (Manager, Node, Node) {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let network = NetworkSpec {
        name: "back".to_owned(),
        ..NetworkSpec::default()
    };
    manager.create_network(network).await.unwrap();
    manager.create_service(service("web", 2)).await.unwrap();
    (manager, first, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_begins_again_from_its_backup() {
    let (manager, first, worker) = swarm().await;
    let token = manager.join_token(Role::Manager).unwrap().token;
    let before = manager.state();
    let backup = manager.backup().await.unwrap();
    // It runs on, and what it does then is not in the file.
    let later = NetworkSpec {
        name: "later".to_owned(),
        ..NetworkSpec::default()
    };
    manager.create_network(later).await.unwrap();
    manager.stop().await;
    drop((manager, first));

    let (dir, made) = restored(backup.clone(), None).await;
    let (again, identity, _) = made.unwrap();
    assert_eq!(again.join_token(Role::Manager).unwrap().token, token);
    let state = again.state();
    let names = |s: &ClusterState| -> Vec<String> {
        s.networks.values().map(|n| n.spec.name.clone()).collect()
    };
    assert_eq!(names(&state), names(&before));
    assert!(state.find_service("web").is_ok());
    assert_eq!(state.nodes.values().count(), 3);
    assert_eq!(again.quorum().managers, 1);
    let own = state.nodes.get(identity.node_id()).unwrap();
    assert_eq!(own.spec.role, Role::Manager);
    assert_eq!(state.find_node("m1").unwrap().spec.role, Role::Worker);

    // Nodes of before are members as they were.
    let Node { dir: at, session } = worker;
    drop(session);
    let (mut membership, identity) = Membership::load(at.path()).unwrap().unwrap();
    membership.managers = vec![again.local_addr().to_string()];
    let worker = Node::start(at, identity, membership);
    worker.connected().await;
    let other = manager_network(&again, "after").await;
    assert!(other, "it takes changes");

    let second = restore_params(backup, None);
    let twice = Manager::restore(config(dir.path(), any_port()), second).await;
    let error = twice.unwrap_err();
    assert!(error.message.contains("already part of a swarm"), "{error}");
    again.stop().await;
    drop(again);
    let (_, identity) = Membership::load(dir.path()).unwrap().unwrap();
    let once_more = Manager::open(config(dir.path(), any_port()), &identity).await;
    let once_more = once_more.unwrap();
    assert!(once_more.state().find_service("web").is_ok());
    once_more.stop().await;
}

async fn manager_network(manager: &Manager, name: &str) -> bool {
    let spec = NetworkSpec {
        name: name.to_owned(),
        ..NetworkSpec::default()
    };
    manager.create_network(spec).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_backup_opens_with_its_key_alone() {
    let (manager, _first, _worker) = swarm().await;
    set_autolock(&manager, true).await;
    let key = manager.unlock_key();
    let backup = manager.backup().await.unwrap();
    let is_there = backup.windows(11).any(|part| part == b"PRIVATE KEY");
    assert!(!is_there, "the key of the CA is not readable");
    manager.stop().await;
    let text = refused(backup.clone(), None).await;
    assert!(text.contains("sealed by the unlock key"), "{text}");
    let wrong = UnlockKey::from_bytes([1; 32]);
    let text = refused(backup.clone(), Some(wrong)).await;
    assert!(text.contains("invalid key"), "{text}");
    let (dir, made) = restored(backup, key.clone()).await;
    let (again, ..) = made.unwrap();
    assert_eq!(again.unlock_key(), key);
    again.stop().await;
    let (_, identity) = Membership::load(dir.path()).unwrap().unwrap();
    assert!(identity.is_locked(), "it is locked as the swarm was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_newer_or_foreign_is_refused_and_leaves_nothing() {
    let (manager, _first, _worker) = swarm().await;
    let backup = manager.backup().await.unwrap();
    manager.stop().await;
    let text = refused(b"#!/bin/sh\necho hello\n".to_vec(), None).await;
    assert!(text.contains("no backup of a swarm"), "{text}");
    let mut newer = backup.clone();
    newer[11] = 2;
    let text = refused(newer, None).await;
    assert!(
        text.contains("format 2") && text.contains("newer"),
        "{text}"
    );
    for cut in [10, 13, 50, backup.len() / 2, backup.len() - 1] {
        let text = refused(backup[..cut].to_vec(), None).await;
        assert!(text.contains("damaged"), "cut at {cut}: {text}");
    }
    for at in [12, 14, 40, backup.len() / 2, backup.len() - 1] {
        let mut changed = backup.clone();
        changed[at] ^= 1;
        let text = refused(changed, None).await;
        assert!(text.contains("damaged"), "byte {at}: {text}");
    }
}
