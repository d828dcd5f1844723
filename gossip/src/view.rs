//! A snapshot of the cluster for those who compile tables from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, LoadRecord, NodeRecord, Table};

use super::netdb::{Entries, table_code};

/// How a member is seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Answers.
    Alive,
    /// Missed a probe and has not yet objected; its entries still count.
    Suspect,
    /// Failed or cut off: its entries are hidden, and come back with it.
    Down,
    /// Said goodbye: its entries are gone.
    Left,
}

impl MemberState {
    /// Whether the member's entries count.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its gossip address.
    pub addr: SocketAddr,
    /// State.
    pub state: MemberState,
}

/// Members and visible entries at one moment. Cheap to make and to share: entries are not copied.
#[derive(Debug, Clone, Default)]
pub struct NetdbView {
    /// Every known member, this node included.
    pub members: BTreeMap<NodeId, Member>,
    pub(crate) owners: BTreeMap<NodeId, Arc<Entries>>,
}

impl NetdbView {
    /// Live entries of active owners in one table: owner, key, value.
    pub fn entries(&self, table: Table) -> impl Iterator<Item = (&NodeId, &str, &Bytes)> {
        let code = table_code(table);
        self.owners.iter().flat_map(move |(owner, entries)| {
            entries
                .range((code, String::new())..(code + 1, String::new()))
                .filter(|(_, e)| e.deleted.is_none())
                .map(move |((_, key), e)| (owner, key.as_str(), &e.value))
        })
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, table: Table, owner: &NodeId, key: &str) -> Option<&Bytes> {
        self.owners
            .get(owner)?
            .get(&(table_code(table), key.to_owned()))
            .filter(|e| e.deleted.is_none())
            .map(|e| &e.value)
    }

    fn decoded<T: DeserializeOwned>(
        &self,
        table: Table,
    ) -> impl Iterator<Item = (&NodeId, &str, T)> {
        self.entries(table).filter_map(|(owner, key, value)| {
            Some((owner, key, serde_json::from_slice(value).ok()?))
        })
    }

    /// What active nodes say of themselves. Values that do not decode are skipped
    /// (see [`Self::undecodable`]), and so are records under another key than their owner's.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, NodeRecord)> {
        self.decoded(Table::Node)
            .filter(|(owner, key, _)| owner.as_str() == *key)
            .map(|(owner, _, r)| (owner, r))
    }

    /// What active nodes say of endpoints, with who says it; skips as [`Self::nodes`] does. Whether
    /// the endpoint is the speaker's own only the orders tell.
    pub fn endpoints(&self) -> impl Iterator<Item = (&NodeId, EndpointRecord)> {
        self.decoded(Table::Endpoint)
            .filter(|(_, key, r): &(_, _, EndpointRecord)| *key == r.id.as_str())
            .map(|(owner, _, r)| (owner, r))
    }

    /// Load reports of active nodes: reporting node, endpoint id of the replica, report.
    pub fn loads(&self) -> impl Iterator<Item = (&NodeId, &str, LoadRecord)> {
        self.decoded(Table::Load)
    }

    /// How many visible values the typed iterators skip.
    #[must_use]
    pub fn undecodable(&self) -> usize {
        let total = |table| self.entries(table).count();
        (total(Table::Node) - self.nodes().count())
            + (total(Table::Endpoint) - self.endpoints().count())
            + (total(Table::Load) - self.loads().count())
    }

    /// State of a member.
    #[must_use]
    pub fn state(&self, node: &NodeId) -> Option<MemberState> {
        self.members.get(node).map(|m| m.state)
    }
}
