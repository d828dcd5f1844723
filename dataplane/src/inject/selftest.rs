//! Sends a super-frame through the injector to a namespace made for it, by the routes and the
//! firewall of this host, and looks at what arrives; then, what that costs.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use weft_sys::netlink::{Netlink, Veth};
use weft_sys::netns::Netns;
use weft_sys::udp::VxlanSocket;
use weft_wire::frame::{Frame, TCP, TCP_ACK, parse};
use weft_wire::tunnel_gso::OUTER_LEN;
use weft_wire::{VnetHdr, Vni, checksum, vnet, vxlan};

use super::compare::{Sample, compare};
use super::{InjectError, Injector, Prices};

/// The host's end of the test's own link, and the other one.
const NEAR: &str = "weftgso1";
const FAR: &str = "eth0";
const NEAR_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 5);
const FAR_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 6);
const PREFIX: u8 = 30;
const FAR_MAC: [u8; 6] = [0x02, 0x42, 169, 254, 77, 6];

/// A packet on one machine takes microseconds; a busy machine may take longer.
const LIMIT: Duration = Duration::from_millis(50);
const TRIES: usize = 5;

const PAYLOAD: usize = 32_000;
const GSO_SIZE: u16 = 1_300;
/// As long as streams make them: 44 segments, which still fit into one datagram.
const LARGE_PAYLOAD: usize = 44 * GSO_SIZE as usize;

/// What super-frames cost by both ways, where that could be compared.
///
/// # Errors
/// Why the test packet did not arrive as one datagram with the same bytes.
pub(super) fn run(injector: &Injector) -> Result<Option<Prices>, InjectError> {
    let far = Netns::create_anonymous().map_err(std::io::Error::other)?;
    let mut near = Netlink::open()?;
    near.add_veth(&Veth {
        name: NEAR,
        peer: FAR,
        peer_netns: Some(&far),
        peer_mac: Some(FAR_MAC),
        mtu: None,
    })?;
    // The link ends with its other namespace, but a moment later than this function.
    let result = over_link(injector, &mut near, &far);
    let removed = near.delete_link(NEAR);
    let prices = result?;
    removed?;
    Ok(prices)
}

fn over_link(
    injector: &Injector,
    near: &mut Netlink,
    far: &Netns,
) -> Result<Option<Prices>, InjectError> {
    let subnet = |ip| Ipv4Net::new(ip, PREFIX).map(IpNet::from);
    let (Ok(near_net), Ok(far_net)) = (subnet(NEAR_IP), subnet(FAR_IP)) else {
        return Err(InjectError::Failed("no address"));
    };
    let socket = far.run_in(|| -> Result<UdpSocket, InjectError> {
        let mut inside = Netlink::open()?;
        inside.add_address(FAR, far_net)?;
        inside.set_up(FAR, true)?;
        // The test packet comes from an address to which this namespace has no route.
        for name in ["all", FAR] {
            super::set(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
        let socket = UdpSocket::bind((FAR_IP, vxlan::PORT))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    })??;
    // After the other end: a device that comes up with its carrier can send at once, one that gets
    // it later waits for a timer of the kernel.
    near.add_address(NEAR, near_net)?;
    near.set_up(NEAR, true)?;
    near.set_neighbour(NEAR, FAR_IP.into(), FAR_MAC)?;
    let (frame, vnet) = super_frame(PAYLOAD);
    let Ok(Frame::Ip(info)) = parse(&frame) else {
        return Err(InjectError::Failed("the test packet is malformed"));
    };
    let Some(vni) = Vni::new(Vni::MAX) else {
        return Err(InjectError::Failed("no VNI"));
    };
    let to = (vxlan::PORT, SocketAddrV4::new(FAR_IP, vxlan::PORT));
    let mut buffer = vec![0; OUTER_LEN + frame.len()];
    let mut tries = 0..TRIES;
    let len = loop {
        if tries.next().is_none() {
            return Err(InjectError::Failed(
                "the host does not forward from weftgso0: does a firewall drop it?",
            ));
        }
        injector
            .send(vni, to, (1, 0), (&vnet, &info), &frame)
            .map_err(|_| InjectError::Unknown(std::io::ErrorKind::InvalidInput.into()))?;
        if let Ok(len) = socket.recv(&mut buffer) {
            break len;
        }
    };
    let inner = buffer.get(vxlan::HEADER_LEN..len);
    if inner != Some(&frame[..]) {
        return Err(InjectError::Failed("the packet did not arrive whole"));
    }
    // Its address is needed once more.
    drop(socket);
    Ok(prices(injector, vni, far))
}

/// What larger super-frames cost by both ways. Not to know is no reason to go without the injector.
fn prices(injector: &Injector, vni: Vni, far: &Netns) -> Option<Prices> {
    let (frame, vnet) = super_frame(LARGE_PAYLOAD);
    let Ok(Frame::Ip(info)) = parse(&frame) else {
        return None;
    };
    let sample = Sample {
        frame: &frame,
        vnet: &vnet,
        info: &info,
        vni,
        to: SocketAddrV4::new(FAR_IP, vxlan::PORT),
    };
    // As workers receive: a socket without UDP_GRO would charge the segments to their sender.
    let bind = || VxlanSocket::bind((FAR_IP, vxlan::PORT).into());
    let receiver = match far.run_in(bind) {
        Ok(Ok(receiver)) => receiver,
        Ok(Err(error)) => return not_compared(&error),
        Err(error) => return not_compared(&error),
    };
    match compare(injector, &sample, NEAR_IP, receiver) {
        Ok(prices) => prices,
        Err(error) => not_compared(&error),
    }
}

fn not_compared(error: &dyn std::error::Error) -> Option<Prices> {
    tracing::debug!(%error, "the ways of super-frames are not compared");
    None
}

/// TCP from nowhere to nowhere (RFC 5737), as a sandbox's kernel would hand it over.
fn super_frame(payload: usize) -> (Vec<u8>, VnetHdr) {
    const HEADERS: usize = 14 + 20 + 20;
    let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let mut frame: Vec<u8> = (0..HEADERS + payload).map(|i| (i % 251) as u8).collect();
    let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    let ip_len = (20 + 20 + payload) as u16;
    let [len_high, len_low] = ip_len.to_be_bytes();
    put(0, &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let mut ip = [
        0x45, 0, len_high, len_low, 0, 0, 0x40, 0, 64, TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..].copy_from_slice(&dst.octets());
    let sum = !checksum::sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    put(14, &ip);
    let pseudo = checksum::pseudo_header(src.into(), dst.into(), TCP, 20 + payload).to_be_bytes();
    let mut tcp = [
        0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, TCP_ACK, 1, 0, 0, 0, 0, 0,
    ];
    tcp[16..18].copy_from_slice(&pseudo);
    put(14 + 20, &tcp);
    let vnet = VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: HEADERS as u16,
        gso_size: GSO_SIZE,
        csum_start: 14 + 20,
        csum_offset: 16,
        num_buffers: 0,
    };
    (frame, vnet)
}
