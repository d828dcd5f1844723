//! Both ends of a session, and many that open at once.

use std::collections::VecDeque;
use std::sync::Arc;

use weft_cluster::{
    Change, Entropy, InitCluster, NodeDescription, Object, ObjectId, RootPair, init_cluster,
};
use weft_model::objects::{
    Availability, Meta, Payload, PayloadBytes, PayloadKind, PayloadSpec, Platform, Resources,
    TaskState,
};

use super::super::turns::ON_THE_WAY;
use super::*;
use crate::orders::tests::task;
use crate::orders::{Held, next};

/// Both ends of one session.
struct Ends {
    assignments: Assignments,
    state: ClusterState,
    sent: Sent,
    held: Held,
    /// Payloads of each message, since it was asked last.
    messages: Vec<usize>,
}

fn put(object: impl Into<Object>) -> Change {
    Change::Put(object.into())
}

fn secret(id: &str, bytes: usize) -> Change {
    let spec = PayloadSpec {
        name: format!("name of {id}"),
        data: PayloadBytes::from(vec![7; bytes]),
        ..PayloadSpec::default()
    };
    Change::Put(Object::Payload(Arc::new(Payload {
        id: id.into(),
        kind: PayloadKind::Secret,
        meta: Meta::default(),
        spec,
    })))
}

impl Ends {
    /// A swarm of the node `n` alone.
    fn new() -> Self {
        let addr = [192, 0, 2, 1].into();
        let init = InitCluster {
            cluster_id: "c".to_owned(),
            node_id: "n".into(),
            node: NodeDescription {
                hostname: "n".to_owned(),
                engine_version: "0.1.0".to_owned(),
                addr,
                data_path_addr: addr,
                gossip_port: 7946,
                manager_addr: None,
                platform: Platform::default(),
                resources: Resources::default(),
                runtimes: Vec::new(),
            },
            default_address_pools: Vec::new(),
            subnet_prefix_len: None,
            data_path_port: None,
            autolock: false,
            availability: Availability::Active,
            reserved: Vec::new(),
            root: RootPair::default(),
        };
        let mut state = ClusterState::default();
        let planned = init_cluster(&state, 1, &mut Entropy::from_seed([7; 32]), init);
        state.apply(&planned.unwrap().changes);
        Self {
            assignments: Assignments::default(),
            state,
            sent: Sent::default(),
            held: Held::default(),
            messages: Vec::new(),
        }
    }

    /// Another session with the same node.
    fn open_again(&mut self) {
        self.sent = Sent::default();
        self.held = Held::default();
    }

    /// The next message, with the turn of what is in it. Both ends have to agree about what is held
    /// after each.
    fn message(&mut self) -> Option<(SessionMessage, Option<Turn>)> {
        let node = NodeId::from("n");
        let news = self
            .assignments
            .news(&self.state, &node, &mut self.sent, 1000);
        let (message, turn) = match news.unwrap() {
            News::Message(message, turn) => (message, turn),
            News::Nothing => return None,
            News::Removed => panic!("it is a member"),
        };
        let bytes: usize = message.payloads_json.iter().map(Vec::len).sum();
        assert!(bytes <= 9 << 20, "{bytes}");
        assert_eq!(turn.is_some(), !message.payloads_json.is_empty());
        self.messages.push(message.payloads_json.len());
        self.held = next(&self.held, &message).unwrap();
        let sent: Vec<&PayloadId> = self.sent.payloads.keys().collect();
        // The first message has both halves.
        let orders = self.held.orders().unwrap();
        let held: Vec<&PayloadId> = orders.payloads.keys().collect();
        assert_eq!(held, sent);
        Some((message, turn))
    }

    /// What is held after the news, each of which has gone when the next one comes.
    async fn hear(&mut self, changes: &[Change]) -> Vec<String> {
        if !changes.is_empty() {
            self.state.apply(changes);
        }
        self.messages.clear();
        loop {
            while let Some(gone) = self.message() {
                drop(gone);
            }
            match self.sent.wanted() {
                0 => break,
                wanted => {
                    let turn = self.assignments.queue(wanted).await;
                    self.sent.take_turn(turn.ok());
                }
            }
        }
        let orders = self.held.orders().unwrap();
        orders.payloads.keys().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_node_is_sent_once_in_a_session_what_its_tasks_use() {
    let mut ends = Ends::new();
    let first = [
        secret("a", 10),
        secret("b", 20),
        secret("c", 30),
        put(task("t1", &["a", "b"])),
    ];
    assert_eq!(ends.hear(&first).await, ["a", "b"]);
    assert_eq!(ends.messages, [2]);
    let orders = ends.held.orders().unwrap();
    assert_eq!(
        orders.payloads[&PayloadId::from("b")].data.expose(),
        [7; 20]
    );
    assert_eq!(ends.hear(&[]).await, ["a", "b"]);
    assert!(ends.messages.is_empty(), "there is no news");

    // Another task that uses one of them; a third one with one that is not there any more.
    assert_eq!(
        ends.hear(&[put(task("t2", &["b", "c"]))]).await,
        ["a", "b", "c"]
    );
    assert_eq!(ends.messages, [1]);
    let gone = [put(task("t3", &["gone", "a"]))];
    assert_eq!(ends.hear(&gone).await, ["a", "b", "c"]);
    assert_eq!(ends.messages, [0]);

    // Somebody else's tasks are of no interest.
    let mut other = task("t4", &["a"]);
    other.node = Some("other".into());
    ends.hear(&[secret("d", 1), put(other)]).await;
    assert!(ends.messages.is_empty(), "{:?}", ends.messages);

    let mut stopped = task("t2", &["b", "c"]);
    stopped.status.state = TaskState::Shutdown;
    assert_eq!(ends.hear(&[put(stopped)]).await, ["a", "b"]);
    assert_eq!(ends.messages, [0]);
    assert_eq!(ends.hear(&[put(task("t5", &["c"]))]).await, ["a", "b", "c"]);
    assert_eq!(ends.messages, [1], "it is sent again");

    ends.open_again();
    assert_eq!(ends.hear(&[]).await, ["a", "b", "c"]);
    assert_eq!(ends.messages, [3], "another session has had none");
    let tasks = ["t1", "t3", "t5"].map(|id| Change::Delete(ObjectId::Task(id.into())));
    assert_eq!(ends.hear(&tasks).await, [""; 0]);
}

#[tokio::test]
async fn many_bytes_follow_the_orders_that_need_them() {
    let mut ends = Ends::new();
    let names: Vec<String> = (0..30).map(|n| format!("p{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut first: Vec<Change> = names.iter().map(|id| secret(id, 512_000)).collect();
    first.push(put(task("t1", &names)));
    assert_eq!(ends.hear(&first).await, names);
    assert_eq!(ends.messages, [12, 12, 6]);

    ends.open_again();
    ends.hear(&[]).await;
    assert_eq!(ends.messages, [12, 12, 6]);
    // The rest is not sent where the task is gone meanwhile.
    ends.open_again();
    let (part, _turn) = ends.message().unwrap();
    assert_eq!(part.heartbeat_ms, 1000);
    assert_eq!(ends.sent.wanted(), 12 * 512_000);
    let gone = Change::Delete(ObjectId::Task("t1".into()));
    assert_eq!(ends.hear(&[gone]).await, [""; 0]);
    assert_eq!(ends.messages, [0]);
    assert!(ends.sent.payloads.is_empty());
}

#[tokio::test]
async fn many_small_ones_are_no_message_that_is_refused_for_its_fields() {
    let mut ends = Ends::new();
    let names: Vec<String> = (0..MAX_PAYLOADS + 10).map(|n| format!("p{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut first: Vec<Change> = names.iter().map(|id| secret(id, 1)).collect();
    first.push(put(task("t1", &names)));
    // More than a node takes do not end its session: it misses them.
    assert_eq!(ends.hear(&first).await, names[..MAX_PAYLOADS]);
    assert_eq!(ends.messages, [STEP_PAYLOADS; 4]);
}

/// What is used before and after does not fit at once, each of them alone does.
#[tokio::test]
async fn what_orders_free_and_need_at_once_has_room() {
    for (kept, new) in [(0, MAX_PAYLOADS), (10, 100), (MAX_PAYLOADS - 1, 1)] {
        let mut ends = Ends::new();
        let named = |kind: &str, count: usize| -> Vec<String> {
            (0..count).map(|n| format!("{kind}{n:05}")).collect()
        };
        let old = named("old", MAX_PAYLOADS);
        let new = named("new", new);
        let both = old.iter().chain(&new);
        let mut first: Vec<Change> = both.map(|id| secret(id, 1)).collect();
        let before: Vec<&str> = old.iter().map(String::as_str).collect();
        first.push(put(task("t1", &before)));
        assert_eq!(ends.hear(&first).await, before);

        let after = new.iter().chain(&old[..kept]);
        let after: Vec<&str> = after.map(String::as_str).collect();
        let other = [
            Change::Delete(ObjectId::Task("t1".into())),
            put(task("t2", &after)),
        ];
        assert_eq!(ends.hear(&other).await, after);
        let sent: usize = ends.messages.iter().sum();
        assert_eq!(sent, new.len(), "what is kept is not sent again");
    }
}

/// As after a change of the leader.
#[tokio::test]
async fn sessions_that_open_at_once_have_no_more_on_the_way_than_one_can_keep() {
    const SESSIONS: usize = 12;
    const BYTES: usize = 512_000;

    let mut ends = Ends::new();
    let names: Vec<String> = (0..18).map(|n| format!("p{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut first: Vec<Change> = names.iter().map(|id| secret(id, BYTES)).collect();
    first.push(put(task("t1", &names)));
    ends.state.apply(&first);

    let mut on_the_way = VecDeque::new();
    let mut sessions = VecDeque::new();
    for n in 0..SESSIONS {
        // Its orders come whoever else is on the way.
        let (message, turn) = ends.message().expect("orders");
        assert!(message.own_json.is_some() && message.shared_json.is_some());
        on_the_way.extend(turn);
        assert!(ends.message().is_none());
        let wanted = ends.sent.wanted();
        assert!(wanted > 0);
        let queued = ends.assignments.queue(wanted);
        sessions.push_back((n, std::mem::take(&mut ends.sent), ends.held.clone(), queued));
        ends.open_again();
    }
    assert_eq!(on_the_way.len(), ON_THE_WAY / (12 * BYTES));
    assert_eq!(on_the_way.iter().map(Turn::bytes).max(), Some(12 * BYTES));

    let mut whole = Vec::new();
    while let Some((n, sent, held, queued)) = sessions.pop_front() {
        // One has gone, so that there is room for the one that waits for longest.
        drop(on_the_way.pop_front());
        (ends.sent, ends.held) = (sent, held);
        ends.sent.take_turn(Some(queued.await.expect("its turn")));
        let (message, turn) = ends.message().expect("secrets");
        assert!(message.own_json.is_none() && message.shared_json.is_none());
        on_the_way.extend(turn);
        let bytes: usize = on_the_way.iter().map(Turn::bytes).sum();
        assert!(bytes <= ON_THE_WAY, "{bytes}");
        let wanted = ends.sent.wanted();
        if wanted > 0 {
            let queued = ends.assignments.queue(wanted);
            sessions.push_back((n, std::mem::take(&mut ends.sent), ends.held.clone(), queued));
        } else {
            assert_eq!(ends.sent.payloads.len(), names.len());
            whole.push(n);
        }
    }
    // Those that could begin at once are done first, then the others as they came.
    assert_eq!(whole, (0..SESSIONS).collect::<Vec<_>>());
}
