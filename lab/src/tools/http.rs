//! `demo-http`: an HTTP server that answers with its task and node.
//!
//! With `--version V` the line ends with that, so that clients see which of two programs it is.
//!
//! `/bytes/N` answers with N zero bytes, `/client` with the address that the request comes from,
//! `/slow/MS` a while later; every other path with one line of text.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context as TaskContext, Poll};

use anyhow::Context;
use clap::Args;
use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// What `demo-http` takes.
#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Port to listen on
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// Name to answer with, where no task is
    #[arg(long)]
    name: Option<String>,
    /// Version to answer with, after everything else
    #[arg(long)]
    version: Option<String>,
    /// Listen on IPv4 only
    #[arg(long)]
    ipv4: bool,
}

/// Bytes of one piece of a long answer.
const CHUNK: usize = 256 * 1024;

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn serve(args: HttpArgs) -> anyhow::Result<ExitCode> {
    // Connections of both families; a kernel without IPv6 has one.
    let every = if args.ipv4 {
        None
    } else {
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, args.port)).await;
        both.ok()
    };
    let listener = match every {
        Some(listener) => Ok(listener),
        None => TcpListener::bind((Ipv4Addr::UNSPECIFIED, args.port)).await,
    };
    let listener = listener.with_context(|| format!("cannot listen on port {}", args.port))?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let greeting = Greeting::new(args.name, args.version);
    let connections = tokio::task::LocalSet::new();
    connections
        .run_until(async {
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => {
                            let client = peer.ip().to_canonical();
                            let line = greeting.to(client);
                            tokio::task::spawn_local(answer(stream, line, client));
                        }
                        // The client gave up, or descriptors are short for a moment.
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                    },
                    _ = stop.recv() => return,
                    _ = interrupt.recv() => return,
                }
            }
        })
        .await;
    Ok(ExitCode::SUCCESS)
}

/// What every request is answered with.
struct Greeting {
    /// A name that stands for the task, and has the client's address told.
    name: Option<String>,
    /// `Hello from TASK on NODE`
    line: String,
    /// ` (version V)`, or nothing.
    version: String,
}

impl Greeting {
    fn new(name: Option<String>, version: Option<String>) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let task = variable("WEFT_TASK_NAME").unwrap_or_else(|| "no task".to_owned());
        let node = variable("WEFT_NODE_NAME").unwrap_or_else(|| "no node".to_owned());
        Self {
            name,
            line: format!("Hello from {task} on {node}"),
            version: version.map_or_else(String::new, |version| format!(" (version {version})")),
        }
    }

    fn to(&self, client: IpAddr) -> Bytes {
        let Self { line, version, .. } = self;
        Bytes::from(match &self.name {
            Some(name) => format!("Hello from {name} to {client}{version}\n"),
            None => format!("{line}{version}\n"),
        })
    }
}

async fn answer(stream: TcpStream, line: Bytes, client: IpAddr) {
    let service = service_fn(|request: Request<Incoming>| {
        let path = request.uri().path();
        let number = |prefix| path.strip_prefix(prefix)?.parse().ok();
        let body = match number("/bytes/") {
            Some(count) => Either::Right(Zeros { left: count }),
            None if path == "/client" => {
                Either::Left(Full::new(Bytes::from(format!("{client}\n"))))
            }
            None => Either::Left(Full::new(line.clone())),
        };
        let wait = number("/slow/").map(std::time::Duration::from_millis);
        async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    // A client that goes away in the middle is its own affair.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

/// So many zero bytes, made as they are sent.
struct Zeros {
    left: u64,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let count = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        self.left -= count as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS[..count])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
