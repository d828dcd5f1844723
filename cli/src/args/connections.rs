//! Flags of `service create` and `service update` that say how connections find a replica.

use clap::{Args, ValueEnum};
use weft_model::objects::Affinity;

/// How connections find a replica; what is not given stays, or is the default of a new service.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ConnectionArgs {
    /// Connections that stay together: `none`, or `client` (all of a client address go to one
    /// replica)
    #[arg(long, value_name = "WHICH")]
    pub(crate) affinity: Option<AffinityArg>,
    /// Replicas on the node that a client came to go first, unless they have much more to do
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) local_first: Option<bool>,
    /// Connections open at most, cluster-wide; more are refused (0: no limit)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit_connections: Option<u32>,
    /// Connections of one client address open at most, through one node (0: no limit)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit_client_connections: Option<u32>,
}

/// `--affinity`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AffinityArg {
    /// Each connection goes where the load is least.
    None,
    /// All of a client address go to one replica.
    Client,
}

impl From<AffinityArg> for Affinity {
    fn from(arg: AffinityArg) -> Self {
        match arg {
            AffinityArg::None => Self::None,
            AffinityArg::Client => Self::Client,
        }
    }
}
