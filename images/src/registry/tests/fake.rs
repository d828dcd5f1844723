//! A registry of a test: answers as it is told, and remembers what it was asked.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, HOST, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// How many requests there were before.
    pub(crate) nth: usize,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) body: String,
}

/// What is answered.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut_after: Option<usize>,
    hangs: bool,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn hang() -> Self {
        Self {
            hangs: true,
            ..Self::status(200)
        }
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The connection ends after so many bytes of the body.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut_after = Some(after);
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server on loopback, which ends with the test.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let server = tokio::spawn(serve(listener, Arc::clone(&seen), handler));
        Self {
            address,
            seen,
            server,
        }
    }

    /// An image of it.
    pub(crate) fn image(&self, rest: &str) -> crate::name::ImageName {
        format!("{}/{rest}", self.address).parse().expect("a name")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics with it").clone()
    }

    /// How many requests began with this path.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen()
            .iter()
            .filter(|one| one.path.starts_with(path))
            .count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>, handler: Arc<Handler>) {
    while let Ok((connection, _)) = listener.accept().await {
        let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
        let service =
            service_fn(move |request| answer(request, Arc::clone(&seen), Arc::clone(&handler)));
        tokio::spawn(async move {
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(connection), service);
            // One that speaks TLS, or that is cut on purpose.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the test ended");
            }
        });
    }
}

type Parts = tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, io::Error>>>;

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Handler>,
) -> Result<Response<StreamBody<Parts>>, Infallible> {
    let header = |name| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let mut one = Seen {
        nth: 0,
        host: header(HOST).unwrap_or_default(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: header(AUTHORIZATION),
        range: header(RANGE),
        body: String::new(),
    };
    let body = request
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    one.body = String::from_utf8_lossy(&body).into_owned();
    {
        let mut seen = seen.lock().expect("no test panics with it");
        one.nth = seen.len();
        seen.push(one.clone());
    }
    let reply = handler(&one);
    if reply.hangs {
        pending::<()>().await;
    }
    let mut builder = Response::builder()
        .status(reply.status)
        .header("content-length", reply.body.len());
    for (name, value) in &reply.headers {
        builder = builder.header(*name, value);
    }
    let mut bytes = Bytes::from(reply.body);
    let mut parts = Vec::new();
    if let Some(after) = reply.cut_after {
        bytes.truncate(after);
    }
    if !bytes.is_empty() {
        parts.push(Ok(Frame::data(bytes)));
    }
    if reply.cut_after.is_some() {
        parts.push(Err(io::Error::other("cut by the test")));
    }
    let body = StreamBody::new(tokio_stream::iter(parts));
    Ok(builder.body(body).expect("an answer"))
}
