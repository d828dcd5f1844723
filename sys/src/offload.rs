//! Offloads of an interface, as `ethtool -K` switches them.

use std::io;

use crate::ioctl::{IfName, control_socket, with_ethtool_value};

/// Which work the kernel may leave to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums of sent packets (`tx`). Without it the kernel also refuses the two below that
    /// need it.
    pub tx_checksum: bool,
    /// TCP segmentation (`tso`).
    pub tso: bool,
    /// Segmentation just before the driver (`gso`).
    pub gso: bool,
    /// Merging of received segments (`gro`).
    pub gro: bool,
}

// linux/ethtool.h
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;

impl Offloads {
    /// What an interface of the calling thread's namespace does now.
    ///
    /// # Errors
    /// No such interface (`ENODEV`).
    pub fn of(name: &str) -> io::Result<Self> {
        let (socket, name) = (control_socket()?, IfName::new(name)?);
        let get = |command| with_ethtool_value(&socket, name, command, 0).map(|on| on != 0);
        Ok(Self {
            tx_checksum: get(ETHTOOL_GTXCSUM)?,
            tso: get(ETHTOOL_GTSO)?,
            gso: get(ETHTOOL_GGSO)?,
            gro: get(ETHTOOL_GGRO)?,
        })
    }

    /// Switches an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// No such interface (`ENODEV`), no permission, or the driver cannot do it (`EOPNOTSUPP`).
    pub fn apply(self, name: &str) -> io::Result<()> {
        let (socket, name) = (control_socket()?, IfName::new(name)?);
        for (command, on) in [
            (ETHTOOL_STXCSUM, self.tx_checksum),
            (ETHTOOL_STSO, self.tso),
            (ETHTOOL_SGSO, self.gso),
            (ETHTOOL_SGRO, self.gro),
        ] {
            with_ethtool_value(&socket, name, command, on.into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Netlink, Veth};
    use crate::netns::Netns;

    #[test]
    fn what_is_switched_off_stays_off() {
        let netns = Netns::create_anonymous().unwrap();
        Netlink::open_in(&netns)
            .unwrap()
            .add_veth(&Veth {
                name: "a",
                peer: "b",
                peer_netns: None,
                peer_mac: None,
                mtu: None,
            })
            .unwrap();
        netns
            .run_in(|| {
                assert!(Offloads::of("a").unwrap().tso);
                let off = Offloads {
                    tx_checksum: false,
                    tso: false,
                    gso: false,
                    gro: false,
                };
                off.apply("a").unwrap();
                assert_eq!(Offloads::of("a").unwrap(), off);
                assert!(Offloads::of("b").unwrap().tx_checksum);
                assert!(Offloads::of("nosuch").is_err());
            })
            .unwrap();
    }
}
