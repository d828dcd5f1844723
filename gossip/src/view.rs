//! A snapshot of the cluster for those who compile tables from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, LoadRecord, NodeRecord, PressureRecord, Table};

use super::entries::{Entries, Rows, table_code};
use super::said::Said;

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

/// Members and visible entries at one moment. Cheap to make and to share: entries are not copied,
/// and were decoded when they arrived; ids are those of the view before where they are the same.
#[derive(Debug, Clone, Default)]
pub struct NetdbView {
    /// Every known member, this node included. The same allocation while nothing has changed.
    pub members: Arc<BTreeMap<NodeId, Member>>,
    /// Active members that say anything, in order.
    owners: Arc<[NodeId]>,
    /// What each of them says.
    said: Vec<Arc<Entries>>,
}

/// The load reports of one node. Cheap to keep, and to compare with earlier ones.
#[derive(Debug, Clone)]
pub struct LoadReports(Arc<Rows>);

impl LoadReports {
    /// Whether nothing was written between the two.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether something is reported of a replica.
    #[must_use]
    pub fn names(&self, replica: &str) -> bool {
        let entry = self.0.get(replica);
        entry.is_some_and(|entry| matches!(entry.said, Said::Load(_)))
    }

    /// Endpoint id of the replica, report.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LoadRecord)> {
        self.0.iter().filter_map(|(key, entry)| match entry.said {
            Said::Load(load) => Some((key.as_str(), load)),
            _ => None,
        })
    }
}

impl NetdbView {
    /// Of members, and what the active ones of them say, in the order of their ids. What is the same
    /// in `last` is taken from there.
    pub(crate) fn of(
        members: Arc<BTreeMap<NodeId, Member>>,
        said: Vec<(&NodeId, Arc<Entries>)>,
        last: &Self,
    ) -> Self {
        let owners = said.iter().map(|(owner, _)| *owner);
        let owners = if owners.clone().eq(last.owners.iter()) {
            Arc::clone(&last.owners)
        } else {
            owners.cloned().collect()
        };
        Self {
            members,
            owners,
            said: said.into_iter().map(|(_, entries)| entries).collect(),
        }
    }

    fn rows(&self, table: Table) -> impl Iterator<Item = (&NodeId, &Arc<Rows>)> {
        let code = table_code(table);
        self.owners
            .iter()
            .zip(&self.said)
            .filter_map(move |(owner, entries)| Some((owner, entries.rows(code)?)))
    }

    fn rows_of(&self, table: Table, owner: &NodeId) -> Option<&Arc<Rows>> {
        let at = self.owners.binary_search(owner).ok()?;
        self.said.get(at)?.rows(table_code(table))
    }

    fn said(&self, table: Table) -> impl Iterator<Item = (&NodeId, &str, &Said)> {
        self.rows(table).flat_map(|(owner, rows)| {
            rows.iter()
                .map(move |(key, entry)| (owner, key.as_str(), &entry.said))
        })
    }

    /// Live entries of active owners in one table: owner, key, value.
    pub fn entries(&self, table: Table) -> impl Iterator<Item = (&NodeId, &str, &Bytes)> {
        self.rows(table).flat_map(|(owner, rows)| {
            rows.iter()
                .filter(|(_, entry)| entry.deleted.is_none())
                .map(move |(key, entry)| (owner, key.as_str(), &entry.value))
        })
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, table: Table, owner: &NodeId, key: &str) -> Option<&Bytes> {
        let entry = self.rows_of(table, owner)?.get(key)?;
        entry.deleted.is_none().then_some(&entry.value)
    }

    /// What active nodes say of themselves. Values that do not decode are skipped
    /// (see [`Self::undecodable`]), and so are records under another key than their owner's.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Arc<NodeRecord>)> {
        self.said(Table::Node)
            .filter_map(|(owner, _, said)| match said {
                Said::Node(record) => Some((owner, record)),
                _ => None,
            })
    }

    /// What one node says of itself; nothing of one that is not active.
    #[must_use]
    pub fn node(&self, owner: &NodeId) -> Option<&Arc<NodeRecord>> {
        let mut entries = self.rows_of(Table::Node, owner)?.values();
        entries.find_map(|entry| match &entry.said {
            Said::Node(record) => Some(record),
            _ => None,
        })
    }

    /// What one node says of endpoints, by their ids.
    pub fn endpoints_of(&self, owner: &NodeId) -> impl Iterator<Item = &Arc<EndpointRecord>> {
        let entries = self.rows_of(Table::Endpoint, owner).into_iter();
        let entries = entries.flat_map(|rows| rows.values());
        entries.filter_map(|entry| match &entry.said {
            Said::Endpoint(record) => Some(record),
            _ => None,
        })
    }

    /// What active nodes say of endpoints, with who says it; skips as [`Self::nodes`] does. Whether
    /// the endpoint is the speaker's own only the orders tell.
    pub fn endpoints(&self) -> impl Iterator<Item = (&NodeId, &Arc<EndpointRecord>)> {
        self.said(Table::Endpoint)
            .filter_map(|(owner, _, said)| match said {
                Said::Endpoint(record) => Some((owner, record)),
                _ => None,
            })
    }

    /// Load reports of active nodes: reporting node, endpoint id of the replica, report.
    pub fn loads(&self) -> impl Iterator<Item = (&NodeId, &str, LoadRecord)> {
        self.said(Table::Load)
            .filter_map(|(owner, key, said)| match said {
                Said::Load(load) => Some((owner, key, *load)),
                _ => None,
            })
    }

    /// The same node by node, in the order of their ids.
    pub fn reports(&self) -> impl Iterator<Item = (&NodeId, LoadReports)> {
        self.rows(Table::Load)
            .map(|(owner, rows)| (owner, LoadReports(Arc::clone(rows))))
    }

    /// How much active nodes say that they wait, each of itself, in the order of their ids. Who is not
    /// among them is calm.
    pub fn pressures(&self) -> impl Iterator<Item = (&NodeId, PressureRecord)> {
        self.rows(Table::Load)
            .filter_map(|(owner, rows)| match rows.get(owner.as_str())?.said {
                Said::Pressure(record) => Some((owner, record)),
                _ => None,
            })
    }

    /// How many visible values the typed iterators skip.
    #[must_use]
    pub fn undecodable(&self) -> usize {
        [Table::Node, Table::Endpoint, Table::Load]
            .into_iter()
            .flat_map(|table| self.said(table))
            .filter(|(.., said)| **said == Said::Undecodable)
            .count()
    }

    /// Whether a table shows what it shows in `other`, another view of the same node: nobody whose
    /// entries count has written to it between the two, come, or gone.
    #[must_use]
    pub fn has_same(&self, table: Table, other: &Self) -> bool {
        // Each owner has rows of its own, and what a view holds is never written to.
        let ours = self.rows(table).map(|(_, rows)| Arc::as_ptr(rows));
        ours.eq(other.rows(table).map(|(_, rows)| Arc::as_ptr(rows)))
    }

    /// Whose rows of a table are others than in `before`, an earlier view of the same node: who has
    /// written to it, come, or gone. In the order of their ids.
    #[must_use]
    pub fn changed<'a>(&'a self, table: Table, before: &'a Self) -> Vec<&'a NodeId> {
        let mut changed = Vec::new();
        let mut were = before.rows(table).peekable();
        for (owner, rows) in self.rows(table) {
            while let Some((gone, _)) = were.next_if(|(id, _)| *id < owner) {
                changed.push(gone);
            }
            let known = were.next_if(|(id, _)| *id == owner);
            if known.is_none_or(|(_, old)| !Arc::ptr_eq(old, rows)) {
                changed.push(owner);
            }
        }
        changed.extend(were.map(|(gone, _)| gone));
        changed
    }

    /// Whether the same members are known in both views, and the same ones are active.
    #[must_use]
    pub fn has_same_active(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.members, &other.members) {
            return true;
        }
        let same = |((a, of_a), (b, of_b)): ((&NodeId, &Member), (&NodeId, &Member))| {
            of_a.state.is_active() == of_b.state.is_active() && a == b
        };
        let mut pairs = self.members.iter().zip(other.members.iter());
        self.members.len() == other.members.len() && pairs.all(same)
    }

    /// State of a member.
    #[must_use]
    pub fn state(&self, node: &NodeId) -> Option<MemberState> {
        self.members.get(node).map(|m| m.state)
    }
}
