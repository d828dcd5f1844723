//! `weft swarm init` and `weft swarm join`.

use clap::Args;
use ipnet::IpNet;
use weft_model::objects::Availability;

use super::node::parse_availability;

/// `weft swarm init`
#[derive(Debug, Args)]
pub(crate) struct SwarmInitArgs {
    /// Address or interface that other nodes reach this one at, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise_addr: Option<String>,
    /// Address or interface that the manager listens on, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_addr: Option<String>,
    /// Address or interface of the VXLAN data path
    #[arg(long, value_name = "ADDR")]
    pub(crate) data_path_addr: Option<String>,
    /// UDP port of the VXLAN data path (1024-49151; default 4789)
    #[arg(long, value_name = "PORT")]
    pub(crate) data_path_port: Option<u16>,
    /// Pools that network subnets are cut from (default 10.0.0.0/8; for IPv6 unique local prefixes)
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) default_addr_pool: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools (default 24)
    #[arg(long, value_name = "BITS")]
    pub(crate) default_addr_pool_mask_length: Option<u8>,
    /// Go on with the swarm that this node is a manager of, as its only manager: the others are lost
    #[arg(
        long,
        conflicts_with_all = [
            "data_path_addr",
            "data_path_port",
            "default_addr_pool",
            "default_addr_pool_mask_length",
            "autolock",
            "availability",
        ]
    )]
    pub(crate) force_new_cluster: bool,
    /// Lock what managers keep on disk: they wait for a key when they start again
    #[arg(long)]
    pub(crate) autolock: bool,
    /// active, pause (no task is placed here) or drain (the same, and none stays)
    #[arg(long, value_name = "STATE", value_parser = parse_availability)]
    pub(crate) availability: Option<Availability>,
}

/// `weft swarm join`
#[derive(Debug, Args)]
pub(crate) struct SwarmJoinArgs {
    /// Token that `weft swarm join-token` printed
    #[arg(long)]
    pub(crate) token: String,
    /// Address or interface that other nodes reach this one at, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise_addr: Option<String>,
    /// Address or interface that a manager listens on, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_addr: Option<String>,
    /// Address or interface of the VXLAN data path
    #[arg(long, value_name = "ADDR")]
    pub(crate) data_path_addr: Option<String>,
    /// active, pause (no task is placed here) or drain (the same, and none stays)
    #[arg(long, value_name = "STATE", value_parser = parse_availability)]
    pub(crate) availability: Option<Availability>,
    /// A manager
    #[arg(value_name = "HOST:PORT")]
    pub(crate) remote: String,
}
