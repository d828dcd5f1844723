//! A machine without a certificate that calls what only members may, with bodies that are small on
//! the wire and large in memory.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
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

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The manager answered with this.
    Answered(Code),
    /// There was no connection to call on.
    TurnedAway,
}

/// Throws bombs from one machine.
pub(super) struct Thrower<'a> {
    from: &'a Netns,
    to: SocketAddr,
    tls: TlsConnector,
    runtime: tokio::runtime::Runtime,
    body: Bytes,
}

impl<'a> Thrower<'a> {
    /// `root` is the file of the cluster's root certificate: it only has to get past the greeting.
    pub(super) fn new(from: &'a Netns, to: SocketAddr, root: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(root).expect("a root certificate");
        roots.add(root).expect("a root certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            from,
            to,
            tls: TlsConnector::from(Arc::new(config)),
            runtime: { runtime }.enable_all().build().expect("a runtime"),
            // UpdateTaskStatusRequest: 16 MiB of `updates`, all of them empty.
            body: Bytes::from([0x12, 0x00].repeat((8 << 20) - 16)),
        }
    }

    /// One connection, one call.
    pub(super) fn throw(&self) -> Outcome {
        let to = self.to;
        let connected = self
            .from
            .run_in(|| TcpStream::connect_timeout(&to, CONNECT));
        let Ok(stream) = connected.expect("a thread") else {
            return Outcome::TurnedAway;
        };
        let thrown = async {
            match tokio::time::timeout(PATIENCE, self.call(stream)).await {
                Ok(Ok(code)) => Outcome::Answered(code),
                Ok(Err(_)) | Err(_) => Outcome::TurnedAway,
            }
        };
        self.runtime.block_on(thrown)
    }

    async fn call(&self, stream: TcpStream) -> Result<Code, Box<dyn std::error::Error>> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::try_from("swarm-manager")?;
        let stream = self.tls.connect(name, stream).await?;
        let channel = Endpoint::from_static("http://manager")
            .connect_with_connector(Given(Some(stream)))
            .await?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await?;
        let path = PathAndQuery::from_static("/weft.v1.Dispatcher/UpdateTaskStatus");
        let answer = grpc.unary(Request::new(self.body.clone()), path, Raw).await;
        Ok(answer.map_or_else(|status| status.code(), |_| Code::Ok))
    }
}
