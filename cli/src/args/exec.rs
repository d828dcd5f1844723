//! `weft exec`.

use clap::Args;

use super::env::parse_env;

/// `weft exec`
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Pass on standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Who it is: NAME|UID[:GROUP|GID] (default: who the task is)
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Its working directory (default /)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Environment variable KEY=VALUE, beside those of the task; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = parse_env)]
    pub(crate) env: Vec<String>,
    /// The task: SERVICE.SLOT, its id, or the unique start of that
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Program and arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND [ARG]…"
    )]
    pub(crate) command: Vec<String>,
}
