//! Where workers copy frames for a capture. Each function is a look at an `Option` while there is
//! none.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;

use weft_wire::{DropReason, VnetHdr, vxlan};

use crate::capture::{Fate, Record};
use crate::frame_slot::Held;
use crate::port::Port;
use crate::worker::Worker;

impl Worker {
    /// A copy of what a port sent, virtio header and frame in the slots, before anything rewrites
    /// it.
    pub(crate) fn copy_of(&mut self, port: &Port, read: Range<usize>) -> Option<Record> {
        let capture = self.capture.as_deref()?;
        let frame = self.queue.bytes(read).get(VnetHdr::LEN..)?;
        capture.begin(Some(&port.name), [frame])
    }

    /// Says what became of it.
    pub(crate) fn settle_copy(&self, copy: Option<Record>, fate: Fate) {
        if let (Some(capture), Some(copy)) = (self.capture.as_deref(), copy) {
            capture.finish(copy, fate);
        }
    }

    /// A frame of the slots that was written into a port, or could not be.
    pub(crate) fn copy_held(&mut self, port: &Port, held: &Held, fate: Fate) {
        if let Some(capture) = self.capture.as_deref() {
            let frame: &[u8] = self.queue.bytes(held.frame.clone());
            capture.record(Some(&port.name), None, [frame], fate);
        }
    }

    /// A frame in pieces that was written into a port, or could not be.
    pub(crate) fn copy_pieces(&self, port: &Port, pieces: &[IoSlice<'_>], fate: Fate) {
        if let Some(capture) = self.capture.as_deref() {
            let pieces = pieces.iter().map(|piece| &**piece);
            capture.record(Some(&port.name), None, pieces, fate);
        }
    }

    /// The frame in a datagram of the receive arena that was dropped.
    pub(crate) fn copy_datagram(&self, from: SocketAddr, packet: Range<usize>, reason: DropReason) {
        if let Some(capture) = self.capture.as_deref() {
            let datagram = &self.recv.arena()[packet];
            let frame = datagram.get(vxlan::HEADER_LEN..).unwrap_or_default();
            let vtep = Some(from.ip());
            capture.record(None, vtep, [frame], Fate::Dropped(reason));
        }
    }

    /// A run of the receive arena that was dropped.
    pub(crate) fn copy_run(
        &self,
        from: SocketAddr,
        head: &Range<usize>,
        tails: &[Range<usize>],
        reason: DropReason,
    ) {
        if let Some(capture) = self.capture.as_deref() {
            let arena = self.recv.arena();
            let pieces = std::iter::once(head).chain(tails);
            let pieces = pieces.map(|piece| &arena[piece.clone()]);
            let vtep = Some(from.ip());
            capture.record(None, vtep, pieces, Fate::Dropped(reason));
        }
    }

    /// A frame from another worker that was dropped.
    pub(crate) fn copy_handover(&self, frame: &[u8], reason: DropReason) {
        if let Some(capture) = self.capture.as_deref() {
            capture.record(None, None, [frame], Fate::Dropped(reason));
        }
    }
}
