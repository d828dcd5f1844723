//! gRPC to a manager with bodies as they are: what another version of weft sends, or an attacker.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use weft_sys::netns::Netns;

/// For one attempt as a whole.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);

/// Bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buf.remaining();
        Ok(Some(buf.copy_to_bytes(len)))
    }
}

/// Hands out one connection.
struct Given(Option<TlsStream<tokio::net::TcpStream>>);

impl Service<Uri> for Given {
    type Response = TokioIo<TlsStream<tokio::net::TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, std::io::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        let stream = stream.ok_or_else(|| std::io::ErrorKind::NotConnected.into());
        Box::pin(std::future::ready(stream))
    }
}

/// Calls a manager from one machine.
pub(crate) struct Caller<'a> {
    from: &'a Netns,
    to: SocketAddr,
    tls: TlsConnector,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Caller<'a> {
    /// Without a certificate. `root` is the file of the cluster's root certificate: it only has to
    /// get past the greeting.
    pub(crate) fn stranger(from: &'a Netns, to: SocketAddr, root: &Path) -> Self {
        Self::new(from, to, config(root).with_no_client_auth())
    }

    /// With the certificate of a member, whose folder of certificates this is.
    pub(crate) fn member(from: &'a Netns, to: SocketAddr, certs: &Path) -> Self {
        let file = certs.join("node.pem");
        let certificate = CertificateDer::from_pem_file(&file).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&file).expect("a key");
        let config = config(&certs.join("ca.crt")).with_client_auth_cert(vec![certificate], key);
        Self::new(from, to, config.expect("an identity"))
    }

    fn new(from: &'a Netns, to: SocketAddr, mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            from,
            to,
            tls: TlsConnector::from(Arc::new(config)),
            runtime: { runtime }.enable_all().build().expect("a runtime"),
        }
    }

    /// One connection, one call; nothing where there was no connection to call on.
    pub(crate) fn call(&self, path: &'static str, body: Bytes) -> Option<Result<Bytes, Status>> {
        let to = self.to;
        let connected = self
            .from
            .run_in(|| TcpStream::connect_timeout(&to, CONNECT));
        let stream = connected.expect("a thread").ok()?;
        let answer = async { tokio::time::timeout(PATIENCE, self.ask(stream, path, body)).await };
        self.runtime.block_on(answer).ok()?.ok()
    }

    async fn ask(
        &self,
        stream: TcpStream,
        path: &'static str,
        body: Bytes,
    ) -> Result<Result<Bytes, Status>, Box<dyn std::error::Error>> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::try_from("swarm-manager")?;
        let stream = self.tls.connect(name, stream).await?;
        let channel = Endpoint::from_static("http://manager")
            .connect_with_connector(Given(Some(stream)))
            .await?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await?;
        let path = PathAndQuery::from_static(path);
        let answer = grpc.unary(Request::new(body), path, Raw).await;
        Ok(answer.map(Response::into_inner))
    }
}

fn config(root: &Path) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(root).expect("a root certificate");
    roots.add(root).expect("a root certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
}
