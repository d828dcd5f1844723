//! A hundred thousand connections that nobody means to open, at a published port.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use weft_netns_tests::{ask_from, eventually, figure, get, hold};
use weft_sys::netns::Netns;

use crate::swarm;

const SYNS: u32 = 100_000;

/// Sends SYNs from so many forged addresses, as fast as one thread can.
fn flood(from: &Netns, to: SocketAddr) {
    let to: SocketAddrV4 = to.to_string().parse().expect("an IPv4 lab");
    let send = || {
        // IPPROTO_RAW: the packets have headers of their own.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        let mut packet = Vec::new();
        for number in 0..SYNS {
            let source = Ipv4Addr::from(0xc612_0000 + number % 0xffff);
            let port = 1024 + u16::try_from(number % 60_000).expect("16 bits");
            packet.clear();
            PacketBuilder::ipv4(source.octets(), to.ip().octets(), 64)
                .tcp(port, to.port(), number, 64_000)
                .syn()
                .write(&mut packet, &[])
                .map_err(std::io::Error::other)?;
            // A full queue is part of a flood.
            drop(socket.send_to(&packet, &SocketAddr::V4(to).into()));
        }
        std::io::Result::Ok(())
    };
    from.run_in(send).expect("a thread").expect("a raw socket");
}

#[test]
fn a_flood_of_syns_leaves_open_connections_and_new_ones_alone() {
    let cluster = swarm(2);
    cluster.web(2);
    let client = cluster.outside();
    let to = cluster.at("node1", 8000);
    eventually("the port answers", || get(&client, to));
    let mut held = hold(&client, to).expect("a connection");
    let mut answered = 0;
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&client, to));
        while !flooding.is_finished() {
            get(&client, to).expect("a new connection during the flood");
            held.again().expect("the open connection during the flood");
            answered += 1;
        }
        flooding.join().expect("the flood does not panic");
    });
    figure(&format!("{answered} requests during {SYNS} forged SYNs"));
    held.again().expect("the open connection after the flood");
    for _ in 0..20 {
        get(&client, to).expect("a new connection after the flood");
    }
    // A bulk answer.
    let from = Ipv4Addr::UNSPECIFIED.into();
    let bytes = ask_from(&client, from, to, "/bytes/5000000").expect("bytes");
    assert_eq!(bytes.len(), 5_000_000);
}
