//! One request and its answer, with time-outs and errors that name the host.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_stream::Stream;
use url::Url;

use super::connect::{Connector, TimeOuts};
use super::error::RegistryError;
use super::tls::Trust;
use crate::source::SourceError;

/// Idle connections to one host that are kept: as many as layers are fetched at once.
const KEPT: usize = 3;
/// For how long.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Sends requests.
#[derive(Debug)]
pub(super) struct Exchange {
    client: Client<Connector, Full<Bytes>>,
    times: TimeOuts,
}

/// What is asked.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Ask {
    /// A GET without more.
    pub(super) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Host and port that are asked, for messages.
    pub(super) fn host(&self) -> String {
        super::config::authority(&self.url).unwrap_or_default()
    }

    /// Adds `Authorization`, which nothing shows.
    ///
    /// # Errors
    /// [`RegistryError::Protocol`]: it has what no header may have.
    pub(super) fn authorize(&mut self, value: &str) -> Result<(), RegistryError> {
        let mut value = HeaderValue::from_str(value).map_err(|_| RegistryError::Protocol {
            host: self.host(),
            reason: "its token has characters that no header has".to_owned(),
        })?;
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

impl Exchange {
    pub(super) fn new(trust: Arc<Trust>, times: TimeOuts) -> Self {
        let connector = Connector::new(trust, times.connect);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(KEPT_FOR)
            .pool_max_idle_per_host(KEPT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client, times }
    }

    /// How long a body may be silent.
    pub(super) fn idle(&self) -> Duration {
        self.times.idle
    }

    /// The head of the answer, whatever its status is.
    ///
    /// # Errors
    /// There is none: name, connection, TLS, silence.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let host = ask.host();
        let uri: Uri = ask
            .url
            .as_str()
            .parse()
            .map_err(|error| RegistryError::Protocol {
                host: host.clone(),
                reason: format!("an address that nobody can ask: {error}"),
            })?;
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = ask.headers.clone();
        request.headers_mut().insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("weft/", env!("CARGO_PKG_VERSION"))),
        );
        // The connection has its own limits; this one is for the answer.
        let limit = self.times.connect + self.times.idle;
        match timeout(limit, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(understood(&host, &error)),
            Err(_) => Err(RegistryError::Silent { host, limit }),
        }
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may be a token, and so may the query of an address that a registry sends us to.
        f.debug_struct("Ask")
            .field("method", &self.method)
            .field("host", &self.host())
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// The error of our own connector, where it is one.
fn understood(host: &str, error: &(dyn Error + 'static)) -> RegistryError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(known) = inner.downcast_ref::<RegistryError>() {
            return known.clone();
        }
        reason = inner.to_string();
        cause = inner.source();
    }
    RegistryError::Cut {
        host: host.to_owned(),
        reason,
    }
}

/// All of a body that has no more than `limit` bytes.
///
/// # Errors
/// It is longer, breaks off, or falls silent.
pub(super) async fn read(
    host: &str,
    mut body: Incoming,
    limit: usize,
    idle: Duration,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout(idle, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(understood(host, &error)),
            Ok(None) => return Ok(bytes),
            Err(_) => {
                return Err(RegistryError::Silent {
                    host: host.to_owned(),
                    limit: idle,
                });
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            return Err(RegistryError::Protocol {
                host: host.to_owned(),
                reason: format!("its answer has more than {limit} bytes"),
            });
        }
        bytes.extend_from_slice(&data);
    }
}

/// A body as a stream that ends with an error where it is silent for too long.
pub(super) struct Chunks {
    host: String,
    body: Incoming,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Chunks {
    pub(super) fn new(host: String, body: Incoming, idle: Duration) -> Self {
        Self {
            host,
            body,
            idle,
            deadline: Box::pin(sleep(idle)),
        }
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(context) else {
                ready!(this.deadline.as_mut().poll(context));
                let silent = RegistryError::Silent {
                    host: this.host.clone(),
                    limit: this.idle,
                };
                return Poll::Ready(Some(Err(silent.into())));
            };
            this.deadline.as_mut().reset(Instant::now() + this.idle);
            return Poll::Ready(match next {
                None => None,
                Some(Err(error)) => Some(Err(understood(&this.host, &error).into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers.
                    Err(_) => continue,
                },
            });
        }
    }
}
