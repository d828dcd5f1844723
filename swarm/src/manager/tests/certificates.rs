//! Certificates that have run out: what they are still good for, and how a node gets its next one.

use std::time::UNIX_EPOCH;

use tonic::{Code, Status};
use weft_cluster::remove_node;
use weft_model::id::NodeId;

use super::managers::{beside, until};
use super::*;
use crate::join::request_certificate;
use crate::proto::ca_client::CaClient;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{
    GetRootCaRequest, HeartbeatRequest, IssueCertificateRequest, RenewCertificateRequest,
};
use crate::tls::{connect, member_config};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// When a certificate was made that has just run out, after the authority was made.
fn long_ago() -> SystemTime {
    SystemTime::now() - NODE_LIFE - Duration::from_secs(60)
}

/// A certificate of a node that has run out.
fn aged(manager: &Manager, node: &NodeId, role: Role) -> Identity {
    let core = &manager.core;
    let made = long_ago();
    core.authority()
        .unwrap()
        .issue(node, role, &core.cluster, made)
        .unwrap()
}

/// Joins, and opens no session.
async fn joined(manager: &Manager, name: &str) -> (TempDir, Identity, Membership) {
    let dir = tempfile::tempdir().unwrap();
    let token = manager.join_token(Role::Worker).unwrap();
    let params = join_params(dir.path(), name, &token.token, &token.manager_addr);
    let identity = join(params).await.unwrap();
    let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
    (dir, identity, membership)
}

async fn renew(manager: &Manager, identity: &Identity) -> Result<String, Status> {
    let config = member_config(identity).unwrap();
    let to = manager.local_addr().to_string();
    let channel = connect(&to, config).await.unwrap();
    let (_, csr_pem) = request_certificate().unwrap();
    let request = RenewCertificateRequest { csr_pem };
    let reply = CaClient::new(channel).renew_certificate(request).await?;
    Ok(reply.into_inner().certificate_pem)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_certificate_is_good_for_its_renewal_and_nothing_else() {
    let (manager, _first) = cluster().await;
    let (_dir, identity, _) = joined(&manager, "w1").await;
    let old = aged(&manager, identity.node_id(), Role::Worker);
    let config = member_config(&old).unwrap();
    let to = manager.local_addr().to_string();
    let channel = || async { connect(&to, Arc::clone(&config)).await.unwrap() };
    let mut dispatcher = DispatcherClient::new(channel().await);
    let beat = dispatcher.heartbeat(HeartbeatRequest::default()).await;
    let mut ca = CaClient::new(channel().await);
    let root = ca.get_root_ca(GetRootCaRequest {}).await;
    let token = manager.join_token(Role::Worker).unwrap().token;
    let issue = IssueCertificateRequest {
        token,
        ..Default::default()
    };
    let mut ca = CaClient::new(channel().await);
    let issue = ca.issue_certificate(issue).await;
    for refused in [beat.err(), root.err(), issue.err()] {
        let status = refused.unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        let text = status.message();
        let until = crate::clocks::local(old.validity().1);
        assert!(
            text.contains(&until) && text.contains("clock of the manager"),
            "{text}"
        );
        assert!(!text.contains("firewall"), "{text}");
    }
    let pem = renew(&manager, &old).await.unwrap();
    assert!(pem.contains("BEGIN CERTIFICATE"));

    // Not one of another authority, however young, and none that is not valid yet.
    let other = Authority::generate(SystemTime::now() - DAY * 200).unwrap();
    let made = long_ago();
    let foreign = other
        .issue(
            identity.node_id(),
            Role::Worker,
            &manager.core.cluster,
            made,
        )
        .unwrap();
    let foreign = Identity::new(
        manager.core.authority().unwrap().root_pem().to_owned(),
        foreign.pem(),
        "",
    )
    .unwrap();
    let config = member_config(&foreign).unwrap();
    if let Ok(channel) = connect(&to, config).await {
        let root = CaClient::new(channel)
            .get_root_ca(GetRootCaRequest {})
            .await;
        assert!(root.is_err());
    }
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_off_for_too_long_renews_and_comes_back_by_itself() {
    let (manager, _first) = cluster().await;
    let (dir, identity, membership) = joined(&manager, "w1").await;
    let old = aged(&manager, identity.node_id(), Role::Worker);
    let node = Node::start(dir, old, membership);
    node.connected().await;
    let (_, until) = node.session.identity().validity();
    assert!(until > SystemTime::now() + DAY * 89);
    let (_, on_disk) = Membership::load(node.dir.path()).unwrap().unwrap();
    assert_eq!(on_disk.validity().1, until);
    state(&manager, |s| health(s, "w1") == NodeState::Ready).await;

    // From now on the old one is worth nothing, and one of a removed node neither.
    let again = aged(&manager, identity.node_id(), Role::Worker);
    let refused = renew(&manager, &again).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("a newer one since"), "{refused}");
    let (_dir, second, _) = joined(&manager, "w2").await;
    let lapsed = aged(&manager, second.node_id(), Role::Worker);
    manager
        .core
        .run(|s, now, e| remove_node(s, now, e, "w2", true))
        .await
        .unwrap();
    for identity in [&lapsed, &second] {
        let refused = renew(&manager, identity).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            refused.message().contains("was removed from swarm"),
            "{refused}"
        );
    }
    manager.stop().await;
}

/// As after a start with a clock of the past: by it, what a manager proves itself with is of the
/// future.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_hours_behind_says_both_clocks() {
    let (manager, _first) = cluster().await;
    let (dir, identity, mut membership) = joined(&manager, "w1").await;
    let core = &manager.core;
    let made = SystemTime::now() + Duration::from_secs(3 * 3600);
    let ahead = core
        .authority()
        .unwrap()
        .issue(&core.node, Role::Manager, &core.cluster, made)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(&ahead).unwrap());
    let there = TcpListener::bind(any_port()).await.unwrap();
    let remote = there.local_addr().unwrap().to_string();
    membership.managers = vec![remote.clone()];
    let accepts = tokio::spawn(async move {
        while let Ok((stream, _)) = there.accept().await {
            // The node hangs up.
            drop(acceptor.accept(stream).await);
        }
    });
    let node = Node::start(dir, identity, membership);
    let failure = timeout(LIMIT, async {
        loop {
            match node.session.last_failure() {
                Some(failure) => break failure,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    // `weft info` shows it as it is.
    let failure = failure.await.expect("a reason");
    let text = &failure.error.message;
    assert_eq!(failure.error.kind, ErrorKind::Forbidden, "{text}");
    let from = crate::clocks::local(ahead.validity().0);
    let both = format!(
        "the certificate of the manager at {remote} counts from {from} on, and the clock of this \
         node says 2"
    );
    assert!(text.starts_with(&both), "{text}");
    assert!(!node.session.connected());
    accepts.abort();
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_certifies_its_own_node_whatever_that_one_had() {
    let (manager, first) = cluster().await;
    let old = aged(&manager, &manager.core.node, Role::Manager);
    // As it would be read from its directory.
    let old = old.sealed_like(&manager.core.own.borrow());
    let listen = manager.local_addr();
    manager.stop().await;
    let Node { dir, session } = first;
    drop(session);
    let manager = Manager::open(config(dir.path(), listen), &old)
        .await
        .unwrap();
    let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
    let node = Node::start(dir, old.clone(), membership);
    let own = Arc::clone(&manager.identities().borrow());
    assert!(own.validity().0 > SystemTime::now() - DAY);
    node.session.adopt(&own).await.unwrap();
    node.connected().await;
    // It is another node's: nothing changes.
    let (_dir, foreign, _) = joined(&manager, "w1").await;
    node.session.adopt(&foreign).await.unwrap_err();
    assert_eq!(node.session.identity().validity(), own.validity());
    manager.stop().await;
}

/// All managers were off for longer than certificates live, and one of them is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_on_alone_may_do_so_with_a_certificate_that_has_run_out() {
    let (first, node) = cluster().await;
    let (second, _second_dir) = beside(&first, "m2").await;
    until("both answer", || first.quorum().reachable == 2).await;
    let old = aged(&first, &first.core.node, Role::Manager);
    let old = old.sealed_like(&first.core.own.borrow());
    let listen = first.local_addr();
    second.stop().await;
    first.stop().await;
    let Node { dir, session } = node;
    drop(session);
    let alone = Manager::open_alone(config(dir.path(), listen), &old).await;
    let alone = alone.unwrap();
    assert!(alone.leads());
    assert_eq!(alone.quorum().managers, 1);
    assert_eq!(health(&alone.state(), "m2"), NodeState::Down);
    let own = Arc::clone(&alone.identities().borrow());
    assert!(own.validity().0 > SystemTime::now() - DAY);
    let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
    let node = Node::start(dir, old, membership);
    node.session.adopt(&own).await.unwrap();
    node.connected().await;
    let worker = Node::join(&alone, "w1").await;
    worker.connected().await;
    alone.stop().await;
}

#[test]
fn what_a_lapsed_certificate_is_held_against() {
    use crate::identity::PeerIdentity;
    use lapsed::may_be_renewed;

    let at = |days: u32| UNIX_EPOCH + DAY * days;
    let member = PeerIdentity {
        node: NodeId::from("n"),
        role: Role::Worker,
        cluster: "c".to_owned(),
        not_before: at(1000),
        not_after: at(1090),
    };
    let known = vitals::tests::nodes(&["n"]);
    let mut node = known.nodes.get(&NodeId::from("n")).unwrap().clone();
    let root = (at(500), at(5000));
    let may = |node: &_, root, now| may_be_renewed(&member, node, root, now);
    may(&node, root, at(2000)).unwrap();
    node.certified = u64::try_from((DAY * 1000).as_millis()).unwrap();
    may(&node, root, at(2000)).unwrap();
    let texts = [
        may(&node, root, at(5001)).unwrap_err(),
        may(&node, (at(1091), at(9000)), at(2000)).unwrap_err(),
        {
            node.certified += 1;
            may(&node, root, at(2000)).unwrap_err()
        },
    ];
    for (text, wanted) in texts.iter().zip([
        "the root certificate of this swarm counted until",
        "before the root certificate of this swarm was made",
        "has had a newer one since",
    ]) {
        assert!(text.message().contains(wanted), "{text}");
    }
}

#[test]
fn the_managers_own_certificate_is_kept_young_by_two_clocks() {
    let made = UNIX_EPOCH + DAY * 20_000;
    let fresh = |wall, held: u32| is_fresh(NODE_LIFE, made, wall, DAY * held);
    assert!(fresh(made + DAY * 10, 10));
    assert!(!fresh(made + DAY * 31, 10), "by the date");
    assert!(!fresh(made + DAY * 10, 31), "by the time that passed");
    assert!(!fresh(made - DAY, 1), "too new for others");
}
