//! The last steps of a frame, whichever way it came: into a port, to a VTEP, or to the worker that
//! knows its flow.
//!
//! What the kernel does not take into a port is a drop of that port ([`Port::took`]) and no error of
//! anything here: whoever sent the frame did nothing wrong.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;

use weft_mesh::{Admission, Install, ResetTo, Reverse, Target};
use weft_vxlan::Destination;
use weft_wire::frame::parse;
use weft_wire::gro::MAX_SEGMENTS;
use weft_wire::{DropReason, Mac, PortId, VnetHdr, Vni};

use crate::frame_slot::{Held, Slot};
use crate::handover::Handover;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

impl Worker {
    /// Carries out what the flow table decided about a frame for local port `to`: the port that
    /// the frame goes into, or nothing when it was taken care of.
    pub(crate) fn settle(
        &mut self,
        snapshot: &Snapshot,
        vni: Vni,
        to: PortId,
        verdict: Reverse,
        vnet: &VnetHdr,
        copy: impl FnOnce(&mut Self) -> Box<[u8]>,
    ) -> Result<Option<PortId>, DropReason> {
        let mesh = snapshot.mesh.as_ref().map(|m| m.port);
        match verdict {
            // The node's own address: nobody listens there but flows of the mesh.
            Reverse::NotAFlow if Some(to) == mesh => Err(DropReason::NotAFlow),
            Reverse::NotAFlow => Ok(Some(to)),
            Reverse::Rewritten {
                to: Target::Port(port),
            } => Ok(Some(port)),
            Reverse::Rewritten { to: Target::Mesh } => mesh.map(Some).ok_or(DropReason::PortGone),
            Reverse::Retry {
                vni,
                dst_mac,
                install,
            } => {
                self.retry(snapshot, vni, dst_mac, install)?;
                Err(DropReason::Retried)
            }
            Reverse::ToOwner { worker } => {
                let handover = Handover {
                    vni,
                    vnet: *vnet,
                    frame: copy(self),
                };
                let inbox = self
                    .shared
                    .inboxes
                    .get(usize::from(worker))
                    .ok_or(DropReason::PortGone)?;
                inbox
                    .frames
                    .push(handover)
                    .map_err(|_| DropReason::FlowTableFull)?;
                inbox.wakeup.notify();
                Ok(None)
            }
            // Answers of a replica here to a client of another node leave by their port's worker.
            Reverse::Return { .. } => Err(DropReason::NotAFlow),
            Reverse::Drop(reason) => Err(reason),
        }
    }

    /// Sends the client's SYN to the next replica.
    fn retry(
        &mut self,
        snapshot: &Snapshot,
        vni: Vni,
        dst_mac: Mac,
        install: Option<Install>,
    ) -> Result<(), DropReason> {
        let syn = self.flows.retry_frame();
        let len = syn.len();
        self.scratch
            .get_mut(..len)
            .ok_or(DropReason::Oversized)?
            .copy_from_slice(syn);
        self.send_opening(snapshot, vni, dst_mac, install, len)
    }

    /// Sends a client that has waited for a replica on to it, or refuses it.
    pub(crate) fn admit(&mut self, snapshot: &Snapshot, admission: Admission, frame: &[u8]) {
        let sent = match admission {
            Admission::Forward {
                vni,
                dst_mac,
                install,
            } => match self.scratch.get_mut(..frame.len()) {
                Some(place) => {
                    place.copy_from_slice(frame);
                    self.send_opening(snapshot, vni, dst_mac, install, frame.len())
                }
                None => Err(DropReason::Oversized),
            },
            Admission::Refuse { to, reason } => {
                self.send_reset(snapshot, ResetTo::Client(to), frame);
                let from = match to {
                    Target::Port(id) => Some(id),
                    Target::Mesh => snapshot.mesh.as_ref().map(|mesh| mesh.port),
                };
                // As one that is refused at once counts.
                match from.and_then(|id| snapshot.ports.get(&id)) {
                    Some(port) => {
                        port.counters.drops.add(reason);
                        Ok(())
                    }
                    None => Err(reason),
                }
            }
        };
        if let Err(reason) = sent {
            self.counters().underlay.add(reason);
        }
    }

    /// Sends the opening segment in `scratch` to a replica.
    fn send_opening(
        &mut self,
        snapshot: &Snapshot,
        vni: Vni,
        dst_mac: Mac,
        install: Option<Install>,
        len: usize,
    ) -> Result<(), DropReason> {
        let destination = snapshot
            .switch
            .lookup(vni, dst_mac)
            .ok_or(DropReason::NoReplica)?;
        if let Some(install) = install {
            self.hand_entry(snapshot, destination, install)?;
        }
        match destination {
            Destination::Local(to) => self.write_scratch(snapshot, to, len),
            Destination::Remote(vtep) => self.send_scratch(vni, vtep, len),
        }
    }

    /// Sends a reset to an end whose peer is gone.
    pub(crate) fn send_reset(&mut self, snapshot: &Snapshot, to: ResetTo, frame: &[u8]) {
        let len = frame.len();
        let Some(out) = self.scratch.get_mut(..len) else {
            return;
        };
        out.copy_from_slice(frame);
        let sent = match to {
            ResetTo::Client(Target::Port(id)) => self.write_scratch(snapshot, id, len),
            ResetTo::Client(Target::Mesh) => snapshot
                .mesh
                .as_ref()
                .ok_or(DropReason::PortGone)
                .and_then(|m| self.write_scratch(snapshot, m.port, len)),
            ResetTo::Replica { vni, mac } => match snapshot.switch.lookup(vni, mac) {
                Some(Destination::Local(id)) => self.write_scratch(snapshot, id, len),
                Some(Destination::Remote(vtep)) => self.send_scratch(vni, vtep, len),
                None => Ok(()),
            },
        };
        if let Err(reason) = sent {
            self.counters().underlay.add(reason);
        }
    }

    /// Writes a held frame into a port, the virtio header passed through.
    pub(crate) fn write_held(
        &mut self,
        snapshot: &Snapshot,
        to: PortId,
        held: &Held,
    ) -> Result<(), DropReason> {
        let port = snapshot.ports.get(&to).ok_or(DropReason::PortGone)?;
        let whole = held.frame.start - VnetHdr::LEN..held.frame.end;
        let written = port.tap.write(self.queue.bytes(whole));
        let fate = port.took(&written, held.frame.len());
        self.copy_held(port, held, fate);
        Ok(())
    }

    fn write_scratch(&self, snapshot: &Snapshot, id: PortId, len: usize) -> Result<(), DropReason> {
        let port = snapshot.ports.get(&id).ok_or(DropReason::PortGone)?;
        self.write_pieces(port, &VnetHdr::NONE, &self.scratch[..len]);
        Ok(())
    }

    /// Writes the answer in `scratch` back into the port that asked.
    pub(crate) fn answer(&mut self, port: &Port, len: usize) -> Result<Slot, DropReason> {
        if len == 0 {
            return Err(DropReason::UnknownNeighbor);
        }
        self.write_pieces(port, &VnetHdr::NONE, &self.scratch[..len]);
        Ok(Slot::Free)
    }

    /// Writes a virtio header and a frame into a port.
    pub(crate) fn write_pieces(&self, port: &Port, vnet: &VnetHdr, frame: &[u8]) {
        self.write_pieces_of(port, vnet, frame, &(0..frame.len()), &[]);
    }

    /// Writes a virtio header and pieces of `arena` into a port, as one frame.
    pub(crate) fn write_pieces_of(
        &self,
        port: &Port,
        vnet: &VnetHdr,
        arena: &[u8],
        head: &Range<usize>,
        tails: &[Range<usize>],
    ) {
        let mut header = [0; VnetHdr::LEN];
        vnet.emit(&mut header);
        let mut pieces = [IoSlice::new(&[]); MAX_SEGMENTS + 2];
        pieces[0] = IoSlice::new(&header);
        pieces[1] = IoSlice::new(&arena[head.clone()]);
        let mut len = head.len();
        for (piece, tail) in pieces[2..].iter_mut().zip(tails) {
            *piece = IoSlice::new(&arena[tail.clone()]);
            len += tail.len();
        }
        let written = port.tap.writev(&pieces[..2 + tails.len()]);
        let fate = port.took(&written, len);
        self.copy_pieces(port, &pieces[1..2 + tails.len()], fate);
    }

    /// Queues the frame in `scratch` for a VTEP.
    pub(crate) fn send_scratch(
        &mut self,
        vni: Vni,
        vtep: SocketAddr,
        len: usize,
    ) -> Result<(), DropReason> {
        let counters = &self.shared.counters[self.index];
        let slot = self.queue.free_slot(counters);
        let start = slot.start + VnetHdr::LEN;
        let frame = start..start + len;
        self.queue
            .bytes(frame.clone())
            .copy_from_slice(&self.scratch[..len]);
        let info = parse(&self.scratch[..len])?;
        let kept = self
            .queue
            .push(vni, vtep, &VnetHdr::NONE, info.ip(), frame, counters)?;
        if kept == Slot::Kept {
            self.queue.keep_slot(start + len);
        }
        Ok(())
    }
}
