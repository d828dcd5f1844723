//! The fast way out for TCP super-frames: written, tunnel headers and all, into a TAP of the host,
//! from which the kernel routes them to the underlay. A device that knows UDP tunnels gets the
//! super-frame whole, others get it segmented by the kernel; in neither case does this process
//! touch the segments.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use weft_sys::netlink::{Netlink, NetlinkError};
use weft_sys::tap::{Tap, TapConfig, TapError};
use weft_wire::tunnel_gso::{HEADER_LEN, Tunnel, VNET_LEN};
use weft_wire::{DropReason, IpInfo, Mac, VnetHdr, Vni};

mod compare;
mod prices;
mod selftest;

pub use prices::Prices;

/// Name of the TAP.
pub const DEVICE: &str = "weftgso0";

/// Its address, which nothing is sent to.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 9);

/// Why super-frames leave as segments made here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The underlay is not IPv4.
    #[error("the data path's address is IPv6")]
    Family,
    /// The device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A device of the self-test.
    #[error("self-test: {0}")]
    Netlink(#[from] NetlinkError),
    /// A setting of the device.
    #[error("cannot set {name}: {source}")]
    Sysctl {
        /// Path below `/proc/sys`.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A namespace, a thread or a socket of the self-test.
    #[error("self-test: {0}")]
    Kernel(#[from] io::Error),
    /// The kernel does not take the virtio header.
    #[error("the kernel does not know tunnels in virtio headers (it needs Linux 6.17): {0}")]
    Unknown(io::Error),
    /// The test packet did not come out, or not as it went in.
    #[error("self-test: {0}")]
    Failed(&'static str),
}

/// Writes super-frames for other nodes into the TAP. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Injector {
    tap: Tap,
    mac: Mac,
    src: Ipv4Addr,
}

impl Injector {
    /// Makes the TAP in the calling thread's namespace, sends a test packet through it, and compares
    /// what super-frames cost by it and by `UDP_SEGMENT`, where that can be told. The TAP is gone
    /// again when the test fails, and with the process.
    ///
    /// # Errors
    /// [`InjectError`]: super-frames have to be segmented by the caller.
    pub(crate) fn open(src: Ipv4Addr) -> Result<(Self, Option<Prices>), InjectError> {
        let [_, _, a, b] = src.octets();
        let mac = Mac([0x02, 0x42, 0xa9, 0xfe, a, b]);
        let tap = Tap::open(&TapConfig {
            mac: Some(mac.0),
            persist: false,
            offload: false,
            header_len: VNET_LEN,
            up: false,
            ..TapConfig::new(DEVICE)
        })?;
        // The packets come from this node's own address and are routed, although the host may route
        // nothing else. Loose reverse path: the strict one wants them to come from the underlay.
        for (setting, value) in [
            ("forwarding", "1"),
            ("accept_local", "1"),
            ("rp_filter", "2"),
        ] {
            set(&format!("net/ipv4/conf/{DEVICE}/{setting}"), value)?;
        }
        // No router solicitations into a device that nobody reads; a kernel may lack IPv6.
        if let Err(error) = set(&format!("net/ipv6/conf/{DEVICE}/disable_ipv6"), "1") {
            tracing::debug!(%error, "IPv6 stays on");
        }
        let mut links = Netlink::open()?;
        // The loose filter refuses what comes from a device without an address.
        links.add_address(DEVICE, Ipv4Net::from(ADDRESS).into())?;
        links.set_up(DEVICE, true)?;
        let injector = Self { tap, mac, src };
        let prices = selftest::run(&injector)?;
        Ok((injector, prices))
    }

    /// Sends `frame` from `src_port` to `vtep`. The kernel's forwarding runs within the call.
    ///
    /// # Errors
    /// `BadOffload` when the frame cannot leave this way: segment it. `UnderlayFull` when the kernel
    /// has no memory, `UnderlayError` when it refuses for any other reason.
    pub(crate) fn send(
        &self,
        vni: Vni,
        (src_port, vtep): (u16, SocketAddrV4),
        (ident, class): (u16, u8),
        (vnet, info): (&VnetHdr, &IpInfo),
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let tunnel = Tunnel {
            mac: self.mac,
            src: self.src,
            dst: *vtep.ip(),
            src_port,
            dst_port: vtep.port(),
            vni,
            class,
        };
        let mut headers = [0; HEADER_LEN];
        tunnel.emit(ident, vnet, info, frame, &mut headers)?;
        let written = self
            .tap
            .writev(&[IoSlice::new(&headers), IoSlice::new(frame)]);
        match written {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(DropReason::BadOffload)
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                Err(DropReason::UnderlayFull)
            }
            Err(_) => Err(DropReason::UnderlayError),
        }
    }
}

fn set(name: &str, value: &str) -> Result<(), InjectError> {
    std::fs::write(format!("/proc/sys/{name}"), value).map_err(|source| InjectError::Sysctl {
        name: name.replace('/', "."),
        source,
    })
}
