//! The root certificate is replaced under nodes that go on; and certificates that are refused, each
//! with its own words.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyPair, NameConstraints};
use tonic::Status;
use weft_cluster::{RootPair, Token, remove_node, rotate_root};
use weft_model::api::{CaRotate, NodeUpdate};
use weft_model::id::NodeId;

use super::*;
use crate::identity::{MANAGER_UNIT, PeerIdentity};
use crate::join::request_certificate;
use crate::proto::RenewCertificateRequest;
use crate::proto::ca_client::CaClient;
use crate::tls::{connect, member_config};

async fn until(what: &str, is: impl Fn() -> bool) {
    let waited = timeout(LIMIT, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect(what);
}

/// The node of a manager takes its manager's certificates, as the agent has it.
fn follow(manager: &Manager, node: Arc<Node>) -> JoinHandle<()> {
    let mut newest = manager.identities();
    newest.mark_changed();
    tokio::spawn(async move {
        while newest.changed().await.is_ok() {
            let identity = Arc::clone(&newest.borrow_and_update());
            node.session.adopt(&identity).await.unwrap();
        }
    })
}

/// A member's call, or why there is none.
async fn call(manager: &Manager, identity: &Identity) -> Result<String, String> {
    let config = member_config(identity).unwrap();
    let to = manager.local_addr().to_string();
    let channel = connect(&to, config).await.map_err(|e| e.message)?;
    let (_, csr_pem) = request_certificate().unwrap();
    let request = RenewCertificateRequest { csr_pem };
    let reply = CaClient::new(channel).renew_certificate(request).await;
    let reply =
        reply.map_err(|status: Status| format!("{:?}: {}", status.code(), status.message()));
    Ok(reply?.into_inner().certificate_pem)
}

/// A certificate of a root that was replaced, with the one that counts now beside it: no handshake, and
/// no call on a connection of before.
async fn is_refused(manager: &Manager, old: &Identity, root: &str) {
    let failures = || {
        let events = manager.door().events;
        let failed = events.iter().find(|(what, _)| *what == "handshake_failed");
        failed.map_or(0, |(_, count)| *count)
    };
    let before = failures();
    let shown = old.with_roots(root.to_owned()).unwrap();
    let text = call(manager, &shown).await.unwrap_err();
    assert!(
        !text.contains("does not prove"),
        "it is the manager that refuses: {text}"
    );
    until("the refusal is counted", || failures() > before).await;
    let peer = gate::Peer {
        addr: any_port(),
        member: Some(Arc::new(
            PeerIdentity::from_certificate(&old.chain()[0]).unwrap(),
        )),
        lapsed: false,
        roots: manager.core.vouching(old.chain()).into(),
    };
    let refused = gate::member(&manager.core, &peer).unwrap_err();
    let words = format!(
        "the root that made the certificate of node {} was replaced, and does not count any more",
        old.node_id()
    );
    assert!(refused.message().contains(&words), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_replaced_and_sessions_go_on() {
    let (manager, first) = cluster().await;
    let first = Arc::new(first);
    let worker = Node::join(&manager, "w1").await;
    let away = Node::join(&manager, "w2").await;
    worker.connected().await;
    away.connected().await;
    let before = manager.swarm().unwrap();
    let tokens = [Role::Worker, Role::Manager].map(|r| manager.join_token(r).unwrap().token);
    let old = worker.session.identity();

    let asked = manager.rotate_ca(&CaRotate::default()).await.unwrap();
    assert!(asked.root_rotation_in_progress);
    assert_eq!(asked.tls_info, before.tls_info, "tokens pin it still");
    let joined = Node::join(&manager, "w3").await;
    joined.connected().await;
    // It waits for this one until now.
    let follows = follow(&manager, Arc::clone(&first));
    until("the new root is the only one", || {
        !manager.swarm().unwrap().root_rotation_in_progress
    })
    .await;
    let after = manager.swarm().unwrap();
    assert_ne!(after.tls_info, before.tls_info);
    assert_eq!(
        after.root_rotation.desired_root_digest,
        asked.root_rotation.desired_root_digest
    );
    assert_eq!(after.root_rotation.renewed, 4);
    for node in [&worker, &away, &joined] {
        until("it trusts the new one alone", || {
            node.session.identity().root_pem() == after.tls_info.trust_root
        })
        .await;
        node.connected().await;
        let (_, on_disk) = Membership::load(node.dir.path()).unwrap().unwrap();
        assert_eq!(on_disk.root_pem(), after.tls_info.trust_root);
        assert!(on_disk.is_of_first_root());
    }
    first.connected().await;
    until("the manager trusts the new one alone", || {
        manager.core.own.borrow().root_pem() == after.tls_info.trust_root
    })
    .await;
    assert!(
        manager
            .state()
            .nodes
            .values()
            .all(|n| n.status.state == NodeState::Ready)
    );

    // The old one is worth nothing: neither its certificates nor the tokens that pin it.
    is_refused(&manager, &old, &after.tls_info.trust_root).await;
    let text = call(&manager, &old).await.unwrap_err();
    assert!(text.contains("does not prove to be a manager"), "{text}");
    for token in tokens {
        let dir = tempfile::tempdir().unwrap();
        let addr = manager.local_addr().to_string();
        let error = join(join_params(dir.path(), "w4", &token, &addr)).await;
        let error = error.unwrap_err();
        let text = "remote CA does not match fingerprint. Expected: ";
        assert!(error.message.starts_with(text), "{error}");
    }
    let again = Node::join(&manager, "w4").await;
    again.connected().await;
    manager.create_service(service("web", 1)).await.unwrap();
    follows.abort();
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_starts_again_goes_on_with_a_rotation() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    // The node of the manager does not follow it here, so that this does not end.
    let asked = manager.rotate_ca(&CaRotate::default()).await.unwrap();
    until("the worker is through", || {
        manager.swarm().unwrap().root_rotation.renewed == 1
    })
    .await;
    let listen = manager.local_addr();
    manager.stop().await;
    drop(manager);
    let Node { dir, session } = first;
    drop(session);
    let (membership, identity) = Membership::load(dir.path()).unwrap().unwrap();
    let manager = Manager::open(config(dir.path(), listen), &identity)
        .await
        .unwrap();
    let swarm = manager.swarm().unwrap();
    assert!(swarm.root_rotation_in_progress);
    assert_eq!(
        swarm.root_rotation.desired_root_digest,
        asked.root_rotation.desired_root_digest
    );
    let first = Arc::new(Node::start(dir, identity, membership));
    let follows = follow(&manager, Arc::clone(&first));
    until("the new root is the only one", || {
        !manager.swarm().unwrap().root_rotation_in_progress
    })
    .await;
    worker.connected().await;
    follows.abort();
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_brings_becomes_the_root() {
    let (manager, first) = cluster().await;
    let first = Arc::new(first);
    let follows = follow(&manager, Arc::clone(&first));
    let root = new_root::generate(SystemTime::now()).unwrap();
    let asked = CaRotate {
        signing_ca_cert: Some(root.certificate.clone()),
        signing_ca_key: Some(root.key.clone()),
        node_cert_expiry: Some(Duration::from_secs(7200)),
    };
    manager.rotate_ca(&asked).await.unwrap();
    until("it is the only one", || {
        !manager.swarm().unwrap().root_rotation_in_progress
    })
    .await;
    let swarm = manager.swarm().unwrap();
    assert_eq!(swarm.tls_info.trust_root, root.certificate);
    let token: Token = manager
        .join_token(Role::Worker)
        .unwrap()
        .token
        .parse()
        .unwrap();
    let expected: String = token.ca_digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(expected, root.digest);
    let (from, until) = manager.identities().borrow().validity();
    assert_eq!(until.duration_since(from).unwrap().as_secs(), 3 * 3600);
    let half = CaRotate {
        signing_ca_key: None,
        ..asked
    };
    let error = manager.rotate_ca(&half).await.unwrap_err();
    assert!(error.message.contains("--ca-key"), "{error}");
    follows.abort();
    manager.stop().await;
}

/// To that root.
fn rotation_to(root: &RootPair) -> CaRotate {
    CaRotate {
        signing_ca_cert: Some(root.certificate.clone()),
        signing_ca_key: Some(root.key.clone()),
        node_cert_expiry: None,
    }
}

/// A root that may make certificates of other names alone.
fn limited_root() -> RootPair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let root = params.self_signed(&key).unwrap();
    new_root::given(&root.pem(), &key.serialize_pem(), SystemTime::now()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_nodes_would_not_trust_is_refused() {
    let (manager, _first) = cluster().await;
    let asked = rotation_to(&limited_root());
    let error = manager.rotate_ca(&asked).await.unwrap_err();
    assert!(error.message.contains("nameConstraints"), "{error}");
    assert!(!manager.swarm().unwrap().root_rotation_in_progress);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_that_change_nothing_become_rare() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let (limited, now) = (limited_root(), SystemTime::now());
    let present = manager
        .state()
        .secrets
        .as_ref()
        .unwrap()
        .roots
        .current
        .clone();
    let crossed = new_root::cross_sign(&limited, &present, now).unwrap();
    let core = &manager.core;
    core.run(|s, at, e| rotate_root(s, at, e, &limited, &crossed, None))
        .await
        .unwrap();
    until("it has one of the new root", || {
        worker.session.identity().chain().len() == 2
    })
    .await;
    assert!(!worker.session.identity().is_of_first_root());
    let mut seen = vec![worker.session.identity()];
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let now = worker.session.identity();
        if seen.iter().all(|known| !Arc::ptr_eq(known, &now)) {
            seen.push(now);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(seen.len() <= 6, "{} certificates in 3 seconds", seen.len());
    // Back to where it began, which ends it.
    manager.rotate_ca(&rotation_to(&present)).await.unwrap();
    until("it is of the first root", || {
        worker.session.identity().is_of_first_root()
    })
    .await;
    worker.connected().await;
    manager.stop().await;
}

/// The node of a manager that cannot be opened has nobody else who certifies it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_manager_is_off_renews_in_its_session() {
    let (manager, first) = cluster().await;
    let first = Arc::new(first);
    let follows = follow(&manager, Arc::clone(&first));
    let other = Node::join(&manager, "m2").await;
    other.connected().await;
    let to_manager = NodeUpdate {
        role: Some(Role::Manager),
        ..NodeUpdate::default()
    };
    manager.update_node("m2", None, &to_manager).await.unwrap();
    until("it has the certificate of a manager", || {
        other.session.identity().role() == Role::Manager
    })
    .await;
    manager.rotate_ca(&CaRotate::default()).await.unwrap();
    until("it alone is waited for", || {
        manager.swarm().unwrap().root_rotation.waiting == ["m2"]
    })
    .await;
    until("it has heard of the root", || {
        !other.session.identity().is_of_first_root()
    })
    .await;
    assert!(manager.swarm().unwrap().root_rotation_in_progress);
    other.session.set_own_manager(false);
    until("the new root is the only one", || {
        !manager.swarm().unwrap().root_rotation_in_progress
    })
    .await;
    assert_eq!(other.session.identity().role(), Role::Manager);
    follows.abort();
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_certificate_is_refused_with_its_own_words() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let (core, now) = (&manager.core, SystemTime::now());
    let own = core.authority().unwrap();
    let issue = |ca: &Authority, node: &NodeId, role, cluster: &str| {
        let made = ca.issue(node, role, cluster, now).unwrap();
        // Who forges one trusts the right managers.
        made.with_roots(own.root_pem().to_owned()).unwrap()
    };
    let node = worker.session.identity().node_id().clone();
    call(&manager, &issue(&own, &node, Role::Worker, &core.cluster))
        .await
        .unwrap();

    // Of another authority, with the right names in it.
    let other = Authority::generate(now).unwrap();
    let forged = issue(&other, &node, Role::Manager, &core.cluster);
    let text = call(&manager, &forged).await.unwrap_err();
    assert!(
        !text.contains("Permission denied"),
        "before it says a word: {text}"
    );
    let failed = |(what, count): &(&str, u64)| *what == "handshake_failed" && *count > 0;
    until("it is counted", || manager.door().events.iter().any(failed)).await;
    // Of this one, for another swarm.
    let foreign = issue(&own, &node, Role::Worker, "another");
    let text = call(&manager, &foreign).await.unwrap_err();
    assert!(text.contains("belongs to another swarm"), "{text}");
    // For nobody.
    let nobody = issue(&own, &NodeId::from_entropy(9), Role::Worker, &core.cluster);
    let text = call(&manager, &nobody).await.unwrap_err();
    assert!(text.contains("was removed from swarm"), "{text}");
    // A worker that shows itself as a manager to a node.
    let posing = issue(&own, &node, Role::Worker, &core.cluster);
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(&posing).unwrap());
    let there = TcpListener::bind(any_port()).await.unwrap();
    let remote = there.local_addr().unwrap().to_string();
    let accepts = tokio::spawn(async move {
        while let Ok((stream, _)) = there.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    let config = member_config(&worker.session.identity()).unwrap();
    let error = connect(&remote, config).await.unwrap_err();
    assert!(
        error
            .message
            .contains("does not prove to be a manager of this swarm")
            && error.message.contains(MANAGER_UNIT),
        "{error}"
    );
    accepts.abort();

    // Removed while it is connected: its session ends, and nothing is renewed.
    let identity = worker.session.identity();
    core.run(|s, at, e| remove_node(s, at, e, "w1", true))
        .await
        .unwrap();
    let text = call(&manager, &identity).await.unwrap_err();
    let words = format!("PermissionDenied: Permission denied: node {node} was removed from swarm");
    assert!(text.starts_with(&words), "{text}");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_reach_nodes_at_once() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let update = SwarmUpdate {
        node_cert_expiry: Some(Duration::from_secs(3600)),
        heartbeat_period: Some(Duration::from_secs(2)),
        ..SwarmUpdate::default()
    };
    let swarm = manager.update_swarm(None, &update).await.unwrap();
    let read = swarm.cluster.meta.version.index;
    let spec = swarm.cluster.spec;
    assert_eq!(spec.ca_config.node_cert_expiry, Duration::from_secs(3600));
    assert_eq!(manager.core.heartbeat(), Duration::from_secs(2));
    until("the node hears of it", || {
        worker.session.period() == Duration::from_secs(2)
    })
    .await;
    assert!(worker.session.connected(), "in the same session");
    // The next certificates live as long as that.
    let pem = call(&manager, &worker.session.identity()).await.unwrap();
    let der = crate::identity::certificate_from_pem("it", &pem).unwrap();
    let (from, until) = crate::identity::validity_of("it", &der).unwrap();
    assert_eq!(until.duration_since(from).unwrap().as_secs(), 2 * 3600);
    let error = manager
        .update_swarm(
            None,
            &SwarmUpdate {
                node_cert_expiry: Some(Duration::from_secs(60)),
                ..SwarmUpdate::default()
            },
        )
        .await
        .unwrap_err();
    assert!(error.message.contains("1h0m0s"), "{error}");
    // Two read the settings, and both change them: the second one hears of the first.
    let locks = SwarmUpdate {
        autolock: Some(true),
        ..SwarmUpdate::default()
    };
    manager.update_swarm(Some(read), &locks).await.unwrap();
    let late = manager.update_swarm(Some(read), &update).await;
    let error = late.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(
        error.message.starts_with("update out of sequence"),
        "{error}"
    );
    manager.stop().await;
}

/// Nobody but their owner may read keys, orders and the log, which has the root's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_keys_are_their_owners() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for dir in [first.dir.path(), worker.dir.path()] {
        assert_eq!(mode(&dir.join("certs")), 0o700);
        let files = [
            "certs/ca.crt",
            "certs/node.pem",
            "swarm.json",
            "shared.json",
        ];
        for file in files {
            assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
        }
        assert!(!dir.join("certs/ca.key").exists());
    }
    assert_eq!(mode(&first.dir.path().join("raft.redb")), 0o600);
    manager.stop().await;
}
