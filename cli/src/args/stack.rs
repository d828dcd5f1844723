//! `weft stack`.

use clap::{Args, Subcommand};

/// `weft stack …`
#[derive(Debug, Subcommand)]
pub(crate) enum StackCommand {
    /// Print what the files of a stack come to: several as one, with the values of variables
    Config(StackConfigArgs),
}

/// `weft stack config`
#[derive(Debug, Args)]
pub(crate) struct StackConfigArgs {
    /// A file of the stack, or `-` for standard input; what a later one says wins
    #[arg(
        short = 'c',
        long = "compose-file",
        value_name = "FILE",
        required = true
    )]
    pub(crate) files: Vec<String>,
    /// Leave variables as they are
    #[arg(long)]
    pub(crate) skip_interpolation: bool,
}
