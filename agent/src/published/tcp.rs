//! TCP connections to a published port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft_model::objects::{ClientAddress, Protocol};

use super::buffers::Buffer;
use super::counters::{OpenConnection, PortCounters};
use super::proxy;
use super::route::Route;
use super::shared::Shared;

/// Pause after the kernel could not give out a connection (descriptors or memory used up).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Idle time before the kernel asks whether a peer is still there. Only a peer that is gone is
/// ended by this; one that is merely silent answers.
const KEEPALIVE_TIME: Duration = Duration::from_secs(120);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Accepts connections until the task is aborted. Those accepted are tasks of their own.
pub(crate) async fn accept(
    socket: Arc<std::net::TcpListener>,
    route: Arc<Route>,
    shared: Arc<Shared>,
    counters: Arc<PortCounters>,
) {
    loop {
        route.until_serving(true).await;
        // Anew each time: the runtime keeps in mind for ever that a socket was shut down.
        let listener = match socket.try_clone().and_then(TcpListener::from_std) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(port = route.to().port(), %error, "cannot accept connections for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        tokio::select! {
            () = accept_from(&listener, &route, &shared, &counters) => {}
            () = route.until_serving(false) => {}
        }
    }
}

async fn accept_from(
    listener: &TcpListener,
    route: &Route,
    shared: &Arc<Shared>,
    counters: &Arc<PortCounters>,
) {
    loop {
        let (client, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_about_one_connection(&error) {
                    continue;
                }
                tracing::warn!(port = route.to().port(), %error, "cannot accept connections for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let open = counters.open();
        let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() else {
            // New work is refused before old work is lost.
            counters.refuse();
            reset(&client);
            continue;
        };
        let clients = &shared.clients;
        let limit = route.limit_per_client();
        let Some(admitted) = clients.admit(route.service(), from.ip(), limit) else {
            counters.refuse();
            reset(&client);
            continue;
        };
        let (mesh, address) = (route.to(), route.client_address());
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            carry((client, from), mesh, address, &shared, &open).await;
            drop((open, slot, admitted));
        });
    }
}

/// Opens the other half of a connection and copies until both sides have closed.
async fn carry(
    (mut client, from): (TcpStream, SocketAddr),
    mesh: SocketAddr,
    address: ClientAddress,
    shared: &Shared,
    open: &OpenConnection,
) {
    let counters = &open.0;
    let connect = async {
        let begun = Instant::now();
        let mut replica = connect_to(mesh).await?;
        counters.connected(begun.elapsed());
        let header = proxy::header(address, from, client.local_addr()?);
        // A new connection has room for it.
        replica.write_all(&header).await?;
        io::Result::Ok(replica)
    };
    let connected = tokio::time::timeout(shared.config.connect_timeout, connect).await;
    let Ok(Ok(mut replica)) = connected else {
        counters.refuse();
        reset(&client);
        return;
    };
    let own = replica.local_addr();
    let _behind = own.map(|own| shared.clients.note(Protocol::Tcp, own.port(), from));
    for stream in [&client, &replica] {
        if let Err(error) = tune(stream) {
            // The connection works without.
            tracing::debug!(%error, "cannot set socket options of a mesh connection");
        }
    }
    let copied = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_replica, mut to_replica) = replica.split();
        tokio::try_join!(
            pump(&mut from_client, &mut to_replica, &counters.rx_bytes),
            pump(&mut from_replica, &mut to_client, &counters.tx_bytes),
        )
    };
    if let Err(error) = copied {
        // One end broke off: the other one learns it in the same way.
        tracing::trace!(%error, "mesh connection ended early");
        reset(&client);
        reset(&replica);
    }
}

/// A connection whose urgent bytes (RFC 6093) stay where they are in the stream, as for the client's.
async fn connect_to(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    SockRef::from(&socket).set_out_of_band_inline(true)?;
    socket.connect(addr).await
}

/// Copies one direction until its end, and passes the end on.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    bytes: &AtomicU64,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = Buffer::take();
        match from.try_read(&mut buffer) {
            Ok(0) => return to.shutdown().await,
            Ok(len) => {
                to.write_all(&buffer[..len]).await?;
                bytes.fetch_add(len as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL),
    )
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot reset a mesh connection; it is closed instead");
    }
}

/// Errors of accept(2) that say nothing about the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
