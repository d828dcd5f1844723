//! Connections to registries: a name's address, TCP, TLS, each with its own time and its own error.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::config::bare_host;
use super::error::RegistryError;
use super::tls::Trust;

/// How long one address is tried alone (RFC 8305 section 5, "Connection Attempt Delay").
const ALONE: Duration = Duration::from_millis(250);

/// How long is waited for a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOuts {
    /// For an address, for a TCP connection, for TLS.
    pub connect: Duration,
    /// For address and TCP connection together, and for TLS, where there is an answer without it.
    pub brief: Duration,
    /// For the head of an answer, and between two parts of its body.
    pub idle: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            brief: Duration::from_secs(2),
            idle: Duration::from_secs(30),
        }
    }
}

impl TimeOuts {
    /// Of connections that are worth a wait.
    pub(super) fn usual(self) -> Limits {
        Limits {
            each: self.connect,
            both: self.connect * 2,
        }
    }

    /// Of those that are not.
    pub(super) fn brief(self) -> Limits {
        Limits {
            each: self.brief,
            both: self.brief,
        }
    }
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For an address, for TCP, for TLS.
    each: Duration,
    /// For an address and TCP together.
    both: Duration,
}

/// Opens connections for hyper's pool.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    trust: Arc<Trust>,
    limits: Limits,
}

impl Connector {
    pub(super) fn new(trust: Arc<Trust>, limits: Limits) -> Self {
        Self { trust, limits }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = RegistryError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, RegistryError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), RegistryError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let trust = Arc::clone(&self.trust);
        let limits = self.limits;
        Box::pin(async move { open(&uri, &trust, limits).await.map(TokioIo::new) })
    }
}

async fn open(uri: &Uri, trust: &Trust, limits: Limits) -> Result<Stream, RegistryError> {
    let shown = uri.authority().map_or("", |authority| authority.as_str());
    let name = bare_host(shown);
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tcp = dial(shown, name, port, limits).await?;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, host = shown, "small packets may wait");
    }
    if !secure {
        return Ok(Stream::Plain(tcp));
    }
    let failed = |reason: String| RegistryError::Tls {
        host: shown.to_owned(),
        reason,
    };
    let config = trust.config(shown).map_err(failed)?;
    let server =
        ServerName::try_from(name.to_owned()).map_err(|error| failed(error.to_string()))?;
    let limit = limits.each;
    match timeout(limit, TlsConnector::from(config).connect(server, tcp)).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(RegistryError::Silent {
            host: shown.to_owned(),
            limit,
        }),
    }
}

/// A connection to one of the addresses that a name has.
async fn dial(
    shown: &str,
    name: &str,
    port: u16,
    limits: Limits,
) -> Result<TcpStream, RegistryError> {
    let begun = Instant::now();
    let end = || (Instant::now() + limits.each).min(begun + limits.both);
    let silence = format!("within {} s", limits.each.as_secs_f32());
    let unknown = |reason: String| RegistryError::Name {
        host: shown.to_owned(),
        reason,
    };
    let addresses = match timeout_at(end(), tokio::net::lookup_host((name, port))).await {
        Ok(Ok(addresses)) => alternating(addresses),
        Ok(Err(error)) => return Err(unknown(error.to_string())),
        Err(_) => return Err(unknown(format!("the resolver has not answered {silence}"))),
    };
    let whom = match addresses.as_slice() {
        [] => return Err(unknown("it has none".to_owned())),
        [address] => address.to_string(),
        [first, ..] => format!("none of {} addresses ({first}, …)", addresses.len()),
    };
    let reason = match timeout_at(end(), first(addresses)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) if whom.starts_with("none") => format!("{whom} has answered {silence}"),
        Err(_) => format!("{whom} has not answered {silence}"),
    };
    Err(RegistryError::Connect {
        host: shown.to_owned(),
        reason,
    })
}

/// Both families in turn, the one that the resolver has first at first: where one of them leads nowhere,
/// the other one is not the last to be tried (RFC 8305 section 4).
fn alternating(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<SocketAddr> = addresses.collect();
    let leads = all.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        all.into_iter().partition(|addr| addr.is_ipv6() == leads);
    let pairs = (0..one.len().max(other.len())).map(|n| [one.get(n), other.get(n)]);
    pairs.flatten().flatten().copied().collect()
}

/// A connection to the first address that takes one. The next one is tried where one fails, or does not
/// answer for a moment (RFC 8305 section 5); so one that leads nowhere does not use up the time.
///
/// # Errors
/// None of them takes one: of the last that said so.
async fn first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let next = left.next();
        let is_more = next.is_some();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last = error,
                Some(Err(error)) => last = io::Error::other(error),
                // None is on its way, and none is left.
                None => return Err(last),
            },
            () = sleep(ALONE), if is_more => {}
        }
    }
}

/// A connection with or without TLS.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        let parsed = texts.iter().map(|text| text.parse::<SocketAddr>());
        parsed.map(|parsed| parsed.expect("an address")).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let turns = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]);
        assert_eq!(alternating(given.into_iter()), turns);
        let four = addresses(&["10.0.0.2:1", "10.0.0.1:1"]);
        assert_eq!(alternating(four.clone().into_iter()), four);
        assert!(alternating(std::iter::empty()).is_empty());
    }

    #[tokio::test]
    async fn one_that_refuses_is_followed_by_the_next() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let open = listener.local_addr().expect("its address");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let refuses = closed.local_addr().expect("its address");
        drop(closed);
        let stream = first(vec![refuses, open]).await.expect("the second one");
        assert_eq!(stream.peer_addr().expect("connected"), open);
        let error = first(vec![refuses, refuses]).await.expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        first(Vec::new()).await.expect_err("no address at all");
    }
}
