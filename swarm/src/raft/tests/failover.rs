//! Leaders that are killed and cut off, members that come and go: one thing at a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, SIZE, until};
use super::*;

/// From the loss of a leader to the first change that is acknowledged.
const PROMISED: Duration = Duration::from_millis(1500);

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced_within_the_time_that_is_promised() {
    let cluster = Cluster::new(1).await;
    let mut worst = Duration::ZERO;
    for round in 0..8 {
        cluster.write(&format!("before{round}")).await;
        let leader = cluster.leader().expect("it has just written");
        cluster.kill(leader);
        let killed = Instant::now();
        cluster.write(&format!("after{round}")).await;
        worst = worst.max(killed.elapsed());
        cluster.start(leader, Start::Again).await;
        cluster.same().await;
    }
    assert!(worst <= PROMISED, "{worst:?}");
    assert_eq!(cluster.same().await.networks.len(), 16);
}

/// Its process has ended, and with it its connections: the time of one that is slow is not waited for.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_connections_end_is_replaced_sooner() {
    let cluster = Cluster::new(10).await;
    let mut took = Vec::new();
    for round in 0..9 {
        cluster.write(&format!("before{round}")).await;
        cluster.same().await;
        let at = &cluster;
        let all = || (0..SIZE).filter_map(move |place| at.store(place));
        until("all know the leader", || all().all(|s| s.takes_part())).await;
        let leader = cluster.leader().expect("it has just written");
        let node = member(leader as u8).node;
        let others = (0..SIZE).filter(|other| *other != leader);
        let others = others.filter_map(|other| cluster.store(other));
        let connections: Vec<_> = others.map(|store| store.greet(&node)).collect();
        cluster.kill(leader);
        let killed = Instant::now();
        drop(connections);
        let next = cluster.write(&format!("after{round}")).await;
        took.push(killed.elapsed());
        let gone = next.members().into_iter().find(|seen| seen.node == node);
        assert!(gone.is_some_and(|gone| !gone.reachable), "at once");
        cluster.start(leader, Start::Again).await;
        cluster.same().await;
    }
    took.sort();
    assert!(
        took[took.len() / 2] <= Duration::from_millis(750),
        "{took:?}"
    );
    assert!(took[took.len() - 1] <= PROMISED, "{took:?}");
}

/// Swarm's "return of an old leader": it follows the one that was chosen meanwhile.
#[tokio::test(start_paused = true)]
async fn a_leader_that_comes_back_does_not_take_the_lead() {
    let cluster = Cluster::new(9).await;
    for round in 0..4 {
        cluster.write(&format!("before{round}")).await;
        let old = cluster.leader().expect("it has just written");
        cluster.kill(old);
        let next = cluster.write(&format!("after{round}")).await;
        let term = next.leadership().borrow().term();
        assert!(term.is_some(), "it has just written");
        let back = cluster.start(old, Start::Again).await;
        cluster.same().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(next.leadership().borrow().term(), term, "the same term");
        assert!(!back.leadership().borrow().leads());
        let refused = put(&back, network("stolen", 10)).await.unwrap_err();
        assert!(matches!(
            refused,
            ProposeError::NotLeader { leader: Some(_) }
        ));
    }
    assert_eq!(cluster.same().await.networks.len(), 8);
}

/// It stands for election first, as it heard of the leader last, and nobody may choose it.
#[tokio::test(start_paused = true)]
async fn a_member_that_lacks_entries_does_not_hold_up_an_election() {
    let cluster = Cluster::new(4).await;
    let mut worst = Duration::ZERO;
    for round in 0..6 {
        cluster.write(&format!("before{round}")).await;
        cluster.same().await;
        let leader = cluster.leader().expect("it has just written");
        let behind = (leader + 1 + round % 2) % SIZE;
        cluster.ether.cut(leader, behind);
        let missed = format!("missed{round}");
        cluster.write(&missed).await;
        cluster.kill(leader);
        let killed = Instant::now();
        cluster.write(&format!("after{round}")).await;
        worst = worst.max(killed.elapsed());
        let chosen = cluster.leader().expect("it has just written");
        assert_ne!(chosen, behind, "it lacks {missed}");
        cluster.ether.heal();
        cluster.start(leader, Start::Again).await;
        cluster.same().await;
    }
    assert!(worst <= PROMISED, "{worst:?}");
    assert_eq!(cluster.same().await.networks.len(), 18);
}

/// A vote for a member that was never reached would cost a lone manager its quorum.
#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_answer_gets_no_vote() {
    let cluster = Cluster::new(5).await;
    let leader = cluster.write("a").await;
    let place = cluster.leader().expect("it has just written");
    for gone in (0..SIZE).filter(|gone| *gone != place) {
        let node = member(gone as u8).node;
        leader
            .remove_member(&node)
            .await
            .expect("a quorum is there");
        cluster.kill(gone);
    }
    let refused = leader.add_member(77, member(7)).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("does not take what the managers have"),
        "{refused}"
    );
    assert!(
        leader.leadership().borrow().leads(),
        "it is alone as before"
    );
    until("it is removed", || leader.members().len() == 1).await;
    put(&leader, network("b", 10))
        .await
        .expect("it is a quorum");
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_nothing_changes_and_with_one_it_goes_on() {
    let cluster = Cluster::new(2).await;
    let leader = cluster.write("a").await;
    cluster.same().await;
    let place = cluster.leader().unwrap();
    let others: Vec<usize> = (0..SIZE).filter(|other| *other != place).collect();
    for other in &others {
        cluster.kill(*other);
    }
    sleep(Duration::from_secs(3)).await;
    let error = put(&leader, network("b", 10)).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("The swarm does not have a leader."),
        "{error}"
    );
    assert_eq!(names(&leader), ["a"], "it is read all the same");
    let quorum = leader.quorum();
    assert_eq!((quorum.managers, quorum.reachable), (3, 1));
    assert!(!quorum.is_there());
    cluster.start(others[0], Start::Again).await;
    let leader = cluster.write("c").await;
    assert_eq!(names(&leader), ["a", "c"]);
    assert_eq!(leader.quorum().reachable, 2);
    cluster.start(others[1], Start::Again).await;
    assert_eq!(names_in(&*cluster.same().await), ["a", "c"]);
}

/// It does not know at once that it was cut off.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_cut_off_answers_no_read() {
    let cluster = Cluster::new(6).await;
    let old = cluster.write("a").await;
    old.confirm_lead().await.expect("a quorum follows it");
    let place = cluster.leader().expect("it has just written");
    cluster.ether.isolate(place, SIZE);
    assert!(old.leadership().borrow().leads(), "it has heard of nothing");
    let asked = Instant::now();
    let refused = old.confirm_lead().await.unwrap_err();
    assert!(
        matches!(refused, ProposeError::NotLeader { .. }),
        "{refused}"
    );
    assert!(asked.elapsed() <= Duration::from_secs(2), "{asked:?}");
    until("another one leads", || {
        cluster.leader().is_some_and(|leader| leader != place)
    })
    .await;
    let new = cluster.write("b").await;
    new.confirm_lead().await.expect("a quorum follows it");
    assert_eq!(names(&new), ["a", "b"]);
    assert_eq!(names(&old), ["a"], "which is why it is asked");
    old.confirm_lead().await.unwrap_err();
    cluster.ether.heal();
    assert_eq!(names_in(&*cluster.same().await), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_and_one_goes_on_alone() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.write("a").await;
    let place = cluster.leader().unwrap();
    let gone = (place + 1) % SIZE;
    leader
        .remove_member(&member(gone as u8).node)
        .await
        .unwrap();
    leader
        .remove_member(&member(gone as u8).node)
        .await
        .unwrap();
    until("it is gone", || leader.members().len() == 2).await;
    let seen = leader.members();
    assert!(seen.iter().all(|member| member.votes && member.reachable));
    assert_eq!(seen.iter().filter(|member| member.leads).count(), 1);
    assert!(leader.may_speak(&member(place as u8).node, (0, 0)));
    let removed = member(gone as u8).node;
    assert!(
        !leader.may_speak(&removed, (0, 0)),
        "its list is an old one"
    );
    assert!(
        leader.may_speak(&removed, (99, 0)),
        "it may be a member again"
    );
    let moved: SocketAddr = "198.51.100.7:2377".parse().unwrap();
    leader
        .move_member(&member(place as u8).node, moved)
        .await
        .unwrap();
    until("it is known", || {
        leader.members().iter().any(|member| member.addr == moved)
    })
    .await;

    cluster.write("b").await;
    cluster.kill(place);
    cluster.kill(gone);
    let survivor = 3 - place - gone;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.leader(), None);
    cluster.kill(survivor);
    let alone = cluster.start(survivor, Start::Alone(member(9))).await;
    assert!(alone.leadership().borrow().leads());
    assert_eq!(names(&alone), ["a", "b"]);
    put(&alone, network("c", 10)).await.unwrap();
    assert_eq!(alone.members().len(), 1);
    assert_eq!(alone.members()[0].addr, member(9).addr);
}

/// Managers that the state does not know are heard by nobody who may know better.
#[tokio::test(start_paused = true)]
async fn who_has_had_no_leader_for_long_may_be_behind() {
    let cluster = Cluster::new(7).await;
    cluster.write("a").await;
    cluster.same().await;
    let at = &cluster;
    let all = || (0..SIZE).filter_map(move |place| at.store(place));
    until("all know the leader", || all().all(|s| !s.is_behind())).await;
    let place = cluster.leader().expect("it has just written");
    cluster.kill(place);
    for _ in 0..40 {
        sleep(Duration::from_millis(100)).await;
        assert!(all().all(|s| !s.is_behind()), "an election is no absence");
    }
    let away = (place + 1) % SIZE;
    cluster.ether.isolate(away, SIZE);
    sleep(Duration::from_secs(12)).await;
    assert!(cluster.store(away).expect("it runs").is_behind());
    cluster.ether.heal();
    until("it is led again", || all().all(|s| !s.is_behind())).await;
    let back = cluster.start(place, Start::Again).await;
    assert!(back.is_behind(), "it has not heard of anybody yet");
    until("it is led again", || !back.is_behind()).await;
}

/// They are a quorum, with a newer list of members, and know it for one of them.
#[tokio::test(start_paused = true)]
async fn who_went_on_alone_is_not_taken_over_by_those_who_come_back() {
    let cluster = Cluster::new(8).await;
    cluster.write("a").await;
    cluster.same().await;
    let before = cluster.store(0).expect("it runs").member();
    for place in 0..SIZE {
        cluster.kill(place);
    }
    let alone = cluster.start(0, Start::Alone(member(0))).await;
    let name = alone.member();
    assert_ne!(name, before);
    put(&alone, network("alone", 10)).await.unwrap();
    let others = [1, 2];
    for place in others {
        cluster.start(place, Start::Again).await;
    }
    let leads = |place| {
        let store = cluster.store(place).expect("it runs");
        store.leadership().borrow().leads()
    };
    until("they are a quorum", || others.into_iter().any(leads)).await;
    for place in others.into_iter().filter(|place| leads(*place)) {
        let store = cluster.store(place).expect("it runs");
        put(&store, network("theirs", 10)).await.unwrap();
    }
    sleep(Duration::from_secs(30)).await;
    put(&alone, network("later", 10)).await.unwrap();
    assert_eq!(names(&alone), ["a", "alone", "later"]);
    assert_eq!(alone.members().len(), 1);
    drop(alone);
    // And after the next start.
    cluster.kill(0);
    let alone = cluster.start(0, Start::Again).await;
    assert_eq!(alone.member(), name);
    assert_eq!(names(&alone), ["a", "alone", "later"]);
}
