//! Starting the workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_queue::ArrayQueue;
use hashbrown::HashMap;
use weft_mesh::{Claims, FlowConfig, FlowTable, ServicesBuilder};
use weft_sys::udp::{BindError, VxlanSocket};
use weft_vxlan::SwitchBuilder;
use weft_wire::ecn::Dscp;

use crate::counters::WorkerCounters;
use crate::dataplane::{Dataplane, JournalTrouble};
use crate::handover::{Inbox, LOOPBACKS, NODE_FRAMES};
use crate::inject::{InjectError, Injector};
use crate::journal::{FileJournal, JournalConfig};
use crate::selftest::{self, SelfTest};
use crate::send_queue::TX_SOCKETS;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::worker::{Parts, Worker};

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
}
