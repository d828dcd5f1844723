//! Datagrams to a published port: one socket towards the mesh for each client and each address of the
//! node that it asks, which answers come from.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};
use weft_model::objects::Protocol;
use weft_sys::udp::{receive_addressed, send_addressed};

use super::buffers::Buffer;
use super::clients::{Admitted, Behind};
use super::counters::{OpenConnection, PortCounters};
use super::route::Route;
use super::shared::Shared;

/// Pause after an error of the socket that clients send to.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Between two looks at who is idle, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// How long the clients of a port without a replica may be silent before they are forgotten.
const LEFT_OVER: Duration = Duration::from_secs(2);

/// How long a client may wait for an answer and not make room for another one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries datagrams until the task is aborted, or ends when no replica takes any and no client is
/// left: without a socket the kernel tells senders that nobody is there.
pub(crate) async fn serve(
    socket: UdpSocket,
    route: Arc<Route>,
    shared: Arc<Shared>,
    counters: Arc<PortCounters>,
) {
    let idle = shared.config.udp_idle;
    let mut clients = Clients {
        socket: Arc::new(socket),
        route,
        shared,
        counters,
        started: Instant::now(),
        by_way: HashMap::new(),
        by_use: BTreeMap::new(),
        uses: 0,
    };
    let mut sweep = tokio::time::interval((idle / 4).clamp(Duration::from_millis(10), SWEEP));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let socket = Arc::clone(&clients.socket);
    loop {
        tokio::select! {
            readable = socket.readable() => {
                let received = readable.and_then(|()| {
                    let mut buffer = Buffer::take();
                    let got = socket.try_io(Interest::READABLE, || {
                        receive_addressed(&*socket, &mut buffer)
                    })?;
                    let way = Way {
                        client: got.from,
                        asked: got.to,
                    };
                    clients.deliver(way, &buffer[..got.len]);
                    Ok(())
                });
                match received {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        let port = clients.route.to().port();
                        tracing::debug!(port, %error, "cannot receive datagrams");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                    _ => {}
                }
            }
            _ = sweep.tick() => {
                if clients.route.is_serving() {
                    clients.forget_idle(idle);
                } else {
                    clients.forget_idle(LEFT_OVER.min(idle));
                    if clients.by_way.is_empty() {
                        return;
                    }
                }
            }
        }
    }
}

/// A client, and the address of the node that it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    client: SocketAddr,
    /// None where no answer can come from it: a group's.
    asked: Option<IpAddr>,
}

/// The clients of one port.
struct Clients {
    socket: Arc<UdpSocket>,
    route: Arc<Route>,
    shared: Arc<Shared>,
    counters: Arc<PortCounters>,
    started: Instant,
    by_way: HashMap<Way, Client>,
    /// The same, least recently used first.
    by_use: BTreeMap<u64, Way>,
    uses: u64,
}

struct Client {
    to_mesh: Arc<UdpSocket>,
    used: u64,
    activity: Arc<Activity>,
    replies: AbortHandle,
    _open: OpenConnection,
    _slot: OwnedSemaphorePermit,
    _admitted: Admitted,
    _behind: Option<Behind>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

/// When a client was last active, in either direction.
struct Activity {
    started: Instant,
    last_millis: AtomicU64,
    /// Its last datagram was answered.
    answered: AtomicBool,
}

impl Activity {
    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

impl Clients {
    /// Sends a client's datagram on. One that cannot be sent is lost, as datagrams are.
    fn deliver(&mut self, way: Way, datagram: &[u8]) {
        if !self.by_way.contains_key(&way) && !self.begin(way) {
            self.counters.refuse();
            return;
        }
        let Some(known) = self.by_way.get_mut(&way) else {
            return;
        };
        self.by_use.remove(&known.used);
        self.uses += 1;
        known.used = self.uses;
        self.by_use.insert(self.uses, way);
        known.activity.touch();
        known.activity.answered.store(false, Ordering::Relaxed);
        // Straight to the kernel: the runtime does not know yet that a new socket is writable.
        let to_mesh = SockRef::from(&*known.to_mesh);
        let mut sent = to_mesh.send(datagram);
        if matches!(&sent, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused) {
            // The kernel tells of an earlier datagram that was refused; this one was not sent.
            self.counters.refuse();
            tell_refused(&self.shared, &self.socket, way);
            sent = to_mesh.send(datagram);
        }
        if let Ok(len) = sent {
            self.counters
                .rx_bytes
                .fetch_add(len as u64, Ordering::Relaxed);
        }
    }

    /// Begins with a new client, where there is room for it.
    fn begin(&mut self, way: Way) -> bool {
        let client = way.client;
        if !self.route.is_serving() {
            return false;
        }
        if self.by_way.len() >= self.shared.config.max_udp_clients.max(1) && !self.make_room() {
            return false;
        }
        let mut slot = Arc::clone(&self.shared.slots).try_acquire_owned();
        if slot.is_err() && self.make_room() {
            slot = Arc::clone(&self.shared.slots).try_acquire_owned();
        }
        let Ok(slot) = slot else { return false };
        let limit = self.route.limit_per_client();
        let clients = &self.shared.clients;
        let admitted = clients.admit(self.route.service(), client.ip(), limit);
        let Some(admitted) = admitted else {
            return false;
        };
        let to_mesh = match connect(self.route.to()) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                tracing::debug!(port = self.route.to().port(), %error, "no socket towards the mesh");
                return false;
            }
        };
        let activity = Arc::new(Activity {
            started: self.started,
            last_millis: AtomicU64::new(0),
            answered: AtomicBool::new(false),
        });
        activity.touch();
        let open = self.counters.open();
        let replies = tokio::spawn(reply(
            Arc::clone(&to_mesh),
            Arc::clone(&self.socket),
            way,
            Arc::clone(&activity),
            (Arc::clone(&self.shared), Arc::clone(&self.counters)),
        ));
        let own = to_mesh.local_addr().ok();
        let behind = own.map(|own| clients.note(Protocol::Udp, own.port(), client));
        self.uses += 1;
        self.by_use.insert(self.uses, way);
        self.by_way.insert(
            way,
            Client {
                to_mesh,
                used: self.uses,
                activity,
                replies: replies.abort_handle(),
                _open: open,
                _slot: slot,
                _admitted: admitted,
                _behind: behind,
            },
        );
        true
    }

    /// Forgets a client that has its answer, or has waited for one too long: of those that have been
    /// silent the longest. Who still waits is not forgotten for another one.
    fn make_room(&mut self) -> bool {
        /// More would cost too much for each datagram of a flood.
        const LOOKS: usize = 64;
        let by_way = &self.by_way;
        let done = |(_, way): &(&u64, &Way)| {
            by_way.get(*way).is_none_or(|client| {
                client.activity.answered.load(Ordering::Relaxed)
                    || client.activity.idle() > PATIENCE
            })
        };
        let found = self.by_use.iter().take(LOOKS).find(done);
        let Some((used, way)) = found.map(|(used, way)| (*used, *way)) else {
            return false;
        };
        self.by_use.remove(&used);
        self.by_way.remove(&way).is_some()
    }

    fn forget_idle(&mut self, idle: Duration) {
        let by_use = &mut self.by_use;
        self.by_way.retain(|_, client| {
            let keep = client.activity.idle() < idle;
            if !keep {
                by_use.remove(&client.used);
            }
            keep
        });
    }
}

/// Carries the answers to one client until the task is aborted.
async fn reply(
    to_mesh: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    way: Way,
    activity: Arc<Activity>,
    (shared, counters): (Arc<Shared>, Arc<PortCounters>),
) {
    loop {
        if to_mesh.readable().await.is_err() {
            return;
        }
        let mut buffer = Buffer::take();
        match to_mesh.try_recv(&mut buffer) {
            Ok(len) => {
                activity.touch();
                activity.answered.store(true, Ordering::Relaxed);
                // A client that is gone is nobody's error.
                if answer(&socket, &buffer[..len], way).await.is_ok() {
                    counters.tx_bytes.fetch_add(len as u64, Ordering::Relaxed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                counters.refuse();
                tell_refused(&shared, &socket, way);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot receive answers from the mesh");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Passes it on that nothing listens where a replica is.
fn tell_refused(shared: &Shared, socket: &UdpSocket, way: Way) {
    if let (Some(asked), Ok(own)) = (way.asked, socket.local_addr()) {
        let asked = SocketAddr::new(asked, own.port());
        shared.unreachable.tell(way.client, asked);
    }
}

/// Sends from the address that was asked. One that the node has no longer answers nobody's question.
async fn answer(socket: &UdpSocket, datagram: &[u8], way: Way) -> io::Result<usize> {
    loop {
        let sent = socket.try_io(Interest::WRITABLE, || {
            send_addressed(socket, datagram, way.client, way.asked)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            sent => return sent,
        }
    }
}

fn connect(mesh: SocketAddr) -> io::Result<UdpSocket> {
    let any = if mesh.is_ipv4() {
        SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
    } else {
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(mesh)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
