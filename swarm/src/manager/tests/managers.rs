//! Several managers over real sockets: they share the state, one leads, and the others go on when it
//! is gone.

use tonic::{Code, Status};
use weft_cluster::{Quorum, join as add_node};
use weft_model::api::{CaRotate, NodeUpdate};
use weft_model::id::NodeId;
use weft_model::objects::Reachability;

use super::*;
use crate::convert::SCHEMA;
use crate::proto::api_client::ApiClient;
use crate::proto::raft_client::RaftClient;
use crate::proto::{CallRequest, RaftRequest};
use crate::tls::{connect, member_config};

/// The identity of a node that was just made a manager.
async fn certified(first: &Manager, name: &str) -> Identity {
    let core = &first.core;
    let id = NodeId::from_entropy(entropy().next_u128());
    let now = SystemTime::now();
    let authority = core.authority().unwrap();
    let identity = authority.issue(&id, Role::Manager, &core.cluster, now);
    let node = description(name);
    core.run(|s, now, e| add_node(s, now, e, id.clone(), Role::Manager, &node))
        .await
        .unwrap();
    identity.unwrap()
}

/// Another manager, on a node that was just made one.
pub(super) async fn beside(first: &Manager, name: &str) -> (Manager, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let identity = certified(first, name).await;
    let config = config(dir.path(), any_port());
    let managers = known(vec![first.local_addr().to_string()]);
    let manager = Manager::join(config, &identity, managers).await;
    (manager.unwrap(), dir)
}

pub(super) fn named(name: &str) -> NetworkSpec {
    NetworkSpec {
        name: name.to_owned(),
        ..NetworkSpec::default()
    }
}

pub(super) fn has(state: &ClusterState, name: &str) -> bool {
    state.networks.values().any(|n| n.spec.name == name)
}

pub(super) async fn until(what: &str, is: impl Fn() -> bool) {
    let waited = timeout(LIMIT, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect(what);
}

/// Where it looked at first nobody answers any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_looks_for_the_others_where_they_are_by_now() {
    let (first, _node) = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    // An attempt before this one has asked for what locks the disk.
    let ring = KeyRing::draw();
    lock::found(dir.path(), 0, &ring, None).unwrap();
    let identity = certified(&first, "m2").await.sealed_by(ring.into());
    let (rounds, asked) = watch::channel(0);
    let there = Arc::new(Mutex::new(vec![free().to_string()]));
    let newest = Arc::clone(&there);
    let managers: KnownManagers = Arc::new(move || {
        rounds.send_modify(|rounds| *rounds += 1);
        newest.lock().unwrap().clone()
    });
    let config = config(dir.path(), any_port());
    let joining = tokio::spawn(async move { Manager::join(config, &identity, managers).await });
    until("it looks where nobody is", || *asked.borrow() > 2).await;
    *there.lock().unwrap() = vec![first.local_addr().to_string()];
    let second = joining.await.unwrap().unwrap();
    until("both are in the log", || first.quorum().managers == 2).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_share_the_state_and_outlive_the_first() {
    let (first, _node) = cluster().await;
    let (second, _second_dir) = beside(&first, "m2").await;
    let (third, _third_dir) = beside(&first, "m3").await;
    let all = Quorum {
        managers: 3,
        reachable: 3,
    };
    until("three managers answer", || first.quorum() == all).await;
    first.create_network(named("back")).await.unwrap();
    for manager in [&second, &third] {
        state(manager, |s| has(s, "back")).await;
    }
    let error = second.create_network(named("front")).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("this manager does not lead the swarm: node m1"),
        "{error}"
    );

    let gone = first.core.node.clone();
    first.stop().await;
    drop(first);
    let others = [&second, &third];
    let leader = timeout(LIMIT, async {
        loop {
            for manager in others {
                if manager.create_network(named("after")).await.is_ok() {
                    return manager;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let leader = leader.await.expect("another one leads");
    for manager in others {
        state(manager, |s| has(s, "back") && has(s, "after")).await;
    }
    until("one of three does not answer", || {
        leader.quorum().reachable == 2
    })
    .await;
    let worker = NodeUpdate {
        role: Some(Role::Worker),
        ..NodeUpdate::default()
    };
    let demoted = leader
        .update_node(gone.as_str(), None, &worker)
        .await
        .unwrap();
    assert!(demoted.warnings[0].contains("two-manager configuration"));
    until("two managers are left", || leader.quorum().managers == 2).await;
    let rest = if leader.core.node == second.core.node {
        &third
    } else {
        &second
    };
    rest.stop().await;
    until("the other one is missed", || {
        leader.core.check_leads().is_err()
    })
    .await;
    let error = leader.create_network(named("late")).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("The swarm does not have a leader."),
        "{error}"
    );
    assert!(has(&leader.state(), "after"), "it is read all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_goes_on_with_a_rotation() {
    let (first, _node) = cluster().await;
    let (second, _second_dir) = beside(&first, "m2").await;
    let (third, _third_dir) = beside(&first, "m3").await;
    until("three managers answer", || first.quorum().reachable == 3).await;
    // Nobody's session shows the new root here, so that it does not end.
    let asked = first.rotate_ca(&CaRotate::default()).await.unwrap();
    let others = [&second, &third];
    for manager in others {
        until("it shows a certificate of the new root", || {
            manager.core.own.borrow().chain().len() == 2
        })
        .await;
    }
    first.stop().await;
    drop(first);
    let leader = timeout(LIMIT, async {
        loop {
            for manager in others {
                if manager.create_network(named("after")).await.is_ok() {
                    return manager;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let leader = leader.await.expect("another one leads");
    let swarm = leader.swarm().unwrap();
    assert!(swarm.root_rotation_in_progress);
    assert_eq!(
        swarm.root_rotation.desired_root_digest,
        asked.root_rotation.desired_root_digest
    );
    // Who would not hear of it must not be left behind with a vote.
    until("the first one is missed", || {
        reachability(leader, "m1") == Reachability::Unreachable && leader.quorum().reachable == 2
    })
    .await;
    let error = leader.rotate_ca(&CaRotate::default()).await.unwrap_err();
    for text in [
        "no answer of the manager on m1",
        "weft swarm unlock",
        "weft node demote m1",
    ] {
        assert!(error.message.contains(text), "{error}");
    }
    assert_eq!(leader.swarm().unwrap().root_rotation, swarm.root_rotation);
    let worker = NodeUpdate {
        role: Some(Role::Worker),
        ..NodeUpdate::default()
    };
    leader.update_node("m1", None, &worker).await.unwrap();
    // A second one takes over from the first, on the way through another manager.
    let again = leader.rotate_ca(&CaRotate::default()).await.unwrap();
    assert_ne!(
        again.root_rotation.desired_root_digest,
        asked.root_rotation.desired_root_digest
    );
    leader.create_network(named("later")).await.unwrap();
    for manager in others {
        state(manager, |s| has(s, "later")).await;
    }
    let refused = second.rotate_ca(&CaRotate::default()).await.err();
    let refused = refused.or(third.rotate_ca(&CaRotate::default()).await.err());
    let error = refused.expect("one of the two does not lead");
    assert!(error.message.contains("does not lead the swarm"), "{error}");
    second.stop().await;
    third.stop().await;
}

fn reachability(manager: &Manager, name: &str) -> Reachability {
    let status = manager.node(name).unwrap().node.manager_status;
    status.expect("a manager").reachability
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_managers_token_makes_a_manager_that_comes_back_after_a_restart() {
    let (first, _node) = cluster().await;
    let listen = free();
    let dir = tempfile::tempdir().unwrap();
    let token = first.join_token(Role::Manager).unwrap();
    let mut params = join_params(dir.path(), "m2", &token.token, &token.manager_addr);
    params.node.manager_addr = Some(listen);
    params.listen = listen;
    let identity = join(params).await.unwrap();
    assert_eq!(identity.role(), Role::Manager);
    assert_eq!(reachability(&first, "m2"), Reachability::Unknown);
    let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
    assert_eq!(membership.listen, Some(listen));

    let join = || {
        let config = config(dir.path(), listen);
        Manager::join(config, &identity, known(membership.managers.clone()))
    };
    let second = join().await.unwrap();
    let both = Quorum {
        managers: 2,
        reachable: 2,
    };
    until("two managers answer", || first.quorum() == both).await;
    assert_eq!(reachability(&first, "m2"), Reachability::Reachable);
    let member = second.raft.member();
    second.stop().await;
    drop(second);
    until("one is missed", || {
        reachability(&first, "m2") == Reachability::Unreachable
    })
    .await;

    let second = join().await.unwrap();
    assert_eq!(second.raft.member(), member, "the same place in the log");
    until("two managers answer", || first.quorum() == both).await;
    timeout(LIMIT, async {
        while first.create_network(named("back")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the first one leads as before");
    state(&second, |s| has(s, "back")).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_another_swarm_is_not_opened() {
    let (first, _node) = cluster().await;
    let (other, left) = cluster().await;
    other.create_network(named("theirs")).await.unwrap();
    other.stop().await;
    drop(other);
    let Node { dir, session } = left;
    drop(session);
    // As a restore leaves it that did not come to its end: all but the identity.
    std::fs::remove_file(dir.path().join("certs/node.pem")).unwrap();
    let files = ["raft.redb", "certs/data.key"].map(|name| dir.path().join(name));
    let theirs = files.each_ref().map(|file| std::fs::read(file).unwrap());
    let listen = free();
    let token = first.join_token(Role::Manager).unwrap();
    let mut params = join_params(dir.path(), "m2", &token.token, &token.manager_addr);
    params.node.manager_addr = Some(listen);
    params.listen = listen;
    let identity = join(params).await.unwrap();
    let join = || {
        let managers = known(vec![first.local_addr().to_string()]);
        Manager::join(config(dir.path(), listen), &identity, managers)
    };
    let second = join().await.unwrap();
    assert!(!has(&second.state(), "theirs"));
    until("both are in the log", || first.quorum().managers == 2).await;
    second.stop().await;
    drop(second);

    // And as somebody leaves it who copies files.
    for (file, content) in files.iter().zip(&theirs) {
        std::fs::write(file, content).unwrap();
    }
    let error = join().await.unwrap_err();
    let text = "holds the state of another swarm";
    assert!(error.message.contains(text), "{error}");
    assert!(files[0].exists(), "it is not ours to remove");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_does_not_lead_sends_nodes_to_the_one_that_does() {
    let (first, _node) = cluster().await;
    let (second, _dir) = beside(&first, "m2").await;
    let leader = first.core.node.clone();
    until("it hears of the leader", || {
        second.core.leader().as_ref() == Some(&leader)
    })
    .await;
    let addr = first.local_addr().to_string();
    let worker = Node::join(&second, "w1").await;
    worker.connected().await;
    let Node { dir, session } = worker;
    drop(session);
    let (mut membership, identity) = Membership::load(dir.path()).unwrap().unwrap();
    assert_eq!(membership.managers, [addr]);

    // All that it knows is the one that does not lead.
    for file in ["assignment.json", "shared.json"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    membership.managers = vec![second.local_addr().to_string()];
    let id = identity.node_id().clone();
    until("it knows the node", || {
        second.state().nodes.contains_key(&id)
    })
    .await;
    let worker = Node::start(dir, identity, membership);
    worker.connected().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_no_part_in_the_log() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let config = member_config(&worker.session.identity()).unwrap();
    let remote = manager.local_addr().to_string();
    let channel = connect(&remote, config).await.unwrap();
    let refused = RaftClient::new(channel)
        .append(RaftRequest::default())
        .await;
    let status = refused.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("is no manager"), "{status}");
    let config = member_config(&worker.session.identity()).unwrap();
    let channel = connect(&remote, config).await.unwrap();
    let request = CallRequest {
        method: "GET".to_owned(),
        path: "/v1/nodes".to_owned(),
        body: "".into(),
    };
    let refused = ApiClient::new(channel).call(request).await;
    let status = refused.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("is no manager"), "{status}");
    manager.stop().await;
}

fn asked(method: &str, path: &str) -> ApiCall {
    ApiCall {
        method: method.to_owned(),
        path: path.to_owned(),
        body: "body".into(),
    }
}

/// What the agent of the leader says to a call of the node of `manager`.
fn said(call: &ApiCall, leader: &Path, manager: &Manager) -> String {
    let (leader, node) = (leader.display(), &manager.core.node);
    let (method, path) = (&call.method, &call.path);
    format!("{leader} {method} {path} 4 {node}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_answers_what_users_ask_the_others() {
    let (first, node) = cluster().await;
    let (second, second_dir) = beside(&first, "m2").await;
    let (third, third_dir) = beside(&first, "m3").await;
    for call in [
        asked("GET", "/v1/nodes?a=%20b"),
        asked("DELETE", "/v1/services/web"),
    ] {
        assert_eq!(first.pass_on(&call).await.unwrap(), None, "it leads");
        for manager in [&second, &third] {
            let reply = manager.pass_on(&call).await.unwrap().unwrap();
            assert_eq!((reply.status, reply.not_led), (418, false));
            assert_eq!(reply.content_type, "text/plain");
            assert_eq!(reply.body, said(&call, node.dir.path(), manager));
        }
    }
    first.confirm_lead().await.unwrap();
    let error = second.confirm_lead().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotLed, "{error}");

    // A call that comes while another one is elected waits for it.
    drop(node.session);
    first.stop().await;
    drop(first);
    let call = asked("GET", "/v1/services");
    let (by_second, by_third) = tokio::join!(second.pass_on(&call), third.pass_on(&call));
    let (by_second, by_third) = (by_second.unwrap(), by_third.unwrap());
    let (leader, follower, dir, reply) = if by_second.is_none() {
        (&second, &third, second_dir.path(), by_third)
    } else {
        (&third, &second, third_dir.path(), by_second)
    };
    let reply = reply.expect("two do not lead at once");
    assert_eq!(reply.body, said(&call, dir, follower));
    leader.confirm_lead().await.unwrap();

    // Nobody is left to decide: the first calls wait, later ones are told at once.
    leader.stop().await;
    for patience in [LIMIT, LIMIT, Duration::from_secs(1)] {
        let refused = timeout(patience, follower.pass_on(&call)).await;
        let error = refused.expect("it waits too long").unwrap_err();
        assert!(
            error
                .message
                .starts_with("The swarm does not have a leader."),
            "{error}"
        );
    }
    let error = follower.confirm_lead().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotLed, "{error}");
    follower.stop().await;
}

/// A leader that says of itself that it is none did nothing: the call waits for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_not_lost_with_a_lead() {
    let (first, _node) = cluster().await;
    let (second, _dir) = beside(&first, "m2").await;
    let began = Instant::now();
    let call = asked("POST", "/not-led");
    let error = second.pass_on(&call).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotLed, "{error}");
    assert!(began.elapsed() >= Duration::from_secs(4), "it did not wait");
    second.stop().await;
    first.stop().await;
}

/// Not by way of the leader, as it may be long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_has_the_newest_state_for_a_backup() {
    let (first, _node) = cluster().await;
    let (second, _dir) = beside(&first, "m2").await;
    until("both are in the log", || first.quorum().reachable == 2).await;
    for number in 0..20 {
        let name = format!("n{number}");
        first.create_network(named(&name)).await.unwrap();
        second.catch_up().await.unwrap();
        assert!(
            has(&second.state(), &name),
            "{name} was acknowledged before"
        );
    }
    first.catch_up().await.unwrap();
    second.backup().await.unwrap();
    first.stop().await;
    until("it is missed", || second.core.leader().is_none()).await;
    let error = second.catch_up().await.unwrap_err();
    let text = "The swarm does not have a leader.";
    assert!(error.message.starts_with(text), "{error}");
    second.stop().await;
}

/// Who is on the other side is asked once for each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_by_another_connection_where_the_one_before_is_not_let_in() {
    let (first, node) = cluster().await;
    let (second, _dir) = beside(&first, "m2").await;
    let (core, now) = (&first.core, SystemTime::now());
    let authority = core.authority().unwrap();
    let other = authority.issue(&"other".into(), Role::Manager, &core.cluster, now);
    let config = member_config(&other.unwrap()).unwrap();
    let leader = first.local_addr();
    let channel = connect(&leader.to_string(), config).await.unwrap();
    second.relay.hold(leader, channel);
    let call = asked("POST", "/v1/networks");
    let reply = second.pass_on(&call).await.unwrap().unwrap();
    assert_eq!(reply.body, said(&call, node.dir.path(), &second));
    second.stop().await;
    first.stop().await;
}

/// What a manager answers to entries of somebody who says that he knows the newest list of members.
async fn forged(manager: &Manager, identity: &Identity) -> Status {
    let config = member_config(identity).unwrap();
    let remote = manager.local_addr().to_string();
    let channel = connect(&remote, config).await.unwrap();
    let request = RaftRequest {
        schema: SCHEMA,
        target: manager.raft.member(),
        list_term: u64::MAX,
        ..RaftRequest::default()
    };
    let refused = RaftClient::new(channel).append(request).await;
    refused.map(drop).unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_manager_has_no_part_in_the_log_whatever_it_says() {
    let (first, _node) = cluster().await;
    let (second, _second_dir) = beside(&first, "m2").await;
    let (third, _third_dir) = beside(&first, "m3").await;
    until("three managers answer", || first.quorum().reachable == 3).await;
    let identity = Arc::clone(&third.core.own.borrow());
    let gone = third.core.node.clone();
    third.stop().await;
    drop(third);
    until("one is missed", || first.quorum().reachable == 2).await;
    let worker = NodeUpdate {
        role: Some(Role::Worker),
        ..NodeUpdate::default()
    };
    first
        .update_node(gone.as_str(), None, &worker)
        .await
        .unwrap();
    let others = [&first, &second];
    // Its certificate says what it was, and counts for months.
    for manager in others {
        until("it is a worker", || {
            let role = manager.state().nodes[&gone].spec.role;
            role == Role::Worker && !manager.raft.has(&gone) && !manager.raft.is_behind()
        })
        .await;
        let status = forged(manager, &identity).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    // And when it goes on calling.
    let later = Instant::now() + Duration::from_secs(11);
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    first.core.past.called(&gone, from, later);
    let told = first.past_managers().join("\n");
    assert!(told.contains("still runs at 127.0.0.1: node m3,"), "{told}");
    first.remove_node(gone.as_str(), true).await.unwrap();
    for manager in others {
        state(manager, |s| !s.nodes.contains_key(&gone)).await;
        let status = forged(manager, &identity).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("was removed"), "{status}");
    }
    // Nor has one that no state has ever known.
    let (core, now) = (&first.core, SystemTime::now());
    let authority = core.authority().unwrap();
    let other = authority.issue(&"other".into(), Role::Manager, &core.cluster, now);
    let other = other.unwrap();
    for manager in others {
        let status = forged(manager, &other).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("is no manager"), "{status}");
        manager.stop().await;
    }
}
