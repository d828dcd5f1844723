//! Frames that the switch sends back to whoever asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_wire::{Frame, Mac, frame, reply};

/// An answer to a frame, to be written and sent back where that came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// ARP: `ip` is at `mac`.
    Arp {
        /// Hardware address.
        mac: Mac,
        /// Address that was asked for.
        ip: Ipv4Addr,
    },
    /// Neighbor discovery: `ip` is at `mac`.
    NeighborAdvert {
        /// Hardware address.
        mac: Mac,
        /// Address that was asked for.
        ip: Ipv6Addr,
        /// It is the network's gateway.
        router: bool,
    },
    /// The reply to a ping.
    Echo,
    /// The packet does not fit: ICMP or ICMPv6 tells its sender the MTU.
    TooBig {
        /// Hardware address of the gateway.
        mac: Mac,
        /// Address of the gateway.
        ip: IpAddr,
        /// Largest packet, bytes.
        mtu: u16,
    },
}

impl Answer {
    /// Writes the answer to `frame` into `out`; returns its length. 0 means that there is nothing
    /// to send, or that `out` is too small: an echo reply needs as many bytes as the frame has,
    /// anything else at most [`reply::MAX_LEN`].
    pub fn write(&self, frame: &[u8], out: &mut [u8]) -> usize {
        match (*self, frame::parse(frame)) {
            (Self::Arp { mac, ip }, Ok(Frame::Arp(request))) => {
                reply::arp_reply(&request, mac, ip, out)
            }
            (Self::NeighborAdvert { mac, ip, router }, Ok(Frame::Ip(info))) => {
                reply::nd_advertisement(frame, &info, mac, ip, router, out)
            }
            (Self::Echo, Ok(Frame::Ip(info))) => {
                let Some(out) = out.get_mut(..info.len) else {
                    return 0;
                };
                out.copy_from_slice(&frame[..info.len]);
                reply::icmp_echo_reply(out, &info)
            }
            (Self::TooBig { mac, ip, mtu }, Ok(Frame::Ip(info))) => {
                reply::packet_too_big(frame, &info, mac, ip, mtu, out)
            }
            _ => 0,
        }
    }
}
