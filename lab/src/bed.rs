//! What the cables of a lab do in place of those who send over them: nothing that happens on two
//! machines is like what happens on a veth, whose other end takes whatever it is given.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_sys::netns::Netns;
use weft_sys::offload::{has_feature, set_features};

/// TCP in segments of any length, by the kernel's names (`ethtool -k`).
const TCP_SEGMENTATION: [&str; 4] = [
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
];

/// The same inside UDP tunnels, without and with a checksum of the outer header.
const TUNNEL_SEGMENTATION: [&str; 2] = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];

/// Datagrams of one length, as `UDP_SEGMENT` asks for.
const UDP_SEGMENTATION: &str = "tx-udp-segmentation";

/// Merging of what arrives.
const GRO: &str = "rx-gro";

/// The links that the machines of a lab stand on. Checksums are left to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bed {
    /// As the kernel makes a veth: everything is offloaded, and super-frames arrive whole.
    #[default]
    Veth,
    /// As most devices of clouds: neither TCP nor tunnels are segmented, datagrams are; what arrives
    /// is merged (GRO).
    Nic,
    /// Nothing is segmented; what arrives is merged.
    Plain,
}

/// Which end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Machine,
    /// A switch passes on what comes, as it comes: it merges nothing.
    Switch,
}

impl Bed {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Veth, Self::Nic, Self::Plain];

    /// `veth`, `nic`, `plain`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Nic => "nic",
            Self::Plain => "plain",
        }
    }

    /// Features by the kernel's names, and whether an end of a cable has them; none where it stays as
    /// it was made.
    fn features(self, end: End) -> Vec<(&'static str, bool)> {
        if self == Self::Veth {
            return Vec::new();
        }
        // Also at the switch: a veth whose sending end segments TCP never lets the other one merge.
        let off = TCP_SEGMENTATION.into_iter().chain(TUNNEL_SEGMENTATION);
        let mut features: Vec<_> = off.map(|feature| (feature, false)).collect();
        features.push((UDP_SEGMENTATION, self == Self::Nic));
        features.push((GRO, end == End::Machine));
        features
    }

    /// Makes the end of a cable that is called `device` in a lab's namespace what this bed has there,
    /// and looks that it is.
    pub(crate) fn make(self, netns: &Netns, device: &str, end: End) -> anyhow::Result<()> {
        let features = self.features(end);
        if features.is_empty() {
            return Ok(());
        }
        let kept = netns.run_in(|| {
            set_features(device, &features)?;
            for (feature, on) in &features {
                if has_feature(device, feature)? != *on {
                    return std::io::Result::Ok(Some((*feature, *on)));
                }
            }
            Ok(None)
        })?;
        let kept = kept.with_context(|| {
            format!(
                "cannot make the cable {device} one of the bed {}: choose the bed veth, which every kernel has",
                self.name()
            )
        })?;
        if let Some((feature, on)) = kept {
            bail!(
                "the cable {device} keeps {feature} {}, which the bed {} has {}: this kernel does not switch it for veth; choose the bed veth",
                word(!on),
                self.name(),
                word(on)
            );
        }
        Ok(())
    }
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use weft_sys::netlink::{Netlink, Veth};

    use super::*;

    /// A namespace with a cable whose ends are `node1` and `eth0`.
    fn cable() -> Netns {
        let netns = Netns::create_anonymous().unwrap();
        Netlink::open_in(&netns)
            .unwrap()
            .add_veth(&Veth {
                name: "node1",
                peer: "eth0",
                peer_netns: None,
                peer_mac: None,
                mtu: None,
            })
            .unwrap();
        netns
    }

    #[test]
    fn a_cable_becomes_what_the_bed_says() {
        let netns = cable();
        let has = |device: &str, feature: &str| {
            netns
                .run_in(|| has_feature(device, feature))
                .unwrap()
                .unwrap()
        };
        let segments = || TCP_SEGMENTATION.into_iter().chain(TUNNEL_SEGMENTATION);
        let made: Vec<bool> = segments().map(|feature| has("eth0", feature)).collect();
        Bed::Veth.make(&netns, "eth0", End::Machine).unwrap();
        let left: Vec<bool> = segments().map(|feature| has("eth0", feature)).collect();
        assert_eq!(left, made, "a veth stays as it was made");
        for (bed, udp) in [(Bed::Nic, true), (Bed::Plain, false), (Bed::Nic, true)] {
            for (device, end) in [("eth0", End::Machine), ("node1", End::Switch)] {
                bed.make(&netns, device, end).unwrap();
                for feature in segments() {
                    assert!(!has(device, feature), "{bed:?} {device} {feature}");
                }
                assert_eq!(has(device, UDP_SEGMENTATION), udp, "{bed:?} {device}");
            }
            assert!(has("eth0", GRO), "{bed:?}");
            assert!(!has("node1", GRO), "a switch merges nothing");
        }
    }

    #[test]
    fn a_cable_that_is_not_there_is_told() {
        let error = Bed::Nic.make(&cable(), "eth1", End::Machine).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("cable eth1 one of the bed nic"), "{said}");
        Bed::Veth.make(&cable(), "eth1", End::Machine).unwrap();
    }

    #[test]
    fn beds_are_written_by_their_names() {
        for bed in Bed::ALL {
            let text = serde_json::to_string(&bed).unwrap();
            assert_eq!(text, format!("{:?}", bed.name()));
        }
        assert_eq!(Bed::default(), Bed::Veth);
    }
}
