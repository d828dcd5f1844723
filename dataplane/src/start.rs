//! Starting, feeding and stopping the workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_queue::ArrayQueue;
use hashbrown::HashMap;
use weft_mesh::{Claims, FlowConfig, FlowTable, ServicesBuilder};
use weft_sys::udp::{BindError, VxlanSocket, worker_for};
use weft_vxlan::SwitchBuilder;
use weft_wire::ecn::Dscp;

use crate::capture::{CaptureBusy, CaptureFilter, CaptureReader};
use crate::counters::WorkerCounters;
use crate::handover::Inbox;
use crate::inject::{InjectError, Injector};
use crate::journal::{FileJournal, JournalConfig};
use crate::loopback::LOOPBACKS;
use crate::node_frames::{NODE_FRAME_LEN, NODE_FRAMES, NodeFrame};
use crate::selftest::{self, SelfTest, Verdict};
use crate::send_queue::TX_SOCKETS;
use crate::snapshot::Snapshot;
use crate::worker::{Parts, Shared, Worker};

/// Longest idle time of datagrams that nobody answered.
const UNANSWERED_IDLE: Duration = Duration::from_secs(30);

/// How the data plane is set up; fixed while it runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of worker threads; at least one.
    pub workers: usize,
    /// Address and port that VXLAN datagrams are received on, in the calling thread's namespace.
    pub underlay: SocketAddr,
    /// Flows of one worker, at most.
    pub flows: usize,
    /// Idle time after which UDP flows end; those that nobody answered after 30 s at most.
    pub udp_idle: Duration,
    /// How long a worker that ran out of work looks for more before it sleeps; zero sleeps at once.
    pub spin: Duration,
    /// Send TCP super-frames through a TAP of the host where the kernel can segment them, tunnel and
    /// all, once a test of that has passed: [`Dataplane::injection`].
    pub inject: bool,
    /// Class of service of packets to other nodes.
    pub dscp: Dscp,
    /// Where flows outlive the process; nowhere when absent.
    pub journal: Option<JournalConfig>,
    /// Numbers of interfaces that nothing of the underlay comes by: what does is not received.
    pub refused_interfaces: Vec<u32>,
    /// Seed of hashes and random choices; drawn at random by the caller.
    pub seed: u64,
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A socket of the data path.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread, an epoll set or the steering program.
    #[error("cannot start the data plane: {0}")]
    Kernel(#[from] std::io::Error),
}

/// The running workers.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    self_test: Option<JoinHandle<()>>,
    local: SocketAddr,
    injection: Arc<OnceLock<Result<(), InjectError>>>,
    self_tests: Vec<SelfTest>,
    receive_buffer: usize,
    segment: bool,
    journal: JournalTrouble,
}

/// What went wrong with the records of flows.
#[derive(Debug, Default)]
struct JournalTrouble {
    /// A worker has no file.
    failed: Option<std::io::Error>,
    /// Records that there was no room for.
    left_out: Arc<AtomicU64>,
}

impl Dataplane {
    /// Binds the sockets and starts the workers, with empty tables.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_with(config, Vec::new(), true)
    }

    /// As [`Dataplane::start`], without what the self-tests found broken.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start_tested(config: &Config, found: Vec<SelfTest>) -> Result<Self, StartError> {
        let segment = !selftest::failed(&found, selftest::UDP_SEGMENT);
        Self::start_with(config, found, segment)
    }

    /// As [`Dataplane::start`], but the kernel is never asked to segment (`UDP_SEGMENT`): the mode
    /// that a worker falls back to by itself when the kernel refuses.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start_unsegmented(config: &Config) -> Result<Self, StartError> {
        let config = Config {
            inject: false,
            ..config.clone()
        };
        Self::start_with(&config, Vec::new(), false)
    }

    fn start_with(
        config: &Config,
        self_tests: Vec<SelfTest>,
        segment: bool,
    ) -> Result<Self, StartError> {
        let udp_coalesce = !selftest::failed(&self_tests, selftest::TAP_UDP);
        let workers = config.workers.max(1);
        let underlay = VxlanSocket::bind_group(config.underlay, workers)?;
        for socket in &underlay {
            socket.refuse_from(&config.refused_interfaces)?;
        }
        let local = underlay[0].local_addr();
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot {
                epoch: 0,
                switch: SwitchBuilder::new().build(),
                services: ServicesBuilder::new().build(),
                ports: HashMap::default(),
                mesh: None,
            }),
            inboxes: (0..workers)
                .map(|_| Inbox::new())
                .collect::<Result<_, _>>()?,
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            capture: ArcSwapOption::empty(),
            for_node: ArrayQueue::new(NODE_FRAMES),
            heard: ArrayQueue::new(LOOPBACKS),
            stop: AtomicBool::new(false),
            injector: OnceLock::new(),
            segment_for: ArcSwap::default(),
        });
        let buffers = underlay.iter().map(VxlanSocket::recv_buffer_len);
        let receive_buffer = buffers.collect::<Result<Vec<_>, _>>()?.into_iter().min();
        let mut plane = Self {
            shared,
            threads: Vec::with_capacity(workers),
            self_test: None,
            local,
            injection: Arc::default(),
            self_tests,
            receive_buffer: receive_buffer.unwrap_or(0),
            segment,
            journal: JournalTrouble::default(),
        };
        let cpus = weft_sys::affinity::allowed()?;
        let claims = Arc::new(Claims::new(config.seed));
        for (index, underlay) in underlay.into_iter().enumerate() {
            let senders = (0..TX_SOCKETS)
                .map(|_| VxlanSocket::bind(SocketAddr::new(config.underlay.ip(), 0)))
                .collect::<Result<_, _>>()?;
            let mut flows = FlowTable::new(FlowConfig {
                worker: u16::try_from(index).unwrap_or(u16::MAX),
                capacity: config.flows,
                seed: config.seed ^ index as u64,
                udp_idle: config.udp_idle.min(UNANSWERED_IDLE),
                udp_answered_idle: config.udp_idle,
                claims: Arc::clone(&claims),
                ..FlowConfig::default()
            });
            let mut saved = Vec::new();
            if let Some(place) = &config.journal {
                let left_out = Arc::clone(&plane.journal.left_out);
                match FileJournal::open(place, (index, workers), config.flows, left_out) {
                    Ok((journal, records)) => {
                        saved = records;
                        flows.set_journal(Box::new(journal));
                    }
                    Err(error) => plane.journal.failed = Some(error),
                }
            }
            let worker = Worker::new(Parts {
                index,
                shared: Arc::clone(&plane.shared),
                underlay,
                senders,
                segment,
                dscp: config.dscp,
                spin: config.spin,
                udp_coalesce,
                flows,
                saved,
            })?;
            let cpu = cpus[index % cpus.len()];
            let shared = Arc::clone(&plane.shared);
            let thread = std::thread::Builder::new()
                .name(format!("weft-worker-{index}"))
                .spawn(move || {
                    match weft_sys::affinity::pin(cpu) {
                        Ok(()) => {
                            let pinned = &shared.counters[index].cpu;
                            pinned.store(cpu as u64 + 1, Ordering::Relaxed);
                        }
                        Err(error) => tracing::warn!(cpu, %error, "the worker is not pinned"),
                    }
                    worker.run();
                })?;
            plane.threads.push(thread);
        }
        if config.inject {
            plane.prepare_injection(local.ip())?;
        }
        Ok(plane)
    }

    /// What came of [`Config::inject`]: nothing while the self-test runs or when it was not asked
    /// for, else success or why super-frames are segmented in this process.
    #[must_use]
    pub fn injection(&self) -> Option<Result<(), &InjectError>> {
        self.injection.get().map(|r| r.as_ref().copied())
    }

    /// Says to which nodes super-frames leave as segments made here although the injector works: the
    /// device on the way there does not segment tunnels, so the kernel would, at a higher price.
    pub fn segment_for(&self, vteps: impl IntoIterator<Item = IpAddr>) {
        let v4 = vteps.into_iter().filter_map(|vtep| match vtep {
            IpAddr::V4(v4) => Some(v4),
            // Nothing is injected for them.
            IpAddr::V6(_) => None,
        });
        self.shared.segment_for.store(Arc::new(v4.collect()));
    }

    /// Makes the injector and tests it, beside the workers: they must not wait for that when their
    /// ports do.
    fn prepare_injection(&mut self, underlay: IpAddr) -> std::io::Result<()> {
        let (shared, verdict) = (Arc::clone(&self.shared), Arc::clone(&self.injection));
        let thread = std::thread::Builder::new()
            .name("weft-self-test".to_owned())
            .spawn(move || {
                let opened = match underlay {
                    IpAddr::V4(src) => Injector::open(src),
                    IpAddr::V6(_) => Err(InjectError::Family),
                };
                let result = opened.map(|injector| {
                    shared.injector.get_or_init(|| injector);
                });
                match &result {
                    Ok(()) => tracing::info!("the kernel segments TCP with its tunnel headers"),
                    Err(reason) => {
                        tracing::info!(%reason, "TCP super-frames are segmented in this process");
                    }
                }
                verdict.get_or_init(|| result);
            })?;
        self.self_test = Some(thread);
        Ok(())
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
            Ok(()) => (
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
        if matches!(self.injection(), Some(Ok(()))) {
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
        for thread in self.threads.drain(..).chain(self.self_test.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the data plane panicked");
            }
        }
    }
}
