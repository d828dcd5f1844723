//! The lab of one front end: two nodes, a service with a published port, a client outside.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::IpNet;
use weft_lab::{Lab, LabConfig, MANAGER, OUTSIDE, Stop, Swarm};
use weft_model::objects::{EndpointSpec, PortSpec, ServiceMode, ServiceSpec};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;

use super::client::{Front, Sources};
use super::crowd::{Order, ask};
use crate::proxies::{Kind, Proxy, Settings};
use crate::side::{LIMIT, LOOK, NETWORK, beside, program_once, set_in, two_nodes};
use crate::usage::resident_sum;

/// The node that accepts.
const NODE: &str = MANAGER;

/// Tasks of the service, spread over both nodes.
const REPLICAS: u32 = 4;

/// Port of a replica.
const TARGET: u16 = 80;

/// Published port.
const PUBLISHED: u16 = 8000;

/// Addresses of the client beside its first one.
const MORE_SOURCES: u8 = 8;

/// Last bytes of the addresses on the underlay: of the client's further ones, and of the balancers.
const FIRST_SOURCE: u8 = 230;
const FIRST_BALANCER: u8 = 200;

/// How long the kernel's connection tracking remembers ends of connections, in seconds; it is there
/// where a firewall uses it.
const TRACKING: &str = "netfilter/nf_conntrack_tcp_timeout_time_wait";

/// How the kernel chooses source ports of connections.
#[derive(Debug, Clone, Copy)]
pub(super) enum SourcePorts {
    /// As an operator of a busy balancer sets it: all ports, used again after a second.
    Tuned,
    /// As a new namespace has it.
    Kernel,
}

/// A lab and what is known of it.
#[derive(Debug)]
pub(crate) struct Cluster {
    proxies: Vec<Proxy>,
    namespaces: Vec<Netns>,
    client: Netns,
    sources: Sources,
    agents: Vec<u32>,
    published: SocketAddr,
    /// Memory of balancers before any load: of weft, then of `proxies`.
    at_rest: Vec<u64>,
    /// Last, because everything else lives in it.
    swarm: Swarm,
}

impl Cluster {
    /// Builds it; weft and all of these balancers, for so many connections, answer then.
    pub(crate) fn create(
        config: LabConfig,
        front: &str,
        (kinds, connections): (&[Kind], u64),
        congestion: Option<&str>,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let config = LabConfig {
            agent_args: vec!["--mesh".to_owned(), front.to_owned()],
            ..config
        };
        let swarm = two_nodes(config, true, stop)?;
        let client = swarm.lab().netns(OUTSIDE, None)?;
        let sources = more_addresses(swarm.lab(), &client)?;
        let mut cluster = Self {
            proxies: Vec::new(),
            namespaces: vec![swarm.lab().netns(NODE, None)?],
            client,
            sources: Sources::new(sources),
            agents: swarm.agents()?,
            published: SocketAddr::new(swarm.lab().node_addr(NODE)?, PUBLISHED),
            at_rest: Vec::new(),
            swarm,
        };
        let replicas = cluster.service(congestion)?;
        for (number, kind) in (0u8..).zip(kinds) {
            let addr = beside(cluster.published.ip(), FIRST_BALANCER + number)?;
            let settings = Settings {
                listen: SocketAddr::new(addr, kind.port()),
                replicas: &replicas,
                connections,
            };
            cluster.start(*kind, settings)?;
        }
        cluster.set_source_ports(SourcePorts::Tuned)?;
        for netns in cluster.namespaces.iter().chain([&cluster.client]) {
            if let Some(control) = congestion {
                set_in(netns, "ipv4/tcp_congestion_control", control)?;
            }
        }
        // The client keeps more than enough ends of connections in mind.
        set_in(&cluster.client, "ipv4/tcp_max_tw_buckets", "1000000")?;
        cluster.wait(stop)?;
        cluster.at_rest = cluster.memory()?;
        Ok(cluster)
    }

    /// weft's own published port.
    pub(crate) fn weft(&self) -> Front<'_> {
        Front {
            client: &self.client,
            sources: &self.sources,
            target: self.published,
            balancers: self.agents.clone(),
            overlay: Vec::new(),
            at_rest: self.at_rest.first().copied().unwrap_or_default(),
        }
    }

    /// The other balancers.
    pub(super) fn others(&self) -> impl Iterator<Item = (Kind, Front<'_>)> {
        let at_rest = self.at_rest.iter().copied().skip(1);
        let at_rest = at_rest.chain(std::iter::repeat(0));
        self.proxies.iter().zip(at_rest).map(|(proxy, at_rest)| {
            let front = Front {
                target: proxy.listen,
                balancers: proxy.processes(),
                overlay: self.agents.clone(),
                at_rest,
                ..self.weft()
            };
            (proxy.kind, front)
        })
    }

    /// The same for all who connect to replicas.
    pub(super) fn set_source_ports(&self, ports: SourcePorts) -> anyhow::Result<()> {
        let (range, reuse, tracked) = match ports {
            SourcePorts::Tuned => ("1024 65535", "1", "1"),
            SourcePorts::Kernel => ("32768 60999", "2", "120"),
        };
        for netns in &self.namespaces {
            set_in(netns, "ipv4/ip_local_port_range", range)?;
            set_in(netns, "ipv4/tcp_tw_reuse", reuse)?;
            if netns.run_in(|| {
                std::path::Path::new("/proc/sys/net")
                    .join(TRACKING)
                    .exists()
            })? {
                set_in(netns, TRACKING, tracked)?;
            }
        }
        Ok(())
    }

    pub(crate) fn down(self) -> anyhow::Result<()> {
        // Balancers end before their machine; namespaces live as long as somebody holds them.
        drop((self.proxies, self.namespaces, self.client));
        self.swarm.down()
    }

    /// A namespace with an address on the underlay and one on the overlay, and the balancer in it.
    fn start(&mut self, kind: Kind, settings: Settings<'_>) -> anyhow::Result<()> {
        let program = kind.program().context("it was there a moment ago")?;
        let end = self.swarm.attach(NODE, kind.name(), NETWORK, None)?;
        let addr = IpNet::new(settings.listen.ip(), 24)?;
        self.swarm.lab().plug_in(NODE, &end.path, addr)?;
        let place = (self.swarm.lab(), NODE, end.path.as_path());
        let proxy = Proxy::start(kind, &program, place, settings)?;
        self.proxies.push(proxy);
        self.namespaces.push(end.netns);
        Ok(())
    }

    /// The service, and where its replicas listen.
    fn service(&self, congestion: Option<&str>) -> anyhow::Result<Vec<SocketAddr>> {
        let program = std::env::current_exe()?.display().to_string();
        let mut command = vec![program, "bench-replica".into(), format!("--port={TARGET}")];
        command.extend(congestion.map(|control| format!("--cc={control}")));
        let spec = ServiceSpec {
            name: "web".to_owned(),
            mode: ServiceMode::Replicated { replicas: REPLICAS },
            task: Arc::new(program_once(command)),
            endpoint: EndpointSpec {
                ports: vec![PortSpec {
                    published: PUBLISHED,
                    target: TARGET,
                    ..PortSpec::default()
                }],
                ..EndpointSpec::default()
            },
            ..ServiceSpec::default()
        };
        self.swarm.make_service(&spec)?;
        let tasks = self.swarm.wait_tasks(&spec.name, REPLICAS as usize)?;
        Ok(tasks
            .iter()
            .map(|task| SocketAddr::new(task.ip, TARGET))
            .collect())
    }

    /// Until everyone answers.
    fn wait(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        let few = Order {
            at_once: 8,
            kept: false,
            rate: None,
            most: 8,
            length: Duration::from_secs(1),
        };
        loop {
            for proxy in &mut self.proxies {
                proxy.check(self.swarm.lab())?;
            }
            let mut silent = Vec::new();
            let others = self.others().map(|(kind, front)| (kind.name(), front));
            for (name, front) in others.chain([("weft", self.weft())]) {
                if ask(&front, few, stop)?.times.len() < 8 {
                    silent.push(name);
                }
            }
            if silent.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("no answer through {} after {LIMIT:?}", silent.join(", "));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn memory(&self) -> anyhow::Result<Vec<u64>> {
        let mut all = vec![resident_sum(&self.agents)?];
        for proxy in &self.proxies {
            all.push(resident_sum(&proxy.processes())?);
        }
        Ok(all)
    }
}

/// Gives the client some more, and returns all.
fn more_addresses(lab: &Lab, client: &Netns) -> anyhow::Result<Vec<IpAddr>> {
    let first = lab.node_addr(OUTSIDE)?;
    let mut links = Netlink::open_in(client)?;
    let mut all = vec![first];
    for number in 0..MORE_SOURCES {
        let addr = beside(first, FIRST_SOURCE + number)?;
        links.add_address("eth0", IpNet::new(addr, 24)?)?;
        all.push(addr);
    }
    Ok(all)
}
