//! weft: two agents, an overlay network, and sandboxes that joined it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use weft_lab::{LabConfig, OUTSIDE, Patience, Stop, Swarm};
use weft_model::api::{Connect, Drops};
use weft_model::objects::{
    ContainerSpec, EndpointSpec, Ipam, NetworkAttachmentSpec, NetworkSpec, PortSpec,
    RestartCondition, RestartPolicy, Runtime, ServiceMode, ServiceSpec, TaskSpec,
};

use super::{End, LIMIT, PORTS, wait_for, wait_for_tcp};
use crate::load::{Garbage, Way};

/// Name of the overlay network.
pub(crate) const NETWORK: &str = "bench";

/// Room for some thousand endpoints.
const SUBNET: &str = "10.200.0.0/16";

/// UDP port of the agents' VXLAN.
const VXLAN: u16 = 4789;

/// Sandboxes that are made and attached at once.
const BATCH: usize = 25;

/// Two machines with agents, a sandbox on each.
#[derive(Debug)]
pub(crate) struct WeftSide {
    client: End,
    server: End,
    agents: Vec<u32>,
    /// Sandboxes of [`WeftSide::fill`].
    extra: Cell<usize>,
    swarm: Swarm,
}

impl WeftSide {
    /// Builds it as such a lab of two nodes, on a network as users make it: with a way out.
    pub(crate) fn create(config: LabConfig, stop: &Stop) -> anyhow::Result<Self> {
        Self::of(config, false, stop)
    }

    /// The same on a network that has a way out, or none.
    pub(crate) fn of(config: LabConfig, internal: bool, stop: &Stop) -> anyhow::Result<Self> {
        let swarm = two_nodes(config, internal, stop)?;
        let side = Self {
            client: swarm.attach("node1", "bench", NETWORK, None)?.into(),
            server: swarm.attach("node2", "bench", NETWORK, None)?.into(),
            agents: swarm.agents()?,
            extra: Cell::new(0),
            swarm,
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
            netns: self.swarm.lab().netns(OUTSIDE, None)?,
            ip: self.swarm.lab().node_addr(OUTSIDE)?,
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
        let end = self.swarm.attach("node1", "neighbour", NETWORK, None)?;
        let end = End::from(end);
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
            let names: Vec<String> = (from..to).map(|n| format!("extra{n}")).collect();
            let paths = self.swarm.lab().add_netnses("node1", &names)?;
            let requests = names.into_iter().zip(paths).map(|(name, path)| Connect {
                netns: path.display().to_string(),
                name: Some(name),
                ..Connect::default()
            });
            self.swarm.connect("node1", NETWORK, requests)?;
            self.extra.set(to);
        }
        Ok(())
    }

    /// Flows that the client's agent counts as open.
    pub(crate) fn open_flows(&self) -> anyhow::Result<u64> {
        let metrics = self.swarm.get_text("node1", "/metrics")?;
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("weft_flows_active{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// Garbage for the server's node from the machine that is none, half of it in the name of the
    /// client's node.
    pub(crate) fn garbage(&self) -> anyhow::Result<Arc<Garbage>> {
        let lab = self.swarm.lab();
        let vtep = |node| anyhow::Ok(SocketAddr::new(lab.node_addr(node)?, VXLAN));
        let outside = lab.netns(OUTSIDE, None)?;
        Garbage::new(&outside, vtep("node1")?, vtep("node2")?)
    }

    /// What was dropped until now on the server's node.
    pub(crate) fn dropped(&self) -> anyhow::Result<Dropped> {
        let drops: Drops = self.swarm.get("node2", "/v1/drops?port=underlay")?;
        let by_weft = drops.total.into_iter().map(|d| (d.reason, d.packets));
        let pid = self.swarm.lab().agent_pid("node2")?;
        let pid = pid.context("weftd does not run")?;
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
        let (replica, vip) = make_service(&self.swarm)?;
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

    /// A service with a published port and one replica, on the other node: the machine that is none,
    /// and the replica.
    pub(crate) fn published(&self, stop: &Stop) -> anyhow::Result<(End, End)> {
        let (outside, replica) = (self.outside()?, publish(&self.swarm)?);
        wait_for_tcp(&self.way_in(&outside, &replica)?, stop)?;
        Ok((outside, replica))
    }

    /// From the machine that is none through the published port of the client's node to the replica.
    pub(crate) fn way_in<'a>(
        &'a self,
        outside: &'a End,
        replica: &'a End,
    ) -> anyhow::Result<Way<'a>> {
        Ok(Way {
            target: self.swarm.lab().node_addr("node1")?,
            ports: Some(PORTS),
            ..outside.to(replica, &self.agents)
        })
    }

    pub(crate) fn down(self) -> anyhow::Result<()> {
        // The namespaces live as long as somebody holds them.
        drop((self.client, self.server));
        self.swarm.down()
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

/// A lab of two nodes in one swarm, with the network of benches.
pub(crate) fn two_nodes(config: LabConfig, internal: bool, stop: &Stop) -> anyhow::Result<Swarm> {
    let config = LabConfig { nodes: 2, ..config };
    let swarm = Swarm::create(&config, Patience::new(LIMIT, stop))?;
    swarm.make_network(&NetworkSpec {
        name: NETWORK.to_owned(),
        internal,
        ipam: Ipam::from_iter([SUBNET.parse()?]),
        ..NetworkSpec::default()
    })?;
    Ok(swarm)
}

/// A program of the node on the bench's network, which is not started again.
pub(crate) fn program_once(command: Vec<String>) -> TaskSpec {
    TaskSpec {
        container: ContainerSpec {
            image: Runtime::HOST_IMAGE.to_owned(),
            args: command,
            ..ContainerSpec::default()
        },
        restart: RestartPolicy {
            condition: RestartCondition::None,
            ..RestartPolicy::default()
        },
        networks: vec![NetworkAttachmentSpec {
            target: NETWORK.to_owned(),
            ..NetworkAttachmentSpec::default()
        }],
        ..TaskSpec::default()
    }
}

fn make_service(swarm: &Swarm) -> anyhow::Result<(End, IpAddr)> {
    // No tasks of its own: the bench's server is the replica.
    let spec = ServiceSpec {
        name: "bench".to_owned(),
        mode: ServiceMode::Replicated { replicas: 0 },
        task: Arc::new(program_once(vec!["true".to_owned()])),
        attach: true,
        ..ServiceSpec::default()
    };
    swarm.make_service(&spec)?;
    let vip = swarm.vip("bench", NETWORK)?;
    let replica = swarm.attach("node2", "replica", NETWORK, Some("bench"))?;
    Ok((replica.into(), vip))
}

/// Replicas of published ports are tasks. This one does nothing: the server is in its namespace, and
/// listens on whatever address it has on the network of published ports.
fn publish(swarm: &Swarm) -> anyhow::Result<End> {
    let mut task = program_once(vec!["sleep".to_owned(), "86400".to_owned()]);
    task.placement.constraints = vec!["node.hostname==node2".to_owned()];
    let spec = ServiceSpec {
        name: "published".to_owned(),
        task: Arc::new(task),
        endpoint: EndpointSpec {
            ports: vec![PortSpec {
                published: PORTS.target,
                target: PORTS.listen,
                ..PortSpec::default()
            }],
            ..EndpointSpec::default()
        },
        ..ServiceSpec::default()
    };
    swarm.make_service(&spec)?;
    let replica = swarm.wait_tasks(&spec.name, 1)?.pop();
    let replica = replica.context("the service has no task")?;
    Ok(End {
        netns: swarm.lab().netns(&replica.node, Some(&replica.netns))?,
        ip: Ipv4Addr::UNSPECIFIED.into(),
    })
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
