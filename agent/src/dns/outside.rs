//! The way to the host's resolvers: one forwarding machine with its sockets and its clock.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant as Clock;
use weft_dns::{Action, Forwarder, ForwarderConfig, Reply, Tenant, Token, Transmit, Transport};
use weft_wire::Instant;

use super::stats::{Counters, add};

/// The forwarder of the node. Sockets are opened in the namespace of the agent, so that loopback
/// resolvers of the host work.
#[derive(Debug)]
pub(super) struct Outside {
    core: Mutex<Core>,
    /// Wakes the task that waits for deadlines.
    sooner: Notify,
    start: Clock,
    has_upstream: AtomicBool,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Core {
    forwarder: Forwarder,
    rng: StdRng,
    next_token: u64,
    waiting: HashMap<Token, oneshot::Sender<Reply>>,
    tries: HashMap<TryId, AbortHandle>,
    /// For when the deadline task has set its alarm.
    alarm: Option<Instant>,
}

type TryId = (SocketAddr, Transport, u16);

impl Outside {
    pub(super) fn new(upstreams: &[SocketAddr], counters: Arc<Counters>) -> Self {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).expect("the kernel gives random bytes");
        let forwarder = Forwarder::new(upstreams, ForwarderConfig::default());
        Self {
            has_upstream: AtomicBool::new(forwarder.has_upstream()),
            core: Mutex::new(Core {
                forwarder,
                rng: StdRng::from_seed(seed),
                next_token: 0,
                waiting: HashMap::new(),
                tries: HashMap::new(),
                alarm: None,
            }),
            sooner: Notify::new(),
            start: Clock::now(),
            counters,
        }
    }

    pub(super) fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        let mut core = self.lock();
        core.forwarder.set_upstreams(upstreams);
        let known = core.forwarder.has_upstream();
        self.has_upstream.store(known, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn upstreams(&self) -> Vec<SocketAddr> {
        self.lock().forwarder.upstreams().collect()
    }

    pub(super) fn has_upstream(&self) -> bool {
        self.has_upstream.load(Ordering::Relaxed)
    }

    pub(super) fn cached(&self) -> usize {
        self.lock().forwarder.cached()
    }

    /// Forwards a query of sandbox `tenant`. The receiver yields its reply within four seconds; dropping it only
    /// means that nobody is told. `None` when the bytes are no query.
    pub(super) fn ask(
        self: &Arc<Self>,
        tenant: Tenant,
        query: &[u8],
        transport: Transport,
    ) -> Option<oneshot::Receiver<Reply>> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.lock();
        let token = Token(core.next_token);
        core.next_token += 1;
        let seed = core.rng.next_u64();
        core.forwarder
            .query(self.now(), (token, tenant), query, transport, seed)
            .ok()?;
        core.waiting.insert(token, sender);
        self.perform(&mut core);
        Some(receiver)
    }

    /// Calls the machine when a deadline passes. Runs until it is aborted.
    pub(super) async fn keep_deadlines(self: Arc<Self>) {
        loop {
            let due = {
                let mut core = self.lock();
                core.alarm = core.forwarder.next_deadline();
                core.alarm
            };
            match due {
                None => self.sooner.notified().await,
                Some(due) => {
                    let at = self.start + due.since(Instant::default());
                    tokio::select! {
                        () = self.sooner.notified() => {}
                        () = tokio::time::sleep_until(at) => {
                            let mut core = self.lock();
                            core.forwarder.handle_deadline(self.now());
                            self.perform(&mut core);
                        }
                    }
                }
            }
        }
    }

    /// Does what the machine wants. Tasks started here need the lock to report, so they are in
    /// the table before they can end.
    fn perform(self: &Arc<Self>, core: &mut Core) {
        while let Some(action) = core.forwarder.poll_action() {
            match action {
                Action::Send(transmit) => {
                    let id = (transmit.upstream, transmit.transport, transmit.id);
                    let task = tokio::spawn(Arc::clone(self).run_try(transmit));
                    core.tries.insert(id, task.abort_handle());
                }
                Action::Close {
                    upstream,
                    transport,
                    id,
                } => {
                    if let Some(task) = core.tries.remove(&(upstream, transport, id)) {
                        task.abort();
                    }
                }
                Action::Reply { token, reply } => {
                    let client = core.waiting.remove(&token);
                    if client.is_some_and(|client| client.send(reply).is_err()) {
                        add(&self.counters.dropped);
                    }
                }
            }
        }
        let next = core.forwarder.next_deadline();
        if next.is_some_and(|next| core.alarm.is_none_or(|alarm| next < alarm)) {
            core.alarm = next;
            self.sooner.notify_one();
        }
    }

    /// Sends one message and waits for what comes back, until the machine closes the try.
    async fn run_try(self: Arc<Self>, transmit: Transmit) {
        let result = match transmit.transport {
            Transport::Udp => self.try_udp(&transmit).await,
            Transport::Tcp => self.try_tcp(&transmit).await,
        };
        if let Err(error) = result {
            tracing::debug!(upstream = %transmit.upstream, %error, "resolver of the host failed");
            let mut core = self.lock();
            let Transmit {
                upstream,
                transport,
                id,
                ..
            } = transmit;
            core.tries.remove(&(upstream, transport, id));
            core.forwarder
                .handle_failure(self.now(), upstream, transport, id);
            self.perform(&mut core);
        }
    }

    /// A socket for each try: the kernel picks a fresh port, and connecting lets it drop what is
    /// from others and report ICMP errors.
    async fn try_udp(self: &Arc<Self>, transmit: &Transmit) -> io::Result<()> {
        let any: SocketAddr = match transmit.upstream {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(transmit.upstream).await?;
        socket.send(&transmit.bytes).await?;
        loop {
            socket.readable().await?;
            // Only now, so that tries that wait hold no buffers.
            let mut buffer = vec![0; usize::from(u16::MAX)];
            match socket.try_recv(&mut buffer) {
                Ok(length) => {
                    if self.take_reply(transmit, &buffer[..length]) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_tcp(self: &Arc<Self>, transmit: &Transmit) -> io::Result<()> {
        let mut stream = TcpStream::connect(transmit.upstream).await?;
        stream.write_all(&framed(&transmit.bytes)).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut buffer = vec![0; length.into()];
            stream.read_exact(&mut buffer).await?;
            if self.take_reply(transmit, &buffer) {
                return Ok(());
            }
        }
    }

    /// Whether the message ended the try.
    fn take_reply(self: &Arc<Self>, transmit: &Transmit, bytes: &[u8]) -> bool {
        let mut core = self.lock();
        let taken =
            core.forwarder
                .handle_reply(self.now(), transmit.upstream, transmit.transport, bytes);
        self.perform(&mut core);
        if taken.is_err() {
            add(&self.counters.upstream_ignored);
        }
        taken.is_ok()
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.start.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message behind its length (RFC 1035 section 4.2.2), in one piece so that it leaves in one
/// segment.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("messages are at most 65535 bytes");
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}
