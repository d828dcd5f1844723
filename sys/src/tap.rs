//! TAP devices with virtio-net headers and segmentation offload.
//!
//! Every frame read or written starts with a 12-byte `virtio_net_hdr_v1`, little endian, as
//! `wire` describes it. One read or write carries one frame, up to a 64 KiB super-frame.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::ioctl::{self, IfName};
use crate::netlink::Netlink;
use crate::netns::Netns;

/// Bytes in front of every frame: `struct virtio_net_hdr_v1`.
pub const VNET_HEADER_LEN: usize = 12;

/// Queue of frames between the kernel and us; a full one drops at its tail, and the default of
/// 1000 is too short for bursts of super-frames.
pub const DEFAULT_TXQUEUELEN: u32 = 5000;

/// Offloads that the kernel agreed to hand to us (`TUN_F_*`). What we may write does not depend
/// on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads(u32);

impl Offloads {
    /// Frames may come with partial checksums.
    #[must_use]
    pub fn checksum(self) -> bool {
        self.0 & libc::TUN_F_CSUM != 0
    }

    /// TCP super-frames may come, over IPv4 and IPv6.
    #[must_use]
    pub fn tcp_segmentation(self) -> bool {
        self.0 & libc::TUN_F_TSO4 != 0
    }

    /// UDP super-frames may come, over IPv4 and IPv6 (Linux 6.2).
    #[must_use]
    pub fn udp_segmentation(self) -> bool {
        self.0 & libc::TUN_F_USO4 != 0
    }

    /// The raw `TUN_F_*` bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

/// What a TAP should be.
#[derive(Debug, Clone)]
pub struct TapConfig {
    /// Interface name, 1-15 characters.
    pub name: String,
    /// Ethernet address of the interface as the sandbox sees it.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes; the kernel's default of 1500 when absent.
    pub mtu: Option<u32>,
    /// Frames that the kernel queues for us, see [`DEFAULT_TXQUEUELEN`].
    pub txqueuelen: u32,
    /// The device stays when the last descriptor is closed, so that a new process can attach.
    pub persist: bool,
    /// Ask for partial checksums and super-frames.
    pub offload: bool,
    /// Bytes of the virtio header in front of every frame: [`VNET_HEADER_LEN`], or 24 for one that
    /// describes tunnels (Linux 6.17).
    pub header_len: usize,
    /// Set the interface up.
    pub up: bool,
}

impl TapConfig {
    /// Persistent, with offloads, up, kernel's default MAC and MTU.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mac: None,
            mtu: None,
            txqueuelen: DEFAULT_TXQUEUELEN,
            persist: true,
            offload: true,
            header_len: VNET_HEADER_LEN,
            up: true,
        }
    }
}

/// Why a TAP could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// Local: no TUN driver.
    #[error(
        "cannot open /dev/net/tun: {source}; load the `tun` module, or make the device available to this container (`--device /dev/net/tun`)"
    )]
    NoDriver {
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: another process or descriptor owns it.
    #[error(
        "TAP {name} is in use by another process: stop that process (is a second weftd running?)"
    )]
    Busy {
        /// Interface name.
        name: String,
    },
    /// Config: an interface with this name exists and is no TAP of ours.
    #[error(
        "interface {name} exists and is not a TAP with virtio headers: choose another name or delete it with `ip link del {name}`"
    )]
    OtherKind {
        /// Interface name.
        name: String,
    },
    /// Local: the kernel refused.
    #[error("cannot {action} TAP {name}: {source}{}", hint(.source))]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// Interface name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; CAP_NET_ADMIN in that network namespace is needed"
    } else {
        ""
    }
}

/// One descriptor of a TAP device, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
    offloads: Offloads,
}

impl Tap {
    /// Creates the device in the calling thread's network namespace, or attaches to it when a
    /// persistent one with that name is there. MAC, MTU, queue length and state are set in both
    /// cases. A device that this call created is gone again when it fails.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(config: &TapConfig) -> Result<Self, TapError> {
        let name = &config.name;
        let failed = |action| {
            move |source| TapError::Kernel {
                action,
                name: name.clone(),
                source,
            }
        };
        let ifname = IfName::new(name).map_err(failed("create"))?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(|source| {
            TapError::NoDriver {
                source: source.into(),
            }
        })?;

        let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let ifru_flags = kind as libc::c_short;
        let mut request = ifname.request(libc::__c_anonymous_ifr_ifru { ifru_flags });
        ioctl::with_ifreq(&fd, libc::TUNSETIFF as libc::c_ulong, &mut request).map_err(
            |source| match source.raw_os_error() {
                Some(libc::EBUSY) => TapError::Busy { name: name.clone() },
                Some(libc::EINVAL) => TapError::OtherKind { name: name.clone() },
                _ => TapError::Kernel {
                    action: "create",
                    name: name.clone(),
                    source,
                },
            },
        )?;
        ioctl::with_int(&fd, libc::TUNSETVNETHDRSZ, config.header_len as libc::c_int)
            .map_err(failed("set the virtio header size of"))?;
        let offloads = negotiate(&fd, config.offload).map_err(failed("set offloads of"))?;

        let control = ioctl::control_socket().map_err(failed("configure"))?;
        if let Some(mac) = config.mac {
            ioctl::set_mac(&control, ifname, mac).map_err(failed("set the MAC address of"))?;
        }
        if let Some(mtu) = config.mtu {
            ioctl::set_mtu(&control, ifname, mtu).map_err(failed("set the MTU of"))?;
        }
        // SIOCSIFTXQLEN asks for privilege in the first user namespace; route netlink asks for it in
        // the one that owns the device, which is enough for an ordinary user's cluster.
        Netlink::open()
            .and_then(|mut links| links.set_txqueuelen(name, config.txqueuelen))
            .map_err(|error| failed("set the queue length of")(error.into()))?;
        if config.up {
            ioctl::set_up(&control, ifname, true).map_err(failed("set up"))?;
        }
        let tap = Self {
            fd,
            name: name.clone(),
            offloads,
        };
        tap.set_persist(config.persist)
            .map_err(failed("set persistence of"))?;
        Ok(tap)
    }

    /// Interface name when it was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface name by now: whoever is root in its namespace may have changed it.
    ///
    /// # Errors
    /// `EBADFD` when the device is gone.
    pub fn name_by_now(&self) -> io::Result<String> {
        let ifru_flags = 0;
        let mut request = IfName::NONE.request(libc::__c_anonymous_ifr_ifru { ifru_flags });
        ioctl::with_ifreq(&self.fd, libc::TUNGETIFF as libc::c_ulong, &mut request)?;
        Ok(ioctl::name_in(&request))
    }

    /// The namespace that the device is in, whatever became of the path that led there.
    ///
    /// # Errors
    /// `EBADFD` when the device is gone; `EPERM` without CAP_NET_ADMIN in its namespace.
    pub fn netns(&self) -> io::Result<Netns> {
        ioctl::for_descriptor(&self.fd, libc::TUNGETDEVNETNS).map(Netns::from_descriptor)
    }

    /// What the kernel may hand to us.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Whether the device outlives its last descriptor. Switch off, then drop: the device is gone.
    ///
    /// # Errors
    /// `EBADFD` when the device was deleted meanwhile.
    pub fn set_persist(&self, persist: bool) -> io::Result<()> {
        ioctl::with_value(&self.fd, libc::TUNSETPERSIST, libc::c_ulong::from(persist))
    }

    /// Another descriptor of the same device, for handing to a worker.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            name: self.name.clone(),
            offloads: self.offloads,
        })
    }

    /// Reads one frame, header first. Bytes that do not fit are lost: give at least
    /// `VNET_HEADER_LEN + 14 + 65535 + 4`.
    ///
    /// # Errors
    /// `WouldBlock` when no frame waits; `EBADFD` or `EIO` when the device is gone or down.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Reads one frame, scattered over several buffers, header first.
    ///
    /// # Errors
    /// As [`Tap::read`].
    pub fn readv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::readv(&self.fd, buffers)?)
    }

    /// Writes one frame, header first. The kernel's receive path runs within the call.
    ///
    /// # Errors
    /// `EINVAL` for a header that does not match its frame; `EIO` when the device is down.
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.fd, frame)?)
    }

    /// Writes one frame gathered from several pieces (at most 1024), header first.
    ///
    /// # Errors
    /// As [`Tap::write`].
    pub fn writev(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(&self.fd, pieces)?)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The best set that the kernel takes. The set is a property of the device, not of the descriptor,
/// so "none" is set too: an earlier process may have left more.
fn negotiate(fd: &OwnedFd, wanted: bool) -> io::Result<Offloads> {
    const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    const UDP: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let sets: &[u32] = if wanted {
        &[
            TCP | libc::TUN_F_TSO_ECN | UDP,
            TCP | libc::TUN_F_TSO_ECN,
            TCP,
            libc::TUN_F_CSUM,
            0,
        ]
    } else {
        &[0]
    };
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for &set in sets {
        match ioctl::with_value(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(set)) {
            Ok(()) => return Ok(Offloads(set)),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests;
