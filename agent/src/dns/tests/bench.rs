//! A served sandbox, and upstreams on loopback.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_dns::{ClientView, EndpointNames, ServiceNames, Zone, ZoneBuilder};

use crate::dns::DnsServer;
use crate::dns::outside::framed;
use crate::dns::stats::DnsStats;
use crate::sandbox::DnsSockets;

const PATIENCE: Duration = Duration::from_secs(10);

fn zone() -> Arc<Zone> {
    let mut zone = ZoneBuilder::new();
    zone.network("n1", "front");
    let tasks: Vec<_> = (0..100)
        .map(|i| Ipv4Addr::new(10, 0, 1, 10 + i).into())
        .collect();
    zone.service(
        "n1",
        &ServiceNames {
            name: "web".into(),
            vips: vec![Ipv4Addr::new(10, 0, 1, 2).into()],
            tasks: tasks.clone(),
            ..ServiceNames::default()
        },
    )
    .unwrap();
    zone.endpoint(
        "n1",
        &EndpointNames {
            name: "web.1.abc".into(),
            ips: vec![tasks[0]],
            ..EndpointNames::default()
        },
    )
    .unwrap();
    Arc::new(zone.build())
}

pub(super) fn view() -> ClientView {
    ClientView {
        networks: vec!["n1".into()],
        ..ClientView::default()
    }
}

/// A served sandbox `s` and where its sockets are.
pub(super) struct Bench {
    pub(super) server: DnsServer,
    pub(super) udp: SocketAddr,
    pub(super) tcp: SocketAddr,
}

impl Bench {
    pub(super) fn new(upstreams: &[SocketAddr]) -> Self {
        Self::around(DnsServer::new(upstreams))
    }

    pub(super) fn around(server: DnsServer) -> Self {
        server.set_zone(zone());
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        server
            .serve(
                "s",
                DnsSockets {
                    udp,
                    tcp,
                    way: None,
                },
                view(),
            )
            .unwrap();
        Self {
            server,
            udp: udp_at,
            tcp: tcp_at,
        }
    }

    /// One more sandbox; where its UDP socket is.
    pub(super) fn serve(&self, id: &str) -> SocketAddr {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        self.server
            .serve(
                id,
                DnsSockets {
                    udp,
                    tcp,
                    way: None,
                },
                view(),
            )
            .unwrap();
        at
    }

    pub(super) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let query = query(name, kind);
        socket
            .send_to(&query.to_vec().unwrap(), self.udp)
            .await
            .unwrap();
        let mut buffer = vec![0; 65535];
        let (length, from) = soon(socket.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from, self.udp);
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(
            (reply.metadata.id, &reply.queries),
            (query.metadata.id, &query.queries)
        );
        reply
    }

    pub(super) async fn code(&self, name: &str) -> ResponseCode {
        self.ask(name, RecordType::A).await.metadata.response_code
    }

    /// Waits until the counters are as wanted.
    pub(super) async fn counted(&self, wanted: impl Fn(&DnsStats) -> bool) -> DnsStats {
        soon(async {
            loop {
                let stats = self.server.stats();
                if wanted(&stats) {
                    return stats;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it took too long")
}

pub(super) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand_id(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn rand_id() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    u16::try_from(NEXT.fetch_add(7, Ordering::Relaxed) % 65536).unwrap()
}

pub(super) async fn exchange(stream: &mut TcpStream, query: &Message) -> Message {
    stream
        .write_all(&framed(&query.to_vec().unwrap()))
        .await
        .unwrap();
    hear(stream).await
}

/// The next reply of a connection.
pub(super) async fn hear(stream: &mut TcpStream) -> Message {
    let length = soon(stream.read_u16()).await.unwrap();
    let mut bytes = vec![0; length.into()];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

/// What an upstream does with a query.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    Address,
    Denial,
    Fail,
    Silent,
    /// Junk with the right id first, then the address.
    Liar,
    /// Silent about names that begin with "void", else the address.
    Choosy,
}

/// An upstream on loopback, UDP and TCP on one port; ends when dropped.
pub(super) struct Upstream {
    pub(super) at: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn new(manner: Manner) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(at).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if matches!(manner, Manner::Liar) {
                    let mut lie = buffer[..length].to_vec();
                    lie[2] |= 0x80;
                    lie[13] ^= 1;
                    udp.send_to(&lie, client).await.unwrap();
                    udp.send_to(&lie[..5], client).await.unwrap();
                }
                if let Some(reply) = respond(manner, &buffer[..length]) {
                    udp.send_to(&reply, client).await.unwrap();
                }
            }
        });
        let count = Arc::clone(&asked);
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; length.into()];
                stream.read_exact(&mut bytes).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(reply) = respond(manner, &bytes) {
                    stream.write_all(&framed(&reply)).await.unwrap();
                }
            }
        });
        Self {
            at,
            asked,
            _tasks: tasks,
        }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn respond(manner: Manner, query: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let name = message.queries[0].name().clone();
    match manner {
        Manner::Choosy if name.to_ascii().starts_with("void") => return None,
        Manner::Address | Manner::Liar | Manner::Choosy => {
            let data = RData::A(Ipv4Addr::new(198, 51, 100, 7).into());
            message.add_answer(Record::from_rdata(name, 60, data));
        }
        Manner::Denial => {
            message.metadata.response_code = ResponseCode::NXDomain;
            let zone = Name::from_ascii("org.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
            message.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
        }
        Manner::Fail => message.metadata.response_code = ResponseCode::ServFail,
        Manner::Silent => return None,
    }
    Some(message.to_vec().unwrap())
}

/// An address on loopback where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}
