//! TLS towards managers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::codegen::{Context, Pin, Poll, Service};
use tonic::transport::{Channel, Endpoint};
use weft_cluster::CommandError;
use weft_model::id::NodeId;

use crate::clocks::certificate_trouble;
use crate::identity::{Identity, IdentityError, MANAGER_UNIT, PeerIdentity, damaged};

/// A manager that does not answer in this time is unreachable.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before another attempt at a manager that had no place.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(250);
/// Between two pings of a connection, while nothing comes.
const PING: Duration = Duration::from_secs(2);
/// The same, where the user of the connection asks for answers more often than that.
const SPARE_PING: Duration = Duration::from_secs(10);
/// Until a ping has to be answered.
const PONG: Duration = Duration::from_secs(3);
/// TCP port of managers.
pub(crate) const DEFAULT_MANAGER_PORT: u16 = 2377;

/// The one crypto provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(root: &CertificateDer<'static>) -> Result<RootCertStore, IdentityError> {
    let mut store = RootCertStore::empty();
    store
        .add(root.clone())
        .map_err(|e| damaged("the root certificate", e))?;
    Ok(store)
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, IdentityError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| damaged("the TLS configuration", e))
}

fn with_http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// For members: proves who we are, and that the other side is a manager of our cluster.
pub(crate) fn member_config(identity: &Identity) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = builder()?
        .with_root_certificates(identity.roots().store())
        .with_client_auth_cert(identity.chain().to_vec(), identity.key()?)
        .map_err(|e| damaged("the node certificate", e))?;
    Ok(with_http2(config))
}

/// For joiners that know the root already.
pub(crate) fn joiner_config(
    root: &CertificateDer<'static>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = builder()?
        .with_root_certificates(roots(root)?)
        .with_no_client_auth();
    Ok(with_http2(config))
}

/// For joiners that ask for the root; what they get is worth nothing before its digest is compared.
pub(crate) fn unverified_config() -> Result<Arc<ClientConfig>, IdentityError> {
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider())))
        .with_no_client_auth();
    Ok(with_http2(config))
}

#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What is done about a connection that is silent, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// It is pinged, and made anew by the next call after its end.
    Renewed,
    /// It is pinged, and never made anew: a call after its end fails at once, and is known not to have been
    /// sent.
    Once,
    /// Its user asks for answers so often that pings say nothing new.
    Beaten,
}

/// Opens TLS connections to one manager.
#[derive(Clone)]
struct Connector {
    remote: Arc<str>,
    tls: TlsConnector,
    /// Whether there is to be one connection alone, and whether there was one.
    once: bool,
    dialled: Arc<AtomicBool>,
}

impl Connector {
    fn new(remote: &str, tls: Arc<ClientConfig>, once: bool) -> Self {
        Self {
            remote: Arc::from(remote),
            tls: TlsConnector::from(tls),
            once,
            dialled: Arc::default(),
        }
    }

    async fn dial(&self, addresses: &[SocketAddr]) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(addresses).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(MANAGER_UNIT).map_err(std::io::Error::other)?;
        self.tls.connect(name, tcp).await
    }
}

/// A manager with more company than it has places for closes the connection before it has said a
/// word. Soon there may be a place.
fn turned_away(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::UnexpectedEof
    )
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if this.dialled.swap(true, Ordering::Relaxed) && this.once {
                return Err(std::io::Error::other("the connection has ended"));
            }
            let seconds = CONNECT_TIMEOUT.as_secs();
            let resolved = tokio::net::lookup_host(&*this.remote);
            let addresses: Vec<_> = match tokio::time::timeout(CONNECT_TIMEOUT, resolved).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => {
                    return Err(std::io::Error::other(format!(
                        "the name cannot be resolved ({error})"
                    )));
                }
                Err(_) => {
                    return Err(std::io::Error::other(format!(
                        "the name was not resolved within {seconds} seconds"
                    )));
                }
            };
            let connected = async {
                loop {
                    match this.dial(&addresses).await {
                        Err(error) if turned_away(&error) => sleep(TURNED_AWAY_PAUSE).await,
                        dialled => return dialled,
                    }
                }
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
                Ok(stream) => Ok(TokioIo::new(stream?)),
                Err(_) => Err(std::io::Error::other(format!(
                    "no answer within {seconds} seconds"
                ))),
            }
        })
    }
}

/// `host:port`; without a port, the default one of managers.
pub(crate) fn with_port(remote: &str) -> String {
    let has_port = remote.parse::<SocketAddr>().is_ok()
        || (remote.parse::<std::net::IpAddr>().is_err()
            && remote
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()));
    match remote.parse::<std::net::IpAddr>() {
        _ if has_port => remote.to_owned(),
        Ok(ip) => SocketAddr::new(ip, DEFAULT_MANAGER_PORT).to_string(),
        Err(_) => format!("{remote}:{DEFAULT_MANAGER_PORT}"),
    }
}

/// What TLS itself said, if it is the cause. An I/O error hides what it is made of from `source`.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>();
        if let Some(inner) = inner.and_then(std::io::Error::get_ref)
            && let Some(found) = of_tls(inner)
        {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Says why in the words of the innermost cause.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Connects to a manager within [`CONNECT_TIMEOUT`]; the connection is [`Upkeep::Renewed`].
///
/// # Errors
/// As of [`connect_with`].
pub(crate) async fn connect(
    remote: &str,
    config: Arc<ClientConfig>,
) -> Result<Channel, CommandError> {
    connect_with(remote, config, Upkeep::Renewed).await
}

/// The same, with what is done about the connection later.
///
/// # Errors
/// Unavailable, or forbidden where a certificate is the reason: names the address, the reason and
/// the next step.
pub(crate) async fn connect_with(
    remote: &str,
    config: Arc<ClientConfig>,
    upkeep: Upkeep,
) -> Result<Channel, CommandError> {
    let unreachable = |why: &str| {
        CommandError::unavailable(format!(
            "cannot reach the manager at {remote}: {why}. Check that the address is right, that \
             weftd runs there as a manager, and that no firewall blocks its TCP port \
             ({DEFAULT_MANAGER_PORT} by default)."
        ))
    };
    let connector = Connector::new(remote, config, upkeep == Upkeep::Once);
    let ping = match upkeep {
        Upkeep::Renewed | Upkeep::Once => PING,
        Upkeep::Beaten => SPARE_PING,
    };
    // The connector decides where and how; the URI only has to be one.
    let endpoint = Endpoint::from_static("http://swarm-manager")
        .http2_keep_alive_interval(ping)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true);
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| {
            let trouble =
                of_tls(&error).and_then(|e| certificate_trouble(remote, e, SystemTime::now()));
            match trouble {
                Some(text) => CommandError::forbidden(text),
                None => unreachable(&innermost(&error)),
            }
        })
}

/// Which manager listens at an address, by its certificate.
///
/// # Errors
/// Nobody answers within [`CONNECT_TIMEOUT`], or nobody who proves to be a manager of our cluster.
pub(crate) async fn who_listens(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<NodeId> {
    use std::io::Error;
    let connector = Connector::new(&addr.to_string(), config, true);
    let dialled = tokio::time::timeout(CONNECT_TIMEOUT, connector.dial(&[addr])).await;
    let stream = dialled.map_err(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        Error::other(format!("no answer within {seconds} seconds"))
    })??;
    let chain = stream.get_ref().1.peer_certificates();
    let own = chain.and_then(<[_]>::first);
    let own = own.ok_or_else(|| Error::other("it shows no certificate"))?;
    let member = PeerIdentity::from_certificate(own).map_err(Error::other)?;
    Ok(member.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (given, meant) in [
            ("192.0.2.1", "192.0.2.1:2377"),
            ("192.0.2.1:99", "192.0.2.1:99"),
            ("2001:db8::1", "[2001:db8::1]:2377"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99"),
            ("node-1", "node-1:2377"),
            ("node-1:99", "node-1:99"),
        ] {
            assert_eq!(with_port(given), meant);
        }
    }
}
