//! Conversations over TCP: sealed messages with a length in front.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use weft_gossip::MAX_STREAM_MESSAGE;

use super::seal::{Channel, OVERHEAD, Sealer};
use super::stats::Counters;

/// For connecting, and for each message to arrive or go out whole.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// A comparison takes three.
const MAX_MESSAGES: usize = 4;

/// A message for the task that owns the state machine, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Other end of the stream.
    pub(crate) peer: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) reply: oneshot::Sender<Option<Bytes>>,
}

/// What every conversation needs.
#[derive(Debug, Clone)]
pub(crate) struct Conversations {
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) core: mpsc::Sender<Incoming>,
    /// Calls come from the address that others know this node by.
    pub(crate) source: IpAddr,
}

async fn in_time<T>(step: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    timeout(STEP_TIMEOUT, step)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

impl Conversations {
    /// Opens a conversation with `first`.
    pub(crate) async fn call(&self, to: SocketAddr, first: Bytes) -> std::io::Result<()> {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.source.is_ipv4() == to.is_ipv4() {
            socket.bind(SocketAddr::new(self.source, 0))?;
        }
        let mut stream = in_time(socket.connect(to)).await?;
        self.send(&mut stream, &first).await?;
        self.converse(&mut stream, to, MAX_STREAM_MESSAGE).await
    }

    /// Answers `peer` until there is nothing left to say. The first message that arrives is at most
    /// `first` bytes long, before it was sealed.
    pub(crate) async fn converse(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
        first: usize,
    ) -> std::io::Result<()> {
        let mut limit = first;
        for _ in 0..MAX_MESSAGES {
            let Some(bytes) = self.receive(stream, limit).await? else {
                return Ok(());
            };
            // Whoever sealed that holds the key.
            limit = MAX_STREAM_MESSAGE;
            let (reply, answer) = oneshot::channel();
            let gone = || std::io::Error::other("gossip has stopped");
            self.core
                .send(Incoming { peer, bytes, reply })
                .await
                .map_err(|_| gone())?;
            let Some(answer) = answer.await.map_err(|_| gone())? else {
                // What the peer still says would be out of turn.
                return in_time(stream.shutdown()).await;
            };
            self.send(stream, &answer).await?;
        }
        Err(std::io::Error::other("peer does not come to an end"))
    }

    async fn send(&self, stream: &mut TcpStream, plain: &[u8]) -> std::io::Result<()> {
        let sealed = self
            .sealer
            .seal(Channel::Stream, plain)
            .map_err(|_| std::io::Error::other("sealing failed"))?;
        let len = u32::try_from(sealed.len()).map_err(std::io::Error::other)?;
        in_time(async {
            stream.write_all(&len.to_be_bytes()).await?;
            stream.write_all(&sealed).await
        })
        .await
    }

    /// Next message, of at most `limit` bytes; `None` when the peer closed instead.
    async fn receive(
        &self,
        stream: &mut TcpStream,
        limit: usize,
    ) -> std::io::Result<Option<Vec<u8>>> {
        let mut sealed = Vec::new();
        let complete = in_time(async {
            let mut len = [0; 4];
            if stream.read(&mut len[..1]).await? == 0 {
                return Ok(false);
            }
            stream.read_exact(&mut len[1..]).await?;
            let len = u64::from(u32::from_be_bytes(len));
            if len > (limit + OVERHEAD) as u64 {
                super::stats::add(&self.counters.malformed, 1);
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            // Grows with what arrives, not with what is announced.
            (&mut *stream).take(len).read_to_end(&mut sealed).await?;
            if sealed.len() as u64 == len {
                Ok(true)
            } else {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
        })
        .await?;
        if !complete {
            return Ok(None);
        }
        match self.sealer.open(Channel::Stream, &mut sealed) {
            Ok(plain) => Ok(Some(plain.to_vec())),
            Err(e) => {
                self.counters.not_opened(e);
                Err(std::io::Error::other(e))
            }
        }
    }
}
