//! Orders as they go out to sessions: each hears what is another thing than what it was sent last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tonic::Status;
use weft_cluster::{ClusterState, OrderBook};
use weft_model::assignment::{Own, PayloadContent};
use weft_model::id::{NodeId, PayloadId};

use super::shared_feed::SharedFeed;
use crate::convert::{SCHEMA, encode};
use crate::orders::{MAX_PAYLOAD_BYTES, MAX_PAYLOADS, used};
use crate::proto::SessionMessage;

/// Bytes of secrets and configs that go out with one message, which base64 makes 8 MiB, and how many:
/// with all else they are less than [`crate::codec::MAX_FIELDS`].
const STEP_BYTES: usize = 6 << 20;
const STEP_PAYLOADS: usize = 1024;

/// The orders of all nodes.
#[derive(Debug, Default)]
pub(super) struct Assignments(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    book: OrderBook,
    shared: SharedFeed,
}

/// What a session was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    last: Versions,
    /// Secrets and configs that its node holds, with the bytes of each.
    payloads: BTreeMap<PayloadId, usize>,
}

/// What a session was sent last: versions of both halves and of the roots, and its period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Versions {
    shared: Option<u64>,
    own: Option<u64>,
    roots: Option<u64>,
    heartbeat_ms: u32,
}

/// Secrets and configs for one message.
#[derive(Debug, Default)]
struct Step {
    payloads: Vec<PayloadContent>,
    /// The orders need more than go into it.
    is_part: bool,
}

/// What a session has to be told.
pub(super) enum News {
    /// The node is no member (any more).
    Removed,
    /// Nothing.
    Nothing,
    /// This, and more at once: secrets and configs alone, before the orders that need them.
    Part(SessionMessage),
    /// This.
    Message(SessionMessage),
}

impl Sent {
    /// The next of what these orders use and the node does not hold, which it will once it has the message.
    fn step(&mut self, own: &Own, book: &OrderBook) -> Step {
        let mut step = Step::default();
        let (mut bytes, mut held) = (0, self.payloads.values().sum::<usize>());
        for id in used(own) {
            if self.payloads.contains_key(id) {
                continue;
            }
            // Of one that was removed the node says that it has not come, as of one that it has no room
            // for: it would refuse the message.
            let Some(payload) = book.payload(id) else {
                continue;
            };
            let length = payload.data.len();
            if self.payloads.len() >= MAX_PAYLOADS || held + length > MAX_PAYLOAD_BYTES {
                continue;
            }
            let is_full = bytes + length > STEP_BYTES || step.payloads.len() >= STEP_PAYLOADS;
            if is_full && !step.payloads.is_empty() {
                step.is_part = true;
                break;
            }
            bytes += length;
            held += length;
            self.payloads.insert(id.clone(), length);
            step.payloads.push(payload);
        }
        step
    }

    /// The node has these orders, and forgets what they do not use.
    fn prune(&mut self, own: &Own) {
        let used = used(own);
        self.payloads.retain(|id, _| used.contains(id));
    }
}

impl Assignments {
    /// What a node has to be told at that state, or a newer one, and takes note of it in `sent`.
    ///
    /// # Errors
    /// An object that cannot be encoded.
    pub(super) fn news(
        &self,
        state: &ClusterState,
        node: &NodeId,
        sent: &mut Sent,
        heartbeat_ms: u32,
    ) -> Result<News, Status> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { book, shared } = &mut *inner;
        shared.note(&book.update(state))?;
        let now = Versions {
            shared: book.shared_version(),
            own: book.own_version(node),
            roots: state.secrets.as_ref().map(|s| s.roots.generation),
            heartbeat_ms,
        };
        if now.shared.is_none() || now.own.is_none() {
            return Ok(News::Removed);
        }
        if now == sent.last {
            return Ok(News::Nothing);
        }
        let own = (now.own != sent.last.own).then(|| book.own(node)).flatten();
        let step = match &own {
            Some(own) => sent.step(own, book),
            None => Step::default(),
        };
        if step.is_part {
            drop(inner);
            return Ok(News::Part(SessionMessage {
                schema: SCHEMA,
                heartbeat_ms,
                payloads_json: encoded(&step.payloads)?,
                ..SessionMessage::default()
            }));
        }
        let delta = shared.delta(sent.last.shared, book)?.unwrap_or_default();
        drop(inner);
        let own_json = match &own {
            Some(own) => Some(encode(own)?),
            None => None,
        };
        if let Some(own) = &own {
            sent.prune(own);
        }
        let roots = state
            .secrets
            .as_ref()
            .filter(|_| now.roots != sent.last.roots);
        sent.last = now;
        Ok(News::Message(SessionMessage {
            schema: SCHEMA,
            heartbeat_ms,
            shared_json: delta.full,
            own_json,
            shared_changes_json: delta.changes,
            roots_pem: roots.map(|secrets| secrets.roots.bundle()),
            payloads_json: encoded(&step.payloads)?,
        }))
    }
}

fn encoded(payloads: &[PayloadContent]) -> Result<Vec<Vec<u8>>, Status> {
    payloads.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_cluster::{
        Change, Entropy, InitCluster, NodeDescription, Object, ObjectId, RootPair, init_cluster,
    };
    use weft_model::objects::{
        Availability, Meta, Payload, PayloadBytes, PayloadKind, PayloadSpec, Platform, Resources,
        TaskState,
    };

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

        /// What is held after the news. Both ends have to agree about it after each message.
        fn hear(&mut self, changes: &[Change]) -> Vec<String> {
            if !changes.is_empty() {
                self.state.apply(changes);
            }
            self.messages.clear();
            loop {
                let node = NodeId::from("n");
                let news = self
                    .assignments
                    .news(&self.state, &node, &mut self.sent, 1000);
                let (message, is_part) = match news.unwrap() {
                    News::Part(message) => (message, true),
                    News::Message(message) => (message, false),
                    News::Nothing => break,
                    News::Removed => panic!("it is a member"),
                };
                let bytes: usize = message.payloads_json.iter().map(Vec::len).sum();
                assert!(bytes <= 9 << 20, "{bytes}");
                self.messages.push(message.payloads_json.len());
                let alone = message.own_json.is_none() && message.shared_json.is_none();
                assert!(!is_part || alone);
                self.held = next(&self.held, &message).unwrap();
                let sent: Vec<&PayloadId> = self.sent.payloads.keys().collect();
                if let Some(orders) = self.held.orders() {
                    let held: Vec<&PayloadId> = orders.payloads.keys().collect();
                    assert_eq!(held, sent);
                }
            }
            let orders = self.held.orders().unwrap();
            orders.payloads.keys().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn a_node_is_sent_once_in_a_session_what_its_tasks_use() {
        let mut ends = Ends::new();
        let first = [
            secret("a", 10),
            secret("b", 20),
            secret("c", 30),
            put(task("t1", &["a", "b"])),
        ];
        assert_eq!(ends.hear(&first), ["a", "b"]);
        assert_eq!(ends.messages, [2]);
        let orders = ends.held.orders().unwrap();
        assert_eq!(
            orders.payloads[&PayloadId::from("b")].data.expose(),
            [7; 20]
        );
        assert_eq!(ends.hear(&[]), ["a", "b"]);
        assert!(ends.messages.is_empty(), "there is no news");

        // Another task that uses one of them; a third one with one that is not there any more.
        assert_eq!(ends.hear(&[put(task("t2", &["b", "c"]))]), ["a", "b", "c"]);
        assert_eq!(ends.messages, [1]);
        let gone = [put(task("t3", &["gone", "a"]))];
        assert_eq!(ends.hear(&gone), ["a", "b", "c"]);
        assert_eq!(ends.messages, [0]);

        // Somebody else's tasks are of no interest.
        let mut other = task("t4", &["a"]);
        other.node = Some("other".into());
        ends.hear(&[secret("d", 1), put(other)]);
        assert!(ends.messages.is_empty(), "{:?}", ends.messages);

        let mut stopped = task("t2", &["b", "c"]);
        stopped.status.state = TaskState::Shutdown;
        assert_eq!(ends.hear(&[put(stopped)]), ["a", "b"]);
        assert_eq!(ends.messages, [0]);
        assert_eq!(ends.hear(&[put(task("t5", &["c"]))]), ["a", "b", "c"]);
        assert_eq!(ends.messages, [1], "it is sent again");

        ends.open_again();
        assert_eq!(ends.hear(&[]), ["a", "b", "c"]);
        assert_eq!(ends.messages, [3], "another session has had none");
        let tasks = ["t1", "t3", "t5"].map(|id| Change::Delete(ObjectId::Task(id.into())));
        assert_eq!(ends.hear(&tasks), [""; 0]);
    }

    #[test]
    fn many_bytes_go_before_the_orders_that_need_them() {
        let mut ends = Ends::new();
        let names: Vec<String> = (0..30).map(|n| format!("p{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut first: Vec<Change> = names.iter().map(|id| secret(id, 512_000)).collect();
        first.push(put(task("t1", &names)));
        assert_eq!(ends.hear(&first), names);
        assert_eq!(ends.messages, [12, 12, 6]);

        ends.open_again();
        ends.hear(&[]);
        assert_eq!(ends.messages, [12, 12, 6]);
        // Those that came alone are forgotten as all are, where the task is gone meanwhile.
        ends.open_again();
        let node = NodeId::from("n");
        let news = ends
            .assignments
            .news(&ends.state, &node, &mut ends.sent, 1000);
        let Ok(News::Part(part)) = news else {
            panic!("they do not go into one message");
        };
        assert_eq!(part.heartbeat_ms, 1000);
        ends.held = next(&ends.held, &part).unwrap();
        assert!(ends.held.orders().is_none());
        let gone = Change::Delete(ObjectId::Task("t1".into()));
        assert_eq!(ends.hear(&[gone]), [""; 0]);
        assert_eq!(ends.messages, [0]);
        assert!(ends.sent.payloads.is_empty());
    }

    #[test]
    fn many_small_ones_are_no_message_that_is_refused_for_its_fields() {
        let mut ends = Ends::new();
        let names: Vec<String> = (0..MAX_PAYLOADS + 10).map(|n| format!("p{n:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut first: Vec<Change> = names.iter().map(|id| secret(id, 1)).collect();
        first.push(put(task("t1", &names)));
        // More than a node takes do not end its session: it misses them.
        assert_eq!(ends.hear(&first), names[..MAX_PAYLOADS]);
        assert_eq!(ends.messages, [STEP_PAYLOADS; 4]);
    }
}
