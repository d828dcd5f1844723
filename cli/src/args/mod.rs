//! The command line: what `weft` accepts, before anything is done.

mod attachment;
mod bench_mesh;
mod connections;
mod duration;
mod mesh;
mod publish;

pub use attachment::parse_attachment;
pub use bench_mesh::{BenchMeshArgs, BenchReplicaArgs, FrontChoice, MeshTest};
pub use connections::{AffinityArg, ConnectionArgs};
pub use duration::parse_duration_ms;
pub use mesh::{MeshCommand, MeshConnsArgs, WhyArgs};
pub use publish::parse_publish;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use weft_control::api::CaptureDir;
use weft_control::objects::{Availability, Mac, NetworkAttachmentSpec, PortSpec};

/// Where `weftd` listens when nobody says otherwise.
pub const DEFAULT_HOST: &str = "unix:///run/weft/weft.sock";

/// The network of a Linux cluster, spelled like docker's.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Socket of the node to talk to
    #[arg(short = 'H', long = "host", value_name = "unix://SOCKET", env = "WEFT_HOST",
          default_value = DEFAULT_HOST, global = true)]
    pub host: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// First word of a command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, join and leave a swarm
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Show the nodes of the swarm
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make networks and attach things to them
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Run services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Show how this node accepts published ports
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Tell who answers a published port or a name on this node, and why not
    Why(WhyArgs),
    /// Show what this node is
    Info(FormatArgs),
    /// Show which packets were dropped on this node, and why
    Drops(DropsArgs),
    /// Check what this node has, uses and lacks; exit status 1 when something does not work
    Doctor(FormatArgs),
    /// Copy frames of this node, dropped ones with the reason, into a file for Wireshark
    Capture(CaptureArgs),
    /// Build a cluster in network namespaces of this machine
    #[command(subcommand)]
    Lab(LabCommand),
    /// Start three nodes on this machine and walk through everything with real traffic
    Demo(DemoArgs),
    /// Measure, side by side with the kernel
    #[command(subcommand)]
    Bench(BenchCommand),
    /// The server behind the published port of `weft bench mesh`
    #[command(hide = true)]
    BenchReplica(BenchReplicaArgs),
    /// The small HTTP server of the demo's tasks
    #[command(hide = true)]
    DemoHttp(DemoHttpArgs),
    /// Look a name up; prints one address per line
    #[command(hide = true)]
    DemoDns(DemoDnsArgs),
    /// Request something over HTTP; prints the answer
    #[command(hide = true)]
    DemoGet(DemoGetArgs),
    /// Send ICMP echo requests
    #[command(hide = true)]
    DemoPing(DemoPingArgs),
    /// The process that a lab machine stands and falls with
    #[command(hide = true)]
    LabNode(LabSpecArgs),
    /// Process 1 of a lab machine
    #[command(hide = true)]
    LabInit(LabSpecArgs),
    /// Runs a command on a lab machine
    #[command(hide = true)]
    LabEnter(LabEnterArgs),
    /// Makes network namespaces
    #[command(hide = true)]
    LabNetns {
        /// Where they are bound
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// How to print.
#[derive(Debug, Clone, Default, Args)]
pub struct FormatArgs {
    /// `table`, `json`, `table TEMPLATE`, or a Go template such as '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// `weft swarm …`
#[derive(Debug, Subcommand)]
pub enum SwarmCommand {
    /// Make a swarm, with this node as its first manager
    Init(SwarmInitArgs),
    /// Join a swarm
    Join(SwarmJoinArgs),
    /// Print the command that joins a node
    JoinToken(JoinTokenArgs),
    /// Leave the swarm
    Leave {
        /// Leave even as the last manager, which ends the swarm
        #[arg(short, long)]
        force: bool,
    },
}

/// `weft swarm init`
#[derive(Debug, Args)]
pub struct SwarmInitArgs {
    /// Address or interface that other nodes reach this one at, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub advertise_addr: Option<String>,
    /// Address or interface that the manager listens on, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub listen_addr: Option<String>,
    /// Address or interface of the VXLAN data path
    #[arg(long, value_name = "ADDR")]
    pub data_path_addr: Option<String>,
    /// UDP port of the VXLAN data path (1024-49151; default 4789)
    #[arg(long, value_name = "PORT")]
    pub data_path_port: Option<u16>,
    /// Pools that network subnets are cut from (default 10.0.0.0/8; for IPv6 unique local prefixes)
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub default_addr_pool: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools (default 24)
    #[arg(long, value_name = "BITS")]
    pub default_addr_pool_mask_length: Option<u8>,
}

/// `weft swarm join`
#[derive(Debug, Args)]
pub struct SwarmJoinArgs {
    /// Token that `weft swarm join-token` printed
    #[arg(long)]
    pub token: String,
    /// Address or interface that other nodes reach this one at, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub advertise_addr: Option<String>,
    /// Address or interface that a manager listens on, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub listen_addr: Option<String>,
    /// Address or interface of the VXLAN data path
    #[arg(long, value_name = "ADDR")]
    pub data_path_addr: Option<String>,
    /// A manager
    #[arg(value_name = "HOST:PORT")]
    pub remote: String,
}

/// `weft swarm join-token`
#[derive(Debug, Args)]
pub struct JoinTokenArgs {
    /// Print only the token
    #[arg(short, long)]
    pub quiet: bool,
    /// Make a new token; the old one stops working
    #[arg(long)]
    pub rotate: bool,
    /// Role that the token gives
    pub role: RoleArg,
}

/// Role on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Runs tasks.
    Worker,
    /// Holds the desired state, and runs tasks.
    Manager,
}

impl RoleArg {
    /// As in paths and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// `weft node …`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls(FormatArgs),
    /// Show everything known about nodes
    Inspect(InspectArgs),
    /// Change whether nodes get tasks
    Update {
        /// active, pause (running tasks stay) or drain (tasks move away)
        #[arg(long, value_name = "STATE", value_parser = parse_availability)]
        availability: Availability,
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "NODE")]
        refs: Vec<String>,
    },
    /// Forget nodes that left or died
    Rm {
        /// Also nodes that are not down
        #[arg(short, long)]
        force: bool,
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "NODE")]
        refs: Vec<String>,
    },
}

fn parse_availability(text: &str) -> Result<Availability, String> {
    match text {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(format!(
            "invalid availability {text:?}, only active, pause and drain are possible"
        )),
    }
}

/// Objects to show.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Id, name, or unique start of an id
    #[arg(required = true, value_name = "NAME|ID")]
    pub refs: Vec<String>,
    /// How.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `weft network …`
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make an overlay network
    Create(NetworkCreateArgs),
    /// List networks
    Ls(FormatArgs),
    /// Show everything known about networks
    Inspect(InspectArgs),
    /// Remove networks
    Rm {
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "NETWORK")]
        refs: Vec<String>,
    },
    /// Attach a network namespace to a network
    Connect(NetworkConnectArgs),
    /// Detach an endpoint that `connect` attached
    Disconnect {
        /// Whatever node it is on; only on a manager
        #[arg(short, long)]
        force: bool,
        /// Network
        network: String,
        /// Name or id of the endpoint
        #[arg(value_name = "NAME|ID")]
        endpoint: String,
    },
    /// Endpoints outside the cluster: plain Linux vxlan, hardware VTEPs
    #[command(subcommand)]
    Peer(PeerCommand),
}

/// `weft network create`
#[derive(Debug, Args)]
pub struct NetworkCreateArgs {
    /// Subnet, instead of one from the pool; may be repeated
    #[arg(long = "subnet", value_name = "CIDR")]
    pub subnets: Vec<IpNet>,
    /// Also give it an IPv6 subnet; not needed with an IPv6 --subnet
    #[arg(long)]
    pub ipv6: bool,
    /// No way to the outside
    #[arg(long)]
    pub internal: bool,
    /// Option of the network; may be repeated
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub options: Vec<(String, String)>,
    /// Label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub labels: Vec<(String, String)>,
    /// Driver, as docker spells it; there is only `overlay`
    #[arg(short, long, default_value = "overlay", value_parser = ["overlay"])]
    pub driver: String,
    /// Name of the network
    pub name: String,
}

/// `weft network connect`
#[derive(Debug, Args)]
pub struct NetworkConnectArgs {
    /// Wanted address
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// One more name on this network; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// Count the endpoint as a replica of this service
    #[arg(long)]
    pub service: Option<String>,
    /// Name on the network
    #[arg(long)]
    pub name: Option<String>,
    /// Interface inside the namespace (default: the first free of eth0, eth2, eth3, …)
    #[arg(long)]
    pub ifname: Option<String>,
    /// Network
    pub network: String,
    /// Network namespace: a path such as /run/netns/x, or a process id
    #[arg(value_name = "NETNS-PATH|PID")]
    pub netns: String,
}

/// `weft network peer …`
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Add an endpoint outside the cluster
    Add {
        /// Its address inside the network
        #[arg(long)]
        ip: IpAddr,
        /// Its Ethernet address
        #[arg(long)]
        mac: Mac,
        /// Underlay address of its VTEP
        #[arg(long)]
        vtep: IpAddr,
        /// Network
        network: String,
    },
    /// List the static endpoints of a network
    Ls {
        /// How.
        #[command(flatten)]
        format: FormatArgs,
        /// Network
        network: String,
    },
    /// Remove a static endpoint
    Rm {
        /// Network
        network: String,
        /// Its address inside the network
        #[arg(required = true)]
        ips: Vec<IpAddr>,
    },
}

/// `weft service …`
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Start a service
    Create(ServiceCreateArgs),
    /// List services
    Ls(FormatArgs),
    /// List the tasks of services
    Ps(ServicePsArgs),
    /// Show everything known about services
    Inspect(InspectArgs),
    /// Publish ports of a running service, or take them back
    Update(ServiceUpdateArgs),
    /// Change the number of replicas
    Scale {
        /// Do not wait until the tasks run
        #[arg(short, long)]
        detach: bool,
        /// Service and wanted number
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = parse_scale)]
        targets: Vec<(String, u32)>,
    },
    /// Stop services and remove them
    Rm {
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "SERVICE")]
        refs: Vec<String>,
    },
}

/// `weft service create`
#[derive(Debug, Args)]
pub struct ServiceCreateArgs {
    /// Name of the service, a DNS label
    #[arg(long)]
    pub name: String,
    /// Number of tasks (default 1)
    #[arg(long)]
    pub replicas: Option<u32>,
    /// `replicated` or `global`
    #[arg(long, default_value = "replicated")]
    pub mode: ModeArg,
    /// Published ports, short or long syntax.
    #[arg(short, long = "publish", value_name = "PORT", value_parser = parse_publish, help = "Published port: [IP:][PUBLISHED:]TARGET[/tcp|udp], ranges allowed, or published=P,target=T,protocol=tcp,mode=ingress|host; may be repeated")]
    pub publish: Vec<PortList>,
    /// Network to join: NAME[,alias=A]… or name=NAME,alias=A; may be repeated
    #[arg(long = "network", value_name = "NETWORK", value_parser = parse_attachment)]
    pub networks: Vec<NetworkAttachmentSpec>,
    /// Environment variable KEY=VALUE; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = parse_env)]
    pub env: Vec<String>,
    /// Label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub labels: Vec<(String, String)>,
    /// How the name resolves: `vip` or `dnsrr`
    #[arg(long, default_value = "vip")]
    pub endpoint_mode: EndpointModeArg,
    /// How connections find a replica.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// When finished tasks are replaced
    #[arg(long, default_value = "any")]
    pub restart_condition: RestartArg,
    /// Time between failure and replacement
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration_ms)]
    pub restart_delay: u64,
    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration_ms)]
    pub stop_grace_period: u64,
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub detach: bool,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// The word `host` (no image: COMMAND from the node's own file system), then the command
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND [ARG]…]"
    )]
    pub image_and_command: Vec<String>,
}

/// `weft service update`
#[derive(Debug, Args)]
pub struct ServiceUpdateArgs {
    /// Port to publish, as for `service create`; may be repeated
    #[arg(long, value_name = "PORT", value_parser = parse_publish)]
    pub publish_add: Vec<PortList>,
    /// Published port to take back, by its target: TARGET[/tcp|udp], or as it was published; may
    /// be repeated
    #[arg(long, value_name = "PORT", value_parser = parse_publish)]
    pub publish_rm: Vec<PortList>,
    /// How connections find a replica.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub detach: bool,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Id, name, or unique start of an id
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// The ports that one `-p` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortList(pub Vec<PortSpec>);

/// `--mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// A fixed number of tasks.
    Replicated,
    /// One task on each node.
    Global,
}

/// `--endpoint-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EndpointModeArg {
    /// One virtual address.
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// `--restart-condition`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartArg {
    /// Always.
    Any,
    /// When the task ended with an error.
    OnFailure,
    /// Never.
    None,
}

/// `weft service ps`
#[derive(Debug, Args)]
pub struct ServicePsArgs {
    /// Id, name, or unique start of an id
    #[arg(required = true, value_name = "SERVICE")]
    pub refs: Vec<String>,
    /// Print whole ids and errors
    #[arg(long)]
    pub no_trunc: bool,
    /// How.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `weft drops`
#[derive(Debug, Args)]
pub struct DropsArgs {
    /// Say on which port
    #[arg(long)]
    pub by_port: bool,
    /// Drops of one port only: an endpoint's name, `mesh` or `underlay`
    #[arg(long)]
    pub port: Option<String>,
    /// How.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `weft capture`
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Frames of one port only: an endpoint's name, `mesh` or `underlay`
    #[arg(long)]
    pub port: Option<String>,
    /// Only frames into sandboxes, out of them, or dropped
    #[arg(long, value_parser = capture_dir, value_name = "in|out|drop")]
    pub dir: Option<CaptureDir>,
    /// End after so many frames; otherwise Ctrl-C ends it
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Bytes to keep of each frame; default: all, super-frames whole
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(14..))]
    pub snaplen: Option<u32>,
    /// Where to, as pcapng; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: String,
}

fn capture_dir(text: &str) -> Result<CaptureDir, String> {
    [CaptureDir::In, CaptureDir::Out, CaptureDir::Drop]
        .into_iter()
        .find(|dir| dir.as_str() == text)
        .ok_or_else(|| "expected in, out or drop".to_owned())
}

/// `weft lab …`
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Start nodes; they are not part of a swarm yet
    Up {
        /// How many
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=200))]
        nodes: u8,
        /// Join them by IPv6 alone
        #[arg(long)]
        ipv6: bool,
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// More arguments for every weftd; may be repeated
        #[arg(long = "weftd-arg", value_name = "ARG", allow_hyphen_values = true)]
        weftd_args: Vec<String>,
    },
    /// Run a command on a node
    Exec {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// Node, such as `node1`, or `outside`
        node: String,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show what runs
    Status {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Stop the lab and remove everything that it made
    Down {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
    },
}

/// `weft demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the cluster up and print how to talk to it
    #[arg(long)]
    pub keep: bool,
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    pub name: String,
    /// Keep the output of the nodes there, instead of removing it
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
}

/// `weft bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// TCP and UDP between two nodes: weft against kernel veth, bridge and vxlan
    Overlay(BenchOverlayArgs),
    /// A published port: weft against HAProxy and nginx, before the same replicas
    Mesh(BenchMeshArgs),
}

/// `weft bench overlay`
#[derive(Debug, Args)]
pub struct BenchOverlayArgs {
    /// Tests to run; may be repeated (default: all but `endpoints`, `flows`, `flood` and `iperf3`,
    /// about five minutes)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub only: Vec<BenchTest>,
    /// Measured pairs, alternating
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub pairs: u8,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=120))]
    pub seconds: u8,
    /// TCP congestion control; may be repeated (default: cubic, and bbr where the kernel has it).
    /// Tests about something else use the first one
    #[arg(long = "cc", value_name = "NAME", value_delimiter = ',')]
    pub congestion: Vec<String>,
    /// Also draw a picture of rates and of the distribution of round trip times
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench")]
    pub name: String,
    /// How.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// A test of `weft bench overlay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchTest {
    /// One TCP stream between two nodes
    Tcp1,
    /// Eight TCP streams at once
    Tcp8,
    /// Datagrams of 64, 512 and 1400 bytes from one thread that sends one with each send()
    Udp,
    /// 64 bytes there and back, one at a time
    Rr,
    /// 64 bytes there and back, 64 at once
    Rr64,
    /// Small requests over 16 kept TCP connections to tasks that sleep 1 ms before they answer
    Tasks,
    /// One TCP stream within one node, against veth and bridge
    Local,
    /// One TCP stream through a virtual address, against a direct one
    Vip,
    /// 100 and 1,000 endpoints on the client's node, against 1: at rest, TCP and UDP (some minutes)
    Endpoints,
    /// 100,000 flows through a virtual address, against 1: TCP and 64 bytes there and back
    Flows,
    /// One TCP stream while a machine that is no node floods the receiver's VXLAN port with garbage,
    /// against the same without; says how much there was and where it ended
    Flood,
    /// TCP with iperf3 as the generator, one stream and eight; left out where it is not installed
    Iperf3,
    /// TCP, UDP and round trips against Open vSwitch with its userspace datapath; left out where it
    /// is not installed
    Ovs,
    /// Every one of them
    All,
}

/// `weft demo-http`
#[derive(Debug, Args)]
pub struct DemoHttpArgs {
    /// Port to listen on
    #[arg(long, default_value_t = 80)]
    pub port: u16,
    /// Name to answer with, where no task is
    #[arg(long)]
    pub name: Option<String>,
    /// Listen on IPv4 only
    #[arg(long)]
    pub ipv4: bool,
}

/// `weft demo-dns`
#[derive(Debug, Args)]
pub struct DemoDnsArgs {
    /// Server to ask
    #[arg(long, default_value = "127.0.0.11:53")]
    pub server: SocketAddr,
    /// Ask over TCP
    #[arg(long)]
    pub tcp: bool,
    /// Name to look up
    pub name: String,
}

/// `weft demo-get`
#[derive(Debug, Args)]
pub struct DemoGetArgs {
    /// Longest time without progress
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration_ms)]
    pub timeout: u64,
    /// Print how many bytes came and how long it took, instead of the bytes
    #[arg(long)]
    pub count: bool,
    /// How many requests, one after the other
    #[arg(long, default_value_t = 1)]
    pub times: u32,
    /// What to request
    #[arg(value_name = "ADDRESS:PORT/PATH")]
    pub target: String,
}

/// `weft demo-ping`
#[derive(Debug, Args)]
pub struct DemoPingArgs {
    /// How many requests
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub count: u16,
    /// Bytes of data in each
    #[arg(long, default_value_t = 56)]
    pub size: u16,
    /// Whom to ask
    pub target: std::net::Ipv4Addr,
}

/// `weft lab-node`, `weft lab-init`
#[derive(Debug, Args)]
pub struct LabSpecArgs {
    /// File with what the machine shall be, in JSON
    pub spec: PathBuf,
}

/// `weft lab-enter`
#[derive(Debug, Args)]
pub struct LabEnterArgs {
    /// A network namespace of the machine to go on to
    #[arg(long)]
    pub netns: Option<PathBuf>,
    /// Process 1 of the machine
    pub pid: u32,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

fn parse_key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        None if !text.is_empty() => Ok((text.to_owned(), String::new())),
        _ => Err(format!("invalid key=value pair {text:?}: the key is empty")),
    }
}

/// `KEY=VALUE`, or `KEY` for the value that this process has.
fn parse_env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err("invalid environment variable: the name is empty".into()),
        None => match std::env::var(text) {
            Ok(value) => Ok(format!("{text}={value}")),
            Err(_) => Err(format!(
                "environment variable {text} is not set here; write {text}=VALUE"
            )),
        },
    }
}

fn parse_scale(text: &str) -> Result<(String, u32), String> {
    let bad = || format!("invalid scale specifier '{text}'; write SERVICE=REPLICAS, such as web=3");
    let (service, count) = text.split_once('=').ok_or_else(bad)?;
    if service.is_empty() {
        return Err(bad());
    }
    let count = count
        .parse()
        .map_err(|_| format!("invalid replicas value {count}: expected a whole number"))?;
    Ok((service.to_owned(), count))
}

#[cfg(test)]
mod tests;
