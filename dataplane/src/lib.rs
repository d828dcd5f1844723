//! The data plane: worker threads that read frames from TAPs and VXLAN sockets, ask the
//! pure cores (`weft-vxlan`, `weft-mesh`) for verdicts, and write the results out again.
//!
//! ```text
//!   TAP of a sandbox ──► egress ──► switch / balancer ──► TAP of another sandbox
//!                                         │
//!                                         └──► send queue ──► UDP 4789
//!   UDP 4789 ──► ingress ──► coalescer ──► switch / balancer ──► TAP of a sandbox
//! ```
//!
//! Each port is owned by one worker, so the frames of one flow are never reordered, and the
//! kernel steers VXLAN datagrams to the worker that owns the inner destination: both directions
//! of a client's flow meet the same flow table. Tables arrive as an immutable [`Snapshot`]; no
//! lock, allocation, clock read or log line happens for a single packet.

#![forbid(unsafe_code)]

mod capture;
mod capture_reader;
mod capture_taps;
mod company;
mod config;
mod counters;
mod dataplane;
mod deliver;
mod egress;
mod entries;
mod event_loop;
mod frame_slot;
mod handover;
mod ingress;
mod inject;
mod journal;
mod listing;
mod loopback;
mod loopback_budget;
mod node_frames;
mod place;
mod port;
mod rhythm;
pub mod selftest;
mod send_queue;
mod service_mtu;
mod shared;
mod shortcut;
mod snapshot;
mod spin;
mod start;
mod too_big;
mod wake_price;
mod way_out;
mod worker;

pub use capture::{CaptureFilter, Fate, Record, UNDERLAY};
pub use capture_reader::{CaptureBusy, CaptureReader};
pub use config::Config;
pub use counters::{DropCounters, WorkerCounters};
pub use dataplane::Dataplane;
pub use handover::{HeardLoopback, NODE_FRAME_LEN};
pub use inject::{DEVICE as SEGMENTING_DEVICE, InjectError, Prices};
pub use journal::JournalConfig;
pub use listing::FlowListing;
pub use port::{Port, PortCounters};
pub use selftest::{SelfTest, Verdict};
pub use shortcut::{FastPathError, FlowEpochs, Shortcut, UnderlayRoute};
pub use snapshot::{MeshAddresses, MeshPort, PortMap, Snapshot};
pub use start::StartError;
pub use way_out::TunnelOffload;
