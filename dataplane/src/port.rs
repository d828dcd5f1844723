//! A port: one TAP in one sandbox, owned by one worker.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use weft_sys::tap::Tap;
use weft_wire::{DropReason, Mac, PortId, Vni};

use crate::capture::Fate;
use crate::counters::DropCounters;
use crate::shortcut::Shortcut;

/// Traffic of one port, seen from the sandbox: `tx` left it, `rx` reached it.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames from the sandbox (a super-frame counts once).
    pub tx_frames: AtomicU64,
    /// Bytes from the sandbox.
    pub tx_bytes: AtomicU64,
    /// Frames written into the sandbox (a super-frame counts once).
    pub rx_frames: AtomicU64,
    /// Bytes written into the sandbox.
    pub rx_bytes: AtomicU64,
    /// Frames from the sandbox that were not delivered, and frames for it that were not.
    pub drops: DropCounters,
}

impl PortCounters {
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_many(1, bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_many(1, bytes as u64);
    }

    pub(crate) fn sent_many(&self, frames: u64, bytes: u64) {
        self.tx_frames.fetch_add(frames, Ordering::Relaxed);
        self.tx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received_many(&self, frames: u64, bytes: u64) {
        self.rx_frames.fetch_add(frames, Ordering::Relaxed);
        self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A port and the identity that its frames must carry.
#[derive(Debug)]
pub struct Port {
    /// Never reused while the agent runs.
    pub id: PortId,
    /// Endpoint name, for people.
    pub name: Arc<str>,
    /// Network that the port belongs to.
    pub vni: Vni,
    /// The port's own Ethernet address.
    pub mac: Mac,
    /// The port's own addresses.
    pub ips: Vec<IpAddr>,
    /// The device.
    pub tap: Arc<Tap>,
    /// Index of the worker that reads it.
    pub worker: usize,
    /// Kept across snapshots.
    pub counters: Arc<PortCounters>,
    /// Set once programs stand in front of the sandbox's devices.
    pub shortcut: ArcSwapOption<Shortcut>,
}

impl Port {
    /// Counts what the kernel said to a frame of `bytes` for this port. One that it did not take is
    /// a drop of the port whose queue is full, whatever way it came: its sender did nothing wrong,
    /// and one behind another VTEP has no counters here.
    pub(crate) fn took(&self, written: &io::Result<usize>, bytes: usize) -> Fate {
        if written.is_ok() {
            self.counters.received(bytes);
            Fate::Incoming
        } else {
            self.counters.drops.add(DropReason::TapFull);
            Fate::Dropped(DropReason::TapFull)
        }
    }
}
