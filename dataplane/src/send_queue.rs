//! What a round sends to the underlay: frames wait in the arena they were read into and leave
//! together, one `sendmmsg` per socket.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use weft_sys::udp::{MAX_DATAGRAM_LEN, SendBatch, SendFailureKind, VxlanSocket};
use weft_wire::frame::MAX_FRAME_LEN;
use weft_wire::gso::{self, MAX_SEGMENTS, Segment};
use weft_wire::{DropReason, IpInfo, VnetHdr, Vni, flow, vxlan};

use crate::counters::WorkerCounters;

/// Bytes of one slot: virtio header and the longest frame, rounded to cache lines.
pub(crate) const SLOT_LEN: usize = (VnetHdr::LEN + MAX_FRAME_LEN + 4).next_multiple_of(64);

/// Frames read before the queue is flushed.
pub(crate) const SLOTS: usize = 32;

/// Sockets that frames leave by: the outer source port carries the entropy of the inner flow
/// (RFC 7348 section 5), and a few are enough for the hashes of routers and bonds.
pub(crate) const TX_SOCKETS: usize = 4;

/// One segmented send that every kernel takes (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const SEGMENTS_PER_SEND: usize = 64;

/// Header bytes that a round may need: every slot split into the most segments.
const HEADERS_LEN: usize = SLOTS * 16 * 1024;

const SLOT_ARENA: usize = 0;
const HEADER_ARENA: usize = 1;

/// Frames waiting for the end of the round, with the memory that they live in.
pub(crate) struct SendQueue {
    sockets: Vec<VxlanSocket>,
    batches: Vec<SendBatch>,
    slots: Box<[u8]>,
    next_slot: usize,
    headers: Box<[u8]>,
    headers_used: usize,
    segments: Vec<Segment>,
}

impl std::fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendQueue")
            .field("next_slot", &self.next_slot)
            .field("headers_used", &self.headers_used)
            .finish_non_exhaustive()
    }
}

impl SendQueue {
    pub(crate) fn new(sockets: Vec<VxlanSocket>) -> Self {
        let batches = sockets
            .iter()
            .map(|_| SendBatch::with_capacity(SLOTS * 2, SLOTS * MAX_SEGMENTS))
            .collect();
        Self {
            sockets,
            batches,
            slots: vec![0; SLOTS * SLOT_LEN].into_boxed_slice(),
            next_slot: 0,
            headers: vec![0; HEADERS_LEN].into_boxed_slice(),
            headers_used: 0,
            segments: vec![Segment::default(); MAX_SEGMENTS],
        }
    }

    /// Bytes of the slot that the next frame is read into, as a range for [`Self::bytes`].
    pub(crate) fn free_slot(&mut self, counters: &WorkerCounters) -> Range<usize> {
        if self.next_slot == SLOTS || self.headers_used + gso::arena_len(8) > HEADERS_LEN {
            self.flush(counters);
        }
        let start = self.next_slot * SLOT_LEN;
        start..start + SLOT_LEN
    }

    /// Keeps the slot last handed out until the flush.
    pub(crate) fn keep_slot(&mut self) {
        self.next_slot += 1;
    }

    pub(crate) fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.slots[range]
    }

    /// Queues the frame at `frame` (bytes of the slots) for `vtep`. A super-frame is split into
    /// segments that share one send; an unfinished checksum is finished.
    ///
    /// # Errors
    /// The reason when the virtio header and the frame contradict each other.
    pub(crate) fn push(
        &mut self,
        vni: Vni,
        vtep: SocketAddr,
        vnet: &VnetHdr,
        info: Option<&IpInfo>,
        frame: Range<usize>,
    ) -> Result<(), DropReason> {
        let mut outer = [0; vxlan::HEADER_LEN];
        vxlan::emit(vni, &mut outer);
        let socket = info.map_or(0, |i| {
            usize::from(flow::entropy_port(&i.five_tuple())) % self.sockets.len()
        });
        let batch = &mut self.batches[socket];
        let start = self.headers_used;
        let headers = &mut self.headers[start..];
        if vnet.gso_type == weft_wire::vnet::GSO_NONE {
            if vnet.needs_csum() {
                gso::finish_single(&mut self.slots[frame.clone()], vnet)?;
            }
            headers[..outer.len()].copy_from_slice(&outer);
            self.headers_used += outer.len();
            batch.piece(HEADER_ARENA, start..start + outer.len());
            batch.piece(SLOT_ARENA, frame);
            batch.push(vtep, None);
            return Ok(());
        }
        let info = info.ok_or(DropReason::BadOffload)?;
        let bytes = &self.slots[frame.clone()];
        let split = gso::split(bytes, vnet, info, &outer, headers, &mut self.segments)?;
        let per_send = (MAX_DATAGRAM_LEN / split.segment_len).clamp(1, SEGMENTS_PER_SEND);
        for train in self.segments[..split.count].chunks(per_send) {
            for segment in train {
                let (h, p) = (&segment.header, &segment.payload);
                batch.piece(
                    HEADER_ARENA,
                    start + h.start as usize..start + h.end as usize,
                );
                batch.piece(
                    SLOT_ARENA,
                    frame.start + p.start as usize..frame.start + p.end as usize,
                );
                self.headers_used = self.headers_used.max(start + h.end as usize);
            }
            let gso_size = (train.len() > 1)
                .then(|| u16::try_from(split.segment_len).ok())
                .flatten();
            batch.push(vtep, gso_size);
        }
        Ok(())
    }

    /// Sends everything that waits and frees all slots.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) {
        for (socket, batch) in self.sockets.iter().zip(&mut self.batches) {
            if batch.is_empty() {
                continue;
            }
            let report = batch.flush(socket, &[&self.slots, &self.headers]);
            counters
                .tx_datagrams
                .fetch_add(report.sent as u64, Ordering::Relaxed);
            for failure in batch.failures() {
                counters.underlay.add(match failure.kind {
                    SendFailureKind::Full => DropReason::UnderlayFull,
                    SendFailureKind::TooBig => DropReason::Oversized,
                    SendFailureKind::SegmentationUnsupported
                    | SendFailureKind::Unreachable
                    | SendFailureKind::BadSlice
                    | SendFailureKind::Other(_) => DropReason::UnderlayError,
                });
            }
        }
        self.next_slot = 0;
        self.headers_used = 0;
    }
}
