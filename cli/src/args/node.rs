//! `weft node`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use weft_model::objects::Availability;

use super::{FilterArgs, FormatArgs, InspectArgs, RoleArg, TaskListArgs, parse_key_value};

/// `weft node …`
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    Ls {
        /// Which: keys are id, name, role, node.label and membership.
        #[command(flatten)]
        filter: FilterArgs,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List the tasks of nodes, or of this node
    Ps(NodePsArgs),
    /// Show everything known about nodes
    Inspect(InspectArgs),
    /// Change whether nodes get tasks, what they are, their labels, or where they are reached
    Update(NodeUpdateArgs),
    /// Make nodes managers
    Promote {
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "NODE")]
        refs: Vec<String>,
    },
    /// Make managers workers
    Demote {
        /// Also where the managers that stay are no quorum: nothing is decided until they are one
        #[arg(short, long)]
        force: bool,
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

/// `weft node update`
#[derive(Debug, Args)]
pub(crate) struct NodeUpdateArgs {
    /// active, pause (running tasks stay) or drain (tasks move away)
    #[arg(long, value_name = "STATE", value_parser = parse_availability)]
    pub(crate) availability: Option<Availability>,
    /// worker or manager
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<RoleArg>,
    /// Add a label, or change its value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Take a label away, after others were added; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Address that others reach the node at from now on; its weftd starts again with it
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_addr: Option<IpAddr>,
    /// Id, name, or unique start of an id
    #[arg(required = true, value_name = "NODE")]
    pub(crate) refs: Vec<String>,
}

/// `weft node ps`
#[derive(Debug, Args)]
pub(crate) struct NodePsArgs {
    /// Id, name, or unique start of an id; `self` is the node behind -H
    #[arg(value_name = "NODE", default_value = "self")]
    pub(crate) refs: Vec<String>,
    /// How.
    #[command(flatten)]
    pub(crate) list: TaskListArgs,
}

pub(super) fn parse_availability(text: &str) -> Result<Availability, String> {
    match text {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(format!(
            "invalid availability {text:?}, only active, pause and drain are possible"
        )),
    }
}
