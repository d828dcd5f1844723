//! Super-frames written into a TAP: a kernel that was broken refused them (Linux, back-ported to
//! several stable series, until commit 89add40066f9).

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use weft_sys::netlink::Netlink;
use weft_sys::tap::{Tap, TapConfig};
use weft_wire::frame::{ETHERNET_LEN, Frame, TCP, TCP_ACK, TCP_RST, UDP, parse};
use weft_wire::{VnetHdr, checksum, vnet};

use super::{Trouble, pattern, wait_for};

const OWN: Ipv4Addr = Ipv4Addr::new(169, 254, 78, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(169, 254, 78, 2);
const OWN_MAC: [u8; 6] = [2, 0x42, 169, 254, 78, 1];
const PEER_MAC: [u8; 6] = [2, 0x42, 169, 254, 78, 2];
const SEGMENT_LEN: usize = 1000;
const SEGMENT_LEN_U16: u16 = 1000;
const IPV4_LEN: usize = 20;

/// A TAP that dies with its descriptor, and a kernel that knows who is behind it.
fn open() -> Result<Tap, Trouble> {
    let tap = Tap::open(&TapConfig {
        mac: Some(OWN_MAC),
        persist: false,
        ..TapConfig::new("selftest")
    });
    let tap = tap.map_err(Trouble::no_test)?;
    let known = Netlink::open().and_then(|mut links| {
        let net = ipnet::Ipv4Net::new_assert(OWN, 30);
        links.add_address("selftest", net.into())?;
        links.set_neighbour("selftest", PEER.into(), PEER_MAC)
    });
    known.map_err(Trouble::no_test)?;
    Ok(tap)
}

/// A frame from the peer, with the virtio header of a super-frame in front: `transport` is the
/// header with a zero checksum at `csum_offset`, in front of `payload`.
fn super_frame(
    (proto, gso_type): (u8, u8),
    transport: &[u8],
    csum_offset: usize,
    payload: &[u8],
) -> Vec<u8> {
    let l4 = ETHERNET_LEN + IPV4_LEN;
    let l4_len = transport.len() + payload.len();
    let word = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let mut header = [0; VnetHdr::LEN];
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        gso_type,
        hdr_len: word(l4 + transport.len()),
        gso_size: SEGMENT_LEN_U16,
        csum_start: word(l4),
        csum_offset: word(csum_offset),
        ..VnetHdr::NONE
    }
    .emit(&mut header);
    let mut frame = header.to_vec();
    frame.extend(OWN_MAC.iter().chain(&PEER_MAC));
    frame.extend([8, 0]);
    let mut ip = [0; IPV4_LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&word(IPV4_LEN + l4_len).to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = proto;
    ip[12..16].copy_from_slice(&PEER.octets());
    ip[16..].copy_from_slice(&OWN.octets());
    let sum = !checksum::sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(transport);
    frame.extend(payload);
    let seed = checksum::pseudo_header(IpAddr::V4(PEER), IpAddr::V4(OWN), proto, l4_len);
    let field = VnetHdr::LEN + l4 + csum_offset;
    frame[field..field + 2].copy_from_slice(&seed.to_be_bytes());
    frame
}

/// Segments of no connection, in one super-frame, are answered by one reset.
pub(super) fn tcp() -> Result<String, Trouble> {
    const ACKED: [u8; 4] = [1, 2, 3, 4];
    let tap = open()?;
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0, 9]);
    header[8..12].copy_from_slice(&ACKED);
    header[12] = 5 << 4;
    header[13] = TCP_ACK;
    header[14] = 0xff;
    let kind = (TCP, vnet::GSO_TCPV4);
    let frame = super_frame(kind, &header, 16, &pattern(3 * SEGMENT_LEN));
    write(&tap, &frame, "TCP")?;
    let mut buffer = vec![0; 70_000];
    let reset = wait_for(|| {
        let len = tap.read(&mut buffer).ok()?;
        let frame = buffer.get(VnetHdr::LEN..len)?;
        match parse(frame) {
            Ok(Frame::Ip(info)) if info.proto == TCP && info.tcp_flags & TCP_RST != 0 => {
                frame.get(info.l4 + 4..info.l4 + 8).map(<[u8]>::to_vec)
            }
            _ => None,
        }
    });
    match reset {
        Some(seq) if seq == ACKED => Ok("a super-frame was taken and answered".to_owned()),
        Some(_) | None => Err(Trouble::Broken(
            "the kernel does not answer a TCP super-frame: streams into sandboxes stall; a newer kernel helps"
                .to_owned(),
        )),
    }
}

/// A super-frame of UDP arrives as the datagrams that it stands for.
pub(super) fn udp() -> Result<String, Trouble> {
    let tap = open()?;
    let socket = UdpSocket::bind((OWN, 0)).map_err(Trouble::no_test)?;
    socket.set_nonblocking(true).map_err(Trouble::no_test)?;
    let port = socket.local_addr().map_err(Trouble::no_test)?.port();
    // The last one is shorter.
    let payload = pattern(2 * SEGMENT_LEN + 10);
    let mut header = [0; 8];
    header[..2].copy_from_slice(&9_u16.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    let len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    header[4..6].copy_from_slice(&len.to_be_bytes());
    let frame = super_frame((UDP, vnet::GSO_UDP_L4), &header, 6, &payload);
    write(&tap, &frame, "UDP")?;
    let mut buffer = vec![0; 2 * SEGMENT_LEN];
    for expected in payload.chunks(SEGMENT_LEN) {
        let len = wait_for(|| socket.recv(&mut buffer).ok()).unwrap_or(0);
        if buffer[..len] != *expected {
            return Err(Trouble::Broken(
                "a UDP super-frame arrives damaged: datagrams go into sandboxes one by one"
                    .to_owned(),
            ));
        }
    }
    Ok("a super-frame arrived as its datagrams".to_owned())
}

fn write(tap: &Tap, frame: &[u8], what: &str) -> Result<(), Trouble> {
    tap.write(frame).map(drop).map_err(|error| {
        Trouble::Broken(format!(
            "the kernel refuses {what} super-frames from a TAP ({error}); a newer kernel helps"
        ))
    })
}
