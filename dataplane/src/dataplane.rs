//! What the agent holds of the running workers: by it they are fed, asked and stopped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use weft_fastpath::FlowCache;
use weft_sys::clock::monotonic_nanos;
use weft_sys::udp::worker_for;
use weft_wire::Instant;
use weft_wire::loopback::Loopback;

use crate::capture::CaptureFilter;
use crate::capture_reader::{CaptureBusy, CaptureReader};
use crate::counters::WorkerCounters;
use crate::handover::{HeardLoopback, LoopbackQuestion, NODE_FRAME_LEN, NodeFrame};
use crate::inject::{InjectError, Prices};
use crate::listing::FlowListing;
use crate::selftest::{self, SelfTest, Verdict};
use crate::shared::Shared;
use crate::shortcut::{FastPathError, UnderlayRoute};
use crate::snapshot::Snapshot;
use crate::way_out::{TunnelOffload, WayOut};

/// The running workers.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) self_tests_running: Vec<JoinHandle<()>>,
    pub(crate) local: SocketAddr,
    pub(crate) injection: Arc<OnceLock<Result<Option<Prices>, InjectError>>>,
    pub(crate) tunnel_offload: TunnelOffload,
    pub(crate) fast_path: Arc<OnceLock<Result<(), FastPathError>>>,
    pub(crate) self_tests: Vec<SelfTest>,
    pub(crate) receive_buffer: usize,
    pub(crate) segment: bool,
    pub(crate) journal: JournalTrouble,
}

/// What went wrong with the records of flows.
#[derive(Debug, Default)]
pub(crate) struct JournalTrouble {
    /// A worker has no file.
    pub(crate) failed: Option<std::io::Error>,
    /// Records that there was no room for.
    pub(crate) left_out: Arc<AtomicU64>,
}

impl Dataplane {
    /// What came of [`Config::tunnel_offload`](crate::Config::tunnel_offload): nothing while the
    /// self-test runs or when it was not asked for, else success or why super-frames are segmented in
    /// this process.
    #[must_use]
    pub fn injection(&self) -> Option<Result<(), &InjectError>> {
        self.injection.get().map(|r| r.as_ref().map(|_| ()))
    }

    /// What super-frames cost by the injector and by `UDP_SEGMENT`: nothing while the self-test runs,
    /// and where they could not be compared.
    #[must_use]
    pub fn prices(&self) -> Option<Prices> {
        self.injection.get()?.as_ref().ok().copied().flatten()
    }

    /// Whether super-frames are to leave as segments made here where the devices on the way segment
    /// tunnels and datagrams alike: it measured cheaper, and nobody asked for the other way.
    #[must_use]
    pub fn segments_are_cheaper(&self) -> bool {
        self.way_out().segments_are_cheaper()
    }

    /// The way that TCP super-frames take where the devices allow both, and why, for people.
    #[must_use]
    pub fn choice(&self) -> String {
        self.way_out().told()
    }

    fn way_out(&self) -> WayOut {
        let tested = self.injection.get();
        WayOut {
            asked: self.tunnel_offload,
            segment: self.segment,
            tested: tested.map(|found| found.as_ref().copied().map_err(|_| ())),
        }
    }

    /// Says to which nodes super-frames leave as segments made here although the injector works: a
    /// device on the way there does not segment tunnels, so the kernel would, at a higher price; or
    /// it segments both, and [`Self::segments_are_cheaper`].
    pub fn segment_for(&self, vteps: impl IntoIterator<Item = IpAddr>) {
        let v4 = vteps.into_iter().filter_map(|vtep| match vtep {
            IpAddr::V4(v4) => Some(v4),
            // Nothing is injected for them.
            IpAddr::V6(_) => None,
        });
        self.shared.segment_for.store(Arc::new(v4.collect()));
    }

    /// What came of [`Config::fast_path`](crate::Config::fast_path): nothing while the programs are
    /// loaded and tested or when it was not asked for, else success or why every packet is carried
    /// by this process.
    #[must_use]
    pub fn fast_path(&self) -> Option<Result<(), &FastPathError>> {
        self.fast_path.get().map(|r| r.as_ref().copied())
    }

    /// The programs, to be put in front of devices; nothing as long as [`Self::fast_path`] is no
    /// success.
    #[must_use]
    pub fn flow_cache(&self) -> Option<&FlowCache> {
        self.shared.fast_path.get().map(|kernel| &kernel.cache)
    }

    /// Says by which ways packets reach other nodes. Flows to a VTEP without one take no shortcut,
    /// and when a way changes, every entry is stale at once. To be said again when the answer of
    /// [`Self::flow_cache`] is there.
    pub fn set_underlay_routes(&self, routes: impl IntoIterator<Item = (Ipv4Addr, UnderlayRoute)>) {
        if let Some(kernel) = self.shared.fast_path.get() {
            kernel.set_routes(routes);
        }
    }

    /// Says whether the device of the second port is there
    /// ([`FlowCache::attach_sink`](weft_fastpath::FlowCache::attach_sink)), and up. Without it,
    /// connections through published ports to replicas of other nodes take no shortcut, as their
    /// answers could not. To be said again each second: false while answers do not come by that device,
    /// as those of a connection have not for some seconds; ten minutes later it is tried again.
    pub fn set_decapsulation(&self, on: bool) -> bool {
        let kernel = self.shared.fast_path.get();
        kernel.is_none_or(|kernel| kernel.set_decapsulation(on, Instant(monotonic_nanos())))
    }

    /// The agent lives: what the kernel carries goes on for
    /// [`Heartbeat::LIFE`](weft_fastpath::Heartbeat::LIFE) without another call.
    pub fn beat(&self) {
        if let Some(kernel) = self.shared.fast_path.get() {
            kernel.beat(&self.shared.capture);
        }
    }

    /// Where VXLAN datagrams are received.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The worker that a port with this address belongs to.
    #[must_use]
    pub fn worker_for(&self, ip: IpAddr) -> usize {
        worker_for(ip, self.threads.len())
    }

    /// What was tested before the data plane started, and the way that TCP super-frames go.
    #[must_use]
    pub fn self_tests(&self) -> Vec<SelfTest> {
        let injection = self.injection.get().map(|found| match found {
            Ok(_) => (
                Verdict::Passed,
                "the kernel segments TCP together with its VXLAN headers".to_owned(),
            ),
            Err(why) => (
                Verdict::Failed,
                format!("TCP is segmented in this process: {why}"),
            ),
        });
        let injection = injection.map(|(verdict, reason)| SelfTest {
            name: selftest::TUNNEL_OFFLOAD,
            verdict,
            reason,
        });
        self.self_tests.iter().cloned().chain(injection).collect()
    }

    /// The way that super-frames take to other nodes, for people. A worker that the kernel refuses
    /// later counts it (`WorkerCounters::unsegmented`).
    #[must_use]
    pub fn path(&self) -> &'static str {
        if matches!(self.injection(), Some(Ok(()))) && !self.segments_are_cheaper() {
            "TCP super-frames to other nodes leave whole, with their tunnel headers"
        } else if self.segment {
            "super-frames to other nodes leave as segmented datagrams (UDP_SEGMENT)"
        } else {
            "super-frames to other nodes leave as single datagrams: UDP_SEGMENT is not used"
        }
    }

    /// Receive buffer of the smallest VXLAN socket, in bytes as the kernel accounts for them.
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Why flows do not outlive this process, or not all of them; nothing when they do, or were not
    /// meant to.
    #[must_use]
    pub fn journal_trouble(&self) -> Option<String> {
        let left_out = self.journal.left_out.load(Ordering::Relaxed);
        match &self.journal.failed {
            Some(error) => Some(error.to_string()),
            None if left_out > 0 => Some("there is no room for more of them".to_owned()),
            None => None,
        }
    }

    /// False when a worker thread has ended: its epoll set failed, or it panicked. Its ports forward
    /// nothing then, so the agent should say why and end.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Swaps the tables. Workers take them up at their next round, at once when they sleep.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.shared.snapshot.store(snapshot);
        if let Some(kernel) = self.shared.fast_path.get() {
            kernel.tell(&self.shared.snapshot);
        }
        for inbox in &self.shared.inboxes {
            inbox.wakeup.notify();
        }
    }

    /// True when every worker uses the tables that were published last: nothing is forwarded by
    /// older ones any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let epoch = self.shared.snapshot.load().epoch;
        let mut counters = self.shared.counters.iter();
        counters.all(|worker| worker.epoch.load(Ordering::Acquire) == epoch)
    }

    /// The tables in use.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Copies frames for the returned reader until it is dropped; one capture at a time.
    ///
    /// # Errors
    /// [`CaptureBusy`].
    pub fn capture(&self, filter: CaptureFilter) -> Result<CaptureReader, CaptureBusy> {
        CaptureReader::start(Arc::clone(&self.shared), filter)
    }

    /// Sends a frame from the node's own address on the ingress network, as a replica's answer to
    /// it comes back by [`Self::receive_for_node`]. False when it is too long or there is no room.
    pub fn send_from_node(&self, frame: &[u8]) -> bool {
        let worker = self.shared.snapshot.load().mesh_worker();
        let inbox = worker.and_then(|worker| self.shared.inboxes.get(worker));
        let (Some(inbox), Some(frame)) = (inbox, NodeFrame::new(frame)) else {
            return false;
        };
        let sent = inbox.from_node.push(frame).is_ok();
        inbox.wakeup.notify();
        sent
    }

    /// The next answer to a frame that the node sent, read into `frame`; its length.
    pub fn receive_for_node(&self, frame: &mut [u8; NODE_FRAME_LEN]) -> Option<usize> {
        let received = self.shared.for_node.pop()?;
        let bytes = received.bytes();
        frame.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(bytes.len())
    }

    /// Sends a loopback message to the node behind `vtep`, by the socket and in the form of all
    /// frames to it. False when there is no room.
    pub fn send_loopback(&self, vtep: IpAddr, said: Loopback) -> bool {
        self.ask_loopback(LoopbackQuestion {
            vtep,
            port: None,
            said,
        })
    }

    /// As [`Self::send_loopback`], to another port of that node: its second one
    /// ([`UnderlayRoute::second_port`]). The answer comes by the data path's.
    pub fn send_loopback_to(&self, at: SocketAddr, said: Loopback) -> bool {
        self.ask_loopback(LoopbackQuestion {
            vtep: at.ip(),
            port: Some(at.port()),
            said,
        })
    }

    fn ask_loopback(&self, question: LoopbackQuestion) -> bool {
        let Some(inbox) = self.shared.inboxes.first() else {
            return false;
        };
        let sent = inbox.loopbacks.push(question).is_ok();
        inbox.wakeup.notify();
        sent
    }

    /// The next message of another node that is kept for the agent.
    pub fn receive_loopback(&self) -> Option<HeardLoopback> {
        self.shared.heard.pop()
    }

    /// Asks every worker for its flows.
    #[must_use]
    pub fn flows(&self) -> FlowListing {
        FlowListing::ask(&self.shared)
    }

    /// Counters, one of each worker.
    #[must_use]
    pub fn counters(&self) -> &[WorkerCounters] {
        &self.shared.counters
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for inbox in &self.shared.inboxes {
            inbox.wakeup.notify();
        }
        for thread in self
            .threads
            .drain(..)
            .chain(self.self_tests_running.drain(..))
        {
            if thread.join().is_err() {
                tracing::error!("a thread of the data plane panicked");
            }
        }
    }
}
