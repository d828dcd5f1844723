//! Open vSwitch with its userspace datapath (`datapath_type=netdev`): another data plane that is no
//! part of the kernel. The sandboxes have internal ports, which are TAPs there.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::IpNet;
use weft_cli::complain;
use weft_lab::{Lab, LabConfig, Stop};
use weft_model::objects::Mac;
use weft_sys::netlink::Netlink;

use super::{End, LIMIT, LOOK, wait_for};
use crate::load::Way;
use crate::usage::descendants;

/// What it needs, all of package openvswitch-switch.
const PROGRAMS: [&str; 4] = ["ovsdb-tool", "ovsdb-server", "ovs-vsctl", "ovs-vswitchd"];

/// Where the description of its database is.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Inner MTU: 1500 without the 50 bytes of outer headers.
const INNER_MTU: u32 = 1450;

/// Device of a lab's node towards the others.
const UPLINK: &str = "eth0";

/// Two machines without agents, with an Open vSwitch each.
#[derive(Debug)]
pub(crate) struct OvsSide {
    client: End,
    server: End,
    /// The two `ovs-vswitchd`.
    agents: Vec<u32>,
    /// Before the lab, which ends what still runs.
    programs: Vec<Program>,
    lab: Lab,
}

impl OvsSide {
    /// Why it cannot be used here, if so.
    pub(crate) fn missing() -> Option<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .collect();
        let installed = |name: &str| folders.iter().any(|folder| folder.join(name).is_file());
        if let Some(name) = PROGRAMS.into_iter().find(|name| !installed(name)) {
            return Some(format!("{name} is not installed (openvswitch-switch)"));
        }
        (!Path::new(SCHEMA).is_file()).then(|| format!("there is no {SCHEMA}"))
    }

    /// Builds it as such a lab of two nodes.
    pub(crate) fn create(config: LabConfig, stop: &Stop) -> anyhow::Result<Self> {
        let lab = Lab::create(&LabConfig {
            nodes: 2,
            agents: false,
            ..config
        })?;
        let mut programs = Vec::new();
        let mut ends = Vec::new();
        for (own, peer) in [(1, 2), (2, 1)] {
            let node = Node {
                lab: &lab,
                name: &format!("node{own}"),
                folder: lab.dir().join(format!("ovs{own}")),
            };
            let end = node
                .build(own, lab.node_addr(&format!("node{peer}"))?, &mut programs)
                .with_context(|| format!("cannot set Open vSwitch up on {}", node.name))?;
            ends.push(end);
        }
        let agents = programs
            .iter()
            .filter(|program| program.switches)
            .filter_map(|program| descendants(program.enter.id()).last().copied())
            .collect();
        let (Some(server), Some(client)) = (ends.pop(), ends.pop()) else {
            bail!("Open vSwitch has no two ends");
        };
        let side = Self {
            client,
            server,
            agents,
            programs,
            lab,
        };
        wait_for(&side.way(), stop)?;
        Ok(side)
    }

    /// From one node to the other.
    pub(crate) fn way(&self) -> Way<'_> {
        self.client.to(&self.server, &self.agents)
    }

    pub(crate) fn down(self) -> anyhow::Result<()> {
        drop((self.programs, self.client, self.server));
        self.lab.down()
    }
}

/// A machine on its way to be a switch.
struct Node<'a> {
    lab: &'a Lab,
    name: &'a str,
    folder: PathBuf,
}

impl Node<'_> {
    fn build(&self, own: u8, remote: IpAddr, programs: &mut Vec<Program>) -> anyhow::Result<End> {
        fs::create_dir_all(&self.folder)?;
        let database = self.path("conf.db");
        self.run(&["ovsdb-tool", "create", &database, SCHEMA])?;
        let socket = self.path("db.sock");
        let remote_db = format!("--remote=punix:{socket}");
        let control = format!("--unixctl={}", self.path("db.ctl"));
        programs.push(self.start(&["ovsdb-server", &database, &remote_db, &control])?);
        self.wait_for_socket(&socket)?;
        self.vsctl(&["--no-wait", "init"])?;
        let control = format!("--unixctl={}", self.path("switch.ctl"));
        let at = format!("unix:{socket}");
        programs.push(self.start(&["ovs-vswitchd", &at, &control])?);

        // The outer address is that of a bridge: tunnels of this datapath end in it.
        self.vsctl(&[
            "add-br",
            "phy",
            "--",
            "set",
            "bridge",
            "phy",
            "datapath_type=netdev",
        ])?;
        let mut links = Netlink::open_in(&self.lab.netns(self.name, None)?)?;
        let outer = IpNet::new(self.lab.node_addr(self.name)?, 24)?;
        let addresses = links.addresses(UPLINK)?;
        let outer = addresses.into_iter().find(|a| a.addr() == outer.addr());
        let outer = outer.context("the node has no address")?;
        links.delete_address(UPLINK, outer)?;
        self.vsctl(&["add-port", "phy", UPLINK])?;
        links.add_address("phy", outer)?;
        links.set_up("phy", true)?;

        let tunnel = format!("options:remote_ip={remote}");
        let port = format!("bench{own}");
        self.vsctl(&[
            "add-br",
            "int",
            "--",
            "set",
            "bridge",
            "int",
            "datapath_type=netdev",
        ])?;
        self.vsctl(&[
            "add-port",
            "int",
            "vx0",
            "--",
            "set",
            "interface",
            "vx0",
            "type=vxlan",
            &tunnel,
            "options:key=4242",
        ])?;
        self.vsctl(&[
            "add-port",
            "int",
            &port,
            "--",
            "set",
            "interface",
            &port,
            "type=internal",
        ])?;
        let netns = self.lab.add_netns(self.name, &port)?;
        let netns = self.lab.netns(self.name, Some(&netns))?;
        links.set_netns(&port, &netns)?;
        let mut inside = Netlink::open_in(&netns)?;
        let (own, peer) = (inner(own), inner(3 - own));
        inside.set_up("lo", true)?;
        inside.set_mac(&port, Mac::for_ip(own).0)?;
        inside.set_mtu(&port, INNER_MTU)?;
        inside.add_address(&port, IpNet::new(own, 24)?)?;
        inside.set_up(&port, true)?;
        inside.set_neighbour(&port, peer, Mac::for_ip(peer).0)?;
        Ok(End { netns, ip: own })
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn vsctl(&self, words: &[&str]) -> anyhow::Result<()> {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        let limit = format!("--timeout={}", LIMIT.as_secs());
        self.run(&[&["ovs-vsctl", &database, &limit], words].concat())
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let output = self.lab.exec(self.name, words)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}", words.join(" "), said.trim());
        }
        Ok(())
    }

    fn start(&self, words: &[&str]) -> anyhow::Result<Program> {
        let name = words.first().copied().unwrap_or_default();
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let enter = self
            .lab
            .command(self.name, words)?
            .env("OVS_RUNDIR", &self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Program {
            enter,
            switches: name == "ovs-vswitchd",
        })
    }

    fn wait_for_socket(&self, socket: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !Path::new(socket).exists() {
            if Instant::now() > deadline {
                bail!("ovsdb-server does not start; see {}", self.folder.display());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// One that runs; it ends with this value, and with the lab in any case.
#[derive(Debug)]
struct Program {
    enter: Child,
    switches: bool,
}

impl Drop for Program {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        for pid in descendants(self.enter.id()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
                && let Err(error) = kill_process(pid, Signal::TERM)
            {
                complain(&format!("Open vSwitch could not be stopped: {error}"));
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.enter.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        // Whatever is left ends with the machine.
    }
}

fn inner(index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, index))
}
