//! What a machine without a certificate, or a member that misbehaves, gets from a manager.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt as _;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::*;
use crate::codec::MAX_FIELDS;
use crate::identity::MANAGER_UNIT;
use crate::tls::{member_config, unverified_config};

/// Not an address of any node of these tests.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// Everything that only members may call.
const FOR_MEMBERS: [&str; 8] = [
    "/weft.v1.Ca/RenewCertificate",
    "/weft.v1.Dispatcher/Session",
    "/weft.v1.Dispatcher/Heartbeat",
    "/weft.v1.Dispatcher/UpdateTaskStatus",
    "/weft.v1.Dispatcher/Leave",
    "/weft.v1.Control/AttachEndpoint",
    "/weft.v1.Control/DetachEndpoint",
    "/weft.v1.Control/WhatComesNext",
];
const ISSUE: &str = "/weft.v1.Ca/IssueCertificate";
const REPORT: &str = "/weft.v1.Dispatcher/UpdateTaskStatus";

/// Bytes as they are, whatever the call expects.
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
struct Given(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Given {
    type Response = TokioIo<TlsStream<TcpStream>>;
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

async fn tcp(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

async fn tls(
    from: Ipv4Addr,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(MANAGER_UNIT).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    connector.connect(name, tcp(from, to).await?).await
}

async fn channel(stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_static("http://manager")
        .connect_with_connector(Given(Some(stream)))
        .await
}

/// One call whose body begins with `first` and, unless `whole`, never ends.
async fn call(channel: Channel, path: &'static str, first: Bytes, whole: bool) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(path);
    let begun = tokio_stream::once(first);
    let answer = if whole {
        grpc.client_streaming(Request::new(begun), path, Raw).await
    } else {
        let endless = begun.chain(tokio_stream::pending());
        grpc.client_streaming(Request::new(endless), path, Raw)
            .await
    };
    answer.map_or_else(|status| status, |_| Status::ok(""))
}

fn event(manager: &Manager, name: &str) -> u64 {
    let events = manager.door().events;
    events.iter().find(|(event, _)| *event == name).unwrap().1
}

fn open(manager: &Manager, kind: &str) -> u64 {
    let open = manager.door().open;
    open.iter().find(|(of, _)| *of == kind).unwrap().1
}

async fn eventually(what: &str, wanted: impl Fn() -> bool) {
    let looked = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, looked)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_certificate_is_answered_before_its_body() {
    let (manager, first) = cluster().await;
    let (to, config) = (manager.local_addr(), unverified_config().unwrap());
    for path in FOR_MEMBERS {
        let stream = tls(STRANGER, to, &config).await.unwrap();
        let channel = channel(stream).await.unwrap();
        // Nothing that would decode, and no end: whoever read the body would wait for it.
        let answer = call(channel, path, Bytes::from_static(&[0xff; 100]), false);
        let status = timeout(LIMIT, answer).await.expect(path);
        assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status}");
        assert!(
            status.message().contains("has no node certificate"),
            "{path}: {status}"
        );
    }
    assert_eq!(event(&manager, "call_refused"), 8);
    // The connection of a refused call is over.
    eventually("no stranger is left", || open(&manager, "stranger") == 0).await;
    assert!(first.session.connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_reach_no_decoder_and_harm_nobody() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let to = manager.local_addr();
    // 16 MiB, in which each two bytes become a structure.
    let bomb = Bytes::from([0x12, 0x00].repeat(8 << 20));
    let config = unverified_config().unwrap();
    for _ in 0..20 {
        let stream = tls(STRANGER, to, &config).await.unwrap();
        let channel = channel(stream).await.unwrap();
        let status = call(channel, REPORT, bomb.clone(), true).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    assert_eq!(event(&manager, "call_refused"), 20);

    // A member's is read as far as its length allows, and counted before it is decoded.
    let config = member_config(&worker.session.identity()).unwrap();
    let stream = tls(Ipv4Addr::LOCALHOST, to, &config).await.unwrap();
    let member = channel(stream).await.unwrap();
    let status = call(member.clone(), REPORT, bomb.clone(), true).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let status = call(member.clone(), REPORT, bomb.slice(..MAX_REPORT), true).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let most = bomb.slice(..2 * MAX_FIELDS);
    let status = call(member.clone(), REPORT, most, true).await;
    assert_eq!(status.code(), Code::InvalidArgument, "decoded: {status}");
    // Headers are enough to count it as a member's.
    assert!(open(&manager, "member") >= 3, "{:?}", manager.door());
    assert!(worker.session.connected());
    assert_eq!(event(&manager, "call_refused"), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_refused_before_its_body_too() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let identity = worker.session.identity();
    drop(worker.session);
    manager.remove_node("w1", true).await.unwrap();
    let config = member_config(&identity).unwrap();
    let stream = tls(STRANGER, manager.local_addr(), &config).await.unwrap();
    let channel = channel(stream).await.unwrap();
    let answer = call(channel, REPORT, Bytes::from_static(&[0xff; 100]), false);
    let status = timeout(LIMIT, answer).await.unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("was removed from swarm"));
}

/// What the manager's first frame of HTTP/2 says: streams and bytes of a stream.
async fn announced(stream: &mut TlsStream<TcpStream>) -> (u32, u32) {
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(hello).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let value = |of: u16| {
        let setting = settings.chunks(6).find(|s| s[..2] == of.to_be_bytes());
        setting.map_or(u32::MAX, |s| u32::from_be_bytes(s[2..].try_into().unwrap()))
    };
    // RFC 9113 section 6.5.2.
    (value(3), value(4))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_windows_go_by_the_certificate() {
    let (manager, first) = cluster().await;
    let to = manager.local_addr();
    let config = unverified_config().unwrap();
    let mut stranger = tls(STRANGER, to, &config).await.unwrap();
    assert_eq!(announced(&mut stranger).await, (4, 16 << 10));
    let config = member_config(&first.session.identity()).unwrap();
    let mut member = tls(STRANGER, to, &config).await.unwrap();
    assert_eq!(announced(&mut member).await, (16, 256 << 10));
    assert_eq!(open(&manager, "stranger"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_certificate_end_in_time() {
    let (manager, first) = cluster().await;
    let to = manager.local_addr();
    let config = unverified_config().unwrap();
    // Silent in TCP, silent in TLS, and silent in HTTP/2 with answers to every ping.
    let mut mute = tcp(STRANGER, to).await.unwrap();
    let mut idle = tls(STRANGER, to, &config).await.unwrap();
    let stream = tls(STRANGER, to, &config).await.unwrap();
    let polite = channel(stream).await.unwrap();
    eventually("all have places", || open(&manager, "stranger") == 3).await;
    let begun = Instant::now();
    let mut byte = [0; 1];
    let ended = timeout(LIMIT, mute.read(&mut byte)).await.unwrap();
    assert!(!ended.is_ok_and(|n| n > 0));
    loop {
        // Settings and pings come first.
        let read = timeout(LIMIT, idle.read(&mut byte)).await.unwrap();
        if !read.is_ok_and(|n| n > 0) {
            break;
        }
    }
    eventually("all are gone", || open(&manager, "stranger") == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{begun:?}");
    assert_eq!(event(&manager, "handshake_failed"), 1);
    assert_eq!(event(&manager, "expired"), 2);
    drop(polite);
    // A member's stays.
    assert!(first.session.connected());
    assert_eq!(open(&manager, "member"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_one_address_keep_nobody_out() {
    let (manager, first) = cluster().await;
    let to = manager.local_addr();
    let mut held = Vec::new();
    for _ in 0..600 {
        // One that is refused at once may end before it is whole.
        held.extend(tcp(STRANGER, to).await.ok());
    }
    eventually("the rest is refused", || {
        event(&manager, "refused_crowded") + event(&manager, "refused_too_fast") >= 500
    })
    .await;
    assert!(open(&manager, "stranger") <= 32, "{:?}", manager.door());
    let begun = Instant::now();
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(first.session.connected());
    assert_eq!(health(&manager.state(), "m1"), NodeState::Ready);
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_tokens_gets_slow() {
    let (manager, _first) = cluster().await;
    let to = manager.local_addr();
    let config = unverified_config().unwrap();
    let mut attempts = 0;
    let begun = Instant::now();
    let turned_away = loop {
        let stream = match tls(STRANGER, to, &config).await {
            Ok(stream) => stream,
            Err(error) => break error,
        };
        let channel = channel(stream).await.unwrap();
        let status = call(channel.clone(), ISSUE, Bytes::new(), true).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        // One attempt for each connection, whoever would like to keep it.
        eventually("it is closed", || open(&manager, "stranger") == 0).await;
        drop(channel);
        attempts += 1;
        assert!(attempts < 200, "in {:?}", begun.elapsed());
    };
    assert!(attempts >= 5, "{attempts}: {turned_away}");
    assert_eq!(event(&manager, "join_refused"), attempts);
    assert!(event(&manager, "refused_too_fast") >= 1);
    // Elsewhere somebody may mistype his.
    Node::join(&manager, "w1").await.connected().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_turned_away_tries_again_in_time() {
    let (manager, _first) = cluster().await;
    let token = manager.join_token(Role::Worker).unwrap();
    let to = manager.local_addr();
    // In front of the manager: turns the first of each two connections away.
    let front = TcpListener::bind(any_port()).await.unwrap();
    let remote = front.local_addr().unwrap().to_string();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let crowded = tokio::spawn(async move {
        while let Ok((mut near, _)) = front.accept().await {
            if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                socket2::SockRef::from(&near)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                continue;
            }
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move {
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    join(join_params(dir.path(), "w", &token.token, &remote))
        .await
        .unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 4);
    crowded.abort();
}
