//! Which sandboxes are to have shortcuts, beside which have them. Decides and does nothing.

use std::collections::{BTreeMap, BTreeSet};

use weft_wire::PortId;

use crate::parts::shortcuts::SandboxCounts;

/// A sandbox by the inode of its namespace.
pub(super) type Inode = u64;

/// The host's end of a sandbox's second device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostEnd {
    pub(super) name: String,
    pub(super) index: u32,
    /// Number of the other end, inside.
    pub(super) second: u32,
    /// Bytes of IP packet.
    pub(super) mtu: u32,
    /// Both ends are up.
    pub(super) carrier: bool,
}

/// The devices that the programs of a port are in front of, as the host tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Devices {
    /// Number of the sandbox, which the programs tell it by.
    pub(super) number: u16,
    /// Number of its second device, inside of it.
    pub(super) second: u32,
    /// Number of the host's end of that device.
    pub(super) host_end: u32,
}

/// Why a port is to have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// No sandbox has any on this node.
    Off,
    /// Its sandbox has no second device.
    NoSecond,
    /// Its sandbox has one that is down, or carries less than the first.
    Unfit,
    /// There are more sandboxes than numbers.
    Crowded,
}

/// What each port is to have.
pub(super) type Wanted = BTreeMap<PortId, Result<Devices, Without>>;

/// What a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Programs are in front of its devices.
    Attached(Devices),
    /// They should be and cannot.
    Refused(Devices),
    /// There are none, of an earlier agent neither.
    Clear,
}

/// What each port has, as far as somebody has looked.
pub(super) type Present = BTreeMap<PortId, State>;

/// Numbers by which programs tell sandboxes. One that is free again is the last to be given out:
/// entries of whoever had it may still be there.
#[derive(Debug)]
pub(super) struct Numbers {
    next: u16,
    taken: BTreeSet<u16>,
}

/// The last number; that of `weft0` ([`weft_fastpath::MESH_NUMBER`]) and those of the self-test
/// ([`weft_fastpath::selftest::SELF_TEST_NUMBERS`]) are above.
const LAST: u16 = 65_500;

impl Default for Numbers {
    fn default() -> Self {
        Self {
            next: 1,
            taken: BTreeSet::new(),
        }
    }
}

impl Numbers {
    fn take(&mut self) -> Option<u16> {
        if self.taken.len() >= usize::from(LAST) {
            return None;
        }
        loop {
            let number = self.next;
            self.next = if number >= LAST { 1 } else { number + 1 };
            if self.taken.insert(number) {
                return Some(number);
            }
        }
    }

    fn free(&mut self, number: u16) {
        self.taken.remove(&number);
    }
}

#[derive(Debug)]
struct Sandbox {
    number: u16,
    ports: BTreeSet<PortId>,
}

/// The sandboxes of this node, with their numbers.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    numbers: Numbers,
    known: BTreeMap<Inode, Sandbox>,
}

impl Sandboxes {
    /// Takes in which port is in which sandbox, and with which second devices, and says what each port
    /// is to have. `mtu` is that of the ports, in bytes.
    pub(super) fn wanted(
        &mut self,
        places: &[(PortId, Inode)],
        ends: &BTreeMap<Inode, HostEnd>,
        mtu: u32,
    ) -> Wanted {
        self.follow(places);
        let wanted = places.iter().map(|(port, inode)| {
            let end = ends.get(inode).ok_or(Without::NoSecond);
            let shortcut = end.and_then(|end| {
                if !end.carrier || end.mtu < mtu {
                    return Err(Without::Unfit);
                }
                let sandbox = self.known.get(inode).ok_or(Without::Crowded)?;
                Ok(Devices {
                    number: sandbox.number,
                    second: end.second,
                    host_end: end.index,
                })
            });
            (*port, shortcut)
        });
        wanted.collect()
    }

    /// A sandbox keeps its number as long as one of its ports is there. The inode alone does not tell
    /// it: the kernel gives that to the next one.
    fn follow(&mut self, places: &[(PortId, Inode)]) {
        let mut here: BTreeMap<Inode, BTreeSet<PortId>> = BTreeMap::new();
        for (port, inode) in places {
            here.entry(*inode).or_default().insert(*port);
        }
        let numbers = &mut self.numbers;
        self.known.retain(|inode, sandbox| {
            let now = here.get(inode);
            let same = now.is_some_and(|now| !now.is_disjoint(&sandbox.ports));
            if !same {
                numbers.free(sandbox.number);
            }
            same
        });
        for (inode, ports) in here {
            if let Some(known) = self.known.get_mut(&inode) {
                known.ports = ports;
            } else if let Some(number) = self.numbers.take() {
                self.known.insert(inode, Sandbox { number, ports });
            }
        }
    }
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) attach: Vec<(PortId, Devices)>,
    /// Ports that are to have no programs.
    pub(super) clear: Vec<PortId>,
}

/// What leads from one to the other. What was refused is tried again by [`turn`].
pub(super) fn steps(wanted: &Wanted, present: &Present) -> Steps {
    let mut steps = Steps::default();
    for (port, wanted) in wanted {
        match (wanted, present.get(port)) {
            (Ok(wanted), Some(State::Attached(has) | State::Refused(has))) if has == wanted => {}
            (Ok(wanted), _) => steps.attach.push((*port, *wanted)),
            (Err(_), Some(State::Clear)) => {}
            (Err(_), _) => steps.clear.push(*port),
        }
    }
    steps
}

/// The next `count` ports behind `last` that have, or should have, programs; from the first again at
/// the end.
pub(super) fn turn(
    present: &Present,
    last: Option<PortId>,
    count: usize,
) -> Vec<(PortId, Devices)> {
    let behind = present
        .iter()
        .filter(|(port, _)| Some(**port) > last)
        .chain(present.iter().filter(|(port, _)| Some(**port) <= last));
    let found = behind.filter_map(|(port, state)| match state {
        State::Attached(at) | State::Refused(at) => Some((*port, *at)),
        State::Clear => None,
    });
    found.take(count).collect()
}

/// Host ends, by number, whose sandbox has ports here, and programs in front of none of them.
pub(super) fn idle_ends(
    places: &[(PortId, Inode)],
    ends: &BTreeMap<Inode, HostEnd>,
    present: &Present,
) -> BTreeMap<u32, String> {
    let mut attached: BTreeMap<Inode, bool> = BTreeMap::new();
    for (port, inode) in places {
        let has = !matches!(present.get(port), Some(State::Clear | State::Refused(_)));
        *attached.entry(*inode).or_default() |= has;
    }
    let idle = ends
        .iter()
        .filter(|(inode, _)| attached.get(*inode) == Some(&false));
    idle.map(|(_, end)| (end.index, end.name.clone())).collect()
}

/// How many sandboxes have what.
pub(super) fn count(
    places: &[(PortId, Inode)],
    wanted: &Wanted,
    present: &Present,
) -> SandboxCounts {
    /// The best that one of its ports has.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Has {
        NoSecond,
        Refused,
        Attached,
    }
    let mut best: BTreeMap<Inode, Has> = BTreeMap::new();
    for (port, inode) in places {
        let has = match (present.get(port), wanted.get(port)) {
            (Some(State::Attached(_)), _) => Has::Attached,
            (_, Some(Err(Without::NoSecond | Without::Off)) | None) => Has::NoSecond,
            _ => Has::Refused,
        };
        let best = best.entry(*inode).or_insert(Has::NoSecond);
        if has > *best {
            *best = has;
        }
    }
    let number = |wanted: Has| best.values().filter(|has| **has == wanted).count();
    SandboxCounts {
        attached: number(Has::Attached),
        without_second: number(Has::NoSecond),
        refused: number(Has::Refused),
    }
}

#[cfg(test)]
mod tests;
