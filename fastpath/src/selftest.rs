//! Streams through the programs before they are trusted with flows of tasks: kernels differ in what
//! they let programs change, and nobody else would see what a program does to a packet.
//!
//! All is in namespaces made for it ([`bed`]), with entries, records and an epoch that no task has.

pub(crate) mod bed;
pub(crate) mod connection;
pub(crate) mod stream;

use std::io;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weft_sys::clock::monotonic_nanos;
use weft_sys::netlink::NetlinkError;
use weft_sys::netns::NetnsError;
use weft_wire::Instant;

pub use bed::Family;
pub use connection::Partner;
pub use stream::StreamError;

use crate::cache::{FlowCache, LoadError};
use crate::counters::Event;
use crate::installer::InstallError;
use crate::record::{Heartbeat, Traffic};
use bed::Bed;
use stream::Patience;

/// Numbers that the self-test's sandboxes have, and no other one may have.
pub const SELF_TEST_NUMBERS: RangeInclusive<u16> = NUMBERS[0]..=NUMBERS[1];

const NUMBERS: [u16; 2] = [65_534, 65_535];

/// One call of a socket. On one machine it takes microseconds; a busy machine may take longer.
const EACH: Duration = Duration::from_secs(1);
/// All of them.
const WHOLE: Duration = Duration::from_secs(3);

/// Bytes by which the programs learn whose flows they see.
const FIRST: usize = 10_000;
/// Bytes each way by the programs: enough for super-frames of full size.
const LEN: usize = 1_000_000;
/// No frame of one segment is larger.
const SEGMENT: u64 = 1_500;

/// What this kernel carries rightly; TCP over IPv4 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supported {
    /// TCP over IPv6 (Linux 6.3).
    pub ipv6: bool,
}

/// Why the programs are not to be trusted on this machine. Each message goes on a sentence such as
/// "fast path: user space, because".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// Local: no namespace.
    #[error("its self-test got no namespace: {0}")]
    Netns(#[from] NetnsError),
    /// Local: a device, an address or a program in front of a device.
    #[error("its self-test got no network: {0}")]
    Links(#[from] NetlinkError),
    /// Local: a setting of a device.
    #[error("its self-test cannot set net/{name}: {source}")]
    Setting {
        /// Path below `/proc/sys/net`.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: a thread or a socket.
    #[error("its self-test cannot work in its namespaces: {0}")]
    Kernel(#[from] io::Error),
    /// Local: the tables cannot be opened or read.
    #[error("its self-test cannot use its tables: {0}")]
    Tables(Box<LoadError>),
    /// Local: the tables cannot be written.
    #[error(transparent)]
    Entries(#[from] InstallError),
    /// Bytes did not arrive, or others.
    #[error("its self-test lost a stream of {family} to {partner}: {source}")]
    Stream {
        /// Of the stream.
        family: Family,
        /// Where the other sandbox was.
        partner: Partner,
        /// What happened.
        source: StreamError,
    },
    /// The kernel does not know what the programs ask it for.
    #[error("the kernel refuses to change tunnelled packets of {family}")]
    Refused {
        /// Of the packets.
        family: Family,
    },
    /// Entries that do not hold carried packets.
    #[error("its programs carry packets by entries that are stale")]
    Stale,
    /// Packets went past the programs.
    #[error("its programs do not carry what goes to {partner}")]
    Bypassed {
        /// Where the other sandbox was.
        partner: Partner,
    },
    /// Super-frames came as segments: slower than user space.
    #[error("the kernel cuts super-frames to {partner} before its programs have them")]
    Split {
        /// Where the other sandbox was.
        partner: Partner,
    },
}

impl From<LoadError> for SelfTestError {
    fn from(error: LoadError) -> Self {
        Self::Tables(Box::new(error))
    }
}

/// Sends streams through the programs, between nodes and within one, and compares every byte. Takes
/// tens of milliseconds, and 3 s at most; nothing stays. Any thread may ask, in any namespace.
///
/// # Errors
/// [`SelfTestError`]: all flows have to stay in user space. What goes wrong with IPv6 is no error.
pub fn run(cache: &FlowCache) -> Result<Supported, SelfTestError> {
    // Two at once would use the same entries.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _pulse = Pulse::new(&cache.heartbeat);
    let patience = Patience::new(EACH, WHOLE);
    let mut bed = Bed::new(cache)?;
    // Before IPv4 is tried: the kernel takes a moment until addresses of IPv6 work.
    let addressed = bed.add_ipv6();
    try_family(cache, &bed, Family::V4, patience)?;
    let ipv6 = addressed.and_then(|()| try_family(cache, &bed, Family::V6, patience));
    if let Err(error) = &ipv6 {
        tracing::info!(%error, "fast path: IPv6 stays in user space");
    }
    Ok(Supported { ipv6: ipv6.is_ok() })
}

fn try_family(
    cache: &FlowCache,
    bed: &Bed<'_>,
    family: Family,
    patience: Patience,
) -> Result<(), SelfTestError> {
    for partner in [Partner::OtherNode, Partner::SameNode] {
        try_stream(cache, bed, (family, partner), patience)?;
    }
    Ok(())
}

fn try_stream(
    cache: &FlowCache,
    bed: &Bed<'_>,
    (family, partner): (Family, Partner),
    patience: Patience,
) -> Result<(), SelfTestError> {
    let lost = |source| SelfTestError::Stream {
        family,
        partner,
        source,
    };
    let streams = bed.connect(family, patience).map_err(lost)?;
    let connection = match partner {
        // All that programs may change, in one: as a flow to a virtual address.
        Partner::OtherNode => bed.enter_rewritten(&streams)?,
        Partner::SameNode => bed.enter(&streams, partner)?,
    };
    // Stale entries carry nothing, but the programs see whose flows these are.
    stream::exchange(&streams, FIRST, patience).map_err(lost)?;
    let carried = connection.records().map(|record| record.traffic);
    if carried != [Traffic::default(); 2] {
        return Err(SelfTestError::Stale);
    }
    let failed = cache.events()?.get(Event::Failed);
    let is_refused = || {
        let events = cache.events();
        events.is_ok_and(|events| events.get(Event::Failed) > failed)
    };
    connection.turn_valid();
    if !bytes_arrive(&streams, patience, is_refused).map_err(lost)? {
        return Err(SelfTestError::Refused { family });
    }
    stream::exchange(&streams, LEN, patience).map_err(lost)?;
    for record in connection.records() {
        judge(&record.traffic, partner)?;
    }
    Ok(())
}

/// Sends one byte each way; false when that `is_in_vain`. A packet that the kernel refuses to change
/// is counted, so nobody waits until it is missed.
fn bytes_arrive(
    streams: &[TcpStream; 2],
    patience: Patience,
    is_in_vain: impl Fn() -> bool,
) -> Result<bool, StreamError> {
    let [near, far] = streams;
    for (from, to) in [(near, far), (far, near)] {
        stream::send(from, &[1], patience)?;
        if !stream::arrives(to, patience, &is_in_vain)? {
            return Ok(false);
        }
        stream::receive(to, &[1], patience)?;
    }
    Ok(true)
}

/// Whether nearly all bytes of a stream were carried, in super-frames.
fn judge(traffic: &Traffic, partner: Partner) -> Result<(), SelfTestError> {
    let out = (traffic.out_bytes, traffic.out_packets);
    let counted = match partner {
        Partner::OtherNode => [out, (traffic.in_bytes, traffic.in_packets)],
        // Within a node the sender alone counts.
        Partner::SameNode => [out; 2],
    };
    for (bytes, packets) in counted {
        if bytes < LEN as u64 / 10 * 9 {
            return Err(SelfTestError::Bypassed { partner });
        }
        if packets >= bytes / SEGMENT {
            return Err(SelfTestError::Split { partner });
        }
    }
    Ok(())
}

/// Lets entries hold while the self-test runs, and hardly longer should it never end.
struct Pulse<'a> {
    heartbeat: &'a Heartbeat,
    end: Instant,
    before: Instant,
}

impl<'a> Pulse<'a> {
    fn new(heartbeat: &'a Heartbeat) -> Self {
        let end = Instant(monotonic_nanos()).after(WHOLE + EACH);
        Self {
            heartbeat,
            end,
            before: heartbeat.prolong(end),
        }
    }
}

impl Drop for Pulse<'_> {
    fn drop(&mut self) {
        self.heartbeat.take_back(self.end, self.before);
    }
}

#[cfg(test)]
mod tests;
