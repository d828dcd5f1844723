//! Accepts TLS connections of nodes, says who is on the other side, and bounds what it may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use weft_cluster::Table;
use weft_model::id::NodeId;
use weft_model::objects::{Node, Role};

use super::engine::{Engine, stopped};
use super::gate::{self, Gate, Peer, Visit};
use super::lapsed::{LapsedToo, has_lapsed};
use crate::door::{BACKLOG, FLUSH, Limits, Place, by_descriptors, count};
use crate::identity::{Identity, IdentityError, PeerIdentity, damaged};
use crate::tls::provider;

/// More time for a connection without a certificate, when somebody is just being made a member.
const JOIN_GRACE: Duration = Duration::from_secs(10);
/// How long a connection that is to end may take for its last answers.
const END_GRACE: Duration = Duration::from_secs(2);
/// Between two pings, and until one has to be answered. Members say by themselves that they live.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const MEMBER_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A member has one session, and a few calls beside it.
const MEMBER_STREAMS: u32 = 16;
const STRANGER_STREAMS: u32 = 4;
/// Bytes that were sent and not yet asked for: of one call, and of one connection. 64 KiB is the
/// least that HTTP/2 knows for the latter.
const MEMBER_STREAM_WINDOW: u32 = 256 << 10;
const MEMBER_WINDOW: u32 = 1 << 20;
const STRANGER_STREAM_WINDOW: u32 = 16 << 10;
const STRANGER_WINDOW: u32 = (64 << 10) - 1;
/// Bytes of the headers of one call.
const MAX_HEADERS: u32 = 8 << 10;
/// Bytes of answers of one call that the peer has not yet taken.
const SEND_BUFFER: usize = 256 << 10;

/// Connections at the manager's port. A stranger's may hold a quarter of a MiB: TLS records, the
/// window, and [`STRANGER_STREAMS`] requests of [`super::MAX_CA_REQUEST`].
pub(super) fn limits() -> Limits {
    Limits {
        strangers: by_descriptors(256),
        per_source: by_descriptors(32),
        per_known: 16,
        per_member: 8,
        burst: 64,
        per_second: 20,
    }
}

/// Listens with a queue that a burst does not fill.
pub(super) fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // A restart must not wait for the connections of the life before.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// TLS of a manager: a client certificate is optional here, and asked for by each service that
/// needs one.
pub(super) fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, IdentityError> {
    let roots = Arc::new(identity.roots().store());
    let valid = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| damaged("the root certificate", e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| damaged("the TLS configuration", e))?
        .with_client_cert_verifier(Arc::new(LapsedToo(valid)))
        .with_single_cert(identity.chain().to_vec(), identity.key()?)
        .map_err(|e| damaged("the manager's certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts until the manager stops, and carries every connection.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    core: Arc<Engine>,
    routes: Routes,
) {
    let mut stop = core.stop.subscribe();
    let mut states = core.store.subscribe();
    let mut flush = tokio::time::interval(FLUSH);
    let mut connections = JoinSet::new();
    let mut nodes = states.borrow_and_update().nodes.clone();
    core.door.set_known(known(&nodes));
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            // The store outlives the listener.
            Ok(()) = states.changed() => {
                let now = states.borrow_and_update().nodes.clone();
                if !now.is(&nodes) {
                    core.door.set_known(known(&now));
                    nodes = now;
                }
                continue;
            }
            Some(_) = connections.join_next() => continue,
            _ = flush.tick() => {
                core.door.flush();
                core.quiet.flush();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                let Some((stream, place)) = core.door.enter(stream, addr) else {
                    continue;
                };
                let acceptor = TlsAcceptor::from(tls.load_full());
                let guest = Guest {
                    core: Arc::clone(&core),
                    routes: routes.clone(),
                    place,
                };
                connections.spawn(guest.visit(acceptor, stream, addr));
            }
            Err(error) => core.door.accept_failed(&error).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Where the nodes of a cluster come from.
fn known(nodes: &Table<NodeId, Node>) -> BTreeMap<NodeId, BTreeSet<IpAddr>> {
    let addresses = |node: &Node| {
        let manager = node.manager_addr().map(|addr| addr.ip());
        let all = [node.status.addr, node.data_path_addr];
        let all = all.into_iter().chain(manager);
        all.filter(|ip| !ip.is_unspecified()).collect()
    };
    let nodes = nodes.values();
    nodes.map(|n| (n.id.clone(), addresses(n))).collect()
}

/// A connection and its place.
struct Guest {
    core: Arc<Engine>,
    routes: Routes,
    place: Place,
}

impl Guest {
    async fn visit(self, acceptor: TlsAcceptor, stream: TcpStream, addr: SocketAddr) {
        // Apart, so that the task of a connection has no room for it as long as that lasts.
        let handshake = Box::pin(handshake(acceptor, stream));
        let handshake = tokio::time::timeout(self.core.timing.handshake, handshake);
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = self.place.turned_out() => return,
        };
        let failed = match shaken {
            Ok(Ok((stream, member, chain))) => {
                let now = SystemTime::now();
                let lapsed = member.as_ref().is_some_and(|m| has_lapsed(m, now));
                let peer = Peer {
                    addr,
                    member,
                    lapsed,
                    roots: self.core.vouching(&chain).into(),
                };
                return self.serve(stream, peer).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        count(&self.core.door.counters().handshakes_failed);
        tracing::debug!(%addr, why = failed, "no TLS handshake");
    }

    /// Carries the connection to its end: the peer's, the manager's, or that of its time.
    async fn serve(self, stream: TlsStream<TcpStream>, peer: Peer) {
        let addr = peer.addr;
        let member = gate::member(&self.core, &peer);
        let member = member.or_else(|_| gate::manager(&self.core, &peer)).ok();
        if let Some(member) = &member {
            self.place.prove(&member.node);
        }
        let manager = member.as_ref().filter(|m| m.role == Role::Manager);
        let presence = manager.map(|manager| self.core.raft.greet(&manager.node));
        let visit = Arc::new(Visit::default());
        let gate = Gate {
            core: Arc::clone(&self.core),
            peer,
            visit: Arc::clone(&visit),
            routes: self.routes,
        };
        let http = http2(member.is_some());
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(gate));
        let mut connection = pin!(connection);
        let mut stop = self.core.stop.subscribe();
        let mut ending = false;
        let life = Instant::now() + self.core.timing.stranger_life;
        let mut until = member.is_none().then_some(life);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%addr, %error, "a connection ended");
                    }
                    drop(presence);
                    return;
                }
                () = self.place.turned_out() => return,
                () = expired(until) => {
                    let longest = life + JOIN_GRACE;
                    if !ending && visit.joining() && Instant::now() < longest {
                        until = Some(longest);
                        continue;
                    }
                    count(&self.core.door.counters().expired);
                    return;
                }
                () = visit.over.notified(), if !ending => {}
                () = stopped(&mut stop), if !ending => {}
            }
            // What was asked is still answered, within bounds.
            ending = true;
            connection.as_mut().graceful_shutdown();
            until = Some(Instant::now() + END_GRACE);
        }
    }
}

async fn expired(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// A connection, who is on the other side, and by which certificates.
type Shaken = (
    TlsStream<TcpStream>,
    Option<Arc<PeerIdentity>>,
    Vec<CertificateDer<'static>>,
);

/// HTTP/2 with what a connection may hold: a member's, or that of anybody else.
fn http2(member: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    let (streams, stream_window, window, ping) = if member {
        (
            MEMBER_STREAMS,
            MEMBER_STREAM_WINDOW,
            MEMBER_WINDOW,
            MEMBER_KEEP_ALIVE,
        )
    } else {
        (
            STRANGER_STREAMS,
            STRANGER_STREAM_WINDOW,
            STRANGER_WINDOW,
            KEEP_ALIVE,
        )
    };
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(window)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(ping)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream) -> std::io::Result<Shaken> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates();
    let chain = chain.map_or_else(Vec::new, <[_]>::to_vec);
    let member = chain
        .first()
        .map(PeerIdentity::from_certificate)
        .transpose()
        .map_err(std::io::Error::other)?
        .map(Arc::new);
    Ok((stream, member, chain))
}
