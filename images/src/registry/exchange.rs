//! One request and its answer, with time-outs and errors that name the host.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use super::manner::Manner;
use super::tls::Trust;
use super::unreached::{Unreached, Waited};
use crate::source::SourceError;

/// Idle connections to one host that are kept: as many as layers are fetched at once.
const KEPT: usize = 3;
/// For how long.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How long the head of an answer may take where there is an answer without it.
const BRIEF_ANSWER: Duration = Duration::from_secs(8);

/// Sends requests, and remembers who could not be reached. One lock, never held over an await.
#[derive(Debug)]
pub(super) struct Exchange {
    client: Client<Connector, Full<Bytes>>,
    /// Its connections are given up sooner.
    brief: Client<Connector, Full<Bytes>>,
    times: TimeOuts,
    /// By scheme, host and port.
    unreached: Mutex<Unreached>,
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
        let client = |limits| -> Client<Connector, Full<Bytes>> {
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(KEPT_FOR)
                .pool_max_idle_per_host(KEPT)
                .pool_timer(TokioTimer::new())
                .build(Connector::new(Arc::clone(&trust), limits))
        };
        Self {
            client: client(times.usual()),
            brief: client(times.brief()),
            times,
            unreached: Mutex::default(),
        }
    }

    fn unreached(&self) -> MutexGuard<'_, Unreached> {
        self.unreached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a body may be silent.
    pub(super) fn idle(&self) -> Duration {
        self.times.idle
    }

    /// The head of the answer, whatever its status is.
    ///
    /// # Errors
    /// There is none: name, connection, TLS, silence, now or a moment ago.
    pub(super) async fn send(
        &self,
        ask: &Ask,
        manner: Manner,
    ) -> Result<Response<Incoming>, RegistryError> {
        let host = ask.host();
        let origin = ask.url.origin().ascii_serialization();
        let remembered = self.unreached().recall(&origin, manner, Instant::now());
        if let Some(error) = remembered {
            return Err(error);
        }
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
        let times = self.times;
        // The connection has its own limits; this one is for the answer.
        let (client, limit) = match manner {
            Manner::Brief => (&self.brief, times.brief + times.idle.min(BRIEF_ANSWER)),
            _ => (&self.client, times.connect + times.idle),
        };
        let question = Question {
            exchange: self,
            host: &host,
            origin: &origin,
            manner,
            begun: Instant::now(),
            is_over: false,
        };
        let answer = match timeout(limit, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(understood(&host, &error)),
            Err(_) => Err(RegistryError::Silent {
                host: host.clone(),
                limit,
            }),
        };
        question.end(answer.as_ref().err());
        answer
    }
}

/// One that was sent.
struct Question<'a> {
    exchange: &'a Exchange,
    host: &'a str,
    origin: &'a str,
    manner: Manner,
    begun: Instant,
    is_over: bool,
}

impl Question<'_> {
    /// There is an answer, or an error in its place.
    fn end(mut self, error: Option<&RegistryError>) {
        self.is_over = true;
        let now = Instant::now();
        let waited = self.waited(now);
        let mut unreached = self.exchange.unreached();
        match error.filter(|error| error.is_unreached()) {
            Some(error) => unreached.note(self.origin, error, waited, now),
            None => unreached.heard(self.origin, now),
        }
    }

    fn waited(&self, now: Instant) -> Waited {
        let waited = now.saturating_duration_since(self.begun);
        let times = self.exchange.times;
        if waited >= times.connect {
            Waited::Long
        } else if self.manner == Manner::Brief && waited >= times.brief {
            Waited::Briefly
        } else {
            Waited::Not
        }
    }
}

impl Drop for Question<'_> {
    /// Whoever asked waits no longer. Where that was long, nobody else has to wait as long for the same.
    fn drop(&mut self) {
        let now = Instant::now();
        if self.is_over || self.waited(now) != Waited::Long {
            return;
        }
        let waited = now.saturating_duration_since(self.begun);
        let error = RegistryError::Silent {
            host: self.host.to_owned(),
            limit: Duration::from_secs(waited.as_secs()),
        };
        let mut unreached = self.exchange.unreached();
        unreached.note(self.origin, &error, Waited::Long, now);
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
