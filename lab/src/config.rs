//! What a lab shall be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::bed::Bed;

/// Name of the machine that is not part of the cluster.
pub const OUTSIDE: &str = "outside";

/// Name of the machine that holds the bridge.
pub const SWITCH: &str = "switch";

/// An address that only [`OUTSIDE`] has and that is on nobody's link (RFC 5737 section 3): nodes
/// reach it through their default route, as they would reach the internet.
pub const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The same where the underlay is IPv6 (RFC 3849).
pub const FAR_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);

/// Number of [`OUTSIDE`] on an underlay of IPv6.
const OUTSIDE_V6: u8 = 0xfe;

/// Where labs of this user live: `/run/weft-lab` for who may write there, else the user's runtime
/// folder, else his cache. Never a folder that is everybody's: whoever came first would own the name.
///
/// # Errors
/// Neither `XDG_RUNTIME_DIR` nor `HOME` names a folder.
pub fn default_dir() -> anyhow::Result<PathBuf> {
    let writable = |dir: &str| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
    if writable("/run/weft-lab") || (!Path::new("/run/weft-lab").exists() && writable("/run")) {
        return Ok(PathBuf::from("/run/weft-lab"));
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    own_dir(variable("XDG_RUNTIME_DIR"), variable("HOME"))
}

fn own_dir(runtime: Option<PathBuf>, home: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let absolute = |dir: &PathBuf| dir.is_absolute();
    let dir = runtime
        .filter(absolute)
        .or_else(|| home.filter(absolute).map(|home| home.join(".cache")));
    dir.map(|dir| dir.join("weft-lab"))
        .context("there is no place for labs: set HOME or XDG_RUNTIME_DIR to a folder of yours")
}

/// Settings of a lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabConfig {
    /// Tells labs of one machine apart; also the name of its folder.
    pub name: String,
    /// Number of nodes, 1-200: `node1`, `node2`, …
    pub nodes: u8,
    /// Folder of the lab: sockets, data, state. Made by the lab and removed with it.
    pub dir: PathBuf,
    /// The multi-call program (see the crate's documentation). Never written down: who could write
    /// there would name what runs.
    #[serde(skip)]
    pub program: PathBuf,
    /// Whether agents run on the nodes; without them a lab is just machines and cables.
    pub agents: bool,
    /// More arguments for every agent.
    pub agent_args: Vec<String>,
    /// More environment for every agent, and thereby for its tasks.
    pub env: Vec<(String, String)>,
    /// Where the output of each node goes, as `NODE.log`; `logs` in the lab's folder when absent.
    pub log_dir: Option<PathBuf>,
    /// Network of the underlay, the only family that machines have there: node N has the N-th
    /// address, [`OUTSIDE`] the last but one of an IPv4 network, `…::fe` of one of IPv6.
    pub underlay: IpNet,
    /// Contents and layers of images, which the nodes share; made by the lab and removed with it. Where
    /// it is absent, the lab chooses: `images` in its folder, or a folder on a disk where its own is in
    /// memory.
    #[serde(default)]
    pub image_store: Option<PathBuf>,
    /// Without it each node has images of its own, as real ones have, and gets them from others.
    #[serde(default)]
    pub shares_images: bool,
    /// `HOST:PORT` of registries that nodes may ask over plain HTTP, as those of a lab are.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// MTU of the underlay in bytes.
    pub mtu: u32,
    /// What the cables of the underlay offload.
    #[serde(default)]
    pub bed: Bed,
    /// What runs on the machine outside: arguments for `program`; nothing when empty.
    pub outside_args: Vec<String>,
    /// Everything dies with the *thread* that made the lab, however it ends. Without it the lab
    /// goes on until `Lab::down`.
    pub dies_with_parent: bool,
}

impl LabConfig {
    /// Three nodes, 10.77.0.0/24, MTU 1500, on cables as the kernel makes them, run by this very
    /// program, dying with this thread.
    ///
    /// # Errors
    /// The path of this program is unknown.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            nodes: 3,
            dir: default_dir()?.join(name),
            program: std::env::current_exe().context("cannot find the path of this program")?,
            agents: true,
            agent_args: Vec::new(),
            env: Vec::new(),
            log_dir: None,
            underlay: Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 24).into(),
            image_store: None,
            shares_images: true,
            insecure_registries: Vec::new(),
            mtu: 1500,
            bed: Bed::Veth,
            outside_args: Vec::new(),
            dies_with_parent: true,
        })
    }

    /// The same on an underlay of IPv6 alone, fd77::/64.
    #[must_use]
    pub fn over_ipv6(self) -> Self {
        let network = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);
        Self {
            underlay: Ipv6Net::new_assert(network, 64).into(),
            ..self
        }
    }

    /// Refuses what cannot work, before anything is made.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(plain) {
            bail!(
                "invalid lab name {:?}: use 1-40 letters, digits, - and _",
                self.name
            );
        }
        if self.nodes == 0 || u32::from(self.nodes) + 2 > self.host_count() {
            bail!(
                "a lab of {} nodes does not fit into {}: it has room for 1 to {}",
                self.nodes,
                self.underlay,
                self.host_count().saturating_sub(2)
            );
        }
        // RFC 8200 section 5: no link of IPv6 has less than 1280.
        let least = if self.underlay.addr().is_ipv6() {
            1280
        } else {
            576
        };
        if !(least..=65_535).contains(&self.mtu) {
            bail!(
                "invalid underlay MTU {}: it must be {least}-65535 bytes",
                self.mtu
            );
        }
        // sun_path of a unix socket holds 108 bytes (unix(7)).
        let socket = self.dir.join("node200/weft.sock");
        if socket.as_os_str().len() > 107 {
            bail!(
                "the path {} is too long for a unix socket: choose a shorter lab folder",
                socket.display()
            );
        }
        Ok(())
    }

    fn host_count(&self) -> u32 {
        let bits = u32::from(self.underlay.max_prefix_len() - self.underlay.prefix_len());
        match self.underlay {
            IpNet::V4(_) => (1u32.checked_shl(bits).unwrap_or(u32::MAX)).saturating_sub(2),
            // `…::fe` has to fit.
            IpNet::V6(_) if bits < 8 => 0,
            IpNet::V6(_) => u32::from(OUTSIDE_V6),
        }
    }

    /// Address of node `index`, from 1.
    pub(crate) fn node_addr(&self, index: u8) -> IpAddr {
        match self.underlay {
            IpNet::V4(net) => {
                Ipv4Addr::from_bits(net.network().to_bits() + u32::from(index)).into()
            }
            IpNet::V6(net) => {
                Ipv6Addr::from_bits(net.network().to_bits() + u128::from(index)).into()
            }
        }
    }

    /// Address of the machine outside.
    pub(crate) fn outside_addr(&self) -> IpAddr {
        match self.underlay {
            IpNet::V4(net) => Ipv4Addr::from_bits(net.broadcast().to_bits() - 1).into(),
            IpNet::V6(_) => self.node_addr(OUTSIDE_V6),
        }
    }

    /// The far address of the underlay's family.
    pub(crate) fn far_addr(&self) -> IpAddr {
        match self.underlay {
            IpNet::V4(_) => FAR_ADDRESS.into(),
            IpNet::V6(_) => FAR_ADDRESS_V6.into(),
        }
    }

    /// The file of the agents' settings, where they have any that are not flags.
    pub(crate) fn agent_file(&self) -> Option<(PathBuf, String)> {
        let tables = self.insecure_registries.iter();
        let tables = tables.map(|host| format!("[registries.{host:?}]\ninsecure = true\n"));
        let text = tables.collect::<String>();
        (!text.is_empty()).then(|| (self.dir.join("weftd.toml"), text))
    }

    /// Where the log of a node is.
    pub(crate) fn log(&self, node: &str) -> PathBuf {
        self.log_dir
            .clone()
            .unwrap_or_else(|| self.dir.join("logs"))
            .join(format!("{node}.log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_are_in_a_folder_of_the_user() {
        let path = |text: &str| Some(PathBuf::from(text));
        let runtime = own_dir(path("/run/user/7"), path("/home/x")).unwrap();
        assert_eq!(runtime, Path::new("/run/user/7/weft-lab"));
        for none in [None, path(""), path("relative")] {
            let cache = own_dir(none.clone(), path("/home/x")).unwrap();
            assert_eq!(cache, Path::new("/home/x/.cache/weft-lab"));
            assert!(own_dir(none.clone(), none).is_err());
        }
    }

    #[test]
    fn addresses_follow_the_numbers() {
        let config = LabConfig::new("t").unwrap();
        assert_eq!(config.node_addr(3).to_string(), "10.77.0.3");
        assert_eq!(config.outside_addr().to_string(), "10.77.0.254");
        config.check().unwrap();
        let config = config.over_ipv6();
        assert_eq!(config.node_addr(3).to_string(), "fd77::3");
        assert_eq!(config.outside_addr().to_string(), "fd77::fe");
        config.check().unwrap();
    }

    #[test]
    fn registries_of_plain_http_are_in_the_agents_file() {
        let mut config = LabConfig::new("t").unwrap();
        assert_eq!(config.agent_file(), None);
        config.insecure_registries = vec!["10.77.0.254:5000".to_owned()];
        let (path, text) = config.agent_file().unwrap();
        assert_eq!(path, config.dir.join("weftd.toml"));
        assert_eq!(text, "[registries.\"10.77.0.254:5000\"]\ninsecure = true\n");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let config = LabConfig::new("t").unwrap();
        for (bad, says) in [
            (
                LabConfig {
                    name: "a/b".into(),
                    ..config.clone()
                },
                "invalid lab name",
            ),
            (
                LabConfig {
                    nodes: 0,
                    ..config.clone()
                },
                "room for 1 to 252",
            ),
            (
                LabConfig {
                    nodes: 6,
                    underlay: "10.0.0.0/29".parse().unwrap(),
                    ..config.clone()
                },
                "room for 1 to 4",
            ),
            (
                LabConfig {
                    mtu: 100,
                    ..config.clone()
                },
                "invalid underlay MTU 100",
            ),
            (
                LabConfig {
                    mtu: 1279,
                    ..config.clone().over_ipv6()
                },
                "it must be 1280-65535",
            ),
            (
                LabConfig {
                    underlay: "fd77::/121".parse().unwrap(),
                    ..config.clone()
                },
                "does not fit into fd77::/121",
            ),
            (
                LabConfig {
                    dir: PathBuf::from("/").join("x".repeat(100)),
                    ..config.clone()
                },
                "too long for a unix socket",
            ),
        ] {
            let said = bad.check().unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }
}
