//! `weft node`.

use clap::{Args, Subcommand};
use weft_model::objects::Availability;

use super::{FilterArgs, FormatArgs, InspectArgs, TaskListArgs};

/// `weft node …`
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    Ls {
        /// Which: keys are id, name and role.
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
