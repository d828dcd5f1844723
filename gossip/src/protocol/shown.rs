//! What others of the agent see of all this.

use std::collections::BTreeMap;
use std::sync::Arc;

use foca::State;
use weft_model::id::NodeId;
use weft_model::records::{LoadRecord, Table};

use super::Gossip;
use crate::entries::table_code;
use crate::member::{Member, MemberState};
use crate::roll::{Facts, Roll};
use crate::said::Said;
use crate::view::NetdbView;

impl Gossip {
    /// Members and visible entries now.
    #[must_use]
    pub fn view(&self) -> NetdbView {
        self.view_after(&NetdbView::default())
    }

    /// As [`Self::view`], sharing with `last`, an earlier view, what both have in common.
    #[must_use]
    pub fn view_after(&self, last: &NetdbView) -> NetdbView {
        let owners = self.netdb.owners().iter();
        let all = owners.map(|(id, owner)| (id, &owner.entries));
        NetdbView::of(self.roll_after(last), all, last)
    }

    /// Every known member, and what that follows from; of `last` where it is the same.
    fn roll_after(&self, last: &NetdbView) -> Arc<Roll> {
        let me = self.identity();
        let own = Member {
            addr: me.addr,
            state: if self.left {
                MemberState::Left
            } else {
                MemberState::Alive
            },
        };
        let owners = self.netdb.owners().iter().filter(|(_, owner)| owner.left);
        let facts = Facts {
            own: (&me.node, own),
            register: self.register.number(),
            held: &self.held,
            left: owners.map(|(id, owner)| (id, owner.incarnation)).collect(),
        };
        let known = || self.membership.members();
        if let Some(roll) = last.roll().filter(|roll| roll.is(&facts, known())) {
            return Arc::clone(roll);
        }
        let members = self.members_after(facts.own, &last.members);
        Arc::new(Roll::of(&facts, known(), members))
    }

    /// Every known member; `last` where it is the same.
    fn members_after(
        &self,
        own: (&NodeId, Member),
        last: &Arc<BTreeMap<NodeId, Member>>,
    ) -> Arc<BTreeMap<NodeId, Member>> {
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
        let mut all: Vec<(&NodeId, Member)> = [own].into_iter().chain(others).collect();
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
