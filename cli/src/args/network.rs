//! `weft network`.

use std::net::IpAddr;

use clap::{ArgAction, Args, Subcommand};
use ipnet::IpNet;
use weft_model::objects::Mac;

use super::{FilterArgs, FormatArgs, InspectArgs, parse_key_value};

/// `weft network …`
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make an overlay network
    Create(NetworkCreateArgs),
    /// List networks
    Ls {
        /// Print whole ids
        #[arg(long)]
        no_trunc: bool,
        /// Which: keys are dangling, driver, id, label, name, scope and type.
        #[command(flatten)]
        filter: FilterArgs,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
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

/// An address and how many of its bits are the network's.
fn parse_subnet(text: &str) -> Result<IpNet, String> {
    let Some((ip, bits)) = text.split_once('/') else {
        return Err(format!(
            "invalid subnet {text:?}: the length of the prefix is missing, as in 10.0.9.0/24"
        ));
    };
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| format!("invalid subnet {text:?}: {ip:?} is no IP address"))?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|bits| *bits <= most);
    let net = bits.and_then(|bits| IpNet::new(ip, bits).ok());
    net.ok_or_else(|| {
        format!("invalid subnet {text:?}: a prefix has 0 to {most} bits, as in 10.0.9.0/24")
    })
}

/// `weft network create`
#[derive(Debug, Args)]
pub(crate) struct NetworkCreateArgs {
    /// Subnet, instead of one from the pool; may be repeated
    #[arg(long = "subnet", value_name = "CIDR", value_parser = parse_subnet)]
    pub(crate) subnets: Vec<IpNet>,
    /// Also give it an IPv6 subnet; not needed with an IPv6 --subnet
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// No way to the outside
    #[arg(long)]
    pub(crate) internal: bool,
    /// Let `network connect` join it, on any node (`--attachable=false`: services only)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) attachable: bool,
    /// Option of the network; may be repeated
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) options: Vec<(String, String)>,
    /// Label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Driver, as docker spells it; there is only `overlay`
    #[arg(short, long, default_value = "overlay", value_parser = ["overlay"])]
    pub(crate) driver: String,
    /// Name of the network
    pub(crate) name: String,
}

/// `weft network connect`
#[derive(Debug, Args)]
pub(crate) struct NetworkConnectArgs {
    /// Wanted address
    #[arg(long)]
    pub(crate) ip: Option<IpAddr>,
    /// One more name on this network; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
    /// Count the endpoint as a replica of this service; on a worker only if it has `--attach`
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Name on the network
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Interface inside the namespace (default: the first free of eth0, eth2, eth3, …)
    #[arg(long)]
    pub(crate) ifname: Option<String>,
    /// Network
    pub(crate) network: String,
    /// Network namespace: a path such as /run/netns/x, or a process id
    #[arg(value_name = "NETNS-PATH|PID")]
    pub(crate) netns: String,
}

/// `weft network peer …`
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
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
        /// Which: keys are ip, mac and vtep.
        #[command(flatten)]
        filter: FilterArgs,
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
