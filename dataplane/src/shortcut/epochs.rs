//! Which tables an entry was made of.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weft_fastpath::Epochs;
use weft_wire::Vni;

/// The epoch of each network: another one when anything has changed that says where its packets go.
/// Entries of flows carry it, and are stale once it is another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowEpochs {
    /// Of networks that nothing else is known of.
    all: u32,
    /// By the place that a network has in the kernel's array.
    others: HashMap<u32, u32, RandomState>,
}

impl FlowEpochs {
    /// Everything may have changed; `epoch` is one that was not used yet.
    pub fn change_all(&mut self, epoch: u32) {
        self.all = epoch;
        self.others.clear();
    }

    /// Something of a network has changed.
    pub fn change(&mut self, vni: Vni, epoch: u32) {
        self.others.insert(Self::place(vni), epoch);
    }

    /// Place of a network in the kernel's array. Two networks may share one: they become stale
    /// together.
    pub(crate) fn place(vni: Vni) -> u32 {
        vni.get() % Epochs::NETWORKS
    }

    /// The epoch of a network.
    pub(crate) fn of(&self, vni: Vni) -> u32 {
        self.at(Self::place(vni))
    }

    fn at(&self, place: u32) -> u32 {
        self.others.get(&place).copied().unwrap_or(self.all)
    }

    /// Tells the kernel what is another one than `before`, in the words that `say` makes of an epoch.
    pub(super) fn tell(&self, before: Option<&Self>, epochs: &Epochs, say: impl Fn(u32) -> u32) {
        match before {
            Some(before) if before.all == self.all => {
                let places = self.others.keys().chain(before.others.keys());
                for &place in places {
                    if self.at(place) != before.at(place) {
                        epochs.set(place, say(self.at(place)));
                    }
                }
            }
            _ => {
                for place in 0..Epochs::NETWORKS {
                    epochs.set(place, say(self.at(place)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_one_network_or_of_all() {
        let vni = |n| Vni::new(n).unwrap();
        let mut epochs = FlowEpochs::default();
        epochs.change_all(5);
        assert_eq!((epochs.of(vni(1)), epochs.of(vni(2))), (5, 5));
        epochs.change(vni(1), 6);
        assert_eq!((epochs.of(vni(1)), epochs.of(vni(2))), (6, 5));
        let same = vni(1 + Epochs::NETWORKS);
        assert_eq!(epochs.of(same), 6, "it has the same place");
        epochs.change_all(7);
        assert_eq!((epochs.of(vni(1)), epochs.of(vni(2))), (7, 7));
    }
}
