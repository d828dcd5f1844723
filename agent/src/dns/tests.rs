//! Real sockets on loopback, with upstreams that do as they are told.

mod bench;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use weft_dns::{ClientView, ServiceNames, Zone, ZoneBuilder};

use self::bench::{Bench, Manner, Upstream, exchange, hear, nobody, query, soon, view};
use super::DnsServer;
use super::outside::framed;
use super::stats::DnsStats;
use crate::sandbox::DnsSockets;

#[tokio::test]
async fn names_of_the_cluster_over_udp() {
    let bench = Bench::new(&[]);
    let reply = bench.ask("WEB.", RecordType::A).await;
    assert_eq!(reply.answers.len(), 1);
    assert!(reply.metadata.authoritative);
    let reply = bench.ask("web.", RecordType::AAAA).await;
    assert!(reply.answers.is_empty());
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(bench.code("nobody.front.").await, ResponseCode::NXDomain);
    assert_eq!(bench.code("example.org.").await, ResponseCode::ServFail);
    let stats = bench.counted(|stats| stats.servfail == 1).await;
    let expected = DnsStats {
        queries: 4,
        answered: 1,
        nodata: 1,
        nxdomain: 1,
        servfail: 1,
        forwarded: 1,
        ..DnsStats::default()
    };
    assert_eq!(stats, expected);
}

#[tokio::test]
async fn a_cut_answer_is_whole_over_tcp() {
    let bench = Bench::new(&[]);
    let cut = bench.ask("tasks.web.", RecordType::A).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 100);
    let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
    let whole = exchange(&mut stream, &query("tasks.web.", RecordType::A)).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
    // The connection serves more than one query.
    let again = exchange(&mut stream, &query("web.", RecordType::A)).await;
    assert_eq!(again.answers.len(), 1);
}

#[tokio::test]
async fn queries_over_tcp_may_come_in_one_segment_or_byte_by_byte() {
    let bench = Bench::new(&[]);
    let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let three = ["web.", "tasks.web.", "web.1.abc."].map(|name| query(name, RecordType::A));
    let mut segment = Vec::new();
    for query in &three {
        segment.extend(framed(&query.to_vec().unwrap()));
    }
    stream.write_all(&segment).await.unwrap();
    for (query, count) in three.iter().zip([1, 100, 1]) {
        let reply = hear(&mut stream).await;
        let heard = (reply.metadata.id, reply.answers.len());
        assert_eq!(heard, (query.metadata.id, count));
    }
    let slow = query("web.", RecordType::MX);
    for byte in framed(&slow.to_vec().unwrap()) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reply = hear(&mut stream).await;
    assert_eq!(reply.metadata.id, slow.metadata.id);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert!(reply.answers.is_empty());
}

#[tokio::test]
async fn zone_and_view_change_under_way() {
    let bench = Bench::new(&[]);
    assert_eq!(bench.code("web.").await, ResponseCode::NoError);
    assert!(bench.server.update_client("s", ClientView::default()));
    assert_eq!(bench.code("web.").await, ResponseCode::ServFail);
    assert!(bench.server.update_client("s", view()));
    bench.server.set_zone(Arc::new(Zone::default()));
    assert_eq!(bench.code("web.").await, ResponseCode::ServFail);
    assert!(!bench.server.update_client("other", view()));
}

#[tokio::test]
async fn stopping_frees_the_address() {
    let bench = Bench::new(&[]);
    assert!(bench.server.serves("s"));
    assert!(bench.server.stop("s").await);
    assert!(!bench.server.stop("s").await);
    let udp = std::net::UdpSocket::bind(bench.udp).unwrap();
    let tcp = std::net::TcpListener::bind(bench.tcp).unwrap();
    bench
        .server
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
    assert_eq!(bench.code("web.").await, ResponseCode::NoError);
}

#[tokio::test]
async fn outside_names_are_forwarded_and_kept() {
    let upstream = Upstream::new(Manner::Address).await;
    let bench = Bench::new(&[upstream.at]);
    for _ in 0..3 {
        let reply = bench.ask("example.org.", RecordType::A).await;
        assert_eq!(reply.answers.len(), 1);
    }
    assert_eq!(upstream.asked(), 1);
    let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
    let reply = exchange(&mut stream, &query("example.org.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(upstream.asked(), 2, "over TCP as the client did");
    let stats = bench.counted(|stats| stats.answered == 4).await;
    assert_eq!((stats.forwarded, stats.cached), (4, 2));
}

#[tokio::test]
async fn a_denial_passes_with_its_soa() {
    let upstream = Upstream::new(Manner::Denial).await;
    let bench = Bench::new(&[upstream.at]);
    let reply = bench.ask("nope.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(reply.authorities[0].data, RData::SOA(_)));
    bench.counted(|stats| stats.nxdomain == 1).await;
}

#[tokio::test]
async fn a_failing_or_absent_upstream_is_followed_by_the_next() {
    let good = Upstream::new(Manner::Address).await;
    let failing = Upstream::new(Manner::Fail).await;
    let start = Instant::now();
    for first in [failing.at, nobody()] {
        let bench = Bench::new(&[first, good.at]);
        let reply = bench.ask("example.org.", RecordType::A).await;
        assert_eq!(reply.answers.len(), 1);
    }
    assert_eq!((failing.asked(), good.asked()), (1, 2));
    // Neither waited for the race.
    assert!(start.elapsed() < Duration::from_millis(800));
    let bench = Bench::new(&[failing.at]);
    assert_eq!(bench.code("example.org.").await, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_silent_upstream_is_raced() {
    let silent = Upstream::new(Manner::Silent).await;
    let good = Upstream::new(Manner::Address).await;
    let bench = Bench::new(&[silent.at, good.at]);
    let start = Instant::now();
    let reply = bench.ask("example.org.", RecordType::A).await;
    assert_eq!(reply.answers.len(), 1);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert_eq!(silent.asked(), 1);
}

#[tokio::test]
async fn a_silent_upstream_alone_is_asked_twice_and_then_given_up() {
    let silent = Upstream::new(Manner::Silent).await;
    let bench = Bench::new(&[silent.at]);
    assert_eq!(bench.code("example.org.").await, ResponseCode::ServFail);
    assert_eq!(silent.asked(), 2);
}

#[tokio::test]
async fn lies_of_an_upstream_are_counted_and_ignored() {
    let liar = Upstream::new(Manner::Liar).await;
    let bench = Bench::new(&[liar.at]);
    let reply = bench.ask("example.org.", RecordType::A).await;
    assert_eq!(reply.answers.len(), 1);
    bench.counted(|stats| stats.upstream_ignored == 2).await;
}

#[tokio::test]
async fn internal_clients_are_not_forwarded() {
    let upstream = Upstream::new(Manner::Address).await;
    let bench = Bench::new(&[upstream.at]);
    let internal = ClientView {
        internal_only: true,
        ..view()
    };
    assert!(bench.server.update_client("s", internal));
    assert_eq!(bench.code("example.org.").await, ResponseCode::ServFail);
    assert_eq!(bench.code("web.").await, ResponseCode::NoError);
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn a_sandbox_hears_names_of_the_stack_that_it_is_of_by_now() {
    let bench = Bench::new(&[]);
    let mut zone = ZoneBuilder::new();
    zone.network("n1", "front");
    for (stack, vip) in [("shop", [10, 0, 1, 2]), ("blog", [10, 0, 1, 3])] {
        let service = ServiceNames {
            name: format!("{stack}_db"),
            stack: Some(stack.to_owned()),
            stack_aliases: vec!["db".to_owned()],
            vips: vec![vip.into()],
            ..ServiceNames::default()
        };
        zone.service("n1", &service).unwrap();
    }
    bench.server.set_zone(Arc::new(zone.build()));
    // Nobody else is told, and nobody is there to ask.
    assert_eq!(bench.code("db.").await, ResponseCode::ServFail);
    for (stack, vip) in [("shop", [10, 0, 1, 2]), ("blog", [10, 0, 1, 3])] {
        bench.server.set_stack("s", Some(stack));
        let reply = bench.ask("db.", RecordType::A).await;
        let said = reply.answers.iter().map(|record| &record.data);
        let wanted = RData::A(Ipv4Addr::from(vip).into());
        assert_eq!(said.collect::<Vec<_>>(), [&wanted]);
    }
    bench.server.set_stack("s", None);
    assert_eq!(bench.code("db.").await, ResponseCode::ServFail);
    // Who is not served is told nothing.
    bench.server.set_stack("t", Some("shop"));
    assert!(!bench.server.serves("t"));
}

#[tokio::test]
async fn malformed_datagrams_are_counted_and_do_no_harm() {
    let bench = Bench::new(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(bench.udp).await.unwrap();
    let whole = query("web.", RecordType::A).to_vec().unwrap();
    // Too short for an id: no reply.
    socket.send(&whole[..7]).await.unwrap();
    // A response: no reply.
    let mut response = whole.clone();
    response[2] |= 0x80;
    socket.send(&response).await.unwrap();
    // Cut in the question, and longer than accepted: FORMERR.
    let mut long = whole.clone();
    long.resize(5000, 0);
    for bytes in [&whole[..14], &long] {
        socket.send(bytes).await.unwrap();
        let mut buffer = [0; 512];
        let length = soon(socket.recv(&mut buffer)).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(reply.metadata.id.to_be_bytes(), whole[..2]);
    }
    let stats = bench.counted(|stats| stats.malformed == 2).await;
    assert_eq!((stats.queries, stats.dropped), (4, 2));
    assert_eq!(bench.code("web.").await, ResponseCode::NoError);
}

#[tokio::test]
async fn a_sandbox_may_have_servers_of_its_own() {
    let node = Upstream::new(Manner::Address).await;
    let own = Upstream::new(Manner::Address).await;
    let bench = Bench::new(&[node.at]);
    assert!(bench.server.stop("s").await);
    let udp = std::net::UdpSocket::bind(bench.udp).unwrap();
    let tcp = std::net::TcpListener::bind(bench.tcp).unwrap();
    let sockets = DnsSockets {
        udp,
        tcp,
        way: None,
    };
    bench
        .server
        .serve_asking("s", sockets, view(), &[own.at])
        .unwrap();
    let reply = bench.ask("example.org.", RecordType::A).await;
    assert_eq!(reply.answers.len(), 1);
    assert_eq!((node.asked(), own.asked()), (0, 1));
    // What the cluster knows nobody is asked for.
    assert_eq!(bench.code("web.").await, ResponseCode::NoError);
    assert_eq!(own.asked(), 1);
}

#[tokio::test]
async fn malformed_streams_are_counted_and_closed() {
    let bench = Bench::new(&[]);
    // Shorter than a header, longer than accepted, and cut in the middle of a message.
    for (nth, bytes) in [&[0, 5, 1, 2][..], &[255, 255], &[0, 40, 1, 2, 3]]
        .iter()
        .enumerate()
    {
        let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // The server may close before it has read everything, which resets.
        if soon(stream.read_to_end(&mut rest)).await.is_ok() {
            assert!(rest.is_empty());
        }
        let wanted = nth as u64 + 1;
        bench.counted(|stats| stats.malformed == wanted).await;
    }
    let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
    let reply = exchange(&mut stream, &query("web.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queries_at_once() {
    let upstream = Upstream::new(Manner::Address).await;
    let bench = Arc::new(Bench::new(&[upstream.at]));
    let mut clients = JoinSet::new();
    for client in 0..32 {
        let bench = Arc::clone(&bench);
        clients.spawn(async move {
            for round in 0..8 {
                let own = bench.ask("web.", RecordType::A).await;
                assert_eq!(own.answers.len(), 1);
                let other = format!("n{client}-{round}.example.org.");
                let outside = bench.ask(&other, RecordType::A).await;
                assert_eq!(outside.answers.len(), 1, "{other}");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let stats = bench.counted(|stats| stats.answered == 512).await;
    assert_eq!((stats.queries, stats.forwarded), (512, 256));
    assert!(upstream.asked() >= 256);
}

/// Two sandboxes hold all that the node's forwarder has, and go on asking; a third is answered each
/// time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greedy_sandboxes_leave_the_others_their_part() {
    weft_sys::open_files::raise().unwrap();
    let upstream = Upstream::new(Manner::Choosy).await;
    let bench = Bench::new(&[upstream.at]);
    let greedy = [bench.serve("g1"), bench.serve("g2")];
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut asked = 0;
    let mut grab = async |count: u64| {
        for at in greedy {
            for n in 0..count {
                let name = format!("void{asked}-{n}.example.org.");
                let query = query(&name, RecordType::A).to_vec().unwrap();
                client.send_to(&query, at).await.unwrap();
            }
            asked += count;
            // In portions that the socket's buffer holds.
            bench.counted(|stats| stats.forwarded >= asked).await;
        }
    };
    // Up to 512 of each are under way, and the node has no more.
    for _ in 0..100 {
        if bench.server.stats().refused > 0 {
            break;
        }
        grab(40).await;
    }
    assert!(
        bench.server.stats().refused > 0,
        "{:?}",
        bench.server.stats()
    );
    let third = bench.serve("third");
    for round in 0..30 {
        grab(2).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let query = query(&format!("n{round}.example.org."), RecordType::A);
        socket
            .send_to(&query.to_vec().unwrap(), third)
            .await
            .unwrap();
        let mut buffer = [0; 4096];
        let length = soon(socket.recv(&mut buffer)).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{round}"
        );
        assert_eq!(reply.answers.len(), 1, "{round}");
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let bench = Bench::new(&[]);
    let mut idle = Vec::new();
    for _ in 0..128 {
        let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
        exchange(&mut stream, &query("web.", RecordType::A)).await;
        idle.push(stream);
    }
    let mut late = TcpStream::connect(bench.tcp).await.unwrap();
    let ask = query("web.", RecordType::A);
    late.write_all(&framed(&ask.to_vec().unwrap()))
        .await
        .unwrap();
    assert!(
        timeout(Duration::from_millis(100), late.readable())
            .await
            .is_err()
    );
    idle.clear();
    let length = soon(late.read_u16()).await.unwrap();
    assert!(length > 12);
}

#[tokio::test]
async fn the_hosts_resolv_conf_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 127.0.0.11\n").unwrap();
    let server = DnsServer::following(&path);
    let expected: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap()];
    assert_eq!(server.upstreams(), expected);
    std::fs::write(&path, "nameserver 192.0.2.2\n# changed\n").unwrap();
    let expected: Vec<SocketAddr> = vec!["192.0.2.2:53".parse().unwrap()];
    soon(async {
        while server.upstreams() != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
