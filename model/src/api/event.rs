//! Events: what changes in the swarm, as it does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::objects::Scope;

/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;

/// `weft events`: which ones, as parameters of the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Also what happened from this moment on, as far as the manager remembers: Unix milliseconds.
    pub since: Option<u64>,
    /// The stream ends at this moment, likewise; it may be past.
    pub until: Option<u64>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A node.
    Node,
    /// A network, or an endpoint on it.
    Network,
    /// A service.
    Service,
    /// A task of a service.
    Task,
    /// A secret.
    Secret,
    /// A config.
    Config,
    /// The stream itself.
    Stream,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventAction {
    /// It is new.
    Create,
    /// It changed: `NAME.old` and `NAME.new` say how.
    Update,
    /// It is gone.
    Remove,
    /// An endpoint of `network connect` is on the network.
    Connect,
    /// It is there no more.
    Disconnect,
    /// Whoever reads was too slow: so many events (`count`) are not in the stream.
    Missed,
}

/// Which object an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EventActor {
    /// Its id; empty for the stream.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, and what is different.
    pub attributes: BTreeMap<String, String>,
}

/// A change of the swarm, as Docker's `events` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// Kind of object.
    #[serde(rename = "Type")]
    pub kind: EventKind,
    /// What happened.
    pub action: EventAction,
    /// To which object.
    pub actor: EventActor,
    /// There is one.
    #[serde(rename = "scope")]
    pub scope: Scope,
    /// When: Unix seconds.
    #[serde(rename = "time")]
    pub time: u64,
    /// When: Unix nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

impl Event {
    /// An event at a moment in Unix milliseconds.
    #[must_use]
    pub fn new(kind: EventKind, action: EventAction, actor: EventActor, at_ms: u64) -> Self {
        Self {
            kind,
            action,
            actor,
            scope: Scope::default(),
            time: at_ms / 1000,
            time_nano: at_ms.saturating_mul(NANOS),
        }
    }

    /// Stands for `count` events that the stream does not have.
    #[must_use]
    pub fn missed(count: u64, at_ms: u64) -> Self {
        let actor = EventActor {
            attributes: BTreeMap::from([("count".to_owned(), count.to_string())]),
            ..EventActor::default()
        };
        Self::new(EventKind::Stream, EventAction::Missed, actor, at_ms)
    }

    /// When, in Unix milliseconds.
    #[must_use]
    pub const fn at_ms(&self) -> u64 {
        self.time_nano / NANOS
    }
}
