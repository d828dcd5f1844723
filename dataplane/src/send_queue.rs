//! What a round sends to the underlay: frames wait in the arena they were read into and leave
//! together, one `sendmmsg` per socket.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use weft_sys::udp::{MAX_DATAGRAM_LEN, SendBatch, SendFailureKind, SendReport, VxlanSocket};
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
    /// False once the kernel refused to segment: from then on every segment is a message.
    segment: bool,
    /// Segments of refused messages, on their second way.
    again: SendBatch,
}

impl std::fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendQueue")
            .field("next_slot", &self.next_slot)
            .field("headers_used", &self.headers_used)
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

impl SendQueue {
    /// Without `segment` the kernel is never asked to segment (`UDP_SEGMENT`).
    pub(crate) fn new(sockets: Vec<VxlanSocket>, segment: bool) -> Self {
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
            segment,
            again: SendBatch::with_capacity(0, 0),
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
        let per_send = if self.segment {
            (MAX_DATAGRAM_LEN / split.segment_len).clamp(1, SEGMENTS_PER_SEND)
        } else {
            1
        };
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
        let arenas: [&[u8]; 2] = [&self.slots, &self.headers];
        for (socket, batch) in self.sockets.iter().zip(&mut self.batches) {
            if batch.is_empty() {
                continue;
            }
            let report = batch.flush(socket, &arenas);
            if count(batch, report, counters) == 0 {
                continue;
            }
            if self.segment {
                self.segment = false;
                tracing::warn!(
                    "the kernel cannot segment on the way to another node (UDP_SEGMENT): every \
                     segment is sent on its own from now on, which costs throughput"
                );
            }
            for failure in batch.failures() {
                if failure.kind == SendFailureKind::SegmentationUnsupported {
                    split(batch, failure.message, &mut self.again);
                    counters.unsegmented.fetch_add(1, Ordering::Relaxed);
                }
            }
            let report = self.again.flush(socket, &arenas);
            count(&self.again, report, counters);
        }
        self.next_slot = 0;
        self.headers_used = 0;
    }
}

/// Counts what became of a batch. Returns how many messages the kernel would take only in single
/// segments; those are not lost yet.
fn count(batch: &SendBatch, report: SendReport, counters: &WorkerCounters) -> usize {
    counters
        .tx_datagrams
        .fetch_add(report.sent as u64, Ordering::Relaxed);
    let mut refused = 0;
    for failure in batch.failures() {
        counters.underlay.add(match failure.kind {
            SendFailureKind::Full => DropReason::UnderlayFull,
            SendFailureKind::TooBig => DropReason::Oversized,
            SendFailureKind::Unreachable
            | SendFailureKind::BadSlice
            | SendFailureKind::Other(_) => DropReason::UnderlayError,
            SendFailureKind::SegmentationUnsupported => {
                refused += 1;
                continue;
            }
        });
    }
    refused
}

/// Adds the segments of a message to `again`, each as a message of its own.
fn split(batch: &SendBatch, message: usize, again: &mut SendBatch) {
    let Some((vtep, _)) = batch.message(message) else {
        return;
    };
    // A header and a payload for each segment, in turn: `SendQueue::push` made them so.
    for segment in batch.message_pieces(message).chunks(2) {
        for piece in segment {
            again.piece(piece.arena, piece.range.clone());
        }
        again.push(vtep, None);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refused_message_is_sent_again_segment_by_segment() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
        let to = receiver.local_addr().expect("address");
        let socket = VxlanSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bind");
        let (slots, headers) = (b"..abcdeABCDEfg", b"h1h2h3");
        let mut batch = SendBatch::with_capacity(2, 8);
        batch.piece(HEADER_ARENA, 0..1);
        batch.piece(SLOT_ARENA, 0..1);
        batch.push(to, None);
        for (header, payload) in [(0..2, 2..7), (2..4, 7..12), (4..6, 12..14)] {
            batch.piece(HEADER_ARENA, header);
            batch.piece(SLOT_ARENA, payload);
        }
        batch.push(to, Some(7));
        let mut again = SendBatch::with_capacity(0, 0);
        for round in 0..2 {
            split(&batch, 1, &mut again);
            split(&batch, 2, &mut again);
            let report = again.flush(&socket, &[slots, headers]);
            assert_eq!((report.sent, report.failed), (3, 0), "round {round}");
            let mut buffer = [0; 64];
            for expected in [&b"h1abcde"[..], b"h2ABCDE", b"h3fg"] {
                let n = receiver.recv(&mut buffer).expect("datagram");
                assert_eq!(&buffer[..n], expected);
            }
        }
    }
}
