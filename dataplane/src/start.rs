//! Starting the workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weft_mesh::{Claims, FlowConfig, FlowTable};
use weft_sys::udp::{BindError, VxlanSocket};

use crate::config::Config;
use crate::dataplane::{Dataplane, JournalTrouble};
use crate::event_loop::EventLoop;
use crate::inject::{InjectError, Injector};
use crate::journal::FileJournal;
use crate::place::{Place, Places};
use crate::selftest::{self, SelfTest};
use crate::send_queue::TX_SOCKETS;
use crate::shared::Shared;
use crate::shortcut::Kernel;
use crate::spin::Spin;
use crate::wake_price;
use crate::way_out::TunnelOffload;
use crate::worker::{Parts, Worker};

/// Longest idle time of datagrams that nobody answered.
const UNANSWERED_IDLE: Duration = Duration::from_secs(30);

/// The turns that workers ask the scheduler for, the shortest that it gives: a worker whose packet
/// comes goes before a program that computes. See `spin.rs`.
const SLICE: Duration = Duration::from_micros(100);

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
            tunnel_offload: TunnelOffload::Off,
            ..config.clone()
        };
        Self::start_with(&config, Vec::new(), false)
    }

    fn start_with(
        config: &Config,
        self_tests: Vec<SelfTest>,
        segment: bool,
    ) -> Result<Self, StartError> {
        let workers = config.workers.max(1);
        let sockets = VxlanSocket::bind_group(config.underlay, workers)?;
        for socket in &sockets {
            socket.refuse_from(&config.refused_interfaces)?;
        }
        let buffers = sockets.iter().map(VxlanSocket::recv_buffer_len);
        let receive_buffer = buffers.collect::<Result<Vec<_>, _>>()?.into_iter().min();
        let local = sockets[0].local_addr();
        let mut plane = Self {
            shared: Arc::new(Shared::new(workers, local)?),
            threads: Vec::with_capacity(workers),
            self_tests_running: Vec::new(),
            local,
            fast_path: Arc::default(),
            injection: Arc::default(),
            tunnel_offload: config.tunnel_offload,
            self_tests,
            receive_buffer: receive_buffer.unwrap_or(0),
            segment,
            journal: JournalTrouble::default(),
        };
        let cpus = weft_sys::affinity::allowed()?;
        let homes: Vec<usize> = (0..workers).map(|i| cpus[i % cpus.len()]).collect();
        let spins = spins(config.spin, &homes);
        let claims = Arc::new(Claims::new(config.seed));
        let places = Arc::new(Places::new(cpus));
        let homes = homes.into_iter().zip(spins);
        for (index, (underlay, (home, spin))) in sockets.into_iter().zip(homes).enumerate() {
            let worker = plane.worker(config, index, underlay, &claims)?;
            plane.start_worker(worker, spin, Place::new(Arc::clone(&places), home))?;
        }
        if config.tunnel_offload != TunnelOffload::Off {
            plane.prepare_injection()?;
        }
        if config.fast_path {
            plane.prepare_fast_path()?;
        }
        Ok(plane)
    }

    /// A worker that receives by `underlay`, with the flows that an earlier process left it.
    fn worker(
        &mut self,
        config: &Config,
        index: usize,
        underlay: VxlanSocket,
        claims: &Arc<Claims>,
    ) -> Result<Worker, StartError> {
        let senders = (0..TX_SOCKETS)
            .map(|_| VxlanSocket::bind(SocketAddr::new(config.underlay.ip(), 0)))
            .collect::<Result<_, _>>()?;
        let mut flows = FlowTable::new(FlowConfig {
            worker: u16::try_from(index).unwrap_or(u16::MAX),
            capacity: config.flows,
            seed: config.seed ^ index as u64,
            udp_idle: config.udp_idle.min(UNANSWERED_IDLE),
            udp_answered_idle: config.udp_idle,
            claims: Arc::clone(claims),
            ..FlowConfig::default()
        });
        let mut saved = Vec::new();
        if let Some(place) = &config.journal {
            let which = (index, self.shared.inboxes.len());
            let left_out = Arc::clone(&self.journal.left_out);
            match FileJournal::open(place, which, config.flows, left_out) {
                Ok((journal, records)) => {
                    saved = records;
                    flows.set_journal(Box::new(journal));
                }
                Err(error) => self.journal.failed = Some(error),
            }
        }
        Ok(Worker::new(Parts {
            index,
            shared: Arc::clone(&self.shared),
            underlay,
            senders,
            segment: self.segment,
            dscp: config.dscp,
            udp_coalesce: !selftest::failed(&self.self_tests, selftest::TAP_UDP),
            flows,
            saved,
        }))
    }

    /// Gives a worker a thread.
    fn start_worker(&mut self, worker: Worker, spin: Spin, place: Place) -> std::io::Result<()> {
        let index = worker.index;
        let event_loop = EventLoop::new(worker, spin, place)?;
        let thread = std::thread::Builder::new()
            .name(format!("weft-worker-{index}"))
            .spawn(move || {
                if let Err(error) = weft_sys::affinity::ask_for_slice(SLICE) {
                    tracing::info!(
                        worker = index, %error,
                        "the worker has turns of the usual length: it waits longer beside programs that compute"
                    );
                }
                event_loop.run();
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Loads the programs of the flow cache and tests them, beside the workers.
    fn prepare_fast_path(&mut self) -> std::io::Result<()> {
        let underlay = self.local.ip();
        let (shared, verdict) = (Arc::clone(&self.shared), Arc::clone(&self.fast_path));
        let thread = std::thread::Builder::new()
            .name("weft-fast-path".to_owned())
            .spawn(move || {
                let result = Kernel::open(underlay).map(|kernel| {
                    // What is published from here on is told by whoever publishes it.
                    let kernel = shared.fast_path.get_or_init(|| kernel);
                    kernel.tell(&shared.snapshot);
                    kernel.beat(&shared.capture);
                });
                match &result {
                    Ok(()) => tracing::info!("established flows are carried by the kernel"),
                    Err(reason) => {
                        tracing::info!(%reason, "all flows are carried by this process");
                    }
                }
                verdict.get_or_init(|| result);
            })?;
        self.self_tests_running.push(thread);
        Ok(())
    }

    /// Makes the injector and tests it, beside the workers: they must not wait for that when their
    /// ports do.
    fn prepare_injection(&mut self) -> std::io::Result<()> {
        let underlay = self.local.ip();
        let (shared, verdict) = (Arc::clone(&self.shared), Arc::clone(&self.injection));
        let thread = std::thread::Builder::new()
            .name("weft-self-test".to_owned())
            .spawn(move || {
                let opened = match underlay {
                    IpAddr::V4(src) => Injector::open(src),
                    IpAddr::V6(_) => Err(InjectError::Family),
                };
                let result = opened.map(|(injector, prices)| {
                    shared.injector.get_or_init(|| injector);
                    prices
                });
                match &result {
                    Ok(prices) => {
                        tracing::info!(?prices, "the kernel segments TCP with its tunnel headers");
                    }
                    Err(reason) => {
                        tracing::info!(%reason, "TCP super-frames are segmented in this process");
                    }
                }
                verdict.get_or_init(|| result);
            })?;
        self.self_tests_running.push(thread);
        Ok(())
    }
}

/// How the worker on each of `cpus` waits. Nothing is measured where nobody polls.
fn spins(limit: Duration, cpus: &[usize]) -> Vec<Spin> {
    let prices = if limit.is_zero() {
        vec![Duration::ZERO; cpus.len()]
    } else {
        let prices = wake_price::measure(cpus);
        tracing::info!(?cpus, ?prices, "what it costs to wake a worker");
        prices
    };
    let spins = prices.into_iter().map(|price| Spin::new(limit, price));
    spins.collect()
}
