//! What others of the agent see of all this.

use std::collections::BTreeMap;
use std::sync::Arc;

use foca::State;
use weft_model::id::NodeId;
use weft_model::records::{LoadRecord, Table};

use super::Gossip;
use crate::entries::table_code;
use crate::said::Said;
use crate::view::{Member, MemberState, NetdbView};

impl Gossip {
    /// Members and visible entries now.
    #[must_use]
    pub fn view(&self) -> NetdbView {
        self.view_after(&NetdbView::default())
    }

    /// As [`Self::view`], sharing with `last`, an earlier view, what both have in common.
    #[must_use]
    pub fn view_after(&self, last: &NetdbView) -> NetdbView {
        let members = self.members_after(&last.members);
        let active = members.iter().filter(|(_, m)| m.state.is_active());
        let mut active = active.map(|(id, _)| id).peekable();
        let mut said = Vec::with_capacity(members.len());
        // Both are in the order of ids.
        for (id, owner) in self.netdb.owners() {
            while active.next_if(|member| *member < id).is_some() {}
            if active.next_if(|member| *member == id).is_some() {
                said.push((id, Arc::clone(&owner.entries)));
            }
        }
        NetdbView::of(members, said, last)
    }

    /// Every known member; `last` where it is the same.
    fn members_after(&self, last: &Arc<BTreeMap<NodeId, Member>>) -> Arc<BTreeMap<NodeId, Member>> {
        let me = self.identity();
        let own = Member {
            addr: me.addr,
            state: if self.left {
                MemberState::Left
            } else {
                MemberState::Alive
            },
        };
        let known = self.membership.members();
        let known = known.filter(|member| self.register.is_member(&member.id().node));
        let others = known.map(|member| {
            let id = member.id();
            let state = match member.state() {
                _ if self.has_left(id) => MemberState::Left,
                _ if self.held.contains_key(&id.node) => MemberState::Down,
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down => MemberState::Down,
            };
            let addr = id.addr;
            (&id.node, Member { addr, state })
        });
        let mut all: Vec<(&NodeId, Member)> = [(&me.node, own)].into_iter().chain(others).collect();
        all.sort_by_key(|(id, _)| *id);
        // Of two lives of one node the one that is named last counts.
        all.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                *earlier = *later;
            }
            same
        });
        if all.iter().copied().eq(last.iter().map(|(id, m)| (id, *m))) {
            return Arc::clone(last);
        }
        let owned = all.into_iter().map(|(id, member)| (id.clone(), member));
        Arc::new(owned.collect())
    }

    /// What `owner` said last of the load of a replica, whether a view shows it or not.
    #[must_use]
    pub fn load(&self, owner: &NodeId, key: &str) -> Option<LoadRecord> {
        let entries = &self.netdb.owners().get(owner)?.entries;
        match entries.rows(table_code(Table::Load))?.get(key)?.said {
            Said::Load(load) => Some(load),
            _ => None,
        }
    }
}
