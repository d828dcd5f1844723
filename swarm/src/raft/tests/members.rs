//! Managers that come, go, come back with nothing, and are lost by twos and threes: swarmkit's cases of
//! its log.

use std::time::Duration;

use openraft::ChangeMembers;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, until};
use super::*;

/// Whoever it is told by, the leader or another one.
fn addr_of(store: &RaftStore, node: &NodeId) -> Option<SocketAddr> {
    let members = store.members();
    let member = members.iter().find(|member| member.node == *node)?;
    Some(member.addr)
}

/// By the newest list that it has: in the file before openraft runs.
fn has_vote(store: &RaftStore) -> bool {
    let known = store.shared.file.known();
    known.members().voter_ids().any(|id| id == store.member())
}

#[tokio::test(start_paused = true)]
async fn who_lost_its_disk_is_no_member_until_it_joins_again_at_another_address() {
    let cluster = Cluster::new(31).await;
    let leader = cluster.write("a").await;
    let place = cluster.leader().expect("it has just written");
    let lost = (place + 1) % 3;
    let before = cluster.store(lost).expect("it runs").member();
    cluster.wipe(lost);
    let new = cluster.start(lost, Start::Join).await;
    assert_ne!(new.member(), before, "nobody takes it for the one before");
    cluster.write("b").await;
    sleep(Duration::from_secs(3)).await;
    assert!(!has_vote(&new) && new.read().version == 0);
    assert!(!new.leadership().borrow().leads());
    assert_eq!(leader.quorum().reachable, 2, "the old one does not answer");

    let moved = Member {
        addr: "198.51.100.9:2377".parse().unwrap(),
        ..member(lost as u8)
    };
    let added = leader.add_member(new.member(), moved.clone()).await;
    added.expect("two of three decide");
    until("all hear of it", || {
        let stores = (0..3).filter_map(|place| cluster.store(place));
        let mut addrs = stores.map(|store| addr_of(&store, &moved.node));
        addrs.all(|addr| addr == Some(moved.addr))
    })
    .await;
    assert_eq!(leader.members().len(), 3, "it is there once");
    cluster.write("c").await;
    assert_eq!(names_in(&*cluster.same().await), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_removed_makes_room_for_another() {
    let cluster = Cluster::new(32).await;
    let old = cluster.write("a").await;
    let place = cluster.leader().expect("it has just written");
    // It may be gone before it hears that it is.
    drop(old.remove_member(&member(place as u8).node).await);
    until("another one leads", || {
        cluster.leader().is_some_and(|leader| leader != place)
    })
    .await;
    until("it has heard of it", || !old.leadership().borrow().leads()).await;
    let new = cluster.write("b").await;
    until("two are left", || new.members().len() == 2).await;
    let refused = put(&old, network("c", 10)).await.unwrap_err();
    assert!(
        matches!(refused, ProposeError::NotLeader { .. }),
        "{refused}"
    );
    old.confirm_lead().await.unwrap_err();
    drop(old);
    cluster.wipe(place);
    cluster.write("d").await;
    assert_eq!(names_in(&*cluster.same().await), ["a", "b", "d"]);
}

#[tokio::test(start_paused = true)]
async fn of_five_two_may_be_lost_and_with_three_nothing_is_decided() {
    let cluster = Cluster::of(33, 5, 5).await;
    cluster.write("a").await;
    cluster.same().await;
    let place = cluster.leader().expect("it has just written");
    let others: Vec<usize> = (0..5).filter(|other| *other != place).collect();
    cluster.kill(others[0]);
    cluster.kill(others[1]);
    let leader = cluster.write("b").await;
    until("two are missed", || leader.quorum().reachable == 3).await;
    cluster.kill(cluster.leader().expect("it has just written"));
    drop(leader);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.leader(), None);
    for survivor in (0..5).filter_map(|place| cluster.store(place)) {
        let refused = put(&survivor, network("c", 10)).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("The swarm does not have a leader."),
            "{refused}"
        );
        assert_eq!(names(&survivor), ["a", "b"], "it is read all the same");
    }
    cluster.start(others[0], Start::Again).await;
    cluster.write("d").await;
    for place in 0..5 {
        if cluster.store(place).is_none() {
            cluster.start(place, Start::Again).await;
        }
    }
    assert_eq!(names_in(&*cluster.same().await), ["a", "b", "d"]);
}

#[tokio::test(start_paused = true)]
async fn each_starts_again_in_its_turn_while_changes_go_on() {
    let cluster = Cluster::new(34).await;
    for round in 0..6 {
        cluster.write(&format!("before{round}")).await;
        cluster.kill(round % 3);
        cluster.write(&format!("without{round}")).await;
        cluster.start(round % 3, Start::Again).await;
        cluster.same().await;
    }
    assert_eq!(cluster.same().await.networks.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_new_manager_gets_what_is_in_no_log_any_more() {
    let cluster = Cluster::of(35, 3, 4).await;
    for number in 0..250 {
        cluster.write(&format!("n{number}")).await;
    }
    let leader = cluster.write("last").await;
    until("old entries go", || {
        leader.shared.file.known().purged.is_some()
    })
    .await;
    let new = cluster.start(3, Start::Join).await;
    let added = leader.add_member(new.member(), member(3)).await;
    added.expect("it takes what there is");
    assert_eq!(cluster.same().await.networks.len(), 251);
    assert!(new.shared.file.known().snapshot.is_some());
    cluster.kill(3);
    drop(new);
    let again = cluster.start(3, Start::Again).await;
    assert!(has_vote(&again) && again.read().version > 0);
    cluster.write("after").await;
    assert_eq!(cluster.same().await.networks.len(), 252);
}

/// swarmkit's wedged manager: its program goes on, and it cannot do what it is there for.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_is_full_is_replaced_and_is_of_use_again_afterwards() {
    let cluster = Cluster::new(36).await;
    cluster.write("a").await;
    let place = cluster.leader().expect("it has just written");
    let full = cluster.store(place).expect("it runs");
    cluster.set_full(place, true);
    cluster.write("b").await;
    assert_ne!(cluster.leader(), Some(place));
    assert!(full.trouble().borrow().is_some(), "it says why");
    cluster.set_full(place, false);
    until("it stores again", || full.trouble().borrow().is_none()).await;
    assert_eq!(names_in(&*cluster.same().await), ["a", "b"]);
    cluster.kill((place + 1) % 3);
    cluster.write("c").await;
    let state = cluster.same().await;
    assert_eq!(names_in(&state), ["a", "b", "c"], "a quorum needed it");
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_on_when_its_caller_goes_away() {
    let cluster = Cluster::of(37, 3, 4).await;
    let leader = cluster.write("a").await;
    let new = cluster.start(3, Start::Join).await;
    let added = leader.add_member(new.member(), member(3));
    let gone = timeout(Duration::ZERO, added).await;
    gone.expect_err("the caller is gone before it is done");
    until("it votes", || leader.quorum().managers == 4).await;
    until("one list counts", || !leader.is_between_lists()).await;
    until("it knows", || has_vote(&new)).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_when_it_is_added_is_no_member_and_keeps_nobody_waiting() {
    let cluster = Cluster::of(38, 3, 4).await;
    let leader = cluster.write("a").await;
    let new = cluster.start(3, Start::Join).await;
    let id = new.member();
    drop(new);
    cluster.kill(3);
    let added = leader.add_member(id, member(3));
    let gone = timeout(Duration::from_secs(5), added).await;
    gone.expect_err("it is waited for");
    assert!(
        leader.has(&member(3).node),
        "it listens, as far as is known"
    );
    until("it is out", || !leader.has(&member(3).node)).await;
    cluster.write("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_cut_between_two_lists_is_finished() {
    let cluster = Cluster::new(39).await;
    let leader = cluster.write("a").await;
    let place = cluster.leader().expect("it has just written");
    let out = cluster.store((place + 1) % 3).expect("it runs").member();
    let raft = leader.raft().expect("it runs");
    let mut view = leader.shared.view.subscribe();
    let two = view.wait_for(|view| view.members.membership().get_joint_config().len() > 1);
    let cut = raft.change_membership(ChangeMembers::RemoveVoters([out].into()), false);
    let is_cut = tokio::select! {
        biased;
        two = two => two.is_ok(),
        _ = cut => false,
    };
    assert!(is_cut, "it was at its end");
    sleep(Duration::from_secs(1)).await;
    assert!(leader.is_between_lists(), "nobody finishes it by itself");
    leader.finish_change().await.expect("three of three run");
    until("one list counts", || !leader.is_between_lists()).await;
    assert_eq!(leader.members().len(), 2);
}
