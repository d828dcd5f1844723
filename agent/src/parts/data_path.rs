//! The parts of a member that run once its first orders are known.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use weft_cluster::NodeDescription;
use weft_dataplane::{
    Config as PlaneConfig, Dataplane, JournalConfig, Port, PortCounters, SelfTest, StartError,
};
use weft_gossip::Members;
use weft_model::assignment::Assignment;
use weft_model::objects::Protocol;
use weft_sys::clock::unix_ms;
use weft_sys::private_folder::make_private;
use weft_sys::tap::Tap;
use weft_sys::udp::BindError;
use weft_wire::{Vni, mac_for_ip};

use super::gateway::Gateway;
use super::local::LocalPorts;
use super::probe_stats::ProbeStats;
use super::questions::Questions;
use super::second_ports::SecondPorts;
use super::shortcuts::SandboxCounts;
use super::underlay::{Hop, Underlay};
use super::warnings::Warnings;
use crate::compile::mtus::Mtus;
use crate::compile::there::There;
use crate::config::{Config, MeshFrontEnd};
use crate::gossip::{GossipConfig, GossipHandle};
use crate::kept::HostRules;
use crate::names::{MESH_IP as MESH_IPV4, MESH_IP6};
use crate::published::uplinks::Uplinks;
use crate::published::{MeshConfig, MeshSockets, owner};
use crate::sandbox::gwbridge::GatewayBridge;
use crate::sandbox::{add_mesh_ipv6, open_mesh_tap, remove_mesh_ipv6};

/// Address behind `weft0` that published ports are sent to.
pub(crate) const MESH_IP: IpAddr = IpAddr::V4(MESH_IPV4);

/// A clock that is further ahead of the managers' than a century is no clock; others would not
/// believe it.
const CLOCK_AHEAD_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// Flows of one worker, at most; about 300 bytes each, allocated as they come.
const FLOWS_PER_WORKER: usize = 200_000;

/// Data plane, gossip, mesh sockets and gateway of a node.
#[derive(Debug)]
pub(crate) struct DataPath {
    pub(crate) plane: Dataplane,
    pub(crate) gossip: GossipHandle,
    pub(crate) mesh: MeshSockets,
    pub(crate) mesh_port: Option<Arc<Port>>,
    /// Why flows have no folder to be written down in.
    no_journal: Option<String>,
    /// Whether published ports go to replicas over IPv6, or why not.
    pub(crate) mesh_ipv6: Result<(), String>,
    pub(crate) gateway: Gateway,
    /// Rules and switches of the host.
    pub(crate) rules: Arc<HostRules>,
    /// By which uplink answers of published ports leave.
    pub(crate) uplinks: Uplinks,
    /// Kept up with the underlay by the loop.
    pub(crate) mtus: ArcSwap<Mtus>,
    /// VTEPs behind a device that does not segment tunnels, and its name; kept up likewise.
    pub(crate) plain: ArcSwap<BTreeMap<IpAddr, String>>,
    /// By which device and neighbour each VTEP is reached that the kernel may send to by itself; kept
    /// up likewise.
    pub(crate) hops: ArcSwap<BTreeMap<Ipv4Addr, Hop>>,
    /// VTEPs that the kernel could send to, and whose device is faster by segments made here, with its
    /// name; kept up likewise.
    pub(crate) by_segments: ArcSwap<BTreeMap<Ipv4Addr, String>>,
    /// Ports at which nodes have their kernel merge what it carries.
    pub(crate) second_ports: SecondPorts,
    /// This node's end of the data path.
    pub(crate) at: SocketAddr,
    /// How many sandboxes have flows that the kernel carries, for those who look.
    pub(crate) shortcuts: ArcSwap<SandboxCounts>,
    /// The endpoints that the last tables have, for those who look.
    pub(crate) there: ArcSwap<There>,
    /// Of replicas that were left out.
    pub(crate) probes: ProbeStats,
    /// To other nodes, about the ways to them.
    pub(crate) questions: Questions,
}

impl DataPath {
    /// Binds gossip and the data path, and opens `weft0`. No listener is open yet: the first tables
    /// bring them ([`MeshSockets::update`]). The bridge is set up beside ([`Gateway`]). Blocks.
    pub(crate) fn start(
        config: &Config,
        orders: &Assignment,
        home: &NodeDescription,
        found: &[SelfTest],
        local: &LocalPorts,
        warnings: &Arc<Warnings>,
    ) -> anyhow::Result<Self> {
        let node = &orders.own.node;
        // Not by the orders: those from before a restart may have the node's address of before.
        let gossip_addr = SocketAddr::new(home.addr, home.gossip_port);
        let members = gossip_members(orders);
        let gossip = GossipHandle::start(GossipConfig {
            node: node.id.clone(),
            cluster_id: orders.shared.cluster_id.clone(),
            bind: gossip_addr,
            advertise: gossip_addr,
            keys: orders.shared.gossip_keys.clone(),
            incarnation: unix_ms().min(members.time_ms.saturating_add(CLOCK_AHEAD_MS)),
            members: Some(members),
            seed: rand::random(),
        })?;
        let journal = journal(config);
        let plane_config = PlaneConfig {
            workers: config.workers.get(),
            underlay: SocketAddr::new(home.data_path_addr, orders.shared.data_path_port),
            flows: FLOWS_PER_WORKER,
            udp_idle: config.udp_idle,
            tunnel_offload: config.tunnel_offload,
            fast_path: config.fast_path,
            dscp: config.dscp,
            spin: config.poll,
            refused_interfaces: sandbox_side(),
            journal: journal.as_ref().ok().cloned(),
            seed: rand::random(),
        };
        let started = Dataplane::start_tested(&plane_config, found.to_vec());
        let plane = started.map_err(explain_start)?;
        let underlay = Underlay::read(home.data_path_addr, [])?;
        let ipv6 = home.data_path_addr.is_ipv6();
        let mtus = Mtus::of(underlay.device, &underlay.routes, ipv6, &BTreeMap::new());
        let mesh_port = match (open_mesh_tap(u32::from(mtus.port)), node.ingress_ip) {
            (Ok(tap), Some(ip)) => Some(Arc::new(mesh_port(tap, ip, &plane, local))),
            (Ok(_), None) => {
                let text =
                    "published ports are off: the node has no address on the ingress network";
                warnings.set("mesh", text.to_owned());
                None
            }
            (Err(error), _) => {
                warnings.set("mesh", format!("published ports are off: {error}"));
                None
            }
        };
        let mesh_ipv6 = mesh_ipv6(config, orders, mesh_port.is_some());
        if let Err(why) = &mesh_ipv6 {
            tracing::info!(why, "published ports are not forwarded over IPv6");
            if mesh_port.is_some()
                && let Err(error) = remove_mesh_ipv6()
            {
                tracing::warn!(%error, "weft0 keeps its IPv6 address");
            }
        }
        let rules = Arc::<HostRules>::default();
        Ok(Self {
            no_journal: journal.err(),
            mesh_ipv6,
            mtus: ArcSwap::from_pointee(mtus),
            plain: ArcSwap::default(),
            hops: ArcSwap::default(),
            by_segments: ArcSwap::default(),
            second_ports: SecondPorts::default(),
            at: plane_config.underlay,
            shortcuts: ArcSwap::default(),
            there: ArcSwap::default(),
            probes: ProbeStats::default(),
            questions: Questions::default(),
            mesh: MeshSockets::new(MeshConfig {
                front_end: config.mesh,
                udp_idle: config.udp_idle,
                rules: Arc::clone(&rules),
                ..MeshConfig::new(MESH_IP, MESH_IP6)
            }),
            plane,
            gossip,
            mesh_port,
            gateway: Gateway::start(config, orders, warnings, Arc::clone(&rules))?,
            rules,
            uplinks: Uplinks::default(),
        })
    }
}

impl DataPath {
    /// Address behind `weft0` that published ports are sent to over IPv6.
    pub(crate) fn mesh_ip6(&self) -> Option<Ipv6Addr> {
        self.mesh_ipv6.is_ok().then_some(MESH_IP6)
    }

    /// Why connections do not outlive this agent, while they do not.
    pub(crate) fn journal_trouble(&self) -> Option<String> {
        self.no_journal
            .clone()
            .or_else(|| self.plane.journal_trouble())
    }

    /// Inner MTU of ports at this moment, in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtus.load().port
    }
}

/// The bridge that sandboxes are on. Without one there is nothing to refuse, and a warning by those
/// who need it.
fn sandbox_side() -> Vec<u32> {
    GatewayBridge::prepare().into_iter().collect()
}

/// Flows are of no use to another boot, and neither is the folder.
fn journal(config: &Config) -> Result<JournalConfig, String> {
    let folder = config.run_dir.join("flows");
    make_private(&folder).map_err(|e| e.to_string())?;
    Ok(JournalConfig { folder })
}

/// Says who has the port of the data path. It is the same on every node, so no node can choose.
fn explain_start(error: StartError) -> anyhow::Error {
    match error {
        StartError::Bind(BindError::InUse { addr }) => anyhow::anyhow!(
            "UDP {addr} of the data path is held by {}; stop that, or make the swarm with another port (`weft swarm init --data-path-port`)",
            owner::named(Protocol::Udp, addr.port())
        ),
        error => error.into(),
    }
}

/// `weft0` belongs to the worker that gets the replies to the node's ingress address.
fn mesh_port(tap: Tap, ingress_ip: IpAddr, plane: &Dataplane, local: &LocalPorts) -> Port {
    Port {
        id: local.next_id(),
        name: "mesh".into(),
        vni: Vni::new(0).expect("zero fits in 24 bits"),
        mac: mac_for_ip(MESH_IP),
        ips: Vec::new(),
        tap: Arc::new(tap),
        worker: plane.worker_for(ingress_ip),
        counters: Arc::new(PortCounters::default()),
        shortcut: Default::default(),
    }
}

/// Readies `weft0` for IPv6 where that is of use.
fn mesh_ipv6(config: &Config, orders: &Assignment, mesh: bool) -> Result<(), String> {
    let mut networks = orders.shared.networks.iter().filter(|n| n.spec.ingress);
    if !mesh {
        Err("published ports are off".to_owned())
    } else if config.mesh == MeshFrontEnd::Socket {
        Err("this node accepts them itself (--mesh socket)".to_owned())
    } else if !networks.any(|n| n.subnets().iter().any(|s| s.cidr.addr().is_ipv6())) {
        Err("the ingress network of this swarm has no IPv6 subnet".to_owned())
    } else {
        add_mesh_ipv6()
    }
}

/// Who takes part in gossip, by the orders.
pub(crate) fn gossip_members(orders: &Assignment) -> Members {
    let shared = &orders.shared;
    let own = &orders.own.node;
    let own_addr = SocketAddr::new(own.status.addr, own.gossip_port);
    let others = shared.nodes.iter();
    // Shared orders hold no time of their own, which would change them all the time: what they
    // hold of the managers' clock is at most as old as the newest key.
    let keys = shared.gossip_keys.iter().map(|key| key.sealing_since);
    let networks = shared.networks.iter().map(|n| n.meta.updated_at);
    Members {
        addrs: others
            .map(|n| (n.id.clone(), SocketAddr::new(n.addr, n.gossip_port)))
            .chain([(own.id.clone(), own_addr)])
            .collect(),
        time_ms: keys
            .chain(networks)
            .chain([own.meta.updated_at])
            .max()
            .unwrap_or(0),
    }
}
