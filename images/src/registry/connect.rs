//! Connections to registries: a name's address, TCP, TLS, each with its own time and its own error.

use std::future::Future;
use std::io;
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
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::config::bare_host;
use super::error::RegistryError;
use super::tls::Trust;

/// How long is waited for a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOuts {
    /// For an address, for each TCP connection, for TLS.
    pub connect: Duration,
    /// For the head of an answer, and between two parts of its body.
    pub idle: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
        }
    }
}

/// Opens connections for hyper's pool.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    trust: Arc<Trust>,
    limit: Duration,
}

impl Connector {
    pub(super) fn new(trust: Arc<Trust>, limit: Duration) -> Self {
        Self { trust, limit }
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
        let limit = self.limit;
        Box::pin(async move { open(&uri, &trust, limit).await.map(TokioIo::new) })
    }
}

async fn open(uri: &Uri, trust: &Trust, limit: Duration) -> Result<Stream, RegistryError> {
    let shown = uri.authority().map_or("", |authority| authority.as_str());
    let name = bare_host(shown);
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tcp = dial(shown, name, port, limit).await?;
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
    match timeout(limit, TlsConnector::from(config).connect(server, tcp)).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(RegistryError::Silent {
            host: shown.to_owned(),
            limit,
        }),
    }
}

/// Each address in its turn; the last one's error counts.
async fn dial(
    shown: &str,
    name: &str,
    port: u16,
    limit: Duration,
) -> Result<TcpStream, RegistryError> {
    let unknown = |reason: String| RegistryError::Name {
        host: shown.to_owned(),
        reason,
    };
    let addresses = match timeout(limit, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(unknown(error.to_string())),
        Err(_) => {
            return Err(unknown(format!(
                "the resolver has not answered within {} s",
                limit.as_secs_f32()
            )));
        }
    };
    let mut reason = None;
    for address in addresses {
        reason = Some(match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!(
                "{address} has not answered within {} s",
                limit.as_secs_f32()
            ),
        });
    }
    match reason {
        Some(reason) => Err(RegistryError::Connect {
            host: shown.to_owned(),
            reason,
        }),
        None => Err(unknown("it has none".to_owned())),
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
