//! `weft task`, and how `weft service ps` and `weft node ps` show tasks.

use clap::{Args, Subcommand};

use super::{FilterArgs, FormatArgs, InspectArgs};

/// `weft task …`
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Show everything known about tasks: by id, or as SERVICE.SLOT
    Inspect(InspectArgs),
}

/// Which tasks, and how.
#[derive(Debug, Args)]
pub(crate) struct TaskListArgs {
    /// Print whole ids and errors
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print ids of nodes and services in place of their names
    #[arg(long)]
    pub(crate) no_resolve: bool,
    /// Which: keys are id, name, node and desired-state.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
