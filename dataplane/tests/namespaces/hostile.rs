//! Frames that nobody honest sends, each by its name: from a sandbox (`from_port`) and from the
//! underlay (`from_underlay`). Each is counted under its reason, and nobody else sees it: whatever
//! reached a neighbour or another node would be read there before the fence, an ordinary frame that
//! follows each hostile one on the same way.

mod frames;
mod from_port;
mod from_underlay;
mod offloads;
mod port_cases;
mod service;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketType, eth, recvfrom, sendto, socket,
    sockopt,
};
use weft_dataplane::{DropCounters, Port};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_wire::DropReason;

use crate::common::{Node, Sandbox, VIP, VIP6, gateway, inside, prefix_len, sandbox_at};

/// How long something may take that has to happen.
const LIMIT: Duration = Duration::from_secs(5);

/// A packet socket: sees every frame of a namespace, in both directions.
struct Raw {
    socket: OwnedFd,
    /// The device that the last frame was seen on.
    device: Option<SocketAddrAny>,
    buffer: Vec<u8>,
}

impl Raw {
    fn open(ns: &Netns) -> Self {
        let open = || socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL));
        let socket = ns.run_in(open).expect("thread").expect("packet socket");
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT)).expect("timeout");
        Self {
            socket,
            device: None,
            buffer: vec![0; 70_000],
        }
    }

    /// One that can send, from a sandbox that nobody else uses: its kernel's own packet to the
    /// gateway tells the number of the device.
    fn speaking(sandbox: &Sandbox) -> Self {
        let mut raw = Self::open(&sandbox.ns);
        let speak = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            socket.send_to(b"x", (gateway(VIP), 9)).expect("send");
        };
        sandbox.ns.run_in(speak).expect("thread");
        loop {
            let frame = raw.next();
            // ARP comes first, and the counts must stand still afterwards.
            if frame[6..14] == [&sandbox.port.mac.0[..], &[8, 0]].concat() {
                return raw;
            }
        }
    }

    /// The next frame.
    fn next(&mut self) -> &[u8] {
        let (_, len, device) = recvfrom(&self.socket, &mut self.buffer[..], RecvFlags::empty())
            .expect("a frame arrives");
        self.device = device;
        &self.buffer[..len]
    }

    /// Sends on the device where the last frame was seen: who knows its number may say so, and a
    /// packet socket tells it with every frame.
    fn send(&self, frame: &[u8]) -> rustix::io::Result<usize> {
        let device = self.device.as_ref().expect("a frame was seen before");
        sendto(&self.socket, frame, SendFlags::empty(), device)
    }

    /// Reads up to `fence`; anything before it that `foreign` calls so is what nobody should see.
    fn nothing_before(&mut self, fence: &[u8], foreign: impl Fn(&[u8]) -> bool, what: &str) {
        loop {
            let frame = self.next();
            if frame.ends_with(fence) {
                return;
            }
            assert!(!foreign(frame), "{what}: got through as {frame:02x?}");
        }
    }
}

/// Sandbox `host` with the addresses of both families, whose kernel says nothing unasked.
fn quiet_sandbox(node: &Node, like: IpAddr, host: u8) -> Sandbox {
    let ip = inside(like, host);
    let mut sandbox = sandbox_at(host.into(), ip, 0, true, node.mtu);
    if ip.is_ipv4() {
        let path = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        let off = || std::fs::write(path, "1").expect("a kernel with IPv6");
        sandbox.ns.run_in(off).expect("thread");
    }
    let port = &sandbox.port;
    sandbox.port = Arc::new(Port {
        id: port.id,
        name: Arc::clone(&port.name),
        vni: port.vni,
        mac: port.mac,
        ips: vec![inside(VIP, host), inside(VIP6, host)],
        tap: Arc::clone(&port.tap),
        worker: port.worker,
        counters: Arc::clone(&port.counters),
        shortcut: Default::default(),
    });
    sandbox
}

/// The same for who only listens: a kernel without an address answers nothing.
fn silent_sandbox(node: &Node, like: IpAddr, host: u8) -> Sandbox {
    let sandbox = quiet_sandbox(node, like, host);
    let net = IpNet::new(sandbox.ip, prefix_len(sandbox.ip)).expect("prefix");
    Netlink::open_in(&sandbox.ns)
        .expect("netlink")
        .delete_address("eth0", net)
        .expect("address");
    sandbox
}

fn all(drops: &DropCounters) -> Vec<(DropReason, u64)> {
    drops.iter().collect()
}

/// Waits until exactly one more is counted for `reason`, and nothing for another.
fn one_more(drops: &DropCounters, before: &[(DropReason, u64)], reason: DropReason, what: &str) {
    let mut expected = before.to_vec();
    match expected.iter_mut().find(|(r, _)| *r == reason) {
        Some((_, n)) => *n += 1,
        None => {
            expected.push((reason, 1));
            expected.sort_unstable();
        }
    }
    let deadline = Instant::now() + LIMIT;
    while all(drops) == before {
        assert!(
            Instant::now() < deadline,
            "{what}: not counted as {reason:?}"
        );
        std::thread::yield_now();
    }
    assert_eq!(all(drops), expected, "{what}");
}
