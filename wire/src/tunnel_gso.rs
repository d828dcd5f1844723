//! A TCP super-frame inside VXLAN as one packet that the kernel segments, tunnel and all: what its
//! own vxlan driver hands to a device, written into a TAP (Linux 6.17, `IFF_VNET_HDR` with
//! `VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4`).
//!
//! The headers are a `virtio_net_hdr_v1_hash_tunnel` (virtio 1.4, include/uapi/linux/virtio_net.h)
//! and the outer Ethernet, IPv4, UDP and VXLAN headers. The inner frame follows untouched.

use std::net::Ipv4Addr;

use crate::frame::{ETHERNET_LEN, Fragment, TCP, UDP};
use crate::vnet::{self, GsoKind, VnetHdr};
use crate::{DropReason, IpInfo, Mac, Vni, checksum, gso, len16, put16, vxlan};

/// Bytes of the virtio header: what the TAP's `TUNSETVNETHDRSZ` must say.
pub const VNET_LEN: usize = 24;

/// Bytes of outer headers between the virtio header and the inner frame.
pub const OUTER_LEN: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN + vxlan::HEADER_LEN;

/// Bytes in front of the inner frame.
pub const HEADER_LEN: usize = VNET_LEN + OUTER_LEN;

const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// `flags`: the outer UDP checksum is to be computed as well. Receivers merge only datagrams that
/// have one.
const F_UDP_TUNNEL_CSUM: u8 = 8;
/// `gso_type`: inside UDP over IPv4.
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;

/// One direction between two VTEPs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Ethernet address of the TAP that the packet is written into: both source and destination,
    /// the kernel routes it on from there.
    pub mac: Mac,
    /// Outer source.
    pub src: Ipv4Addr,
    /// Outer destination: the VTEP.
    pub dst: Ipv4Addr,
    /// Outer source port, the flow's entropy.
    pub src_port: u16,
    /// Port that the VTEP listens on.
    pub dst_port: u16,
    /// Network of the inner frame.
    pub vni: Vni,
    /// Outer traffic class: [`crate::ecn::outer_class`].
    pub class: u8,
}

impl Tunnel {
    /// Writes the headers for inner frame `frame`, of which `vnet` says what its sender asked for.
    /// `ident` is the IPv4 identification of the first segment.
    ///
    /// # Errors
    /// `BadOffload` for anything but a TCP super-frame with an unfinished checksum, for one of more
    /// segments than [`gso::MAX_SEGMENTS`] (a sandbox chooses their size, and the kernel would make
    /// them all), and for one that does not fit into an IPv4 packet together with the headers;
    /// nothing useful was written then.
    pub fn emit(
        &self,
        ident: u16,
        vnet: &VnetHdr,
        info: &IpInfo,
        frame: &[u8],
        out: &mut [u8; HEADER_LEN],
    ) -> Result<(), DropReason> {
        let tcp = match vnet.gso() {
            GsoKind::Tcp4 => info.is_ipv4(),
            GsoKind::Tcp6 => !info.is_ipv4(),
            GsoKind::None | GsoKind::UdpL4 | GsoKind::Other => false,
        };
        let ip_len = OUTER_LEN - ETHERNET_LEN + frame.len();
        if !tcp
            || info.proto != TCP
            || info.fragment != Fragment::None
            || !vnet.needs_csum()
            || vnet.gso_size == 0
            || info.payload_len().div_ceil(usize::from(vnet.gso_size)) > gso::MAX_SEGMENTS
            || frame.len() != info.len
            || ip_len > usize::from(u16::MAX)
        {
            return Err(DropReason::BadOffload);
        }
        *out = [0; HEADER_LEN];
        let (virtio, outer) = out.split_at_mut(VNET_LEN);
        virtio[0] = vnet::F_NEEDS_CSUM | F_UDP_TUNNEL_CSUM;
        virtio[1] = vnet.gso_type | GSO_UDP_TUNNEL_IPV4;
        let fields = [
            (2, OUTER_LEN + info.payload),
            (4, usize::from(vnet.gso_size)),
            (6, OUTER_LEN + info.l4),
            // Of the TCP checksum.
            (8, 16),
            (20, ETHERNET_LEN + IPV4_LEN),
            (22, OUTER_LEN + info.l3),
        ];
        for (at, value) in fields {
            virtio[at..at + 2].copy_from_slice(&len16(value).to_le_bytes());
        }
        outer[..6].copy_from_slice(&self.mac.0);
        outer[6..12].copy_from_slice(&self.mac.0);
        put16(outer, 12, 0x0800);
        let (ip, udp) = (ETHERNET_LEN, ETHERNET_LEN + IPV4_LEN);
        outer[ip] = 0x45;
        outer[ip + 1] = self.class;
        put16(outer, ip + 2, len16(ip_len));
        put16(outer, ip + 4, ident);
        outer[ip + 8] = 64;
        outer[ip + 9] = UDP;
        outer[ip + 12..ip + 16].copy_from_slice(&self.src.octets());
        outer[ip + 16..ip + 20].copy_from_slice(&self.dst.octets());
        let header = checksum::ipv4_header(&outer[ip..udp]);
        put16(outer, ip + 10, header);
        put16(outer, udp, self.src_port);
        put16(outer, udp + 2, self.dst_port);
        let udp_len = ip_len - IPV4_LEN;
        put16(outer, udp + 4, len16(udp_len));
        let pseudo = checksum::pseudo_header(self.src.into(), self.dst.into(), UDP, udp_len);
        put16(outer, udp + 6, pseudo);
        let at = udp + UDP_LEN;
        if let Some(header) = outer[at..].first_chunk_mut() {
            vxlan::emit(self.vni, header);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
