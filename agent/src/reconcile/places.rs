//! Where the sandboxes of endpoints are that `network connect` made: a file, and the kernel when
//! the file was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_model::id::EndpointId;
use weft_sys::netns::{Netns, bound_namespaces, namespaces_of_processes};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use weft_sys::state_file::{self, Damage, Found};

use crate::sandbox::Sandbox;

/// In the data directory; also the subject of a warning about it.
pub(crate) const FILE: &str = "endpoints.json";

/// Where an endpoint's sandbox is; kept on disk so that a restarted agent finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Path of the namespace, or a process id.
    pub(crate) netns: String,
    /// Interface inside it.
    pub(crate) ifname: String,
    /// Inode of the namespace: paths and process ids are used again for others.
    pub(crate) inode: u64,
}

impl Place {
    /// Opens the namespace, if it still is the same one.
    pub(crate) fn open(&self) -> anyhow::Result<Sandbox> {
        let sandbox = Sandbox::open(&self.netns)?;
        anyhow::ensure!(
            sandbox.netns().inode()? == self.inode,
            "{} is another namespace now",
            self.netns
        );
        Ok(sandbox)
    }

    /// Opens what the path leads to now: whoever made a new namespace there wants it attached. A
    /// process id says nothing of the kind.
    pub(crate) fn open_again(&self) -> anyhow::Result<Sandbox> {
        if self.netns.parse::<u32>().is_ok() {
            return self.open();
        }
        Ok(Sandbox::open(&self.netns)?)
    }

    /// Names the sandbox's resolver, whatever way leads to the namespace.
    pub(crate) fn resolver(&self) -> String {
        format!("netns-{}", self.inode)
    }
}

/// The places, by endpoint, and the file that they are in.
#[derive(Debug)]
pub(crate) struct Places {
    path: PathBuf,
    pub(crate) known: BTreeMap<EndpointId, Place>,
    /// What became of the file, until the kernel was asked for all of it.
    damage: Option<Damage>,
    searched: Searched,
}

/// Whether the kernel was asked for endpoints that the file does not have: once with the orders that
/// an earlier agent left, once with those of a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Searched {
    No,
    Remembered,
    Ordered,
}

impl Places {
    /// Reads the file; a missing one is an empty one, and so is a damaged one, which is kept under
    /// another name: [`Self::lacking`] says what the kernel is asked for then.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub(crate) fn load(path: PathBuf) -> anyhow::Result<Self> {
        let (known, damage) = match state_file::read(&path) {
            Ok(Found::Value(known)) => (known, None),
            Ok(Found::Nothing) => (BTreeMap::new(), None),
            Ok(Found::Damaged(damage)) => (BTreeMap::new(), Some(damage)),
            Err(error) => anyhow::bail!("cannot read {}: {error}", path.display()),
        };
        Ok(Self {
            path,
            known,
            damage,
            searched: Searched::No,
        })
    }

    /// Ids of all endpoints in it.
    pub(crate) fn ids(&self) -> BTreeSet<EndpointId> {
        self.known.keys().cloned().collect()
    }

    /// Writes the file; after the loss of power too it is the old one or this.
    ///
    /// # Errors
    /// The disk's; the old file is there then.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.known)?;
        replace_file(&self.path, &text, PRIVATE, Outlives::Power)
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", self.path.display()))
    }

    /// What became of the file.
    pub(crate) fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Of the `ordered` endpoints those that the kernel is to be asked for now: those without a
    /// place. Twice at most; later ones have none because they are only being made.
    pub(crate) fn lacking(
        &mut self,
        ordered: impl Iterator<Item = EndpointId>,
        remembered: bool,
    ) -> BTreeSet<EndpointId> {
        let now = if remembered {
            Searched::Remembered
        } else {
            Searched::Ordered
        };
        if now <= self.searched {
            return BTreeSet::new();
        }
        self.searched = now;
        ordered.filter(|id| !self.known.contains_key(id)).collect()
    }

    /// Takes up what was found.
    pub(crate) fn take(&mut self, found: BTreeMap<EndpointId, Place>) {
        self.known.extend(found);
    }

    /// Nothing is missing of what the damaged file held.
    pub(crate) fn forget_damage(&mut self) {
        self.damage = None;
    }
}

/// Asks the kernel for the sandboxes of endpoints: their interfaces say whose they are. One that is
/// claimed in two namespaces is left out, as anybody who is root in his own can claim it.
pub(crate) fn find(wanted: &BTreeSet<EndpointId>) -> BTreeMap<EndpointId, Place> {
    let mut found: BTreeMap<EndpointId, Option<Place>> = BTreeMap::new();
    let own = Netns::current().map(|own| own.inode().unwrap_or_default());
    let mut seen: BTreeSet<u64> = own.into_iter().collect();
    // A path outlives the processes in its namespace, and leads to the next one of that name.
    let paths = bound_namespaces().into_iter();
    let paths = paths.map(|(inode, path)| (inode, path.to_string_lossy().into_owned()));
    let pids = namespaces_of_processes().into_iter();
    let pids = pids.map(|(inode, pid)| (inode, pid.to_string()));
    for (inode, netns) in paths.chain(pids) {
        if !seen.insert(inode) {
            continue;
        }
        let claimed = match claims(&netns, inode) {
            Ok(claimed) => claimed,
            // It ended meanwhile.
            Err(error) => {
                tracing::debug!(netns, %error, "a namespace was not searched");
                continue;
            }
        };
        for (ifname, id) in claimed.into_iter().filter(|(_, id)| wanted.contains(id)) {
            let place = Place {
                netns: netns.clone(),
                ifname,
                inode,
            };
            match found.entry(id) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Some(place));
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let id = entry.key().as_str();
                    tracing::warn!(endpoint = id, "claimed by two interfaces: neither is taken");
                    entry.insert(None);
                }
            }
        }
    }
    found
        .into_iter()
        .filter_map(|(id, place)| Some((id, place?)))
        .collect()
}

fn claims(netns: &str, inode: u64) -> anyhow::Result<Vec<(String, EndpointId)>> {
    let sandbox = Sandbox::open(netns)?;
    anyhow::ensure!(sandbox.netns().inode()? == inode, "it is another one now");
    Ok(sandbox.claimed_ports()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> EndpointId {
        EndpointId(text.to_owned())
    }

    fn ids(all: &[&str]) -> BTreeSet<EndpointId> {
        all.iter().map(|text| id(text)).collect()
    }

    #[test]
    fn a_damaged_file_is_empty_and_the_kernel_is_asked_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("endpoints.json");
        std::fs::write(&path, r#"{"e1": {"netns": "/x", "ifn"#).expect("written");
        let mut places = Places::load(path.clone()).expect("set aside");
        let damage = places.damage().expect("damaged").to_string();
        assert!(damage.contains("endpoints.json.damaged-"), "{damage}");
        let ordered = || ids(&["e1", "e2"]).into_iter();
        assert_eq!(places.lacking(ordered(), true), ids(&["e1", "e2"]));
        assert_eq!(places.lacking(ordered(), true), ids(&[]));
        let place = Place {
            netns: "/run/netns/a".to_owned(),
            ifname: "eth0".to_owned(),
            inode: 7,
        };
        places.take(BTreeMap::from([(id("e1"), place)]));
        assert_eq!(places.lacking(ordered(), false), ids(&["e2"]));
        assert_eq!(places.lacking(ordered(), false), ids(&[]));
        assert_eq!(places.lacking(ordered(), true), ids(&[]));
        places.save().expect("saved");
        let again = Places::load(path).expect("whole");
        assert_eq!((again.ids(), again.damage()), (ids(&["e1"]), None));
    }
}
