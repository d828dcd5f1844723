//! Fragments of datagrams of flows: later ones have no ports and follow the first, which has.
//!
//! A first fragment takes the way of any packet, with every check on it, and leaves an entry here
//! for a few seconds. What the entry does not vouch for is not let through to a service: a later
//! fragment that comes first, one that would cover the transport header that was checked (RFC 1858,
//! RFC 3128, RFC 5722), another first fragment for other ports. Overlaps among later fragments
//! reach no header and are left to the receiver.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use weft_wire::fragment::FragmentHeader;
use weft_wire::{DropReason, Instant, IpInfo};

use crate::flow::{Flow, FlowKind};
use crate::key::Scope;
use crate::store::FlowId;

/// How long the fragments of a datagram may take. Receivers wait longer, but a sender sends them
/// back to back, and identifications of 16 bits come round quickly.
const LIFETIME: Duration = Duration::from_secs(5);
/// Sets of entries. All datagrams of one sender share a set, so a flood of first fragments takes
/// the places of few others.
const SETS: usize = 32;
/// Datagrams under way, at most, in one set: the oldest makes room.
const WAYS: usize = 32;

/// Which datagram a fragment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    scope: Scope,
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// 0 for IPv6, where only the first fragment has to know it (RFC 8200 section 4.5).
    proto: u8,
    /// From a replica.
    reply: bool,
}

impl Datagram {
    pub(crate) fn new(scope: Scope, info: &IpInfo, header: &FragmentHeader, reply: bool) -> Self {
        Self {
            scope,
            src: info.src,
            dst: info.dst,
            id: header.id,
            proto: if info.is_ipv4() { info.proto } else { 0 },
            reply,
        }
    }
}

/// The flow that a datagram's fragments follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Follow {
    /// Number of the flow, and what tells it from a later one with that number.
    pub(crate) at: FlowId,
    pub(crate) kind: FlowKind,
    serial: u64,
    /// The first fragment went to the flow's owner; the others must not overtake it.
    pub(crate) to_owner: bool,
}

impl Follow {
    pub(crate) const fn new(at: FlowId, flow: &Flow, to_owner: bool) -> Self {
        Self {
            at,
            kind: flow.kind,
            serial: flow.serial,
            to_owner,
        }
    }

    /// Whether the flow with that number is still the one that the first fragment belonged to.
    pub(crate) fn is(&self, flow: &Flow) -> bool {
        (flow.kind, flow.serial) == (self.kind, self.serial)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    datagram: Datagram,
    ports: (u16, u16),
    follow: Follow,
    /// Bytes that the first fragment holds: no other may write there.
    first_len: usize,
    /// Bytes seen so far.
    seen: usize,
    /// Bytes of the whole; unknown until the last fragment.
    total: Option<usize>,
    deadline: Instant,
    /// Something did not add up: nothing more of it passes.
    refused: bool,
}

/// Datagrams whose first fragment was seen. Its memory is fixed.
#[derive(Debug)]
pub(crate) struct Fragments {
    entries: Box<[Option<Entry>]>,
    hasher: FixedState,
}

impl Fragments {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            entries: vec![None; SETS * WAYS].into_boxed_slice(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Where all datagrams of one sender are.
    fn set(&mut self, datagram: &Datagram) -> &mut [Option<Entry>] {
        let hash = self
            .hasher
            .hash_one((datagram.scope, datagram.src, datagram.reply));
        #[expect(clippy::cast_possible_truncation, reason = "less than SETS")]
        let set = (hash % SETS as u64) as usize;
        self.entries
            .get_mut(set * WAYS..(set + 1) * WAYS)
            .unwrap_or_default()
    }

    fn find(&mut self, now: Instant, datagram: &Datagram) -> Option<&mut Option<Entry>> {
        self.set(datagram).iter_mut().find(|entry| {
            entry
                .as_ref()
                .is_some_and(|e| e.deadline > now && e.datagram == *datagram)
        })
    }

    /// Whether a first fragment may pass: not when it speaks for other ports than one before it.
    pub(crate) fn may_begin(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        info: &IpInfo,
    ) -> Result<(), DropReason> {
        let Some(Some(entry)) = self.find(now, datagram) else {
            return Ok(());
        };
        entry.refused |= entry.ports != (info.sport, info.dport);
        if entry.refused {
            return Err(DropReason::FragmentOverlap);
        }
        Ok(())
    }

    /// Notes a first fragment that passed, and what the others follow. One with the same
    /// identification before it was sent again, or lost its last fragments.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        datagram: Datagram,
        info: &IpInfo,
        header: &FragmentHeader,
        follow: Follow,
    ) {
        let entry = Entry {
            datagram,
            ports: (info.sport, info.dport),
            follow,
            first_len: header.len,
            seen: header.len,
            total: None,
            deadline: now.after(LIFETIME),
            refused: false,
        };
        let place = match self.find(now, &entry.datagram) {
            Some(place) => Some(place),
            None => self.set(&entry.datagram).iter_mut().min_by_key(|place| {
                // Free and expired ones first, then the oldest.
                place.map_or(Instant(0), |e| e.deadline)
            }),
        };
        if let Some(place) = place {
            *place = Some(entry);
        }
    }

    /// What a later fragment follows.
    pub(crate) fn later(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        header: &FragmentHeader,
    ) -> Result<Follow, DropReason> {
        let Some(place) = self.find(now, datagram) else {
            return Err(DropReason::FragmentEarly);
        };
        let Some(entry) = place else {
            return Err(DropReason::FragmentEarly);
        };
        let end = header.offset + header.len;
        let last = (!header.more).then_some(end);
        let total = entry.total.or(last);
        entry.refused |= header.offset < entry.first_len
            || last.is_some_and(|last| total != Some(last))
            || total.is_some_and(|total| end > total);
        if entry.refused {
            return Err(DropReason::FragmentOverlap);
        }
        entry.total = total;
        entry.seen += header.len;
        let follow = entry.follow;
        if total.is_some_and(|total| entry.seen >= total) {
            *place = None;
        }
        Ok(follow)
    }
}
