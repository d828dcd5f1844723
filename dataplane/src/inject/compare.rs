//! Sends the same super-frames by both ways over the link of the self-test, and takes the time.
//!
//! That link is a veth, which takes both of them whole. So this compares what the ways cost up to a
//! device that does all the segmenting, and says nothing about a device that does only one kind: of
//! those the agent asks (`Dataplane::segment_for`).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use weft_sys::clock::{monotonic_nanos, thread_cpu_nanos};
use weft_sys::udp::{BindError, RecvBatch, SendBatch, VxlanSocket};
use weft_wire::gso::{self, MAX_SEGMENTS, Segment};
use weft_wire::{IpInfo, VnetHdr, Vni, vxlan};

use super::{Injector, Prices};

/// Pairs, each of as many super-frames by either way: 64 in all. Pairs alternate, so that what slows
/// the machine for a moment meets both.
const PAIRS: usize = 8;
const FRAMES: usize = 8;
/// The comparison takes no longer.
const TIME: Duration = Duration::from_millis(50);

const HEADERS: usize = 0;
const FRAME: usize = 1;

/// What is sent, and where to.
pub(super) struct Sample<'a> {
    pub(super) frame: &'a [u8],
    pub(super) vnet: &'a VnetHdr,
    pub(super) info: &'a IpInfo,
    pub(super) vni: Vni,
    pub(super) to: SocketAddrV4,
}

/// Both ways, and their common end.
struct Ways<'a> {
    injector: &'a Injector,
    sample: &'a Sample<'a>,
    sender: VxlanSocket,
    batch: SendBatch,
    headers: Vec<u8>,
    segments: Vec<Segment>,
    receiver: VxlanSocket,
    received: RecvBatch,
    deadline: u64,
}

/// Sends `sample` by both ways from this host, `near` its address on the link, to `receiver`. None
/// when one of them does not get through, as where a firewall is in its way, or the time is over.
///
/// # Errors
/// No socket can be bound on this side.
pub(super) fn compare(
    injector: &Injector,
    sample: &Sample<'_>,
    near: Ipv4Addr,
    receiver: VxlanSocket,
) -> Result<Option<Prices>, BindError> {
    let mut ways = Ways {
        injector,
        sample,
        sender: VxlanSocket::bind((near, 0).into())?,
        batch: SendBatch::with_capacity(1, 2 * MAX_SEGMENTS),
        headers: vec![0; gso::arena_len(vxlan::HEADER_LEN)],
        segments: vec![Segment::default(); MAX_SEGMENTS],
        receiver,
        received: RecvBatch::new(FRAMES),
        deadline: monotonic_nanos()
            .saturating_add(u64::try_from(TIME.as_nanos()).unwrap_or(u64::MAX)),
    };
    Ok(ways.pairs().and_then(|pairs| Prices::of(&pairs)))
}

impl Ways<'_> {
    /// Nanoseconds of both ways, injected first.
    fn pairs(&mut self) -> Option<Vec<(u64, u64)>> {
        // Memory and tables of the kernel are made by those that come first.
        self.injected()?;
        self.segmented()?;
        let mut pairs = Vec::with_capacity(PAIRS);
        for number in 0..PAIRS {
            pairs.push(if number % 2 == 0 {
                let injected = self.injected()?;
                (injected, self.segmented()?)
            } else {
                let segmented = self.segmented()?;
                (self.injected()?, segmented)
            });
            if monotonic_nanos() > self.deadline {
                break;
            }
        }
        Some(pairs)
    }

    fn injected(&mut self) -> Option<u64> {
        let Sample {
            frame,
            vnet,
            info,
            vni,
            to,
        } = *self.sample;
        let ports = (self.sender.local_addr().port(), to);
        let before = thread_cpu_nanos();
        for ident in 0..FRAMES {
            let marks = ((ident * MAX_SEGMENTS) as u16, 0);
            self.injector
                .send(vni, ports, marks, (vnet, info), frame)
                .ok()?;
        }
        let spent = thread_cpu_nanos().saturating_sub(before);
        let sent = FRAMES * (vxlan::HEADER_LEN + frame.len());
        self.arrives(sent).then_some(spent)
    }

    fn segmented(&mut self) -> Option<u64> {
        let Sample {
            frame,
            vnet,
            info,
            vni,
            to,
        } = *self.sample;
        let mut sent = 0;
        let before = thread_cpu_nanos();
        for _ in 0..FRAMES {
            let mut outer = [0; vxlan::HEADER_LEN];
            vxlan::emit(vni, &mut outer);
            let (headers, segments) = (&mut self.headers, &mut self.segments);
            let split = gso::split(frame, vnet, info, &outer, headers, segments).ok()?;
            for segment in &self.segments[..split.count] {
                let (header, payload) = (&segment.header, &segment.payload);
                let header = header.start as usize..header.end as usize;
                let payload = payload.start as usize..payload.end as usize;
                sent += header.len() + payload.len();
                self.batch.piece(HEADERS, header);
                self.batch.piece(FRAME, payload);
            }
            let segment_len = u16::try_from(split.segment_len).ok()?;
            self.batch.push(SocketAddr::V4(to), Some(segment_len));
            let report = self.batch.flush(&self.sender, &[&self.headers, frame]);
            if report.sent != 1 {
                return None;
            }
        }
        let spent = thread_cpu_nanos().saturating_sub(before);
        self.arrives(sent).then_some(spent)
    }

    /// Whether so many bytes come: what is dropped early is cheap.
    fn arrives(&mut self, bytes: usize) -> bool {
        let mut missing = bytes;
        while missing > 0 {
            let Ok(count) = self.received.recv(&self.receiver) else {
                return false;
            };
            if count == 0 {
                if monotonic_nanos() > self.deadline {
                    return false;
                }
                std::thread::yield_now();
            }
            for message in (0..count).filter_map(|i| self.received.message(i)) {
                missing = missing.saturating_sub(message.range.len());
            }
        }
        true
    }
}
