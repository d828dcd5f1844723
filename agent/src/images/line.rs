//! Asking another node: connections, one question at a time, answers that are taken in pieces.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, RANGE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_swarm::NodeTls;

use super::circle::Peer;
use super::turn::{Rank, Said, Stage};
use super::words::{PROGRESS_HEADER, STAGE_HEADER};

/// To be connected: who is away costs no more.
const CONNECT: Duration = Duration::from_millis(500);
/// For the head of an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// For the next piece of a content. Far longer than a node needs that is well.
pub(super) const PIECE: Duration = Duration::from_secs(10);
/// Bytes of an answer to a question at most: a name with its digest.
const SHORT: usize = 4096;

/// A connection to a node. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Line {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a node answers when it is asked for a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It has so many bytes of it: all.
    Here(u64),
    /// It fetches the image from a registry, and has so many bytes of that.
    Coming(u64),
    /// Neither.
    Absent,
    /// It has too much to do: later perhaps.
    Busy,
}

/// A content on its way.
#[derive(Debug)]
pub(super) struct Content {
    /// Its first byte is this one of the whole.
    pub(super) starts_at: u64,
    body: Incoming,
    /// The connection that it comes by.
    _line: Line,
}

async fn in_time<T>(limit: Duration, what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, what)
        .await
        .map_err(|_| Error::from(ErrorKind::TimedOut))?
}

/// Speaks from the address that others know this node by.
async fn tcp(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if from.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
}

impl Line {
    /// Connects to a node.
    ///
    /// # Errors
    /// It does not answer in time, or another one does.
    pub(super) async fn open(tls: &NodeTls, from: IpAddr, peer: &Peer) -> Result<Self> {
        in_time(CONNECT, async {
            let stream = tcp(from, peer.addr).await?;
            let stream = tls.connect(&peer.node, stream).await?;
            let shaken = handshake(TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(Error::other)?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to another node ended");
                }
            });
            Ok(Self { sender, driver })
        })
        .await
    }

    /// True where another question may be asked.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        offset: u64,
    ) -> Result<axum::http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "weft");
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let request = request.body(Empty::new()).map_err(Error::other)?;
        in_time(ANSWER, async {
            self.sender.ready().await.map_err(Error::other)?;
            let answer = self.sender.send_request(request).await;
            answer.map_err(Error::other)
        })
        .await
    }

    /// Where a content is.
    ///
    /// # Errors
    /// No answer in time, or none that is understood.
    pub(super) async fn look(&mut self, path: &str) -> Result<Found> {
        let answer = self.ask(Method::HEAD, path, 0).await?;
        let (status, headers) = (answer.status(), answer.headers());
        match status {
            StatusCode::OK => {
                let size = number(headers, CONTENT_LENGTH.as_str());
                size.map(Found::Here)
                    .ok_or_else(|| Error::other("it does not say how large the content is"))
            }
            StatusCode::ACCEPTED => {
                let bytes = number(headers, PROGRESS_HEADER);
                Ok(Found::Coming(bytes.unwrap_or_default()))
            }
            StatusCode::NOT_FOUND => Ok(Found::Absent),
            StatusCode::SERVICE_UNAVAILABLE => Ok(Found::Busy),
            other => Err(Error::other(format!("it answers {other}"))),
        }
    }

    /// What it does about an image, by the path of that; `rank` is its place in the order.
    ///
    /// # Errors
    /// As of [`Line::look`].
    pub(super) async fn turn(&mut self, path: &str, rank: Rank) -> Result<Said> {
        let answer = self.ask(Method::HEAD, path, 0).await?;
        match answer.status() {
            StatusCode::OK => Ok(Said::Has),
            StatusCode::NOT_FOUND => Ok(Said::HasNot),
            StatusCode::ACCEPTED => {
                let stage = answer.headers().get(STAGE_HEADER);
                let stage = stage.and_then(|stage| stage.to_str().ok());
                let stage = stage.and_then(Stage::of);
                let stage = stage.ok_or_else(|| Error::other("it does not say what it does"))?;
                Ok(Said::At { stage, rank })
            }
            other => Err(Error::other(format!("it answers {other}"))),
        }
    }

    /// A short text; nothing where it knows none.
    ///
    /// # Errors
    /// As of [`Line::look`].
    pub(super) async fn text(&mut self, path: &str) -> Result<Option<String>> {
        let answer = self.ask(Method::GET, path, 0).await?;
        match answer.status() {
            StatusCode::OK => {
                let body = Limited::new(answer.into_body(), SHORT).collect();
                let body = in_time(ANSWER, async { body.await.map_err(Error::other) }).await?;
                let text = String::from_utf8(body.to_bytes().to_vec());
                text.map(Some).map_err(Error::other)
            }
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(Error::other(format!("it answers {other}"))),
        }
    }

    /// A content from a byte on; nothing where the node has no place or does not have it any more.
    ///
    /// # Errors
    /// As of [`Line::look`].
    pub(super) async fn take(mut self, path: &str, offset: u64) -> Result<Option<Content>> {
        let answer = self.ask(Method::GET, path, offset).await?;
        let starts_at = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers().get(CONTENT_RANGE);
                let range = range.and_then(|range| range.to_str().ok());
                let first = range.and_then(|range| range.strip_prefix("bytes "));
                let first = first.and_then(|range| range.split('-').next());
                let first = first.and_then(|first| first.parse().ok());
                first.ok_or_else(|| Error::other("it does not say where the content begins"))?
            }
            StatusCode::NOT_FOUND | StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE => {
                return Ok(None);
            }
            other => return Err(Error::other(format!("it answers {other}"))),
        };
        Ok(Some(Content {
            starts_at,
            body: answer.into_body(),
            _line: self,
        }))
    }
}

impl Content {
    /// The next piece; nothing at the end.
    ///
    /// # Errors
    /// The connection broke, or nothing came for long.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = timeout(PIECE, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::from(ErrorKind::TimedOut))?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(piece) = frame.map_err(Error::other)?.into_data() {
                return Ok(Some(piece));
            }
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
