//! What a round sends to the underlay: frames wait in the arena they were read into and leave
//! together, one `sendmmsg` per socket.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_sys::udp::{MAX_DATAGRAM_LEN, SendBatch, SendFailureKind, SendReport, Slice, VxlanSocket};
use weft_wire::ecn::{self, Dscp};
use weft_wire::frame::{MAX_FRAME_LEN, TCP};
use weft_wire::gso::{self, MAX_SEGMENTS, Segment};
use weft_wire::{DropReason, FiveTuple, IpInfo, VnetHdr, Vni, flow, vxlan};

use crate::counters::WorkerCounters;
use crate::frame_slot::Slot;
use crate::shared::Shared;

/// Bytes of one slot: virtio header and the longest frame, rounded to cache lines.
pub(crate) const SLOT_LEN: usize = (VnetHdr::LEN + MAX_FRAME_LEN + 4).next_multiple_of(64);

/// Bytes of frames that wait at most. Slots take the length of their frames, so this is two
/// super-frames, or hundreds of small ones; more would fall out of a core's own cache between the
/// read and the send.
const SLOTS_LEN: usize = 2 * SLOT_LEN;

/// Small frames that wait at most, to say what vectors hold.
const MAX_FRAMES: usize = 512;

/// Messages and pieces that wait at most; a super-frame may need [`MAX_SEGMENTS`] and twice that.
const MAX_WAITING: usize = MAX_FRAMES + MAX_SEGMENTS;
const MAX_PIECES: usize = 2 * MAX_WAITING;

/// Sockets that frames leave by: the outer source port carries the entropy of the inner flow
/// (RFC 7348 section 5), and a few are enough for the hashes of routers and bonds.
pub(crate) const TX_SOCKETS: usize = 4;

/// One segmented send that every kernel takes (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const SEGMENTS_PER_SEND: usize = 64;

/// Header bytes that wait at most: the slots full of super-frames of the most segments.
const HEADERS_LEN: usize = 16 * gso::arena_len(vxlan::HEADER_LEN);

const SLOT_ARENA: usize = 0;
const HEADER_ARENA: usize = 1;

/// Frames waiting for the end of the round, with the memory that they live in.
pub(crate) struct SendQueue {
    sockets: Vec<VxlanSocket>,
    batches: Vec<SendBatch>,
    slots: Box<[u8]>,
    slots_used: usize,
    headers: Box<[u8]>,
    headers_used: usize,
    segments: Vec<Segment>,
    waiting: Vec<Waiting>,
    pieces: Vec<Slice>,
    /// VTEPs that anything waits for.
    vteps: Vec<SocketAddr>,
    /// False once the kernel refused to segment: from then on every segment is a message.
    segment: bool,
    /// Segments of refused messages, on their second way.
    again: SendBatch,
    /// Holds the injector, once it has passed its test.
    shared: Arc<Shared>,
    /// IPv4 identification of the next injected packet.
    ident: u16,
    dscp: Dscp,
}

/// One or more datagrams of one inner frame.
#[derive(Debug, Clone)]
struct Waiting {
    /// Datagrams with equal keys go to one worker of one node by one socket: their order counts,
    /// and they may share a segmented send.
    key: u64,
    /// Order of arrival.
    number: u32,
    /// Of [`SendQueue::pieces`].
    pieces: Range<u32>,
    /// Bytes of each datagram; the last of several may be shorter.
    datagram_len: u16,
    /// One datagram in one piece: it may travel with others.
    single: bool,
    /// Traffic class of all of them.
    class: u8,
}

impl Waiting {
    const fn key(socket: usize, vtep: usize, dst: u32) -> u64 {
        (socket as u64) << 48 | (vtep as u64) << 32 | dst as u64
    }

    const fn socket(&self) -> usize {
        (self.key >> 48) as usize
    }

    const fn vtep(&self) -> usize {
        (self.key >> 32 & 0xffff) as usize
    }
}

impl std::fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendQueue")
            .field("waiting", &self.waiting.len())
            .field("slots_used", &self.slots_used)
            .field("headers_used", &self.headers_used)
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

impl SendQueue {
    /// Without `segment` the kernel is never asked to segment (`UDP_SEGMENT`).
    pub(crate) fn new(
        sockets: Vec<VxlanSocket>,
        segment: bool,
        dscp: Dscp,
        shared: Arc<Shared>,
    ) -> Self {
        let batches = sockets
            .iter()
            .map(|_| SendBatch::with_capacity(MAX_FRAMES, MAX_PIECES))
            .collect();
        Self {
            sockets,
            batches,
            slots: vec![0; SLOTS_LEN].into_boxed_slice(),
            slots_used: 0,
            headers: vec![0; HEADERS_LEN].into_boxed_slice(),
            headers_used: 0,
            segments: vec![Segment::default(); MAX_SEGMENTS],
            waiting: Vec::with_capacity(MAX_WAITING),
            pieces: Vec::with_capacity(MAX_PIECES),
            vteps: Vec::with_capacity(MAX_FRAMES),
            segment,
            again: SendBatch::with_capacity(0, 0),
            shared,
            ident: 0,
            dscp,
        }
    }

    /// Bytes of the slot that the next frame is read into, virtio header first, as a range for
    /// [`Self::bytes`].
    pub(crate) fn free_slot(&mut self, counters: &WorkerCounters) -> Range<usize> {
        if self.slots_used + SLOT_LEN > SLOTS_LEN
            || self.waiting.len() + MAX_SEGMENTS > MAX_WAITING
            || self.pieces.len() + 2 * MAX_SEGMENTS > MAX_PIECES
            || self.headers_used + gso::arena_len(vxlan::HEADER_LEN) > HEADERS_LEN
        {
            self.flush(counters);
        }
        self.slots_used..self.slots_used + SLOT_LEN
    }

    /// Keeps the bytes of the slot last handed out, up to `end`, until the flush.
    pub(crate) fn keep_slot(&mut self, end: usize) {
        self.slots_used = end.next_multiple_of(64);
    }

    pub(crate) fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.slots[range]
    }

    /// The same, to look at.
    pub(crate) fn peek(&self, range: Range<usize>) -> &[u8] {
        &self.slots[range]
    }

    /// The port that frames of a flow leave from.
    pub(crate) fn source_port(&self, flow: &FiveTuple) -> u16 {
        let socket = usize::from(flow::entropy_port(flow)) % self.sockets.len();
        self.sockets[socket].local_addr().port()
    }

    /// Queues the frame at `frame` (bytes of the slots, behind the room of a virtio header) for
    /// `vtep`. A super-frame is injected whole or split into segments that share one send; an
    /// unfinished checksum is finished. The answer says whether the slot holds bytes that wait.
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
        counters: &WorkerCounters,
    ) -> Result<Slot, DropReason> {
        let mut outer = [0; vxlan::HEADER_LEN];
        vxlan::emit(vni, &mut outer);
        let socket = info.map_or(0, |i| {
            usize::from(flow::entropy_port(&flow::path_tuple(i))) % self.sockets.len()
        });
        let class = ecn::outer_class(&self.slots[frame.clone()], self.dscp);
        let single = vnet.gso_type == weft_wire::vnet::GSO_NONE;
        if !single
            && self.inject(
                vni,
                (socket, vtep, class),
                vnet,
                info,
                frame.clone(),
                counters,
            )?
        {
            return Ok(Slot::Free);
        }
        let dst = info.map_or(0, |i| last_word(i.dst));
        let key = Waiting::key(socket, self.vtep(vtep), dst);
        if single {
            if vnet.needs_csum() {
                gso::finish_single(&mut self.slots[frame.clone()], vnet, info)?;
            }
            // The virtio header has been read: its room takes the VXLAN header.
            let packet = frame.start - outer.len()..frame.end;
            self.slots[packet.start..frame.start].copy_from_slice(&outer);
            let len = packet.len();
            self.pieces.push(Slice {
                arena: SLOT_ARENA,
                range: packet,
            });
            self.wait(key, 1, (len, class), true);
            return Ok(Slot::Kept);
        }
        let info = info.ok_or(DropReason::BadOffload)?;
        let start = self.headers_used;
        let headers = &mut self.headers[start..];
        let bytes = &self.slots[frame.clone()];
        let split = gso::split(bytes, vnet, info, &outer, headers, &mut self.segments)?;
        let per_send = if self.segment {
            (MAX_DATAGRAM_LEN / split.segment_len).clamp(1, SEGMENTS_PER_SEND)
        } else {
            1
        };
        for first in (0..split.count).step_by(per_send) {
            let train = &self.segments[first..split.count.min(first + per_send)];
            for segment in train {
                let (h, p) = (&segment.header, &segment.payload);
                self.pieces.push(Slice {
                    arena: HEADER_ARENA,
                    range: start + h.start as usize..start + h.end as usize,
                });
                self.pieces.push(Slice {
                    arena: SLOT_ARENA,
                    range: frame.start + p.start as usize..frame.start + p.end as usize,
                });
                self.headers_used = start + h.end as usize;
            }
            let pieces = 2 * train.len();
            self.wait(key, pieces, (split.segment_len, class), false);
        }
        Ok(Slot::Kept)
    }

    /// Sends a super-frame through the injector; false when it cannot go that way.
    fn inject(
        &mut self,
        vni: Vni,
        (socket, vtep, class): (usize, SocketAddr, u8),
        vnet: &VnetHdr,
        info: Option<&IpInfo>,
        frame: Range<usize>,
        counters: &WorkerCounters,
    ) -> Result<bool, DropReason> {
        let (true, SocketAddr::V4(vtep)) = (self.shared.injector.get().is_some(), vtep) else {
            return Ok(false);
        };
        let Some(info) = info.filter(|i| i.proto == TCP) else {
            return Ok(false);
        };
        if self.shared.segment_for.load().contains(vtep.ip()) {
            return Ok(false);
        }
        // What its flow sent before leaves before, and from the same port.
        self.flush_waiting(counters);
        let Some(injector) = self.shared.injector.get() else {
            return Ok(false);
        };
        let src_port = self.sockets[socket].local_addr().port();
        let bytes = &self.slots[frame.start..frame.start + info.len];
        self.ident = self.ident.wrapping_add(MAX_SEGMENTS as u16);
        let marks = (self.ident, class);
        match injector.send(vni, (src_port, vtep), marks, (vnet, info), bytes) {
            Ok(()) => {
                counters.injected.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Err(DropReason::BadOffload) => Ok(false),
            Err(reason) => Err(reason),
        }
    }

    /// Number of a VTEP in this round.
    fn vtep(&mut self, vtep: SocketAddr) -> usize {
        self.vteps
            .iter()
            .rposition(|v| *v == vtep)
            .unwrap_or_else(|| {
                self.vteps.push(vtep);
                self.vteps.len() - 1
            })
    }

    /// Makes the last `pieces` pieces wait.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "numbers of pieces are bounded by MAX_PIECES, and no datagram is longer than 64 KiB"
    )]
    fn wait(&mut self, key: u64, pieces: usize, (datagram_len, class): (usize, u8), single: bool) {
        let end = self.pieces.len();
        self.waiting.push(Waiting {
            key,
            number: self.waiting.len() as u32,
            pieces: (end - pieces) as u32..end as u32,
            datagram_len: datagram_len as u16,
            single,
            class,
        });
    }

    /// Sends everything that waits and frees all slots.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) {
        self.flush_waiting(counters);
        self.slots_used = 0;
        self.headers_used = 0;
    }

    /// Sends everything that waits; its slots stay.
    fn flush_waiting(&mut self, counters: &WorkerCounters) {
        if self.waiting.is_empty() {
            return;
        }
        // Frames of many flows come mixed. Sorted they make long trains, and keep their order
        // within a key.
        self.waiting.sort_unstable_by_key(|w| (w.key, w.number));
        let mut rest = &self.waiting[..];
        while let Some((first, _)) = rest.split_first() {
            let (train, others) = rest.split_at(self.train_len(rest));
            let batch = &mut self.batches[first.socket()];
            let mut datagrams = 0;
            for waiting in train {
                let pieces =
                    &self.pieces[waiting.pieces.start as usize..waiting.pieces.end as usize];
                datagrams += if waiting.single { 1 } else { pieces.len() / 2 };
                for piece in pieces {
                    batch.piece(piece.arena, piece.range.clone());
                }
            }
            let gso_size = (datagrams > 1).then_some(first.datagram_len);
            batch.push_in_class(self.vteps[first.vtep()], gso_size, first.class);
            rest = others;
        }
        self.send(counters);
        self.waiting.clear();
        self.pieces.clear();
        self.vteps.clear();
    }

    /// How many of `waiting`, from the first on, leave in one segmented send: datagrams of one
    /// length, and perhaps a shorter one at the end.
    fn train_len(&self, waiting: &[Waiting]) -> usize {
        let first = &waiting[0];
        if !first.single || !self.segment {
            return 1;
        }
        let len = usize::from(first.datagram_len);
        let most = (MAX_DATAGRAM_LEN / len).clamp(1, SEGMENTS_PER_SEND);
        let alike = |w: &&Waiting| w.key == first.key && w.single && w.class == first.class;
        let equal = waiting
            .iter()
            .take(most)
            .take_while(alike)
            .take_while(|w| w.datagram_len == first.datagram_len)
            .count();
        let shorter = equal < most
            && waiting
                .get(equal)
                .filter(alike)
                .is_some_and(|w| w.datagram_len < first.datagram_len);
        equal + usize::from(shorter)
    }

    fn send(&mut self, counters: &WorkerCounters) {
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
    }
}

/// What the kernel's steering program looks at: datagrams that differ in it may belong to
/// different workers of the receiver, and a segmented send is steered whole.
fn last_word(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            u32::from_be_bytes([a, b, c, d])
        }
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
    let Some((vtep, _, class)) = batch.message(message) else {
        return;
    };
    // `SendQueue::push` makes a header and a payload for each segment of a super-frame, in turn, and
    // one piece for any other frame.
    let pieces = batch.message_pieces(message);
    let each = match pieces.first() {
        Some(first) if first.arena == HEADER_ARENA => 2,
        _ => 1,
    };
    for segment in pieces.chunks(each) {
        for piece in segment {
            again.piece(piece.arena, piece.range.clone());
        }
        again.push_in_class(vtep, None, class);
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
