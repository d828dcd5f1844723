//! The node's own TCP, for probes: smoltcp over frames that others carry.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use weft_wire::frame::{self, Frame};
use weft_wire::{Instant, Mac};

/// Source ports of probes: below those that clients and the balancer use, so no probe shares its
/// addresses with a flow.
pub const PROBE_PORTS: RangeInclusive<u16> = 512..=1023;

/// Longest packet that the stack sends; a SYN is far shorter.
const MTU: usize = 576;
const ETHERNET_LEN: usize = 14;

/// The node on the ingress network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddress {
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// What is known of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing yet.
    Waiting,
    /// SYN-ACK.
    Answered,
    /// RST.
    Refused,
}

/// One probe of a [`Stack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(SocketHandle);

/// TCP at the node's own address.
pub(super) struct Stack {
    address: NodeAddress,
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    /// Sockets that have a last word to say.
    closing: Vec<SocketHandle>,
    port: u16,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Stack {
    pub(super) fn new(now: Instant, address: NodeAddress, seed: u64) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, at(now));
        interface.update_ip_addrs(|addresses| {
            // Whoever is asked is on the network: no routes, and hardware addresses come from the
            // tables.
            addresses.extend([IpCidr::new(IpAddress::from(address.ip), 0)]);
        });
        let ports = PROBE_PORTS.end() - PROBE_PORTS.start() + 1;
        let first = u16::try_from(seed % u64::from(ports)).unwrap_or(0);
        Self {
            address,
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            closing: Vec::new(),
            port: PROBE_PORTS.start() + first,
        }
    }

    pub(super) const fn address(&self) -> NodeAddress {
        self.address
    }

    /// Begins a handshake.
    pub(super) fn connect(&mut self, now: Instant, to: SocketAddr) -> Option<Id> {
        // Nothing is ever sent or received but the handshake.
        let buffer = || SocketBuffer::new(vec![0; 64]);
        let mut socket = Socket::new(buffer(), buffer());
        let from = SocketAddr::new(self.address.ip, self.next_port());
        self.interface.poll_maintenance(at(now));
        socket.connect(self.interface.context(), to, from).ok()?;
        Some(Id(self.sockets.add(socket)))
    }

    /// The longest unused one: more than there are probes at once.
    fn next_port(&mut self) -> u16 {
        let port = self.port;
        self.port = if port >= *PROBE_PORTS.end() {
            *PROBE_PORTS.start()
        } else {
            port + 1
        };
        port
    }

    pub(super) fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let Ok(Frame::Ip(info)) = frame::parse(frame) else {
            return;
        };
        let Some(packet) = frame.get(info.l3..info.len) else {
            return;
        };
        self.wire.received.push_back(packet.to_vec());
        // Only taken in: an answer goes out once `close` has said which one.
        while !matches!(
            self.interface
                .poll_ingress_single(at(now), &mut self.wire, &mut self.sockets),
            PollIngressSingleResult::None
        ) {}
    }

    pub(super) fn outcome(&self, id: Id) -> Outcome {
        match self.sockets.get::<Socket<'_>>(id.0).state() {
            State::SynSent | State::SynReceived | State::Listen => Outcome::Waiting,
            State::Closed => Outcome::Refused,
            _ => Outcome::Answered,
        }
    }

    /// Ends a probe; one that was answered with a reset.
    pub(super) fn close(&mut self, id: Id) {
        let answered = self.outcome(id) == Outcome::Answered;
        if answered {
            self.sockets.get_mut::<Socket<'_>>(id.0).abort();
            self.closing.push(id.0);
        } else {
            self.sockets.remove(id.0);
        }
    }

    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        neighbor: impl Fn(IpAddr) -> Option<Mac>,
    ) -> Option<Vec<u8>> {
        if self.wire.sent.is_empty() {
            self.interface
                .poll_egress(at(now), &mut self.wire, &mut self.sockets);
            for handle in self.closing.drain(..) {
                self.sockets.remove(handle);
            }
        }
        loop {
            let packet = self.wire.sent.pop_front()?;
            if let Some(framed) = self.framed(&packet, &neighbor) {
                return Some(framed);
            }
        }
    }

    fn framed(&self, packet: &[u8], neighbor: impl Fn(IpAddr) -> Option<Mac>) -> Option<Vec<u8>> {
        let ethertype: [u8; 2] = if self.address.ip.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let mut frame = Vec::with_capacity(ETHERNET_LEN + packet.len());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&self.address.mac.0);
        frame.extend_from_slice(&ethertype);
        frame.extend_from_slice(packet);
        let Ok(Frame::Ip(info)) = frame::parse(&frame) else {
            return None;
        };
        let to = neighbor(info.dst)?;
        frame.get_mut(..6)?.copy_from_slice(&to.0);
        Some(frame)
    }
}

fn at(now: Instant) -> StackInstant {
    StackInstant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// Packets on their way in and out.
#[derive(Debug, Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = ChecksumCapabilities::default();
        // A replica on this node leaves the sum of a segment to a device that is not there.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }

    fn receive(&mut self, _now: StackInstant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }
}

/// A packet that came in.
struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a packet that goes out.
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let written = write(&mut packet);
        self.0.push_back(packet);
        written
    }
}
