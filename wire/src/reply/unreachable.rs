//! "Port unreachable" about a datagram that is known by its addresses alone.

use std::net::{IpAddr, SocketAddr};

use crate::frame::{ICMPV6, UDP};
use crate::{checksum, put16};

/// Bytes of the longest message: an ICMPv6 header, and a quoted IPv6 header with that of UDP.
pub const UDP_UNREACHABLE_LEN: usize = 8 + 40 + 8;

/// Writes the ICMP or ICMPv6 message, without an IP header, that tells `client` that nothing listens
/// at `asked`, where it sent a datagram; returns its length, or 0 when they are of two families. What
/// is quoted has the addresses and ports of that datagram (RFC 792, RFC 4443 section 3.1), which its
/// sender finds its socket by; lengths are those of an empty one.
pub fn udp_unreachable(
    client: SocketAddr,
    asked: SocketAddr,
    out: &mut [u8; UDP_UNREACHABLE_LEN],
) -> usize {
    *out = [0; UDP_UNREACHABLE_LEN];
    let udp = match (client.ip(), asked.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            // Destination unreachable, port unreachable.
            (out[0], out[1]) = (3, 3);
            let ip = &mut out[8..28];
            ip[0] = 0x45;
            put16(ip, 2, 28);
            // Don't fragment.
            put16(ip, 6, 0x4000);
            (ip[8], ip[9]) = (64, UDP);
            ip[12..16].copy_from_slice(&src.octets());
            ip[16..20].copy_from_slice(&dst.octets());
            let sum = checksum::ipv4_header(ip);
            put16(ip, 10, sum);
            28
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            (out[0], out[1]) = (1, 4);
            let ip = &mut out[8..48];
            ip[0] = 0x60;
            put16(ip, 4, 8);
            (ip[6], ip[7]) = (UDP, 64);
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
            48
        }
        _ => return 0,
    };
    put16(out, udp, client.port());
    put16(out, udp + 2, asked.port());
    put16(out, udp + 4, 8);
    let len = udp + 8;
    let sum = match asked.ip() {
        IpAddr::V4(_) => checksum::sum(&out[..len]),
        // From the address that was asked.
        ip => {
            let pseudo = checksum::pseudo_header(ip, client.ip(), ICMPV6, len);
            checksum::add(pseudo, checksum::sum(&out[..len]))
        }
    };
    put16(out, 2, !sum);
    len
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Slice, Icmpv6Slice, Ipv4Slice, Ipv6Slice, UdpSlice};

    use super::*;

    #[test]
    fn it_quotes_what_the_client_sent() {
        let pairs = [
            ("192.0.2.7:40000", "10.77.0.1:53"),
            ("[2001:db8::7]:40000", "[fd00::1]:53"),
        ];
        for (client, asked) in pairs {
            let (client, asked): (SocketAddr, SocketAddr) =
                (client.parse().unwrap(), asked.parse().unwrap());
            let mut out = [0xee; UDP_UNREACHABLE_LEN];
            let len = udp_unreachable(client, asked, &mut out);
            let (src, dst, udp) = if client.is_ipv4() {
                let icmp = Icmpv4Slice::from_slice(&out[..len]).unwrap();
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 3));
                assert_eq!(checksum::sum(&out[..len]), 0xffff);
                let quoted = Ipv4Slice::from_slice(icmp.payload()).unwrap();
                let header = quoted.header();
                let right = header.to_header().calc_header_checksum();
                assert_eq!(header.header_checksum(), right);
                let ips = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (ips.0, ips.1, quoted.payload().payload.to_vec())
            } else {
                let icmp = Icmpv6Slice::from_slice(&out[..len]).unwrap();
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4));
                let (IpAddr::V6(from), IpAddr::V6(to)) = (asked.ip(), client.ip()) else {
                    panic!("of IPv6");
                };
                assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
                let quoted = Ipv6Slice::from_slice(icmp.payload()).unwrap();
                let header = quoted.header();
                let ips = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (ips.0, ips.1, quoted.payload().payload.to_vec())
            };
            let udp = UdpSlice::from_slice(&udp).unwrap();
            assert_eq!(SocketAddr::new(src, udp.source_port()), client);
            assert_eq!(SocketAddr::new(dst, udp.destination_port()), asked);
        }
    }

    #[test]
    fn two_families_have_nothing_to_say_to_each_other() {
        let (v4, v6) = ("192.0.2.7:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(udp_unreachable(v4, v6, &mut [0; UDP_UNREACHABLE_LEN]), 0);
    }
}
