//! The resolver of one sandbox: its sockets, until it is stopped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_dns::{Answer, Ask, ClientView, QUERY_MAX_BYTES, Reply, Tenant, Transport};

use super::outside::{Outside, framed};
use super::shared::Shared;
use super::stats::add;

/// TCP connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;
/// Forwarded queries at once: how many tasks may wait here. It is no share of the node's forwarder,
/// which two such sandboxes fill: whoever holds the most there gives way to the others
/// ([`weft_dns::Forwarder`]).
const FORWARDED_MAX: usize = 512;
/// Silence after which a TCP connection is closed, also in the middle of a message.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a socket error that may stay, such as too many open files.
const BREATHER: Duration = Duration::from_millis(50);
const HEADER_BYTES: usize = 12;

#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) shared: Arc<Shared>,
    pub(super) view: Arc<ArcSwap<ClientView>>,
    /// The node's, or its own.
    outside: Arc<Outside>,
    tenant: Tenant,
    forwarded: Arc<Semaphore>,
}

/// What comes of a query.
enum Next {
    Send(Vec<u8>),
    Wait(oneshot::Receiver<Reply>, OwnedSemaphorePermit),
    Nothing,
}

impl Resolver {
    pub(super) fn new(
        shared: Arc<Shared>,
        view: Arc<ArcSwap<ClientView>>,
        outside: Arc<Outside>,
    ) -> Self {
        Self {
            tenant: shared.next_tenant(),
            shared,
            view,
            outside,
            forwarded: Arc::new(Semaphore::new(FORWARDED_MAX)),
        }
    }

    /// Serves both sockets until it is aborted.
    pub(super) async fn run(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener) {
        tokio::join!(self.serve_udp(Arc::new(udp)), self.serve_tcp(tcp));
    }

    async fn serve_udp(self: &Arc<Self>, socket: Arc<UdpSocket>) {
        // One more byte than is accepted, so that a longer query shows.
        let mut buffer = vec![0; QUERY_MAX_BYTES + 1];
        let mut waiting = JoinSet::new();
        loop {
            while waiting.try_join_next().is_some() {}
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "reading a query failed");
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            match self.handle(&buffer[..length], Transport::Udp) {
                Next::Send(reply) => self.send(&socket, &reply, client).await,
                Next::Wait(reply, permit) => {
                    let resolver = Arc::clone(self);
                    let socket = Arc::clone(&socket);
                    waiting.spawn(async move {
                        if let Some(bytes) = resolver.forwarded(reply).await {
                            resolver.send(&socket, &bytes, client).await;
                        }
                        drop(permit);
                    });
                }
                Next::Nothing => {}
            }
        }
    }

    async fn send(&self, socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
        if let Err(error) = socket.send_to(reply, client).await {
            tracing::debug!(%error, "sending a reply failed");
            add(&self.shared.counters.dropped);
        }
    }

    async fn serve_tcp(self: &Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let resolver = Arc::clone(self);
                    connections.spawn(async move {
                        if let Err(error) = resolver.converse(stream).await {
                            tracing::debug!(%error, "connection of a client ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accepting a connection failed");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    }

    /// Answers the queries of one connection in turn, until it ends, falls silent or sends what
    /// is no message.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            match timeout(IDLE, stream.read(&mut length[..1])).await {
                // Silent or closed between messages: the usual end.
                Err(_) | Ok(Ok(0)) => return Ok(()),
                Ok(read) => read?,
            };
            let message = timeout(IDLE, async {
                stream.read_exact(&mut length[1..]).await?;
                let length = usize::from(u16::from_be_bytes(length));
                if !(HEADER_BYTES..=QUERY_MAX_BYTES).contains(&length) {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                let mut message = vec![0; length];
                stream.read_exact(&mut message).await?;
                Ok(message)
            });
            let message = match message.await {
                Ok(Ok(message)) => message,
                Ok(Err(error)) => {
                    self.count_malformed();
                    return Err(error);
                }
                Err(_) => {
                    self.count_malformed();
                    return Err(io::ErrorKind::TimedOut.into());
                }
            };
            let reply = match self.handle(&message, Transport::Tcp) {
                Next::Send(reply) => reply,
                Next::Wait(reply, permit) => {
                    let reply = self.forwarded(reply).await;
                    drop(permit);
                    match reply {
                        Some(reply) => reply,
                        None => return Ok(()),
                    }
                }
                Next::Nothing => return Ok(()),
            };
            timeout(IDLE, stream.write_all(&framed(&reply))).await??;
        }
    }

    fn count_malformed(&self) {
        add(&self.shared.counters.queries);
        add(&self.shared.counters.malformed);
    }

    fn handle(&self, query: &[u8], transport: Transport) -> Next {
        let counters = &self.shared.counters;
        add(&counters.queries);
        let ask = Ask {
            transport,
            outside: self.outside.has_upstream(),
            seed: self.shared.next_seed(),
        };
        let answer = weft_dns::answer(&self.shared.zone.load(), &self.view.load(), query, ask);
        match answer {
            Answer::Reply(reply) => {
                counters.outcome(reply.outcome);
                Next::Send(reply.bytes)
            }
            Answer::Forward => self.forward(query, transport),
            Answer::Drop(_) => {
                add(&counters.dropped);
                Next::Nothing
            }
        }
    }

    fn forward(&self, query: &[u8], transport: Transport) -> Next {
        let counters = &self.shared.counters;
        add(&counters.forwarded);
        let Ok(permit) = Arc::clone(&self.forwarded).try_acquire_owned() else {
            return match weft_dns::refusal(query) {
                Some(reply) => {
                    counters.outcome(reply.outcome);
                    Next::Send(reply.bytes)
                }
                None => Next::Nothing,
            };
        };
        match self.outside.ask(self.tenant, query, transport) {
            Some(reply) => Next::Wait(reply, permit),
            None => {
                add(&counters.dropped);
                Next::Nothing
            }
        }
    }

    async fn forwarded(&self, reply: oneshot::Receiver<Reply>) -> Option<Vec<u8>> {
        // Fails only when the agent is on its way out.
        let reply = reply.await.ok()?;
        self.shared.counters.outcome(reply.outcome);
        Some(reply.bytes)
    }
}
