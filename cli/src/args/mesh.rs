//! `weft mesh` and `weft why`.

use clap::{Args, Subcommand};

use super::{FilterArgs, FormatArgs};

/// `weft mesh …`
#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// List the published ports of this node
    Ls(MeshLsArgs),
    /// List the connections that this node balances, to published ports and to services
    Conns(MeshConnsArgs),
}

/// `weft mesh ls`
#[derive(Debug, Args)]
pub(crate) struct MeshLsArgs {
    /// All columns: every counter, bytes, time to connect
    #[arg(short, long)]
    pub(crate) wide: bool,
    /// Which: keys are mode, port, protocol and service.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `weft mesh conns`
#[derive(Debug, Args)]
pub(crate) struct MeshConnsArgs {
    /// Connections at most; the first that are found
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10_000)]
    pub(crate) limit: u32,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Only those of one service: id, name, or unique start of an id
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,
}

/// `weft why`
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Published port, such as 8000 or 53/udp, or the name or address of a service or endpoint
    #[arg(value_name = "PORT|NAME|ADDRESS")]
    pub(crate) asked: String,
    /// All columns: whole names, networks, every counter, bytes, time to connect
    #[arg(short, long)]
    pub(crate) wide: bool,
    /// How: `json`, or a template, has one row for each replica
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
