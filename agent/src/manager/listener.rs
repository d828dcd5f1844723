//! Accepts TLS connections of nodes and says who is on the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::{Context, Pin, Poll};
use tonic::transport::server::Connected;

use super::engine::stopped;
use crate::session::{Identity, IdentityError, Member, damaged, provider};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at one time; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;

/// Who is on the other side of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// From its certificate; nothing for a machine that wants to join.
    pub(super) member: Option<Arc<Member>>,
}

/// A TLS connection of a node.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// TLS of a manager: a client certificate is optional here, and asked for by each service that
/// needs one.
pub(super) fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(identity.root().clone())
        .map_err(|e| damaged("the root certificate", e))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| damaged("the root certificate", e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| damaged("the TLS configuration", e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate().clone()], identity.key()?)
        .map_err(|e| damaged("the manager's certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts until `stop` says so.
pub(super) async fn accept(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    connections: mpsc::Sender<Result<Connection, std::io::Error>>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = stopped(&mut stop) => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, addr)) => {
                let acceptor = TlsAcceptor::from(config.load_full());
                let connections = connections.clone();
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(acceptor, stream, addr))
                        .await
                    {
                        Ok(Ok(connection)) => {
                            // Closed only while stopping.
                            drop(connections.send(Ok(connection)).await);
                        }
                        Ok(Err(error)) => {
                            tracing::debug!(%addr, %error, "refused a connection");
                        }
                        Err(_) => tracing::debug!(%addr, "TLS handshake took too long"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors: the next one may fit again.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    addr: SocketAddr,
) -> std::io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|c| c.first());
    let member = certificate
        .map(Member::from_certificate)
        .transpose()
        .map_err(std::io::Error::other)?
        .map(Arc::new);
    Ok(Connection {
        stream,
        peer: Peer { addr, member },
    })
}
