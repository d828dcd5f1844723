//! Nodes that become managers and workers again, whoever leads; managers that go on alone.

use weft_cluster::Quorum;
use weft_model::api::NodeUpdate;
use weft_model::objects::Reachability;

use super::managers::{has, named, until};
use super::*;

/// A node, with its manager while it is one.
struct Member {
    node: Node,
    manager: Option<Manager>,
    listen: SocketAddr,
}

fn to(role: Role) -> NodeUpdate {
    NodeUpdate {
        role: Some(role),
        ..NodeUpdate::default()
    }
}

fn all_of(managers: usize) -> Quorum {
    Quorum {
        managers,
        reachable: managers,
    }
}

impl Member {
    /// A worker that joins.
    async fn join(manager: &Manager, name: &str) -> Self {
        let (dir, listen) = (tempfile::tempdir().unwrap(), free());
        let token = manager.join_token(Role::Worker).unwrap();
        let mut params = join_params(dir.path(), name, &token.token, &token.manager_addr);
        params.node.manager_addr = Some(listen);
        params.listen = listen;
        join(params).await.unwrap();
        let (membership, identity) = Membership::load(dir.path()).unwrap().unwrap();
        let node = Node::start(dir, identity, membership);
        node.connected().await;
        Self {
            node,
            manager: None,
            listen,
        }
    }

    async fn has_role(&self, role: Role) {
        let mut roles = self.node.session.roles();
        let changed = timeout(LIMIT, roles.wait_for(|r| *r == role)).await;
        changed.expect("no certificate of that role").unwrap();
    }

    /// Does what an agent does with the certificate of a manager.
    async fn begin(&mut self) {
        self.begin_on(self.listen).await;
    }

    async fn begin_on(&mut self, listen: SocketAddr) {
        self.has_role(Role::Manager).await;
        let orders = self.node.orders(|_| true).await;
        let managers = orders.shared.nodes.iter().filter_map(|n| n.manager_addr);
        let others = managers.filter(|addr| *addr != self.listen);
        let others = others.map(|addr| addr.to_string()).collect();
        let config = ManagerConfig {
            listen,
            ..config(self.node.dir.path(), self.listen)
        };
        let identity = self.node.session.identity();
        let manager = Manager::join(config, &identity, known(others)).await;
        let manager = manager.unwrap();
        let newest = Arc::clone(&manager.identities().borrow());
        self.node.session.adopt(&newest).await.unwrap();
        self.manager = Some(manager);
    }

    /// And with that of a worker.
    async fn end(&mut self) {
        self.has_role(Role::Worker).await;
        self.manager.take().unwrap().stop().await;
        Membership::forget_manager(self.node.dir.path()).unwrap();
        self.node.connected().await;
    }

    fn manager(&self) -> &Manager {
        self.manager.as_ref().unwrap()
    }

    /// A worker that was promoted, by `leader`.
    async fn promoted(leader: &Manager, name: &str) -> Self {
        let mut member = Self::join(leader, name).await;
        leader
            .update_node(name, None, &to(Role::Manager))
            .await
            .unwrap();
        member.begin().await;
        member
    }
}

/// The first of these that leads.
async fn leading<'a>(managers: &[&'a Manager]) -> &'a Manager {
    let found = timeout(LIMIT, async {
        loop {
            if let Some(leader) = managers.iter().find(|manager| manager.leads()) {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.expect("nobody leads")
}

fn files(dir: &Path) -> [bool; 2] {
    ["raft.redb", "certs/data.key"].map(|name| dir.join(name).exists())
}

fn shown(manager: &Manager, name: &str) -> Option<(bool, Reachability)> {
    let status = manager.node(name).unwrap().node.manager_status;
    status.map(|status| (status.leader, status.reachability))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_a_manager_within_a_second_and_a_worker_again_without_a_trace() {
    let (first, _node) = cluster().await;
    let mut member = Member::join(&first, "w1").await;
    let dir = member.node.dir.path().to_owned();
    assert_eq!(shown(&first, "w1"), None);
    let mut quickest = Duration::MAX;
    for round in 0..2 {
        let asked = Instant::now();
        let promoted = first
            .update_node("w1", None, &to(Role::Manager))
            .await
            .unwrap();
        let [warning] = promoted.warnings.as_slice() else {
            panic!("two managers warn once: {:?}", promoted.warnings);
        };
        assert!(warning.contains("provides no fault tolerance"), "{warning}");
        member.begin().await;
        let nodes = ApiCall {
            method: "GET".to_owned(),
            path: "/v1/nodes".to_owned(),
            body: "".into(),
        };
        let answer = member.manager().pass_on(&nodes).await.unwrap();
        assert!(answer.is_some(), "the leader has answered");
        quickest = quickest.min(asked.elapsed());
        until("both answer", || first.quorum() == all_of(2)).await;
        assert_eq!(
            shown(&first, "w1"),
            Some((false, Reachability::Reachable)),
            "round {round}"
        );
        assert_eq!(shown(&first, "m1"), Some((true, Reachability::Reachable)));
        first
            .create_network(named(&format!("n{round}")))
            .await
            .unwrap();
        state(member.manager(), |s| has(s, &format!("n{round}"))).await;
        assert_eq!(files(&dir), [true; 2]);

        let demoted = first
            .update_node("w1", None, &to(Role::Worker))
            .await
            .unwrap();
        assert_eq!(demoted.warnings, [""; 0]);
        assert_eq!(
            first.quorum(),
            all_of(1),
            "out of the log before the answer"
        );
        member.end().await;
        assert_eq!(files(&dir), [false; 2]);
        assert_eq!(shown(&first, "w1"), None);
    }
    // Far less by itself, as the test of an operator's day measures: here all other tests run beside.
    assert!(quickest < Duration::from_secs(5), "{quickest:?}");
    assert_eq!(health(&first.state(), "w1"), NodeState::Ready);
    let error = first
        .update_node("m1", None, &to(Role::Worker))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .starts_with("attempting to demote the last manager of the swarm"),
        "{error}"
    );
    let role = first.node("m1").unwrap().node.spec.role;
    assert_eq!(role, Role::Manager, "nothing changed");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_demoted_and_another_one_leads() {
    let (first, node) = cluster().await;
    let second = Member::promoted(&first, "w1").await;
    let third = Member::promoted(&first, "w2").await;
    until("three answer", || first.quorum() == all_of(3)).await;
    // It looks for the next leader there.
    let reached = |o: &Assignment| o.shared.nodes.iter().all(|n| n.manager_addr.is_some());
    node.orders(reached).await;
    node.session.resign().await.unwrap();
    let leader = leading(&[second.manager(), third.manager()]).await;
    state(leader, |s| {
        s.find_node("m1").unwrap().spec.role == Role::Worker
    })
    .await;
    assert_eq!(leader.quorum().managers, 2);
    let mut roles = node.session.roles();
    let demoted = timeout(LIMIT, roles.wait_for(|r| *r == Role::Worker)).await;
    demoted.expect("the new leader certifies a worker").unwrap();
    first.stop().await;
    node.connected().await;
    node.session.leave(Farewell::Left).await.unwrap();
    assert_eq!(shown(leader, "m1"), None);
    leader.remove_node("m1", false).await.unwrap();
    leader.create_network(named("after")).await.unwrap();
    for member in [&second, &third] {
        state(member.manager(), |s| has(s, "after")).await;
    }
    for member in [second, third] {
        member.manager().stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_lose_the_quorum_is_refused() {
    let (first, node) = cluster().await;
    let second = Member::promoted(&first, "w1").await;
    let third = Member::promoted(&first, "w2").await;
    until("three answer", || first.quorum() == all_of(3)).await;
    assert_eq!(node.session.count_managers().await.unwrap(), all_of(3));
    third.manager().stop().await;
    until("one is missed", || first.quorum().reachable == 2).await;
    assert_eq!(
        shown(&first, "w2"),
        Some((false, Reachability::Unreachable))
    );
    let error = first
        .update_node("w1", None, &to(Role::Worker))
        .await
        .unwrap_err();
    assert!(error.message.contains("loss of quorum"), "{error}");
    let error = second.node.session.resign().await.unwrap_err();
    assert!(error.message.contains("loss of quorum"), "{error}");
    for name in ["w1", "w2"] {
        let error = first.remove_node(name, true).await.unwrap_err();
        assert!(error.message.contains("must be demoted"), "{error}");
    }
    assert_eq!(first.quorum().managers, 3, "nothing changed");
    // The one that is lost first, as the text says; then the other one.
    for name in ["w2", "w1"] {
        first
            .update_node(name, None, &to(Role::Worker))
            .await
            .unwrap();
    }
    assert_eq!(first.quorum(), all_of(1));
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_by_force_goes_through_and_is_done_when_a_manager_is_back() {
    let (first, _node) = cluster().await;
    let mut second = Member::promoted(&first, "w1").await;
    let mut third = Member::promoted(&first, "w2").await;
    until("three answer", || first.quorum() == all_of(3)).await;
    third.manager().stop().await;
    until("one is missed", || first.quorum().reachable == 2).await;
    let by_force = |role| NodeUpdate {
        force: true,
        ..to(role)
    };
    let error = first
        .update_node("w1", None, &by_force(Role::Manager))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest, "{error}");
    let demoted = first
        .update_node("w1", None, &by_force(Role::Worker))
        .await
        .unwrap();
    assert_eq!(demoted.node.spec.role, Role::Worker);
    let warning = &demoted.warnings[0];
    assert!(warning.contains("nothing is decided until"), "{warning}");
    until("nobody leads", || first.core.check_leads().is_err()).await;
    first.create_network(named("lost")).await.unwrap_err();

    third.begin().await;
    until("two are left", || first.quorum() == all_of(2)).await;
    second.end().await;
    let leader = leading(&[&first, third.manager()]).await;
    leader.create_network(named("after")).await.unwrap();
    for manager in [&first, third.manager()] {
        manager.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_demoted_and_promoted_while_it_was_away_is_a_manager_again() {
    let (first, _node) = cluster().await;
    let second = Member::promoted(&first, "w1").await;
    let third = Member::promoted(&first, "w2").await;
    until("three answer", || first.quorum() == all_of(3)).await;
    let (identity, place) = (
        second.node.session.identity(),
        second.manager().raft.member(),
    );
    second.manager().stop().await;
    let Member { node, listen, .. } = second;
    let Node { dir, session } = node;
    session.end().await;
    drop(session);
    until("one is missed", || first.quorum().reachable == 2).await;
    first
        .update_node("w1", None, &to(Role::Worker))
        .await
        .unwrap();
    assert_eq!(first.quorum(), all_of(2));
    first
        .update_node("w1", None, &to(Role::Manager))
        .await
        .unwrap();

    // By its own file it is a member as before.
    let others = vec![first.local_addr().to_string()];
    let again = Manager::join(config(dir.path(), listen), &identity, known(others)).await;
    let again = again.unwrap();
    assert_eq!(again.raft.member(), place);
    let all = [&first, third.manager(), &again];
    until("three answer again", || {
        all.iter().any(|manager| manager.quorum() == all_of(3))
    })
    .await;
    let leader = leading(&all).await;
    leader.create_network(named("after")).await.unwrap();
    state(&again, |s| has(s, "after")).await;
    for manager in all {
        manager.stop().await;
    }
}

/// Swarm's DemoteDownedManager.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_demoted_while_it_was_down_returns_as_a_worker() {
    let (first, _node) = cluster().await;
    let second = Member::promoted(&first, "w1").await;
    let third = Member::promoted(&first, "w2").await;
    until("three answer", || first.quorum() == all_of(3)).await;
    second.manager().stop().await;
    let Member { node, .. } = second;
    let Node { dir, session } = node;
    session.end().await;
    drop(session);
    state(&first, |s| health(s, "w1") == NodeState::Down).await;
    until("it is missed", || first.quorum().reachable == 2).await;
    first
        .update_node("w1", None, &to(Role::Worker))
        .await
        .unwrap();
    assert_eq!(first.quorum(), all_of(2));

    let (membership, identity) = Membership::load(dir.path()).unwrap().unwrap();
    assert_eq!(identity.role(), Role::Manager, "it has heard of nothing");
    let node = Node::start(dir, identity, membership);
    let mut roles = node.session.roles();
    let demoted = timeout(LIMIT, roles.wait_for(|role| *role == Role::Worker)).await;
    drop(
        demoted
            .expect("it has the certificate of a worker")
            .unwrap(),
    );
    node.connected().await;
    state(&first, |s| health(s, "w1") == NodeState::Ready).await;
    assert_eq!(shown(&first, "w1"), None);
    assert_eq!(first.quorum(), all_of(2));
    for manager in [&first, third.manager()] {
        manager.stop().await;
    }
}

/// Swarm's JoinPromoteLocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_promoted_in_a_locked_swarm_is_locked_and_no_more_when_it_is_demoted() {
    let (first, _node) = cluster().await;
    set_autolock(&first, true).await;
    let key = first.unlock_key().expect("a key");
    let mut member = Member::promoted(&first, "w1").await;
    let dir = member.node.dir.path().to_owned();
    let loaded = || Membership::load(&dir).unwrap().unwrap().1;
    assert!(loaded().is_locked(), "from the first moment on");
    until("it opens with the key of the swarm", || {
        Identity::unlock(&dir, &key).is_ok()
    })
    .await;
    until("both answer", || first.quorum() == all_of(2)).await;
    first
        .update_node("w1", None, &to(Role::Worker))
        .await
        .unwrap();
    member.end().await;
    assert_eq!(files(&dir), [false; 2]);
    assert!(!loaded().is_locked(), "a worker has nothing to lock");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_survivor_goes_on_with_everything() {
    let (first, _node) = cluster().await;
    let mut second = Member::promoted(&first, "w1").await;
    let third = Member::promoted(&first, "w2").await;
    first.create_network(named("back")).await.unwrap();
    first.create_service(service("web", 2)).await.unwrap();
    state(second.manager(), |s| {
        has(s, "back") && s.find_service("web").is_ok() && s.tasks.len() == 2
    })
    .await;
    let tasks = second.manager().state().tasks.len();
    // While they are there it would be a second swarm.
    for manager in [&first, second.manager()] {
        let error = manager.check_lost().await.unwrap_err();
        assert!(error.message.contains("has a leader (m1)"), "{error}");
    }
    first.stop().await;
    third.manager().stop().await;
    until("nobody leads", || second.manager().core.leader().is_none()).await;
    // What the leader said last may be heard after that.
    let mut looks = 0;
    while let Err(error) = second.manager().check_lost().await {
        looks += 1;
        assert!(looks < 20, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second.manager.take().unwrap().stop().await;

    let listen = free();
    let config = config(second.node.dir.path(), listen);
    let identity = second.node.session.identity();
    let alone = Manager::open_alone(config, &identity).await.unwrap();
    assert!(alone.leads());
    alone.check_lost().await.unwrap();
    assert_eq!(alone.quorum(), all_of(1));
    let state = alone.state();
    assert!(has(&state, "back") && state.find_service("web").is_ok());
    assert!(state.tasks.len() >= tasks);
    for (name, status) in [
        ("m1", None),
        ("w1", Some((true, Reachability::Reachable))),
        ("w2", None),
    ] {
        assert_eq!(shown(&alone, name), status, "{name}");
    }
    for lost in ["m1", "w2"] {
        assert_eq!(health(&state, lost), NodeState::Down);
        assert_eq!(state.find_node(lost).unwrap().spec.role, Role::Worker);
    }
    alone.create_network(named("after")).await.unwrap();
    alone.remove_node("m1", false).await.unwrap();
    assert_eq!(alone.node("w1").unwrap().node.manager_addr(), Some(listen));
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_finishes_a_demotion() {
    let (first, _node) = cluster().await;
    let mut members = Vec::new();
    for name in ["w1", "w2", "w3"] {
        members.push(Member::promoted(&first, name).await);
    }
    until("all answer", || first.quorum() == all_of(4)).await;
    let places = |manager: &Manager| manager.quorum().managers;
    {
        // The leader is lost between the two steps: nothing of the second one is done.
        let _one = first.core.roles.lock().await;
        let wish = |s: &ClusterState, now, e: &mut Entropy| {
            let planned = weft_cluster::set_role(s, now, e, "w1", Role::Worker)?;
            Ok::<_, CommandError>(planned.changes)
        };
        first.core.change(wish).await.unwrap();
        assert_eq!(places(&first), 4);
        first.stop().await;
    }
    let others = [members[1].manager(), members[2].manager()];
    for manager in others {
        until("the next one takes it out of the log", || {
            places(manager) == 3
                && !manager
                    .raft
                    .has(members[0].node.session.identity().node_id())
        })
        .await;
    }
    let leader = leading(&others).await;
    assert_ne!(leader.core.node, first.core.node);
    members[0].has_role(Role::Worker).await;
    for member in &members {
        member.manager().stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_moves_to_another_address_without_joining_anew() {
    let (first, _node) = cluster().await;
    let mut second = Member::join(&first, "w1").await;
    first
        .update_node("w1", None, &to(Role::Manager))
        .await
        .unwrap();
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, second.listen.port()));
    second.begin_on(everywhere).await;
    until("both answer", || first.quorum() == all_of(2)).await;
    let told = |s: &ClusterState| s.find_node("w1").unwrap().manager_addr().is_some();
    state(&first, told).await;
    let addr: IpAddr = "127.0.0.9".parse().unwrap();
    let update = NodeUpdate {
        advertise_addr: Some(addr),
        ..NodeUpdate::default()
    };
    let moved = first.update_node("w1", None, &update).await.unwrap().node;
    let there = SocketAddr::new(addr, second.listen.port());
    assert_eq!(moved.status.addr, addr);
    assert_eq!(moved.manager_addr(), Some(there));
    let seen = first.managers().into_iter().find(|m| m.node == moved.id);
    assert_eq!(seen.unwrap().addr, there);
    first.create_network(named("back")).await.unwrap();
    state(second.manager(), |s| has(s, "back")).await;
    until("it answers there", || first.quorum() == all_of(2)).await;
    // What its node says before it has heard of that does not take it back.
    let orders = second.node.orders(|o| o.own.node.status.addr == addr).await;
    assert_eq!(orders.own.node.spec.advertise_addr, Some(addr));
    second.manager().stop().await;
    first.stop().await;
}

/// Of two managers both are needed: one that nobody finds would end the swarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_is_not_moved_to_where_it_does_not_answer() {
    let (first, _node) = cluster().await;
    let second = Member::promoted(&first, "w1").await;
    until("both answer", || first.quorum() == all_of(2)).await;
    let before = first.node("w1").unwrap().node.status.addr;
    let members = first.managers();
    let update = NodeUpdate {
        advertise_addr: Some("127.0.0.9".parse().unwrap()),
        ..NodeUpdate::default()
    };
    let error = first.update_node("w1", None, &update).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("the manager does not answer at 127.0.0.9:"),
        "{error}"
    );
    let after = first.node("w1").unwrap().node;
    assert_eq!(
        (after.status.addr, after.spec.advertise_addr),
        (before, None)
    );
    assert_eq!(first.managers(), members);
    first.create_network(named("back")).await.unwrap();
    state(second.manager(), |s| has(s, "back")).await;
    second.manager().stop().await;
    first.stop().await;
}
