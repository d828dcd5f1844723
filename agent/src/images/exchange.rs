//! The port where other nodes of the cluster get contents of images: TLS with certificates on both
//! sides, and nobody but members.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use weft_model::id::NodeId;
use weft_model::objects::Protocol;
use weft_swarm::door::{BACKLOG, Door, DoorSample, FLUSH, Limits, Place, count};

use super::circle::Circle;
use super::desk::{self, Desk};
use super::lines::Lines;
use crate::published::owner;

/// For a connection to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes that a connection may hold of what was not yet read.
const MOST_READ: usize = 16 << 10;

/// Connections at a time. A node has one for questions to another, and eight for contents.
const LIMITS: Limits = Limits {
    strangers: 32,
    per_source: 8,
    per_known: 16,
    per_member: 12,
    burst: 64,
    per_second: 40,
};

/// The port, open until this is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    task: JoinHandle<()>,
    door: Arc<Door>,
    #[cfg(test)]
    addr: SocketAddr,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Exchange {
    /// Opens it.
    ///
    /// # Errors
    /// The port is taken, or the address is not this host's.
    pub(super) fn open(
        addr: SocketAddr,
        circle: Arc<dyn Circle>,
        lines: Arc<Lines>,
        desk: Arc<Desk>,
    ) -> anyhow::Result<Self> {
        let listener = listen(addr).map_err(|error| explain(error, addr))?;
        #[cfg(test)]
        let addr = listener.local_addr()?;
        let door = Door::new("images", LIMITS);
        let counter = Counter {
            circle,
            lines,
            desk,
            door: Arc::clone(&door),
        };
        let task = tokio::spawn(accept(listener, counter));
        Ok(Self {
            task,
            door,
            #[cfg(test)]
            addr,
        })
    }

    /// Where it is.
    #[cfg(test)]
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What happened at it.
    pub(super) fn sample(&self) -> DoorSample {
        self.door.sample()
    }
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for the connections of the life before.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn explain(error: std::io::Error, addr: SocketAddr) -> anyhow::Error {
    let why = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("it is held by {}", owner::named(Protocol::Tcp, addr.port()))
        }
        _ => error.to_string(),
    };
    anyhow::anyhow!(
        "other nodes cannot get images from this one: TCP {addr}, the port after that of gossip, cannot \
         be opened: {why}; stop that, or give weftd another --gossip-port"
    )
}

/// What every connection needs.
#[derive(Clone)]
struct Counter {
    circle: Arc<dyn Circle>,
    lines: Arc<Lines>,
    desk: Arc<Desk>,
    door: Arc<Door>,
}

/// Accepts until dropped.
async fn accept(listener: TcpListener, counter: Counter) {
    let mut guests = JoinSet::new();
    let mut flush = tokio::time::interval(FLUSH);
    let door = Arc::clone(&counter.door);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = guests.join_next() => continue,
            _ = flush.tick() => {
                door.flush();
                let known = counter.circle.peers().into_iter();
                let known = known.map(|peer| (peer.node, [peer.addr.ip()].into()));
                door.set_known(known.collect::<BTreeMap<_, _>>());
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                door.accept_failed(&error).await;
                continue;
            }
        };
        if let Some((stream, place)) = door.enter(stream, from) {
            guests.spawn(counter.clone().visit(stream, from, place));
        }
    }
}

impl Counter {
    /// Whether a node is a member still: its certificate counts for a while after it was removed.
    fn is_member(&self, node: &NodeId) -> bool {
        let is_member = self.circle.is_member(node);
        if !is_member {
            count(&self.door.counters().calls_refused);
            tracing::debug!(%node, "no member asks for images");
        }
        is_member
    }

    async fn visit(self, stream: TcpStream, from: SocketAddr, place: Place) {
        let tls = match self.lines.tls(&self.circle.identity()) {
            Ok(tls) => tls,
            Err(error) => {
                tracing::debug!(%from, %error, "no certificate to answer another node with");
                return;
            }
        };
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, tls.accept(stream)) => shaken,
            () = place.turned_out() => return,
        };
        let (stream, node) = match shaken {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(error)) => {
                count(&self.door.counters().handshakes_failed);
                tracing::debug!(%from, %error, "no TLS handshake at the port of images");
                return;
            }
            Err(_) => {
                count(&self.door.counters().handshakes_failed);
                return;
            }
        };
        if !self.is_member(&node) {
            return;
        }
        place.prove(&node);
        let (this, asks) = (self.clone(), node.clone());
        let answers = service_fn(move |request: Request<Incoming>| {
            // It may be removed while it is connected.
            let is_member = this.is_member(&asks);
            let desk = Arc::clone(&this.desk);
            async move {
                let answer = if is_member {
                    desk.answer(request).await
                } else {
                    desk::refused()
                };
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MOST_READ)
            .serve_connection(TokioIo::new(stream), answers);
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%node, %error, "a connection for images ended");
                }
            }
            () = place.turned_out() => {}
        }
    }
}
