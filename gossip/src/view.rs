//! A snapshot of the cluster for those who compile tables from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, LoadRecord, NodeRecord, PressureRecord, Table};

use super::entries::{Entries, Entry, Rows, table_code};
use super::member::{Member, MemberState};
use super::roll::Roll;
use super::said::Said;

/// Members and visible entries at one moment. Cheap to make and to share: entries are not copied,
/// and were decoded when they arrived; ids are those of the view before where they are the same.
#[derive(Debug, Clone, Default)]
pub struct NetdbView {
    /// Every known member, this node included. The same allocation while nothing has changed.
    pub members: Arc<BTreeMap<NodeId, Member>>,
    /// What these were made from.
    roll: Arc<Roll>,
    /// Active members that say anything, in order.
    owners: Arc<[NodeId]>,
    /// What each of them says.
    said: Vec<Arc<Entries>>,
}

/// Rows of an owner that are others in one view than in another, or there in one of them only.
#[derive(Debug, Clone, Copy)]
struct Differing<'a> {
    owner: &'a NodeId,
    was: Option<&'a Rows>,
    is: Option<&'a Rows>,
}

impl NetdbView {
    /// Of members, and what the active ones among `all` owners say, who are in the order of their
    /// ids. What is the same in `last` is taken from there.
    pub(crate) fn of<'a>(
        roll: Arc<Roll>,
        all: impl Iterator<Item = (&'a NodeId, &'a Arc<Entries>)> + Clone,
        last: &Self,
    ) -> Self {
        let members = Arc::clone(roll.members());
        let same = Arc::ptr_eq(&members, &last.members);
        let said = same.then(|| said_by(&last.owners, &members, all.clone()));
        let (owners, said) = match said.flatten() {
            Some(said) => (Arc::clone(&last.owners), said),
            None => {
                let shown = all.filter(|(id, _)| is_active(&members, id));
                let shown = shown.map(|(id, entries)| (id.clone(), Arc::clone(entries)));
                let (owners, said): (Vec<NodeId>, Vec<Arc<Entries>>) = shown.unzip();
                let known = owners == *last.owners;
                let owners = if known {
                    Arc::clone(&last.owners)
                } else {
                    owners.into()
                };
                (owners, said)
            }
        };
        Self {
            members,
            roll,
            owners,
            said,
        }
    }

    /// What the members were made from, as long as they are those that were made.
    pub(crate) fn roll(&self) -> Option<&Arc<Roll>> {
        Arc::ptr_eq(self.roll.members(), &self.members).then_some(&self.roll)
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

    /// What active nodes report of loads otherwise than in `before`, an earlier view of the same
    /// node: reporting node, endpoint id of the replica, and the report, none where there is none any
    /// more. Nodes, and of each the replicas, are in the order of their ids.
    pub fn changed_loads<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a NodeId, &'a str, Option<LoadRecord>)> {
        let differing = self.differing(Table::Load, before).into_iter();
        differing.flat_map(|rows| {
            let loads = rows.loads().into_iter();
            loads.map(move |(replica, load)| (rows.owner, replica, load))
        })
    }

    /// What active nodes say of their pressure otherwise than in `before`, in the order of their ids;
    /// who says nothing any more is calm.
    pub fn changed_pressures<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a NodeId, PressureRecord)> {
        let differing = self.differing(Table::Load, before).into_iter();
        differing.filter_map(|rows| {
            let pressure = |of: Option<&Rows>| match of?.get(rows.owner.as_str())?.said {
                Said::Pressure(record) => Some(record),
                _ => None,
            };
            let (was, is) = (pressure(rows.was), pressure(rows.is));
            let calm = PressureRecord { pressure: 0 };
            (was != is).then(|| (rows.owner, is.unwrap_or(calm)))
        })
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
        self.differing(table, other).is_empty()
    }

    /// Whose rows of a table are others than in `before`, an earlier view of the same node: who has
    /// written to it, come, or gone. In the order of their ids.
    #[must_use]
    pub fn changed<'a>(&'a self, table: Table, before: &'a Self) -> Vec<&'a NodeId> {
        let differing = self.differing(table, before).into_iter();
        differing.map(|rows| rows.owner).collect()
    }

    /// Each owner has entries and rows of its own, and what a view holds is never written to: the
    /// same allocation shows the same. So of who has written nothing one pointer is looked at.
    fn differing<'a>(&'a self, table: Table, before: &'a Self) -> Vec<Differing<'a>> {
        let mut found = Vec::new();
        let mut note = |owner, was, is| found.extend(Differing::of(table, owner, was, is));
        let now = self.owners.iter().zip(&self.said);
        if Arc::ptr_eq(&self.owners, &before.owners) {
            for ((owner, is), was) in now.zip(&before.said) {
                note(owner, Some(was), Some(is));
            }
            return found;
        }
        let mut were = before.owners.iter().zip(&before.said).peekable();
        for (owner, is) in now {
            while let Some((gone, was)) = were.next_if(|(id, _)| *id < owner) {
                note(gone, Some(was), None);
            }
            let was = were.next_if(|(id, _)| *id == owner);
            note(owner, was.map(|(_, entries)| entries), Some(is));
        }
        for (gone, was) in were {
            note(gone, Some(was), None);
        }
        found
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

impl<'a> Differing<'a> {
    fn of(
        table: Table,
        owner: &'a NodeId,
        was: Option<&'a Arc<Entries>>,
        is: Option<&'a Arc<Entries>>,
    ) -> Option<Self> {
        if same(was, is) {
            return None;
        }
        let code = table_code(table);
        let rows = |entries: Option<&'a Arc<Entries>>| entries?.rows(code);
        let (was, is) = (rows(was), rows(is));
        (!same(was, is)).then(|| Self {
            owner,
            was: was.map(|rows| &**rows),
            is: is.map(|rows| &**rows),
        })
    }

    /// Load reports that are others; none where there is none any more.
    fn loads(&self) -> Vec<(&'a str, Option<LoadRecord>)> {
        let mut found = Vec::new();
        let mut note = |replica: &'a String, was: Option<&Entry>, is: Option<&Entry>| {
            let (was, is) = (was.and_then(load_of), is.and_then(load_of));
            if was != is {
                found.push((replica.as_str(), is));
            }
        };
        let mut were = self.was.into_iter().flatten().peekable();
        for (replica, is) in self.is.into_iter().flatten() {
            while let Some((gone, was)) = were.next_if(|(key, _)| *key < replica) {
                note(gone, Some(was), None);
            }
            let was = were.next_if(|(key, _)| *key == replica);
            note(replica, was.map(|(_, entry)| entry), Some(is));
        }
        for (gone, was) in were {
            note(gone, Some(was), None);
        }
        found
    }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

const fn load_of(entry: &Entry) -> Option<LoadRecord> {
    match entry.said {
        Said::Load(load) => Some(load),
        _ => None,
    }
}

fn is_active(members: &BTreeMap<NodeId, Member>, id: &NodeId) -> bool {
    let member = members.get(id);
    member.is_some_and(|member| member.state.is_active())
}

/// What these owners say, if they are all of the active members among `all`.
fn said_by<'a>(
    owners: &[NodeId],
    members: &BTreeMap<NodeId, Member>,
    all: impl Iterator<Item = (&'a NodeId, &'a Arc<Entries>)>,
) -> Option<Vec<Arc<Entries>>> {
    let mut said = Vec::with_capacity(owners.len());
    let mut owners = owners.iter().peekable();
    for (id, entries) in all {
        if owners.next_if(|owner| *owner == id).is_some() {
            said.push(Arc::clone(entries));
        } else if is_active(members, id) {
            return None;
        }
    }
    owners.next().is_none().then_some(said)
}
