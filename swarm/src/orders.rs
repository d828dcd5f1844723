//! What a message of orders makes of those that a node has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use weft_cluster::CommandError;
use weft_model::assignment::change::{Misfit, SharedChange};
use weft_model::assignment::{Assignment, Own, Shared};

use crate::convert::{decode, from_status};
use crate::proto::SessionMessage;

/// Why a message is refused. The session ends then, and the next one begins with the whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Of another version of weftd, or no orders at all.
    #[error(transparent)]
    Damaged(CommandError),
    /// The first message of a session has to bring all.
    #[error("the manager sent half of the orders")]
    Half,
    /// Changes need lists in the order of their ids.
    #[error("the manager sent orders whose lists are not in order")]
    Disorder,
    /// A change of something else than what is there.
    #[error("the manager sent a change that does not fit: {0}")]
    Misfit(#[from] Misfit),
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Damaged(error) => error,
            refusal => Self::unavailable(refusal.to_string()),
        }
    }
}

fn read<T: DeserializeOwned>(schema: u32, json: &[u8]) -> Result<T, Refusal> {
    decode(schema, json).map_err(|status| Refusal::Damaged(from_status(&status)))
}

/// The orders with a message; what it does not bring stays as it is in `held`. How many changes a
/// message may have is bounded by its fields ([`crate::codec::MAX_FIELDS`]).
///
/// # Errors
/// The message is refused.
pub(crate) fn next(
    held: Option<&Assignment>,
    message: &SessionMessage,
) -> Result<Assignment, Refusal> {
    let schema = message.schema;
    let mut shared = match &message.shared_json {
        Some(json) => {
            let shared: Shared = read(schema, json)?;
            if !shared.is_in_order() {
                return Err(Refusal::Disorder);
            }
            Arc::new(shared)
        }
        None => Arc::clone(&held.ok_or(Refusal::Half)?.shared),
    };
    for json in &message.shared_changes_json {
        let change: SharedChange = read(schema, json)?;
        shared = Arc::new(shared.with(&change)?);
    }
    let own: Arc<Own> = match &message.own_json {
        Some(json) => Arc::new(read(schema, json)?),
        None => Arc::clone(&held.ok_or(Refusal::Half)?.own),
    };
    Ok(Assignment {
        shared,
        own,
        payloads: Arc::default(),
    })
}

/// Messages that were refused since the start, by why.
#[derive(Debug, Default)]
pub struct RefusedOrders {
    damaged: AtomicU64,
    half: AtomicU64,
    disorder: AtomicU64,
    misfit: AtomicU64,
}

impl RefusedOrders {
    pub(crate) fn count(&self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Damaged(_) => &self.damaged,
            Refusal::Half => &self.half,
            Refusal::Disorder => &self.disorder,
            Refusal::Misfit(_) => &self.misfit,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Each with its word (`damaged`, `half`, …).
    #[must_use]
    pub fn sample(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("damaged", &self.damaged),
            ("half", &self.half),
            ("disorder", &self.disorder),
            ("misfit", &self.misfit),
        ];
        let read = |(why, counter): (_, &AtomicU64)| (why, counter.load(Ordering::Relaxed));
        all.into_iter().map(read).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use serde::Serialize;
    use serde_json::Value;
    use weft_model::assignment::ServiceView;
    use weft_model::objects::{
        ConnectionPolicy, Description, EndpointMode, Meta, Node, NodeSpec, NodeState, NodeStatus,
        ServiceMode, StaticPeer,
    };

    use super::*;
    use crate::convert::SCHEMA;

    fn json<T: Serialize>(value: &T) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
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
        let counts = [("damaged", 2), ("half", 3), ("disorder", 2), ("misfit", 3)];
        assert_eq!(refused.sample(), counts);
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
}
