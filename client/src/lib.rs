//! The node API from the outside: JSON over HTTP/1 on a unix socket (`weft_model::api`).
//!
//! For whoever talks to a node: the command line, labs and benches. Each call opens a connection of
//! its own and needs a runtime of tokio with I/O and time.

#![forbid(unsafe_code)]

mod images;
mod streams;

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
pub use images::ResolvedImage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use weft_model::api::{ErrorBody, MAX_REQUEST, STALE, max_request};
use weft_model::backup::MAX_BACKUP;

/// Longer than anything that `weftd` does before it answers (a join waits 20 s for a manager).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// No answer of the API is bigger, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Pieces of a request that goes on that wait for the connection.
const WAITING: usize = 4;

/// A node, reached over its socket. Each call opens a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    host: String,
    socket: PathBuf,
    stale: bool,
}

/// `weftd` refused a request.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// What the node says, with the next step.
    pub message: String,
}

impl Client {
    /// Takes `unix:///path/of/socket`; nothing is opened yet.
    ///
    /// # Errors
    /// The text is no such address.
    pub fn new(host: &str) -> anyhow::Result<Self> {
        let Some(path) = host.strip_prefix("unix://") else {
            bail!("invalid host {host:?}: write unix:///path/of/socket");
        };
        if !path.starts_with('/') {
            bail!("invalid host {host:?}: the path of the socket must start with a slash");
        }
        Ok(Self {
            host: host.to_owned(),
            socket: PathBuf::from(path),
            stale: false,
        })
    }

    /// With `stale` a manager answers reads from what it knows, newest or not, and also while the
    /// swarm has no leader.
    #[must_use]
    pub fn with_stale(self, stale: bool) -> Self {
        Self { stale, ..self }
    }

    /// GET.
    ///
    /// # Errors
    /// [`Refused`] when the node says no; others when it cannot be reached or understood.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        decode(path, &self.send(Method::GET, path, Bytes::new()).await?)
    }

    /// GET of something that is no JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let body = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<B, T>(&self, path: &str, body: &B) -> anyhow::Result<T>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        let body = serde_json::to_vec(body)?;
        decode(path, &self.send(Method::POST, path, body.into()).await?)
    }

    /// POST without a body, or with an answer that does not matter.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post_done<B: Serialize + Sync>(&self, path: &str, body: &B) -> anyhow::Result<()> {
        let body = serde_json::to_vec(body)?;
        self.send(Method::POST, path, body.into()).await.map(drop)
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(Method::DELETE, path, Bytes::new())
            .await
            .map(drop)
    }

    /// DELETE, with an answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete_for<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        decode(path, &self.send(Method::DELETE, path, Bytes::new()).await?)
    }

    /// DELETE with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete_with<B: Serialize + Sync>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<()> {
        let body = serde_json::to_vec(body)?;
        self.send(Method::DELETE, path, body.into()).await.map(drop)
    }

    /// POST of a file of at most [`MAX_BACKUP`] bytes, with these headers besides.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        file: Bytes,
    ) -> anyhow::Result<T> {
        if file.len() > MAX_BACKUP {
            bail!(
                "the file has {} bytes, and weftd takes {MAX_BACKUP} at most; nothing was sent",
                file.len()
            );
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "weftd")
            .header("content-type", "application/octet-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        decode(path, &self.exchange(request.body(Full::new(file))?).await?)
    }

    async fn connect(&self) -> anyhow::Result<UnixStream> {
        UnixStream::connect(&self.socket).await.map_err(|e| {
            let reason = match e.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "permission denied; run this as root or as a member of the socket's group"
                        .to_owned()
                }
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    "is it running? start it with `weftd`, or name another socket with -H"
                        .to_owned()
                }
                _ => e.to_string(),
            };
            anyhow!("cannot connect to weftd at {}: {reason}", self.host)
        })
    }

    /// GET of an answer without an end.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn stream(&self, path: &str) -> anyhow::Result<Pieces> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body, or with this thread's runtime.
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().uri(path).header("host", "weftd");
        if self.stale {
            request = request.header(STALE, "true");
        }
        let request = request.body(Full::<Bytes>::default())?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer =
            answer.with_context(|| format!("weftd at {} does not answer", self.host))??;
        let status = answer.status();
        let body = answer.into_body();
        if status.is_success() {
            return Ok(Pieces {
                body,
                _driver: driver,
                _asked: None,
            });
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| anyhow!("{e}"))?.to_bytes();
        Err(self.refused(status, &body).into())
    }

    /// POST of a body without an end, with an answer without one: what is sent goes out as it comes.
    /// `first` is its beginning, which the node may read before it answers.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn converse(
        &self,
        path: &str,
        first: Bytes,
    ) -> anyhow::Result<(mpsc::Sender<Bytes>, Pieces)> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let (say, said) = mpsc::channel(WAITING);
        // There is room, and a reader.
        drop(say.send(first).await);
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "weftd")
            .header("content-type", "application/octet-stream")
            .body(Said(said))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer =
            answer.with_context(|| format!("weftd at {} does not answer", self.host))??;
        let status = answer.status();
        let body = answer.into_body();
        if status.is_success() {
            let pieces = Pieces {
                body,
                _driver: driver,
                _asked: Some(sender),
            };
            return Ok((say, pieces));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| anyhow!("{e}"))?.to_bytes();
        Err(self.refused(status, &body).into())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let limit = max_request(method.as_str(), path);
        if body.len() > limit {
            let instead = if limit == MAX_REQUEST {
                "ask for less at once, such as fewer ports"
            } else {
                "keep what is as long in an image, or in a volume"
            };
            // As the node would.
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let message = format!(
                "the request has {} bytes, and weftd takes {limit} at most; nothing was sent: {instead}",
                body.len()
            );
            return Err(Refused { status, message }.into());
        }
        let mut request = Request::builder()
            .uri(path)
            .header("host", "weftd")
            .header("content-type", "application/json");
        if self.stale && method == Method::GET {
            request = request.header(STALE, "true");
        }
        self.exchange(request.method(method).body(Full::new(body))?)
            .await
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
        let stream = self.connect().await?;
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let answer = async {
                let answer = sender.send_request(request).await?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), MAX_ANSWER)
                    .collect()
                    .await
                    .map_err(|e| anyhow!("{e}"))?
                    .to_bytes();
                drop(sender);
                anyhow::Ok((status, body))
            };
            // The connection has to be driven while the answer is awaited; it ends with the sender.
            let (answer, driven) = tokio::join!(answer, connection);
            // An answer counts, also when the node then hung up on the rest of the request.
            match (answer, driven) {
                (Ok(answer), _) => Ok(answer),
                (Err(error), _) => Err(error),
            }
        };
        let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| {
                anyhow!(
                    "weftd at {} did not answer within {} s",
                    self.host,
                    ANSWER_TIMEOUT.as_secs()
                )
            })?
            .with_context(|| format!("no usable answer from weftd at {}", self.host))?;
        if status.is_success() {
            return Ok(body);
        }
        Err(self.refused(status, &body).into())
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Refused {
        let message = match serde_json::from_slice::<ErrorBody>(body) {
            Ok(error) => error.message,
            Err(_) => format!(
                "weftd at {} answered {status}: {}",
                self.host,
                String::from_utf8_lossy(body).trim()
            ),
        };
        Refused { status, message }
    }
}

/// A request that goes on.
struct Said(mpsc::Receiver<Bytes>);

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// An answer that goes on.
#[derive(Debug)]
pub struct Pieces {
    body: hyper::body::Incoming,
    _driver: tokio::task::JoinHandle<hyper::Result<()>>,
    /// Of a request that goes on beside it.
    _asked: Option<SendRequest<Said>>,
}

impl Pieces {
    /// The next piece; nothing at the end. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke: the agent has ended, for instance.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(piece) = frame.context("weftd broke the answer off")?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

fn decode<T: DeserializeOwned>(path: &str, body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).with_context(|| {
        format!("weftd's answer to {path} has an unexpected form: are weft and weftd of the same version?")
    })
}

/// Puts a name into a path: whatever is not unreserved is percent-encoded (RFC 3986 section 2.3).
#[must_use]
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.push(
                    char::from_digit(u32::from(digit), 16)
                        .unwrap_or('0')
                        .to_ascii_uppercase(),
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(
            Client::new("unix:///run/x.sock").unwrap().socket,
            Path::new("/run/x.sock")
        );
        for bad in ["tcp://1.2.3.4:5", "/run/x.sock", "unix://x"] {
            assert!(Client::new(bad).is_err(), "{bad} was accepted");
        }
    }

    /// A node that says this, whatever it is asked, and hangs up without reading the request.
    fn node(answer: &'static str) -> (tempfile::TempDir, Client) {
        use std::io::Write;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(&format!("unix://{}", path.display())).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(answer.as_bytes()).unwrap();
            }
        });
        (dir, client)
    }

    #[tokio::test]
    async fn a_node_that_hangs_up_is_told() {
        let (_dir, client) = node("");
        for _ in 0..20 {
            let body = "x".repeat(500_000);
            let error = client.post_done("/v1/services", &body).await.unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains("no usable answer from weftd"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_that_is_too_large_is_told_before_it_is_sent() {
        let (_dir, client) = node("");
        let body = "x".repeat(2 << 20);
        let error = client.post_done("/v1/services", &body).await.unwrap_err();
        assert!(format!("{error:#}").contains("fewer ports"), "{error:#}");
        // A config may be longer: it is sent, and this node hangs up.
        let body = "x".repeat(3 << 19);
        let error = client.post_done("/v1/configs", &body).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no usable answer from weftd"), "{text}");
        let body = "x".repeat(2 << 20);
        let error = client.post_done("/v1/configs", &body).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("takes 2097152 at most; nothing was sent: keep"),
            "{text}"
        );
    }

    #[test]
    fn segments_cannot_change_the_path() {
        assert_eq!(segment("web-1.a_b~"), "web-1.a_b~");
        assert_eq!(segment("../a b?ü"), "..%2Fa%20b%3F%C3%BC");
    }
}
