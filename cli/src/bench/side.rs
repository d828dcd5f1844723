//! The two ways between two nodes: weft, and the kernel's veth, bridge and vxlan.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::IpNet;
use weft_control::api::{Connect, Connected, SwarmInit, SwarmInitReply, SwarmJoin, SwarmJoinReply};
use weft_control::objects::{Mac, Network, NetworkSpec};
use weft_lab::{Lab, LabConfig};
use weft_sys::netlink::{Netlink, Veth, Vxlan};
use weft_sys::netns::Netns;

use super::load;
use crate::client::Client;
use crate::stop::Stop;

/// VXLAN network identifier of the kernel's side.
const VNI: u32 = 4242;

/// Inner MTU: 1500 without the 50 bytes of outer headers.
const INNER_MTU: u32 = 1450;

/// How long it may take until the two ends hear each other.
const LIMIT: Duration = Duration::from_secs(20);

/// Two nodes with a namespace on each, and one way between them.
pub(super) struct Side {
    lab: Lab,
    pub(super) client: Netns,
    pub(super) server: Netns,
    /// Address of the server.
    pub(super) addr: IpAddr,
    agents: Vec<u32>,
}

impl Side {
    /// weft: two agents, an overlay network, and two namespaces that joined it.
    pub(super) fn weft(stop: &Stop) -> anyhow::Result<Self> {
        let lab = Lab::create(&LabConfig {
            nodes: 2,
            ..LabConfig::new("bench-weft")?
        })?;
        lab.wait_ready(LIMIT)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (client, server) = runtime.block_on(join_overlay(&lab))?;
        let mut agents = Vec::new();
        for node in ["node1", "node2"] {
            agents.push(lab.agent_pid(node)?.context("weftd does not run")?);
        }
        Self {
            client: client.0,
            server: server.0,
            addr: server.1,
            agents,
            lab,
        }
        .connected(stop)
    }

    /// The kernel: what Docker Swarm builds on each node, made through netlink.
    pub(super) fn kernel(stop: &Stop) -> anyhow::Result<Self> {
        let lab = Lab::create(&LabConfig {
            nodes: 2,
            agents: false,
            ..LabConfig::new("bench-kernel")?
        })?;
        let inner = |index: u8| IpAddr::V4(Ipv4Addr::new(10, 99, 0, index));
        let mut ends = Vec::new();
        for (node, own, peer_node, peer) in [("node1", 1, "node2", 2), ("node2", 2, "node1", 1)] {
            let sandbox = lab.add_netns(node, "bench")?;
            let sandbox = lab.netns(node, Some(&sandbox))?;
            let local = lab.node_addr(node)?;
            let remote = lab.node_addr(peer_node)?;
            kernel_overlay(
                &lab.netns(node, None)?,
                &sandbox,
                local,
                remote,
                inner(own),
                inner(peer),
            )
            .with_context(|| format!("cannot build the kernel's overlay on {node}"))?;
            ends.push(sandbox);
        }
        let (Some(server), Some(client)) = (ends.pop(), ends.pop()) else {
            bail!("two nodes are needed");
        };
        Self {
            lab,
            client,
            server,
            addr: inner(2),
            agents: Vec::new(),
        }
        .connected(stop)
    }

    /// Agents whose CPU time counts; none on the kernel's side.
    pub(super) fn agents(&self) -> impl Iterator<Item = u32> {
        self.agents.iter().copied()
    }

    pub(super) fn down(self) -> anyhow::Result<()> {
        // The namespaces live as long as somebody holds them.
        drop((self.client, self.server));
        self.lab.down()
    }

    /// Waits until the ends hear each other.
    fn connected(self, stop: &Stop) -> anyhow::Result<Self> {
        let deadline = Instant::now() + LIMIT;
        while load::exchange(&self, Duration::from_millis(10))
            .map_or(true, |heard| heard.times.is_empty())
        {
            stop.going_on()?;
            if Instant::now() > deadline {
                bail!(
                    "the two ends in {} do not hear each other after {} s",
                    self.lab.dir().display(),
                    LIMIT.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }
}

type End = (Netns, IpAddr);

async fn join_overlay(lab: &Lab) -> anyhow::Result<(End, End)> {
    let api = |node: &str| -> anyhow::Result<Client> {
        Client::new(&format!("unix://{}", lab.socket(node)?.display()))
    };
    let (first, second) = (api("node1")?, api("node2")?);
    let init = SwarmInit {
        advertise_addr: Some(lab.node_addr("node1")?.to_string()),
        ..SwarmInit::default()
    };
    let swarm: SwarmInitReply = first.post("/v1/swarm/init", &init).await?;
    let join = SwarmJoin {
        token: swarm.worker_token,
        remote_addr: swarm.manager_addr,
        advertise_addr: Some(lab.node_addr("node2")?.to_string()),
        listen_addr: None,
        data_path_addr: None,
    };
    let _joined: SwarmJoinReply = second.post("/v1/swarm/join", &join).await?;
    let spec = NetworkSpec {
        name: "bench".to_owned(),
        internal: true,
        ..NetworkSpec::default()
    };
    let _network: Network = first.post("/v1/networks", &spec).await?;
    let mut ends = Vec::new();
    for (node, api) in [("node1", &first), ("node2", &second)] {
        let path = lab.add_netns(node, "bench")?;
        let netns = lab.netns(node, Some(&path))?;
        ends.push((netns, attach(api, node, &path).await?));
    }
    match (ends.pop(), ends.pop()) {
        (Some(server), Some(client)) => Ok((client, server)),
        _ => bail!("two nodes are needed"),
    }
}

/// Attaches a namespace; the node may hear of the network a moment later than the manager.
async fn attach(api: &Client, node: &str, netns: &Path) -> anyhow::Result<IpAddr> {
    let request = Connect {
        netns: netns.display().to_string(),
        name: Some(format!("bench-{node}")),
        ..Connect::default()
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        match api
            .post::<_, Connected>("/v1/networks/bench/connect", &request)
            .await
        {
            Ok(connected) => return Ok(connected.ip),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn kernel_overlay(
    host: &Netns,
    sandbox: &Netns,
    local: IpAddr,
    remote: IpAddr,
    own: IpAddr,
    peer: IpAddr,
) -> anyhow::Result<()> {
    let mut links = Netlink::open_in(host)?;
    links.add_bridge("br0")?;
    links.set_mtu("br0", INNER_MTU)?;
    links.add_vxlan(&Vxlan {
        name: "vxlan0",
        vni: VNI,
        local,
        port: 4789,
        learning: false,
        udp_checksum: false,
    })?;
    links.set_mtu("vxlan0", INNER_MTU)?;
    links.append_fdb("vxlan0", Mac::for_ip(peer).0, remote)?;
    links.add_veth(&Veth {
        name: "veth0",
        peer: "eth0",
        peer_netns: Some(sandbox),
        peer_mac: Some(Mac::for_ip(own).0),
        mtu: Some(INNER_MTU),
    })?;
    for port in ["vxlan0", "veth0"] {
        links.set_master(port, Some("br0"))?;
        links.set_up(port, true)?;
    }
    links.set_up("br0", true)?;

    let mut inside = Netlink::open_in(sandbox)?;
    inside.set_up("lo", true)?;
    inside.add_address("eth0", IpNet::new(own, 24)?)?;
    inside.set_up("eth0", true)?;
    inside.set_neighbour("eth0", peer, Mac::for_ip(peer).0)?;
    Ok(())
}
