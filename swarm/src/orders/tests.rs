//! Messages of orders, those that are taken and those that are refused.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use weft_model::assignment::ServiceView;
use weft_model::objects::{
    ConnectionPolicy, ContainerSpec, Description, EndpointMode, Meta, Node, NodeSpec, NodeState,
    NodeStatus, SecretReference, ServiceMode, StaticPeer, Task, TaskSpec, TaskState, TaskStatus,
    Version,
};

use super::*;

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// What a message makes of these orders.
pub(crate) fn next(
    held: Option<&Assignment>,
    message: &SessionMessage,
) -> Result<Assignment, Refusal> {
    let held = held.cloned().map_or_else(Held::default, |orders| Held {
        halves: Some((orders.shared, orders.own)),
        payloads: orders.payloads,
    });
    let held = super::next(&held, message)?;
    Ok(held.orders().expect("both halves have come"))
}

pub(crate) fn payload(id: &str, data: &[u8]) -> PayloadContent {
    PayloadContent {
        id: id.into(),
        data: data.to_vec().into(),
        template: false,
    }
}

/// A task that uses secrets of these ids.
pub(crate) fn task(id: &str, secrets: &[&str]) -> Task {
    let secrets = secrets.iter().map(|id| SecretReference {
        id: (*id).into(),
        name: format!("name of {id}"),
        ..SecretReference::default()
    });
    let container = ContainerSpec {
        secrets: secrets.collect(),
        ..ContainerSpec::default()
    };
    Task {
        id: id.into(),
        meta: Meta::default(),
        service: "s".into(),
        service_name: "web".to_owned(),
        slot: 1,
        node: Some("n".into()),
        spec_version: Version::default(),
        job_iteration: None,
        spec: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        attachments: Vec::new(),
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::Assigned,
            ..TaskStatus::default()
        },
        restarts: Vec::new(),
    }
}

/// An own half with one task, which uses these.
pub(crate) fn using(version: u64, secrets: &[&str]) -> Own {
    Own {
        tasks: vec![task("t", secrets)],
        ..own(version)
    }
}

pub(crate) fn with_payloads(
    message: SessionMessage,
    payloads: &[PayloadContent],
) -> SessionMessage {
    SessionMessage {
        payloads_json: payloads.iter().map(json).collect(),
        ..message
    }
}

fn peer(id: &str) -> StaticPeer {
    StaticPeer {
        id: id.into(),
        network: "back".into(),
        ip: [10, 0, 0, 9].into(),
        mac: "02:00:00:00:00:09".parse().unwrap(),
        vtep: [192, 0, 2, 9].into(),
    }
}

pub(crate) fn shared(version: u64, peers: &[&str]) -> Shared {
    Shared {
        version,
        cluster_id: "c".to_owned(),
        data_path_port: 4789,
        nodes: Vec::new(),
        networks: Vec::new(),
        services: Vec::new(),
        ending: Vec::new(),
        endpoints: Vec::new(),
        peers: peers.iter().map(|id| peer(id)).collect(),
        gossip_keys: Vec::new(),
    }
}

pub(crate) fn own(version: u64) -> Own {
    let addr = [192, 0, 2, 1].into();
    let node = Node {
        id: "n".into(),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Description::default(),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr,
            impaired: None,
        },
        manager_status: None,
        data_path_addr: addr,
        gossip_port: 7946,
        certified: 0,
        certified_by: String::new(),
        ingress_ip: None,
    };
    Own {
        version,
        node,
        tasks: Vec::new(),
        endpoints: Vec::new(),
    }
}

/// A change that adds a peer.
pub(crate) fn adds(base: u64, id: &str) -> SharedChange {
    let mut change = SharedChange {
        base,
        version: base + 1,
        ..SharedChange::default()
    };
    change.peers.put.push(peer(id));
    change
}

pub(crate) fn message(
    shared: Option<&Shared>,
    changes: &[SharedChange],
    own: Option<&Own>,
) -> SessionMessage {
    SessionMessage {
        schema: SCHEMA,
        heartbeat_ms: 1000,
        shared_json: shared.map(|shared| Bytes::from(json(shared))),
        own_json: own.map(json),
        shared_changes_json: changes.iter().map(|c| Bytes::from(json(c))).collect(),
        roots_pem: None,
        payloads_json: Vec::new(),
    }
}

#[test]
fn a_message_brings_the_whole_or_what_changed() {
    let first = message(Some(&shared(3, &["b"])), &[adds(3, "c")], Some(&own(2)));
    let held = next(None, &first).unwrap();
    assert_eq!(*held.shared, shared(4, &["b", "c"]));
    let changes = message(None, &[adds(4, "a"), adds(5, "d")], None);
    let later = next(Some(&held), &changes).unwrap();
    assert_eq!(*later.shared, shared(6, &["a", "b", "c", "d"]));
    assert!(Arc::ptr_eq(&later.own, &held.own));
    let report = next(Some(&later), &message(None, &[], Some(&own(7)))).unwrap();
    assert!(Arc::ptr_eq(&report.shared, &later.shared));
    assert_eq!(report.own.version, 7);
    // Whatever was held: a whole is a whole, also an older one.
    let again = message(Some(&shared(1, &[])), &[], None);
    assert_eq!(next(Some(&later), &again).unwrap().shared.version, 1);
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    let whole = message(Some(&shared(3, &["b"])), &[], Some(&own(2)));
    let held = next(None, &whole).unwrap();
    let refused = RefusedOrders::default();
    let refuse = |held: Option<&Assignment>, message: SessionMessage| {
        let refusal = next(held, &message).unwrap_err();
        refused.count(&refusal);
        CommandError::from(refusal).message
    };
    let text = refuse(Some(&held), message(None, &[adds(2, "a")], None));
    let expected = "the manager sent a change that does not fit: a change of version 2 came to \
                    who has version 3";
    assert_eq!(text, expected);
    // One that fits does not save the one after it.
    let text = refuse(
        Some(&held),
        message(None, &[adds(3, "a"), adds(3, "c")], None),
    );
    assert!(
        text.contains("of version 3 came to who has version 4"),
        "{text}"
    );
    let back = SharedChange {
        version: 3,
        ..adds(3, "a")
    };
    let text = refuse(Some(&held), message(None, &[back], None));
    assert!(text.contains("leads back"), "{text}");
    for half in [
        message(None, &[], Some(&own(2))),
        message(Some(&shared(3, &[])), &[], None),
        message(None, &[adds(3, "a")], None),
    ] {
        assert!(refuse(None, half).contains("half of the orders"));
    }
    for peers in [&["b", "a"][..], &["a", "a"]] {
        let text = refuse(None, message(Some(&shared(3, peers)), &[], Some(&own(2))));
        assert!(text.contains("not in order"), "{text}");
    }
    let mut damaged = whole.clone();
    damaged.shared_changes_json = vec![Bytes::from_static(b"{\"base\":3")];
    assert!(refuse(None, damaged).contains("damaged object"));
    let mut other = whole;
    other.schema = SCHEMA + 1;
    assert!(refuse(None, other).contains("the same version of weftd"));
    let counts = [
        ("damaged", 2),
        ("half", 3),
        ("disorder", 2),
        ("misfit", 3),
        ("excess", 0),
    ];
    assert_eq!(refused.sample(), counts);
}

fn ids(payloads: &Payloads) -> Vec<&str> {
    payloads.keys().map(PayloadId::as_str).collect()
}

#[test]
fn payloads_are_held_as_long_as_a_task_uses_them() {
    let whole = message(Some(&shared(3, &[])), &[], Some(&using(1, &["a", "b"])));
    let whole = with_payloads(whole, &[payload("a", b"1"), payload("b", b"2")]);
    let first = next(None, &whole).unwrap();
    assert_eq!(ids(&first.payloads), ["a", "b"]);
    assert_eq!(first.payloads[&PayloadId::from("b")].data.expose(), b"2");

    // What says nothing of them changes nothing, and wakes nobody.
    let quiet = next(Some(&first), &message(None, &[adds(3, "p")], None)).unwrap();
    assert!(Arc::ptr_eq(&quiet.payloads, &first.payloads));
    let report = message(None, &[], Some(&using(2, &["b", "a"])));
    let report = next(Some(&quiet), &report).unwrap();
    assert!(Arc::ptr_eq(&report.payloads, &first.payloads));

    // More of them alone, before the task: both halves are the very same.
    let alone = with_payloads(message(None, &[], None), &[payload("c", b"3")]);
    let more = next(Some(&report), &alone).unwrap();
    assert!(Arc::ptr_eq(&more.own, &report.own) && Arc::ptr_eq(&more.shared, &report.shared));
    assert!(!more.is(&report), "who waits for it looks again");
    assert_eq!(ids(&more.payloads), ["a", "b", "c"]);
    let kept = &more.payloads[&PayloadId::from("a")];
    assert!(Arc::ptr_eq(kept, &report.payloads[&PayloadId::from("a")]));

    // With the next own half goes what it does not use, with what comes along.
    let half = message(None, &[], Some(&using(3, &["c", "d"])));
    let half = with_payloads(half, &[payload("d", b"4"), payload("e", b"5")]);
    let other = next(Some(&more), &half).unwrap();
    assert_eq!(ids(&other.payloads), ["c", "d"]);
    let none = message(None, &[], Some(&own(4)));
    let none = next(Some(&other), &none).unwrap();
    assert!(none.payloads.is_empty());
}

#[test]
fn payloads_may_come_before_the_first_orders() {
    let alone = with_payloads(message(None, &[], None), &[payload("a", b"1")]);
    let early = super::next(&Held::default(), &alone).unwrap();
    assert!(early.orders().is_none(), "there are none yet");
    let alone = with_payloads(message(None, &[], None), &[payload("b", b"2")]);
    let early = super::next(&early, &alone).unwrap();
    // Half of the orders is no better than before.
    for half in [
        message(None, &[], Some(&using(1, &["a"]))),
        message(Some(&shared(3, &[])), &[], None),
        message(None, &[], None),
    ] {
        let refusal = super::next(&early, &half).unwrap_err();
        assert!(matches!(refusal, Refusal::Half), "{refusal}");
    }
    let whole = message(Some(&shared(3, &[])), &[], Some(&using(1, &["a"])));
    let orders = super::next(&early, &whole).unwrap().orders().unwrap();
    assert_eq!(ids(&orders.payloads), ["a"]);
}

#[test]
fn too_many_payloads_and_damaged_ones_are_refused_and_show_nothing() {
    let whole = message(Some(&shared(3, &[])), &[], Some(&own(2)));
    let held = super::next(&Held::default(), &whole).unwrap();
    let refused = RefusedOrders::default();
    let refuse = |held: &Held, message: &SessionMessage| {
        let refusal = super::next(held, message).unwrap_err();
        refused.count(&refusal);
        CommandError::from(refusal).message
    };
    let many: Vec<_> = (0..=MAX_PAYLOADS)
        .map(|n| payload(&format!("p{n:05}"), b"x"))
        .collect();
    let alone = with_payloads(message(None, &[], None), &many[1..]);
    let full = super::next(&held, &alone).unwrap();
    let one_more = with_payloads(message(None, &[], None), &many[..1]);
    let text = refuse(&full, &one_more);
    assert!(text.contains("4097 with 4097 bytes"), "{text}");
    // What comes again takes no place.
    let again = with_payloads(message(None, &[], None), &many[1..2]);
    super::next(&full, &again).unwrap();

    let large = Arc::new(payload("p", &vec![7; 16 << 20]));
    let names = (0..32).map(|n| PayloadId(format!("p{n}")));
    let all: Payloads = names.map(|id| (id, Arc::clone(&large))).collect();
    let heavy = Held {
        payloads: Arc::new(all),
        ..held.clone()
    };
    let one_more = with_payloads(message(None, &[], None), &[payload("q", b"x")]);
    let text = refuse(&heavy, &one_more);
    assert!(text.contains("33 with 536870913 bytes"), "{text}");

    let secret = "aHVudGVyMg==";
    for damaged in [
        format!(r#"{{"id":"a","data":"{secret}!"}}"#),
        format!(r#"{{"id":"a","data":"","template":"{secret}"}}"#),
        format!(r#"{{"data":"{secret}"}}"#),
        secret.to_owned(),
    ] {
        let damaged = SessionMessage {
            payloads_json: vec![damaged.into_bytes()],
            ..message(None, &[], None)
        };
        let text = refuse(&held, &damaged);
        assert!(text.contains("damaged object"), "{text}");
        assert!(!text.contains(secret), "{text}");
    }
    let other = SessionMessage {
        schema: SCHEMA + 1,
        ..one_more
    };
    let text = refuse(&held, &other);
    assert!(text.contains("the same version of weftd"), "{text}");
    let counts = refused.sample();
    assert!(counts.contains(&("excess", 2)) && counts.contains(&("damaged", 5)));
    let bytes = format!("{:?}", b"hunter2");
    let shown = format!("{:?}", payload("a", b"hunter2"));
    assert!(
        !shown.contains("hunter2") && !shown.contains(&bytes),
        "{shown}"
    );
}

#[test]
fn a_setting_that_is_not_known_here_is_refused_by_its_name() {
    let service = ServiceView {
        id: "s".into(),
        name: "web".to_owned(),
        mode: ServiceMode::default(),
        networks: Vec::new(),
        endpoint_mode: EndpointMode::default(),
        connections: ConnectionPolicy::default(),
        vips: Vec::new(),
        ports: Vec::new(),
        stack: None,
        names_before_healthy: false,
    };
    let first = message(Some(&shared(3, &[])), &[], Some(&own(2)));
    let held = next(None, &first).unwrap();
    let mut whole = shared(3, &[]);
    whole.services.push(service.clone());
    let mut change = SharedChange {
        base: 3,
        version: 4,
        ..SharedChange::default()
    };
    change.services.put.push(service);
    let mut whole = serde_json::to_value(whole).unwrap();
    let mut change = serde_json::to_value(change).unwrap();
    let mut own = serde_json::to_value(own(2)).unwrap();
    let read = |shared: Option<&Value>, changes: &[&Value], own: Option<&Value>| {
        let message = SessionMessage {
            shared_json: shared.map(|shared| Bytes::from(json(shared))),
            shared_changes_json: changes.iter().map(|c| Bytes::from(json(c))).collect(),
            own_json: own.map(json),
            ..message(None, &[], None)
        };
        next(Some(&held), &message).map_err(|refusal| CommandError::from(refusal).message)
    };
    read(Some(&whole), &[&change], Some(&own)).unwrap();
    whole["services"][0]["sticky"] = true.into();
    change["services"]["put"][0]["sticky"] = true.into();
    own["node"]["Spec"]["sticky"] = true.into();
    for refused in [
        read(Some(&whole), &[], None),
        read(None, &[&change], None),
        read(None, &[], Some(&own)),
    ] {
        let text = refused.unwrap_err();
        assert!(text.contains("unknown field `sticky`"), "{text}");
    }
}
