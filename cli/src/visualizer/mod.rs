//! `weft visualizer`: a small HTTP server with one page, on which nodes are columns and tasks boxes.
//!
//! It reads and changes nothing: `GET /` is the page, which needs nothing from anywhere else,
//! `GET /api/state` a [`Picture`](picture::Picture), and there is nothing more. The node API is closed
//! to tasks and containers; where the page is to be a service, a visualizer on the node listens on a
//! socket of its own, and one in the container passes on what that says (`--relay`).

mod door;
mod picture;

use std::convert::Infallible;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use weft_client::Client;

use crate::args::VisualizerArgs;
use crate::output::Printer;
use door::{Accepted, Door};

const PAGE: &str = include_str!("page.html");

/// Connections at once. One more is closed; browsers ask again.
const MOST: usize = 64;

/// How long a connection may take, which is for one request.
const LIMIT: Duration = Duration::from_secs(10);

/// For so long the manager is not asked again, however many people look.
const FRESH: Duration = Duration::from_millis(500);

/// How long another visualizer may take, which may be asking meanwhile ([`picture::PICTURE`]).
const RELAYED: Duration = Duration::from_secs(8);

/// Nothing but what is in the page, and its questions to where it came from.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// It cannot listen there.
pub(crate) async fn run(
    client: Client,
    args: &VisualizerArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let door = Door::open(&args.listen).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    out.line(&format!("The swarm is shown at {door}; Ctrl-C ends it"))?;
    out.flush()?;
    let shown = Arc::new(Shown {
        client,
        relay: args.relay,
        local: door.is_local(),
        last: Mutex::new(None),
    });
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        let Ok(accepted) = accepted else {
            // The client gave up, or descriptors are short for a moment.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let shown = Arc::clone(&shown);
        match accepted {
            Accepted::Tcp(stream) => drop(tokio::spawn(serve(stream, shown, place))),
            Accepted::Unix(stream) => drop(tokio::spawn(serve(stream, shown, place))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers one request. A client that goes away meanwhile is its own affair.
async fn serve<S>(stream: S, shown: Arc<Shown>, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let shown = Arc::clone(&shown);
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let host = request.headers().get(HOST).cloned();
        async move { Ok::<_, Infallible>(shown.answer(&method, &path, host.as_ref()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    drop(timeout(LIMIT, connection).await);
}

/// What is shown to everybody.
#[derive(Debug)]
struct Shown {
    client: Client,
    /// Another visualizer is asked, not a manager.
    relay: bool,
    /// Only programs of this machine reach it.
    local: bool,
    /// What was heard last.
    last: Mutex<Option<Heard>>,
}

/// An answer for everybody who asks within [`FRESH`], or why there is none.
#[derive(Debug)]
struct Heard {
    at: Instant,
    status: StatusCode,
    body: Bytes,
}

impl Shown {
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        host: Option<&HeaderValue>,
    ) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        // A name that somebody has point here would let his page read this one's.
        if self.local && !host.is_none_or(names_this_machine) {
            return response(
                StatusCode::FORBIDDEN,
                TEXT,
                "ask by 127.0.0.1 or localhost\n".into(),
            );
        }
        let known = ["/", "/api/state"].contains(&path);
        match (known, method) {
            (false, _) => response(StatusCode::NOT_FOUND, TEXT, "there is / alone\n".into()),
            (true, &Method::GET) if path == "/" => {
                response(StatusCode::OK, "text/html; charset=utf-8", PAGE.into())
            }
            (true, &Method::GET) => self.state().await,
            (true, _) => response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET alone\n".into()),
        }
    }

    async fn state(&self) -> Response<Full<Bytes>> {
        const JSON: &str = "application/json";
        // Held while the manager is asked: whoever comes meanwhile has that answer too.
        let mut last = self.last.lock().await;
        if let Some(heard) = last.as_ref()
            && heard.at.elapsed() < FRESH
        {
            return response(heard.status, JSON, heard.body.clone());
        }
        let (status, body) = match self.look().await {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => {
                let body = json!({ "Message": format!("{error:#}") }).to_string();
                (StatusCode::SERVICE_UNAVAILABLE, body.into())
            }
        };
        *last = Some(Heard {
            at: Instant::now(),
            status,
            body: body.clone(),
        });
        response(status, JSON, body)
    }

    async fn look(&self) -> anyhow::Result<Bytes> {
        if self.relay {
            let answer = timeout(RELAYED, self.client.get_text("/api/state")).await;
            let answer = answer.context("the other visualizer did not answer in time")?;
            return Ok(answer?.into());
        }
        let picture = picture::look(&self.client).await?;
        Ok(serde_json::to_vec(&picture)?.into())
    }
}

/// Whether a request is meant for this machine by its own names.
fn names_this_machine(host: &HeaderValue) -> bool {
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

#[cfg(test)]
mod tests;
