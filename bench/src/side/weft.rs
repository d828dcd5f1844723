//! weft: two agents, an overlay network, and sandboxes that joined it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use weft_client::Client;
use weft_lab::{Lab, LabConfig, OUTSIDE, Stop};
use weft_model::api::{
    Connect, Connected, Drops, ServiceDetail, SwarmInit, SwarmInitReply, SwarmJoin, SwarmJoinReply,
};
use weft_model::objects::{
    ConnectionPolicy, Network, NetworkAttachmentSpec, NetworkSpec, RestartCondition, Service,
    ServiceMode, ServiceSpec,
};

use super::{End, LIMIT, LOOK, wait_for};
use crate::load::{Garbage, Way};

/// Room for some thousand endpoints.
const SUBNET: &str = "10.200.0.0/16";

/// UDP port of the agents' VXLAN.
const VXLAN: u16 = 4789;

/// Sandboxes that are made and attached at once.
const BATCH: usize = 25;

/// Two machines with agents, a sandbox on each.
#[derive(Debug)]
pub(crate) struct WeftSide {
    lab: Lab,
    runtime: Runtime,
    client: End,
    server: End,
    agents: Vec<u32>,
    /// Sandboxes of [`WeftSide::fill`].
    extra: Cell<usize>,
}

impl WeftSide {
    /// Builds it as a lab of that name, on a network without a way out.
    pub(crate) fn create(name: &str, stop: &Stop) -> anyhow::Result<Self> {
        Self::of(LabConfig::new(name)?, true, stop)
    }

    /// Builds it as such a lab of two nodes.
    pub(crate) fn of(config: LabConfig, internal: bool, stop: &Stop) -> anyhow::Result<Self> {
        let lab = Lab::create(&LabConfig { nodes: 2, ..config })?;
        lab.wait_ready(LIMIT)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(make_network(&lab, internal))?;
        let mut agents = Vec::new();
        for node in ["node1", "node2"] {
            agents.push(lab.agent_pid(node)?.context("weftd does not run")?);
        }
        let side = Self {
            client: runtime.block_on(attach(&lab, "node1", "bench", None))?,
            server: runtime.block_on(attach(&lab, "node2", "bench", None))?,
            lab,
            runtime,
            agents,
            extra: Cell::new(0),
        };
        wait_for(&side.way(), stop)?;
        Ok(side)
    }

    /// From one node to the other.
    pub(crate) fn way(&self) -> Way<'_> {
        self.client.to(&self.server, &self.agents)
    }

    /// The machine that is none, for [`WeftSide::way_out`].
    pub(crate) fn outside(&self) -> anyhow::Result<End> {
        Ok(End {
            netns: self.lab.netns(OUTSIDE, None)?,
            ip: self.lab.node_addr(OUTSIDE)?,
        })
    }

    /// From the client's sandbox through the gateway bridge to the machine that is none. Its
    /// packets pass the host's kernel, no agent.
    pub(crate) fn way_out<'a>(&'a self, outside: &'a End, stop: &Stop) -> anyhow::Result<Way<'a>> {
        let way = self.way_to(outside);
        wait_for(&way, stop)?;
        Ok(way)
    }

    /// One more sandbox beside the client's.
    pub(crate) fn neighbour(&self, stop: &Stop) -> anyhow::Result<End> {
        let end = attach(&self.lab, "node1", "neighbour", None);
        let end = self.runtime.block_on(end)?;
        wait_for(&self.way_to(&end), stop)?;
        Ok(end)
    }

    /// Attaches sandboxes to the client's node until it has so many.
    pub(crate) fn fill(&self, count: usize, stop: &Stop) -> anyhow::Result<()> {
        // The client is the first one.
        while self.extra.get() + 1 < count {
            stop.going_on()?;
            let from = self.extra.get();
            let to = (from + BATCH).min(count - 1);
            self.runtime.block_on(attach_many(&self.lab, from..to))?;
            self.extra.set(to);
        }
        Ok(())
    }

    /// Flows that the client's agent counts as open.
    pub(crate) fn open_flows(&self) -> anyhow::Result<u64> {
        let api = api(&self.lab, "node1")?;
        let metrics = self.runtime.block_on(api.get_text("/metrics"))?;
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("weft_flows_active{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// Garbage for the server's node from the machine that is none, half of it in the name of the
    /// client's node.
    pub(crate) fn garbage(&self) -> anyhow::Result<Arc<Garbage>> {
        let vtep = |node| anyhow::Ok(SocketAddr::new(self.lab.node_addr(node)?, VXLAN));
        let outside = self.lab.netns(OUTSIDE, None)?;
        Garbage::new(&outside, vtep("node1")?, vtep("node2")?)
    }

    /// What was dropped until now on the server's node.
    pub(crate) fn dropped(&self) -> anyhow::Result<Dropped> {
        let api = api(&self.lab, "node2")?;
        let drops: Drops = self.runtime.block_on(api.get("/v1/drops?port=underlay"))?;
        let by_weft = drops.total.into_iter().map(|d| (d.reason, d.packets));
        let pid = self.lab.agent_pid("node2")?.context("weftd does not run")?;
        let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/udp"))?;
        Ok(Dropped {
            by_weft: by_weft.collect(),
            by_socket: full_socket(&sockets),
        })
    }

    /// From the client's sandbox to that one, which is on the same node.
    pub(crate) fn way_to<'a>(&'a self, server: &'a End) -> Way<'a> {
        self.client.to(server, &self.agents[..1])
    }

    /// A service with one replica on the other node, and its virtual address.
    pub(crate) fn service(&self, stop: &Stop) -> anyhow::Result<(End, IpAddr)> {
        let (replica, vip) = self.runtime.block_on(make_service(&self.lab))?;
        wait_for(&self.way_through(&replica, vip), stop)?;
        Ok((replica, vip))
    }

    /// From the client's sandbox through a virtual address to a replica.
    pub(crate) fn way_through<'a>(&'a self, replica: &'a End, vip: IpAddr) -> Way<'a> {
        Way {
            target: vip,
            ..self.client.to(replica, &self.agents)
        }
    }

    pub(crate) fn down(self) -> anyhow::Result<()> {
        // The namespaces live as long as somebody holds them.
        drop((self.client, self.server));
        self.lab.down()
    }
}

/// Packets that a node did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// At the underlay, by reason.
    pub(crate) by_weft: BTreeMap<String, u64>,
    /// Before weft could read them.
    pub(crate) by_socket: u64,
}

impl Dropped {
    /// What came since then.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let more = |(reason, packets): (&String, &u64)| {
            let old = before.by_weft.get(reason).copied().unwrap_or_default();
            (reason.clone(), packets - old)
        };
        Self {
            by_weft: self.by_weft.iter().map(more).filter(|d| d.1 > 0).collect(),
            by_socket: self.by_socket - before.by_socket,
        }
    }
}

/// Datagrams for the VXLAN port that found no room, out of `/proc/net/udp`.
fn full_socket(table: &str) -> u64 {
    let port = format!(":{VXLAN:04X}");
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        local.ends_with(&port).then_some(fields.last()?)
    });
    sockets.filter_map(|drops| drops.parse::<u64>().ok()).sum()
}

pub(crate) fn api(lab: &Lab, node: &str) -> anyhow::Result<Client> {
    Client::new(&format!("unix://{}", lab.socket(node)?.display()))
}

pub(crate) async fn make_network(lab: &Lab, internal: bool) -> anyhow::Result<()> {
    let (first, second) = (api(lab, "node1")?, api(lab, "node2")?);
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
        internal,
        subnets: vec![SUBNET.parse()?],
        ..NetworkSpec::default()
    };
    let _network: Network = first.post("/v1/networks", &spec).await?;
    Ok(())
}

/// Makes a namespace and attaches it; the node may hear of the network or the service a moment
/// later than the manager.
pub(crate) async fn attach(
    lab: &Lab,
    node: &str,
    name: &str,
    service: Option<&str>,
) -> anyhow::Result<End> {
    let path = lab.add_netns(node, name)?;
    let request = connect(&path, format!("{name}-{node}"), service);
    Ok(End {
        ip: ask_to_attach(api(lab, node)?, request).await?.ip,
        netns: lab.netns(node, Some(&path))?,
    })
}

/// The same with many on the client's node at once.
async fn attach_many(lab: &Lab, numbers: Range<usize>) -> anyhow::Result<()> {
    let names: Vec<String> = numbers.map(|number| format!("extra{number}")).collect();
    let paths = lab.add_netnses("node1", &names)?;
    let mut asked = JoinSet::new();
    for (name, path) in names.into_iter().zip(paths) {
        let request = connect(&path, name, None);
        asked.spawn(ask_to_attach(api(lab, "node1")?, request));
    }
    while let Some(attached) = asked.join_next().await {
        attached??;
    }
    Ok(())
}

fn connect(path: &Path, name: String, service: Option<&str>) -> Connect {
    Connect {
        netns: path.display().to_string(),
        name: Some(name),
        service: service.map(str::to_owned),
        ..Connect::default()
    }
}

async fn ask_to_attach(api: Client, request: Connect) -> anyhow::Result<Connected> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match api.post("/v1/networks/bench/connect", &request).await {
            Ok(connected) => return Ok(connected),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn make_service(lab: &Lab) -> anyhow::Result<(End, IpAddr)> {
    // No tasks of its own: the bench's server is the replica.
    let spec = ServiceSpec {
        name: "bench".to_owned(),
        mode: ServiceMode::Replicated { replicas: 0 },
        image: "host".to_owned(),
        command: vec!["true".to_owned()],
        env: Vec::new(),
        networks: vec![NetworkAttachmentSpec {
            target: "bench".to_owned(),
            ..NetworkAttachmentSpec::default()
        }],
        ports: Vec::new(),
        endpoint_mode: weft_model::objects::EndpointMode::Vip,
        restart_condition: RestartCondition::None,
        connections: ConnectionPolicy::default(),
        attach: true,
        restart_delay_ms: 5000,
        stop_grace_ms: 10_000,
        labels: BTreeMap::new(),
        privileges: Default::default(),
    };
    let first = api(lab, "node1")?;
    let service: Service = first.post("/v1/services", &spec).await?;
    let detail: ServiceDetail = first.get(&format!("/v1/services/{}", service.id)).await?;
    let vip = detail.service.vips.first().context("no virtual address")?;
    let replica = attach(lab, "node2", "replica", Some("bench")).await?;
    Ok((replica, vip.ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_sockets_of_the_port_are_added() {
        let table = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1047: 01004D0A:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 123 2 0000000000000000 40
 1047: 01004D0A:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 124 2 0000000000000000 2
 1048: 01004D0A:12B6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 125 2 0000000000000000 9
";
        assert_eq!(full_socket(table), 42);
        assert_eq!(full_socket(""), 0);
    }

    #[test]
    fn only_what_came_since_then_counts() {
        let dropped = |counts: &[(&str, u64)], by_socket| Dropped {
            by_weft: counts.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect(),
            by_socket,
        };
        let before = dropped(&[("multicast", 3), ("truncated", 1)], 5);
        let after = dropped(&[("multicast", 3), ("truncated", 8), ("unknown_vni", 2)], 6);
        let since = dropped(&[("truncated", 7), ("unknown_vni", 2)], 1);
        assert_eq!(after.since(&before), since);
    }
}
