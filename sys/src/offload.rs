//! Offloads of an interface, as `ethtool -K` switches them.

use std::io;
use std::os::fd::OwnedFd;

use crate::ioctl::{IfName, control_socket, with_ethtool_value, with_ethtool_words};

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
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of one name.
const ETH_GSTRING_LEN: usize = 32;
/// Words of `struct ethtool_get_features_block`, and which of them says what is in force.
const GET_BLOCK: usize = 4;
const GET_ACTIVE: usize = 2;
/// Words of `struct ethtool_set_features_block`.
const SET_BLOCK: usize = 2;

/// Segmentation of UDP tunnels whose outer checksum is not zero (`ethtool -k`), as `UDP_GRO` wants it
/// of a sender. The feature without `csum` is about tunnels without a checksum.
const TUNNEL_SEGMENTATION: &str = "tx-udp_tnl-csum-segmentation";

/// Segmentation of what is sent with `UDP_SEGMENT`.
const DATAGRAM_SEGMENTATION: &str = "tx-udp-segmentation";

/// Whether an interface of the calling thread's namespace segments TCP inside UDP tunnels, with
/// checksums inside and outside. Where it does not, the kernel does so before the driver, which costs
/// more than to segment in user space.
///
/// # Errors
/// No such interface (`ENODEV`).
pub fn segments_tunnels(name: &str) -> io::Result<bool> {
    has_feature(name, TUNNEL_SEGMENTATION)
}

/// Switches that, as `ethtool -K NAME tx-udp_tnl-csum-segmentation on|off` does.
///
/// # Errors
/// No such interface (`ENODEV`), no permission, a kernel or driver that cannot (`EOPNOTSUPP`).
pub fn set_segments_tunnels(name: &str, on: bool) -> io::Result<()> {
    set_features(name, &[(TUNNEL_SEGMENTATION, on)])
}

/// Whether an interface of the calling thread's namespace segments what is sent with `UDP_SEGMENT`.
/// Where it does not, the kernel does so before the driver.
///
/// # Errors
/// No such interface (`ENODEV`).
pub fn segments_datagrams(name: &str) -> io::Result<bool> {
    has_feature(name, DATAGRAM_SEGMENTATION)
}

/// Switches that, as `ethtool -K NAME tx-udp-segmentation on|off` does.
///
/// # Errors
/// As [`set_segments_tunnels`].
pub fn set_segments_datagrams(name: &str, on: bool) -> io::Result<()> {
    set_features(name, &[(DATAGRAM_SEGMENTATION, on)])
}

/// Whether a feature of an interface of the calling thread's namespace is in force, by the kernel's
/// name for it (`tx-udp-segmentation`, `rx-gro`). One that the kernel does not know is not.
///
/// # Errors
/// No such interface (`ENODEV`).
pub fn has_feature(name: &str, feature: &str) -> io::Result<bool> {
    let (socket, name) = (control_socket()?, IfName::new(name)?);
    let known = features(&socket, name)?;
    let Some(bit) = known.iter().position(|known| known == feature) else {
        return Ok(false);
    };
    let blocks = known.len().div_ceil(32);
    // struct ethtool_gfeatures: command, number of blocks, blocks.
    let mut words = vec![0; 2 + GET_BLOCK * blocks];
    words[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    with_ethtool_words(&socket, name, &mut words)?;
    let active = words[2 + GET_BLOCK * (bit / 32) + GET_ACTIVE];
    Ok(active & (1 << (bit % 32)) != 0)
}

/// Switches features of an interface of the calling thread's namespace, all at once. The driver may
/// keep one as it was without a word: [`has_feature`] tells.
///
/// # Errors
/// No such interface (`ENODEV`), no permission, one to be switched on that the kernel does not know
/// (nothing was changed then).
pub fn set_features(name: &str, wanted: &[(&str, bool)]) -> io::Result<()> {
    let (socket, name) = (control_socket()?, IfName::new(name)?);
    let known = features(&socket, name)?;
    let blocks = known.len().div_ceil(32);
    // struct ethtool_sfeatures; a block is the mask of valid bits and the bits wanted.
    let mut words = vec![0; 2 + SET_BLOCK * blocks];
    words[..2].copy_from_slice(&[ETHTOOL_SFEATURES, blocks as u32]);
    for (feature, on) in wanted {
        match known.iter().position(|known| known == feature) {
            Some(bit) => {
                let block = 2 + SET_BLOCK * (bit / 32);
                words[block] |= 1 << (bit % 32);
                words[block + 1] |= u32::from(*on) << (bit % 32);
            }
            None if *on => return Err(io::ErrorKind::Unsupported.into()),
            // What there is not is off.
            None => {}
        }
    }
    with_ethtool_words(&socket, name, &mut words)
}

/// Names of all features, in the order of their bits.
fn features(socket: &OwnedFd, name: IfName) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: command, reserved, mask of sets in two words, length of the set.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    with_ethtool_words(socket, name, &mut info)?;
    // A kernel has some dozens.
    let count = info[4].min(4096) as usize;
    // struct ethtool_gstrings: command, set, number of strings, strings.
    let mut words = vec![0; 3 + count * ETH_GSTRING_LEN / size_of::<u32>()];
    words[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    with_ethtool_words(socket, name, &mut words)?;
    let text: Vec<u8> = words[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    let names = text.chunks_exact(ETH_GSTRING_LEN).map(|field| {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    });
    Ok(names.collect())
}

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

    /// A namespace with a cable whose ends are `a` and `b`.
    fn cable() -> Netns {
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
    }

    #[test]
    fn what_is_switched_off_stays_off() {
        cable()
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

    #[test]
    fn segmentation_of_tunnels_and_of_datagrams_is_read_and_switched() {
        cable()
            .run_in(|| {
                for on in [false, true, false] {
                    set_segments_tunnels("a", on).unwrap();
                    assert_eq!(segments_tunnels("a").unwrap(), on);
                    assert!(segments_datagrams("a").unwrap(), "another feature");
                    assert!(segments_tunnels("b").unwrap(), "as it was made");
                }
                set_segments_tunnels("a", true).unwrap();
                for on in [false, true, false] {
                    set_segments_datagrams("a", on).unwrap();
                    assert_eq!(segments_datagrams("a").unwrap(), on);
                    assert!(segments_tunnels("a").unwrap(), "another feature");
                    assert!(segments_datagrams("b").unwrap(), "as it was made");
                }
                segments_tunnels("nosuch").unwrap_err();
                set_segments_tunnels("nosuch", true).unwrap_err();
                segments_datagrams("nosuch").unwrap_err();
                set_segments_datagrams("nosuch", true).unwrap_err();
            })
            .unwrap();
    }

    #[test]
    fn features_are_switched_by_their_names() {
        cable()
            .run_in(|| {
                let has = |feature| has_feature("a", feature).unwrap();
                for on in [false, true] {
                    let wanted = [
                        ("tx-udp-segmentation", on),
                        ("rx-gro", !on),
                        ("no-such-feature", false),
                    ];
                    set_features("a", &wanted).unwrap();
                    for (feature, on) in wanted {
                        assert_eq!(has(feature), on, "{feature}");
                    }
                    assert!(has("tx-tcp-segmentation"), "nobody asked for that");
                }
                let unknown = [("tx-udp-segmentation", false), ("no-such-feature", true)];
                let refused = set_features("a", &unknown).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
                assert!(has("tx-udp-segmentation"), "nothing was changed");
                set_features("nosuch", &[]).unwrap_err();
            })
            .unwrap();
    }
}
