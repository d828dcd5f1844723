//! `weft service logs`.

use clap::Args;

/// `weft service logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was written since: a moment, or how long ago, such as 42m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// So many lines of each task, the last ones, or `all`
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", value_parser = parse_tail)]
    pub(crate) tail: Tail,
    /// Print when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print ids of nodes and services in place of their names
    #[arg(long)]
    pub(crate) no_resolve: bool,
    /// Print whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print no ids of tasks
    #[arg(long)]
    pub(crate) no_task_ids: bool,
    /// Print lines as they are, without the task in front
    #[arg(long)]
    pub(crate) raw: bool,
    /// Service, or task: id, name, or unique start of an id
    #[arg(value_name = "SERVICE|TASK")]
    pub(crate) of: String,
}

/// How many lines of each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// All that there are.
    All,
    /// The last ones.
    Last(u64),
}

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text.parse() {
        Ok(count) => Ok(Tail::Last(count)),
        Err(_) if text == "all" => Ok(Tail::All),
        Err(_) => Err("expected a whole number, or all".to_owned()),
    }
}
