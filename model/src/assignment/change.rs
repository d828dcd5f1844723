//! The difference between two versions of [`Shared`]: what a node is sent that has the earlier one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EndpointView, GossipKey, NodeView, ServiceView, Shared};
use crate::id::{EndpointId, NetworkId, NodeId, PeerId, ServiceId};
use crate::objects::{EndingService, Network, StaticPeer};

/// What is another thing in one list: `T` by its id `I`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChange<T, I> {
    /// New ones, and those that take the place of one of the same id.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<T>,
    /// Those that are gone.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<I>,
}

impl<T, I> Default for ListChange<T, I> {
    fn default() -> Self {
        Self {
            put: Vec::new(),
            gone: Vec::new(),
        }
    }
}

impl<T: Clone + PartialEq, I: Ord> ListChange<T, I> {
    /// True when the list stays as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty()
    }

    /// Takes note of one that was, or was not, and is, or is not.
    pub fn note(&mut self, id: I, was: Option<T>, is: Option<T>) {
        match (was, is) {
            (was, Some(is)) if was.as_ref() != Some(&is) => self.put.push(is),
            (Some(_), None) => self.gone.push(id),
            _ => {}
        }
    }

    /// The list with this change. Both are in the order of their ids; what the change says last of
    /// an id counts.
    fn applied_to(&self, list: &[T], id: fn(&T) -> &I) -> Vec<T> {
        let gone = self.gone.iter().map(|id| (id, None));
        let put = self.put.iter().map(|one| (id(one), Some(one)));
        let changes: BTreeMap<&I, Option<&T>> = gone.chain(put).collect();
        let mut changes = changes.into_iter().peekable();
        let mut new = Vec::with_capacity(list.len() + self.put.len());
        for old in list {
            while let Some((_, one)) = changes.next_if(|(at, _)| *at < id(old)) {
                new.extend(one.cloned());
            }
            match changes.next_if(|(at, _)| *at == id(old)) {
                Some((_, one)) => new.extend(one.cloned()),
                None => new.push(old.clone()),
            }
        }
        new.extend(changes.filter_map(|(_, one)| one.cloned()));
        new
    }
}

/// What leads from one version of [`Shared`] to a later one. What belongs to the cluster as a whole
/// (its id, the port of the data path) never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedChange {
    /// The version that this is a change of.
    pub base: u64,
    /// The version that it leads to.
    pub version: u64,
    /// Nodes.
    #[serde(default, skip_serializing_if = "ListChange::is_empty")]
    pub nodes: ListChange<NodeView, NodeId>,
    /// Networks.
    #[serde(default, skip_serializing_if = "ListChange::is_empty")]
    pub networks: ListChange<Network, NetworkId>,
    /// Services.
    #[serde(default, skip_serializing_if = "ListChange::is_empty")]
    pub services: ListChange<ServiceView, ServiceId>,
    /// Removed services whose tasks have not ended.
    #[serde(default, skip_serializing_if = "ListChange::is_empty")]
    pub ending: ListChange<EndingService, ServiceId>,
    /// Endpoints.
    #[serde(default, skip_serializing_if = "ListChange::is_empty")]
    pub endpoints: ListChange<Arc<EndpointView>, EndpointId>,
    /// Static peers.
    #[serde(default, skip_serializing_if = "ListChange::is_empty")]
    pub peers: ListChange<StaticPeer, PeerId>,
    /// The whole ring, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip_keys: Option<Vec<GossipKey>>,
}

impl SharedChange {
    /// True when it says nothing but versions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            base: _,
            version: _,
            nodes,
            networks,
            services,
            ending,
            endpoints,
            peers,
            gossip_keys,
        } = self;
        nodes.is_empty()
            && networks.is_empty()
            && services.is_empty()
            && ending.is_empty()
            && endpoints.is_empty()
            && peers.is_empty()
            && gossip_keys.is_none()
    }
}

/// Why a change cannot be applied. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It is a change of another version.
    #[error("a change of version {base} came to who has version {have}")]
    Base {
        /// The version that it is a change of.
        base: u64,
        /// The version that is there.
        have: u64,
    },
    /// It does not lead to a later version.
    #[error("a change of version {base} leads back to version {version}")]
    Back {
        /// The version that it is a change of.
        base: u64,
        /// The version that it leads to.
        version: u64,
    },
}

impl Shared {
    /// This half with a change. It costs a walk along the lists; endpoints that stay are shared with
    /// this one.
    ///
    /// # Errors
    /// The change does not fit.
    pub fn with(&self, change: &SharedChange) -> Result<Self, Misfit> {
        let (base, version) = (change.base, change.version);
        if base != self.version {
            let have = self.version;
            return Err(Misfit::Base { base, have });
        }
        if version <= base {
            return Err(Misfit::Back { base, version });
        }
        let keys = change.gossip_keys.as_ref();
        Ok(Self {
            version,
            cluster_id: self.cluster_id.clone(),
            data_path_port: self.data_path_port,
            nodes: change.nodes.applied_to(&self.nodes, |n| &n.id),
            networks: change.networks.applied_to(&self.networks, |n| &n.id),
            services: change.services.applied_to(&self.services, |s| &s.id),
            ending: change.ending.applied_to(&self.ending, |s| &s.id),
            endpoints: change.endpoints.applied_to(&self.endpoints, |e| &e.id),
            peers: change.peers.applied_to(&self.peers, |p| &p.id),
            gossip_keys: keys.unwrap_or(&self.gossip_keys).clone(),
        })
    }

    /// True when every list is in the order of its ids, each there once, as changes need it.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.nodes.is_sorted_by(|a, b| a.id < b.id)
            && self.networks.is_sorted_by(|a, b| a.id < b.id)
            && self.services.is_sorted_by(|a, b| a.id < b.id)
            && self.ending.is_sorted_by(|a, b| a.id < b.id)
            && self.endpoints.is_sorted_by(|a, b| a.id < b.id)
            && self.peers.is_sorted_by(|a, b| a.id < b.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    /// `b`, `B` and `β` have one id.
    fn id(one: &str) -> &str {
        match one {
            "B" | "β" => "b",
            other => other,
        }
    }

    #[test]
    fn a_list_is_changed_by_id_and_stays_in_order() {
        let change = |put: &str, gone: &str| {
            let mut change = ListChange::<(String, String), String>::default();
            let with_id = |one: String| (id(&one).to_owned(), one);
            change.put = list(put).into_iter().map(with_id).collect();
            change.gone = list(gone);
            change
        };
        let before: Vec<_> = list("bdf").into_iter().map(|s| (s.clone(), s)).collect();
        for (put, gone, after) in [
            ("", "", "bdf"),
            ("B", "", "Bdf"),
            ("a", "", "abdf"),
            ("ceg", "d", "bcefg"),
            ("", "bdf", ""),
            ("", "ax", "bdf"),
            ("B", "b", "Bdf"),
            ("Bβ", "", "βdf"),
        ] {
            let new = change(put, gone).applied_to(&before, |(id, _)| id);
            let new: String = new.into_iter().map(|(_, one)| one).collect();
            assert_eq!(new, after, "{put:?} {gone:?}");
        }
    }

    #[test]
    fn what_stays_is_not_noted() {
        let mut change = ListChange::default();
        change.note(1, None, None);
        change.note(2, Some("a"), Some("a"));
        assert!(change.is_empty());
        change.note(3, None, Some("b"));
        change.note(4, Some("a"), Some("b"));
        change.note(5, Some("a"), None);
        assert_eq!((change.put, change.gone), (vec!["b", "b"], vec![5]));
    }

    #[test]
    fn a_change_of_another_version_is_refused() {
        let shared = Shared {
            version: 7,
            cluster_id: "c".to_owned(),
            data_path_port: 4789,
            nodes: Vec::new(),
            networks: Vec::new(),
            services: Vec::new(),
            ending: Vec::new(),
            endpoints: Vec::new(),
            peers: Vec::new(),
            gossip_keys: Vec::new(),
        };
        let change = |base, version| SharedChange {
            base,
            version,
            ..SharedChange::default()
        };
        let with = |base, version| shared.with(&change(base, version));
        assert_eq!(with(6, 8), Err(Misfit::Base { base: 6, have: 7 }));
        let back = Misfit::Back {
            base: 7,
            version: 7,
        };
        assert_eq!(with(7, 7), Err(back));
        assert_eq!(with(7, 9).map(|s| s.version), Ok(9));
    }
}
