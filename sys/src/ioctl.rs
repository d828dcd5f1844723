//! The few ioctls of TUN and of network interfaces, with interface names checked once.

use std::ffi::c_short;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// An interface name that fits the kernel's field.
#[derive(Clone, Copy)]
pub(crate) struct IfName([libc::c_char; libc::IFNAMSIZ]);

impl IfName {
    /// For requests that are answered with a name.
    pub(crate) const NONE: Self = Self([0; libc::IFNAMSIZ]);

    /// The kernel's rule (`dev_valid_name`): 1-15 bytes, no `/`, `:` or white space, not `.` or `..`.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let bad = name.is_empty()
            || name.len() >= libc::IFNAMSIZ
            || name == "."
            || name == ".."
            || name
                .bytes()
                .any(|b| b == 0 || b == b'/' || b == b':' || b.is_ascii_whitespace());
        if bad {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "invalid interface name {name:?}: use 1-15 characters without '/', ':' or spaces"
                ),
            ));
        }
        let mut field = [0; libc::IFNAMSIZ];
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self(field))
    }

    pub(crate) fn request(self, ifr_ifru: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
        libc::ifreq {
            ifr_name: self.0,
            ifr_ifru,
        }
    }
}

/// The name that the kernel wrote into a request.
pub(crate) fn name_in(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|&c| c as u8);
    let name: Vec<u8> = bytes.take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// An ioctl whose argument is an `ifreq`.
pub(crate) fn with_ifreq(
    fd: impl AsFd,
    request: libc::c_ulong,
    ifreq: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: `ifreq` is a live, fully initialised ifreq; the requests of this module's callers read
    // and write at most that structure, and with SIOCETHTOOL the words that it points to. The
    // descriptor is valid for the call.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request as libc::Ioctl, ifreq) };
    check(result)
}

/// An ioctl whose argument is a plain number in place of a pointer.
pub(crate) fn with_value(
    fd: impl AsFd,
    request: libc::Ioctl,
    value: libc::c_ulong,
) -> io::Result<()> {
    // SAFETY: the requests used (TUNSETPERSIST, TUNSETOFFLOAD) take the value itself and touch no
    // memory of ours.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, value) };
    check(result)
}

/// An ioctl without an argument whose result is a new descriptor.
pub(crate) fn for_descriptor(fd: impl AsFd, request: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: the request used (TUNGETDEVNETNS) takes no argument and touches no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request) };
    check(result)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// An ioctl whose argument points to an int that the kernel reads.
pub(crate) fn with_int(fd: impl AsFd, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer is to a live int; the requests used (TUNSETVNETHDRSZ) read one int.
    let result =
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, std::ptr::from_ref(&value)) };
    check(result)
}

/// Reads or writes one number of an interface (`struct ethtool_value`); returns what it is after.
pub(crate) fn with_ethtool_value(
    control: &OwnedFd,
    name: IfName,
    command: u32,
    data: u32,
) -> io::Result<u32> {
    let mut value = [command, data];
    with_ethtool_words(control, name, &mut value)?;
    Ok(value[1])
}

/// A command of ethtool with its structure: `words` begins with the command, and is as long as the
/// kernel takes the structure to be from the counts in it.
pub(crate) fn with_ethtool_words(
    control: &OwnedFd,
    name: IfName,
    words: &mut [u32],
) -> io::Result<()> {
    let ifru_data = words.as_mut_ptr().cast();
    let mut request = name.request(libc::__c_anonymous_ifr_ifru { ifru_data });
    // SIOCETHTOOL reads and writes the words that `ifru_data` points to, which outlive the call.
    with_ifreq(control, libc::SIOCETHTOOL, &mut request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A socket for interface ioctls in the calling thread's namespace.
pub(crate) fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

pub(crate) fn set_mac(control: &OwnedFd, name: IfName, mac: [u8; 6]) -> io::Result<()> {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    let ifru_hwaddr = libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data,
    };
    let mut request = name.request(libc::__c_anonymous_ifr_ifru { ifru_hwaddr });
    with_ifreq(control, libc::SIOCSIFHWADDR, &mut request)
}

pub(crate) fn set_mtu(control: &OwnedFd, name: IfName, mtu: u32) -> io::Result<()> {
    let ifru_mtu = libc::c_int::try_from(mtu).map_err(io::Error::other)?;
    let mut request = name.request(libc::__c_anonymous_ifr_ifru { ifru_mtu });
    with_ifreq(control, libc::SIOCSIFMTU, &mut request)
}

pub(crate) fn set_up(control: &OwnedFd, name: IfName, up: bool) -> io::Result<()> {
    let mut request = name.request(libc::__c_anonymous_ifr_ifru { ifru_flags: 0 });
    with_ifreq(control, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS filled this member of the union.
    let mut flags = unsafe { request.ifr_ifru.ifru_flags };
    if up {
        flags |= libc::IFF_UP as c_short;
    } else {
        flags &= !(libc::IFF_UP as c_short);
    }
    let mut request = name.request(libc::__c_anonymous_ifr_ifru { ifru_flags: flags });
    with_ifreq(control, libc::SIOCSIFFLAGS, &mut request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernels_rule() {
        for good in ["eth0", "weft_gwbridge", "a", "123456789012345"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1234567890123456",
            "a/b",
            "a:b",
            "a b",
            ".",
            "..",
            "a\0",
        ] {
            assert!(IfName::new(bad).is_err(), "{bad:?}");
        }
    }
}
