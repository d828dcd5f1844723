//! Datagrams to a published port: one socket towards the mesh for each client.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};
use weft_control::objects::Protocol;

use super::Shared;
use super::buffers::Buffer;
use super::clients::{Admitted, Behind};
use super::counters::{OpenConnection, PortCounters};
use super::route::Route;

/// Pause after an error of the socket that clients send to.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Carries datagrams until the task is aborted; its clients are forgotten with it.
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
        by_address: HashMap::new(),
        by_use: BTreeMap::new(),
        uses: 0,
    };
    let mut sweep = tokio::time::interval((idle / 4).max(Duration::from_millis(10)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let socket = Arc::clone(&clients.socket);
    loop {
        tokio::select! {
            readable = socket.readable() => {
                let received = readable.and_then(|()| {
                    let mut buffer = Buffer::take();
                    let (len, client) = socket.try_recv_from(&mut buffer)?;
                    clients.deliver(client, &buffer[..len]);
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
            _ = sweep.tick() => clients.forget_idle(idle),
        }
    }
}

/// The clients of one port.
struct Clients {
    socket: Arc<UdpSocket>,
    route: Arc<Route>,
    shared: Arc<Shared>,
    counters: Arc<PortCounters>,
    started: Instant,
    by_address: HashMap<SocketAddr, Client>,
    /// The same, least recently used first.
    by_use: BTreeMap<u64, SocketAddr>,
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
    fn deliver(&mut self, client: SocketAddr, datagram: &[u8]) {
        if !self.by_address.contains_key(&client) && !self.begin(client) {
            self.counters.refuse();
            return;
        }
        let Some(known) = self.by_address.get_mut(&client) else {
            return;
        };
        self.by_use.remove(&known.used);
        self.uses += 1;
        known.used = self.uses;
        self.by_use.insert(self.uses, client);
        known.activity.touch();
        // Straight to the kernel: the runtime does not know yet that a new socket is writable.
        let to_mesh = SockRef::from(&*known.to_mesh);
        let mut sent = to_mesh.send(datagram);
        if matches!(&sent, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused) {
            // The kernel tells of an earlier datagram that was refused; this one was not sent.
            self.counters.refuse();
            sent = to_mesh.send(datagram);
        }
        if let Ok(len) = sent {
            self.counters
                .rx_bytes
                .fetch_add(len as u64, Ordering::Relaxed);
        }
    }

    /// Begins with a new client; makes room by forgetting the least recently used one.
    fn begin(&mut self, client: SocketAddr) -> bool {
        if self.by_address.len() >= self.shared.config.max_udp_clients.max(1) {
            self.forget_oldest();
        }
        let mut slot = Arc::clone(&self.shared.slots).try_acquire_owned();
        if slot.is_err() && self.forget_oldest() {
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
        });
        let open = self.counters.open();
        let replies = tokio::spawn(reply(
            Arc::clone(&to_mesh),
            Arc::clone(&self.socket),
            client,
            Arc::clone(&activity),
            Arc::clone(&self.counters),
        ));
        let own = to_mesh.local_addr().ok();
        let behind = own.map(|own| clients.note(Protocol::Udp, own.port(), client));
        self.uses += 1;
        self.by_use.insert(self.uses, client);
        self.by_address.insert(
            client,
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

    fn forget_oldest(&mut self) -> bool {
        match self.by_use.pop_first() {
            Some((_, client)) => self.by_address.remove(&client).is_some(),
            None => false,
        }
    }

    fn forget_idle(&mut self, idle: Duration) {
        let by_use = &mut self.by_use;
        self.by_address.retain(|_, client| {
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
    client: SocketAddr,
    activity: Arc<Activity>,
    counters: Arc<PortCounters>,
) {
    loop {
        if to_mesh.readable().await.is_err() {
            return;
        }
        let mut buffer = Buffer::take();
        match to_mesh.try_recv(&mut buffer) {
            Ok(len) => {
                activity.touch();
                // A client that is gone is nobody's error.
                if socket.send_to(&buffer[..len], client).await.is_ok() {
                    counters.tx_bytes.fetch_add(len as u64, Ordering::Relaxed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => counters.refuse(),
            Err(error) => {
                tracing::debug!(%error, "cannot receive answers from the mesh");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
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
