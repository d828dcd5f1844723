//! `weft events`.

use clap::Args;

use super::FilterArgs;

/// `weft events`
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Also what happened since: a moment, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// End at this moment
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Which: keys are type, event, scope, node, network, service, task, secret and config.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// `json`, or a Go template such as '{{.Type}} {{.Action}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
