//! Real sockets on loopback: 127.0.0.1 is the node, 127.0.0.2 stands in for the mesh address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use weft_model::objects::{ClientAddress, PublishMode};

use super::port::PortStats;
use super::*;

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MESH: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn sockets(change: impl FnOnce(&mut MeshConfig)) -> MeshSockets {
    let mut config = MeshConfig::new(MESH, Ipv6Addr::LOCALHOST);
    change(&mut config);
    MeshSockets::new(config)
}

fn published(port: u16, protocol: Protocol) -> Published {
    Published {
        host_ip: Some(NODE),
        port,
        protocol,
        service: "web".into(),
        mode: PublishMode::Ingress,
        client_address: ClientAddress::Keep,
        mesh_port: port,
        serving: true,
        limit_per_client: 0,
        ipv6: true,
    }
}

fn want(ports: &[&Published]) -> BTreeSet<Published> {
    ports.iter().map(|p| (*p).clone()).collect()
}

/// A replica that echoes and closes when its client has closed.
async fn echo() -> u16 {
    let listener = TcpListener::bind((MESH, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.write_all(b"bye").await.unwrap();
            });
        }
    });
    port
}

/// Waits for what has to become true; the figures of the only port.
async fn until(sockets: &MeshSockets, mut holds: impl FnMut(&PortStats) -> bool) -> PortStats {
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let [stats] = sockets.stats().as_slice()
                && holds(stats)
            {
                return stats.clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("never became true")
}

#[tokio::test]
async fn bytes_arrive_and_half_close_is_passed_on() {
    let port = echo().await;
    let s = sockets(|_| ());
    s.update(&want(&[&published(port, Protocol::Tcp)]));
    assert!(s.busy().is_empty());
    let mut client = TcpStream::connect((NODE, port)).await.unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let (mut from, mut to) = client.split();
    let mut got = Vec::new();
    let (written, read) = tokio::join!(
        async {
            to.write_all(&sent).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut got)
    );
    written.unwrap();
    read.unwrap();
    // The last word came after the client had closed its side.
    assert_eq!(got.split_off(sent.len()), b"bye");
    assert!(got == sent);
    let stats = until(&s, |stats| stats.open == 0).await;
    assert_eq!((stats.accepted, stats.refused), (1, 0));
    assert_eq!((stats.rx_bytes, stats.tx_bytes), (1_000_000, 1_000_003));
}

/// RFC 6093 section 6 tells applications to keep urgent data in the stream; a proxy that does not
/// loses the byte.
#[tokio::test]
async fn an_urgent_byte_is_not_lost_in_either_direction() {
    let listener = TcpListener::bind((MESH, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let s = sockets(|_| ());
    s.update(&want(&[&published(port, Protocol::Tcp)]));
    let mut client = TcpStream::connect((NODE, port)).await.unwrap();
    let (mut replica, _) = listener.accept().await.unwrap();
    for end in [&client, &replica] {
        let end = socket2::SockRef::from(end);
        end.set_out_of_band_inline(true).unwrap();
    }
    for sends_first in [true, false] {
        let (from, to) = if sends_first {
            (&mut client, &mut replica)
        } else {
            (&mut replica, &mut client)
        };
        from.write_all(b"abc").await.unwrap();
        let urgent = socket2::SockRef::from(&*from).send_out_of_band(b"!");
        assert_eq!(urgent.unwrap(), 1);
        from.write_all(b"def").await.unwrap();
        let mut got = [0; 7];
        to.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abc!def");
    }
}

#[tokio::test]
async fn a_replica_gets_the_header_it_was_promised_and_then_the_bytes() {
    let port = echo().await;
    let s = sockets(|_| ());
    for (address, begins) in [
        (ClientAddress::Node, &b"hello"[..]),
        (ClientAddress::ProxyV1, b"PROXY TCP4 127.0.0.1 127.0.0.1 "),
        (ClientAddress::ProxyV2, b"\r\n\r\n\0\r\nQUIT\n"),
    ] {
        // Changed while the port stays open.
        s.update(&want(&[&Published {
            client_address: address,
            ..published(port, Protocol::Tcp)
        }]));
        assert!(s.busy().is_empty(), "{:?}", s.busy());
        let mut client = TcpStream::connect((NODE, port)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(
            got.starts_with(begins) && got.ends_with(b"hellobye"),
            "{got:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_by_the_mesh_resets_the_client() {
    // A port that nobody listens on at the mesh address.
    let port = {
        let probe = TcpListener::bind((MESH, 0)).await.unwrap();
        probe.local_addr().unwrap().port()
    };
    let s = sockets(|_| ());
    s.update(&want(&[&published(port, Protocol::Tcp)]));
    let mut client = TcpStream::connect((NODE, port)).await.unwrap();
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let stats = until(&s, |stats| stats.open == 0).await;
    assert_eq!((stats.accepted, stats.refused), (1, 1));
}

#[tokio::test]
async fn a_reset_by_one_end_reaches_the_other() {
    let replica = TcpListener::bind((MESH, 0)).await.unwrap();
    let port = replica.local_addr().unwrap().port();
    let s = sockets(|_| ());
    s.update(&want(&[&published(port, Protocol::Tcp)]));
    let client = TcpStream::connect((NODE, port)).await.unwrap();
    let (mut accepted, _) = replica.accept().await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let error = accepted.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn at_the_limit_new_connections_are_refused_and_open_ones_go_on() {
    let port = echo().await;
    let s = sockets(|config| config.max_connections = 1);
    s.update(&want(&[&published(port, Protocol::Tcp)]));
    let mut first = TcpStream::connect((NODE, port)).await.unwrap();
    first.write_all(b"a").await.unwrap();
    first.read_exact(&mut [0; 1]).await.unwrap();
    let mut second = TcpStream::connect((NODE, port)).await.unwrap();
    let error = second.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    first.write_all(b"b").await.unwrap();
    let mut got = [0; 1];
    first.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"b");
}

#[tokio::test]
async fn update_closes_what_was_removed_and_nothing_else() {
    let (kept, removed) = (echo().await, echo().await);
    let (kept, removed) = (
        published(kept, Protocol::Tcp),
        published(removed, Protocol::Tcp),
    );
    let s = sockets(|_| ());
    s.update(&want(&[&kept, &removed]));
    let mut a = TcpStream::connect((NODE, kept.port)).await.unwrap();
    let mut b = TcpStream::connect((NODE, removed.port)).await.unwrap();
    // Answered once, so that both were accepted.
    for stream in [&mut a, &mut b] {
        stream.write_all(b"1").await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
    }
    let renamed = Published {
        service: "shop".into(),
        ..kept.clone()
    };
    s.update(&want(&[&renamed]));
    tokio::time::timeout(Duration::from_secs(10), async {
        while TcpStream::connect((NODE, removed.port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the removed port stays open");
    for stream in [&mut a, &mut b] {
        stream.write_all(b"2").await.unwrap();
        let mut got = [0; 1];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"2");
    }
    let stats = s.stats();
    assert_eq!(stats.len(), 1);
    // The listener is the same one under its new name.
    assert_eq!(
        (stats[0].published.service.as_str(), stats[0].accepted),
        ("shop", 1)
    );
}

#[tokio::test]
async fn a_busy_port_names_its_owner_and_is_opened_once_it_is_free() {
    let holder = std::net::TcpListener::bind((NODE, 0)).unwrap();
    let port = published(holder.local_addr().unwrap().port(), Protocol::Tcp);
    let s = sockets(|_| ());
    s.update(&want(&[&port]));
    let busy = s.busy();
    assert_eq!(busy.len(), 1);
    assert_eq!((busy[0].port, busy[0].service.as_str()), (port.port, "web"));
    let pid = format!("(pid {})", std::process::id());
    let named = async {
        while !s.busy()[0].owner.ends_with(&pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let named = tokio::time::timeout(Duration::from_secs(10), named).await;
    assert!(named.is_ok(), "{}", s.busy()[0].owner);
    assert!(s.stats().is_empty());
    drop(holder);
    s.tick();
    assert!(s.busy().is_empty());
    assert_eq!(s.stats().len(), 1);
}

#[tokio::test]
async fn an_address_that_the_node_lacks_is_said_to_be_missing() {
    let port = Published {
        host_ip: Some(Ipv4Addr::new(192, 0, 2, 77).into()),
        ..published(8000, Protocol::Tcp)
    };
    let s = sockets(|_| ());
    s.update(&want(&[&port]));
    assert!(s.busy()[0].owner.contains("does not have the address"));
    s.update(&BTreeSet::new());
    assert!(s.busy().is_empty());
}

/// A replica that answers each datagram with its sender's port and the datagram.
async fn udp_echo() -> u16 {
    let socket = UdpSocket::bind((MESH, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = from.port().to_be_bytes().to_vec();
            answer.extend_from_slice(&buffer[..len]);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    port
}

async fn ask(client: &UdpSocket, text: &[u8]) -> (u16, Vec<u8>) {
    client.send(text).await.unwrap();
    let mut buffer = [0; 2048];
    let received = tokio::time::timeout(Duration::from_secs(10), client.recv(&mut buffer));
    let len = received.await.expect("no answer").unwrap();
    (
        u16::from_be_bytes([buffer[0], buffer[1]]),
        buffer[2..len].to_vec(),
    )
}

async fn udp_client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind((NODE, 0)).await.unwrap();
    client.connect((NODE, port)).await.unwrap();
    client
}

#[tokio::test]
async fn each_udp_client_has_a_socket_of_its_own_until_it_is_idle() {
    let port = udp_echo().await;
    let s = sockets(|config| config.udp_idle = Duration::from_millis(1500));
    s.update(&want(&[&published(port, Protocol::Udp)]));
    let (a, b) = (udp_client(port).await, udp_client(port).await);
    let (from_a, text) = ask(&a, b"one").await;
    assert_eq!(text, b"one");
    let (from_b, text) = ask(&b, b"two").await;
    assert_eq!(text, b"two");
    assert_ne!(from_a, from_b);
    assert_eq!(ask(&a, b"three").await, (from_a, b"three".to_vec()));
    let stats = until(&s, |stats| stats.open == 0).await;
    assert_eq!((stats.accepted, stats.rx_bytes), (2, 11));
    assert_eq!(ask(&a, b"again").await.1, b"again");
}

#[tokio::test]
async fn udp_clients_are_bounded_and_the_oldest_makes_room() {
    let port = udp_echo().await;
    let s = sockets(|config| config.max_udp_clients = 2);
    s.update(&want(&[&published(port, Protocol::Udp)]));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(udp_client(port).await);
    }
    let (first, _) = ask(&clients[0], b"a").await;
    ask(&clients[1], b"b").await;
    assert_eq!(ask(&clients[0], b"c").await.0, first);
    // The second is the least recently used one now.
    ask(&clients[2], b"d").await;
    assert_eq!(ask(&clients[0], b"e").await.0, first);
    let stats = until(&s, |stats| stats.open == 2).await;
    assert_eq!(stats.accepted, 3);
}

#[tokio::test]
async fn udp_clients_that_wait_for_an_answer_are_not_forgotten_for_others() {
    let replica = UdpSocket::bind((MESH, 0)).await.unwrap();
    let port = replica.local_addr().unwrap().port();
    let s = sockets(|config| config.max_udp_clients = 2);
    s.update(&want(&[&published(port, Protocol::Udp)]));
    let mut clients = Vec::new();
    let mut buffer = [0; 16];
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let client = udp_client(port).await;
        client.send(b"?").await.unwrap();
        waiting.push(replica.recv_from(&mut buffer).await.unwrap().1);
        clients.push(client);
    }
    let third = udp_client(port).await;
    third.send(b"?").await.unwrap();
    let stats = until(&s, |stats| stats.refused == 1).await;
    assert_eq!((stats.open, stats.accepted), (2, 2));
    for (client, from) in clients.iter().zip(waiting) {
        replica.send_to(b"!", from).await.unwrap();
        client.recv(&mut buffer).await.unwrap();
    }
    // Whoever has his answer makes room.
    third.send(b"?").await.unwrap();
    let (_, from) = replica.recv_from(&mut buffer).await.unwrap();
    replica.send_to(b"!", from).await.unwrap();
    third.recv(&mut buffer).await.unwrap();
}

#[tokio::test]
async fn a_udp_port_without_a_replica_is_refused_by_the_kernel() {
    let port = udp_echo().await;
    let s = sockets(|config| config.udp_idle = Duration::from_millis(200));
    let serving = published(port, Protocol::Udp);
    let alone = Published {
        serving: false,
        ..serving.clone()
    };
    s.update(&want(&[&alone]));
    for _ in 0..2 {
        let client = udp_client(port).await;
        let refused = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                drop(client.send(b"?").await);
                let mut buffer = [0; 16];
                let answer =
                    tokio::time::timeout(Duration::from_millis(100), client.recv(&mut buffer));
                if let Ok(Err(error)) = answer.await {
                    return error;
                }
            }
        });
        let refused = refused.await.expect("an answer of the kernel");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(s.busy().is_empty());
        s.update(&want(&[&serving]));
        s.tick();
        let client = udp_client(port).await;
        assert_eq!(ask(&client, b"one").await.1, b"one");
        s.update(&want(&[&alone]));
    }
}
