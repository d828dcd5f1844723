//! `weft task`, `weft service ps` and `weft node ps`.

use std::process::ExitCode;

use anyhow::bail;
use jiff::Timestamp;
use weft_client::{Client, Refused, segment};
use weft_model::api::TaskRow;

use crate::args::{TaskCommand, TaskListArgs};
use crate::commands::rows::{self, TaskWords};
use crate::commands::{finish, show};
use crate::output::{Filters, Key, Match, Printer};

/// Keys of `--filter`.
const KEYS: [Key; 4] = [
    ("id", &[("ID", Match::Begins)]),
    ("name", &[("TaskName", Match::Begins)]),
    (
        "node",
        &[("NodeName", Match::Is), ("NodeID", Match::Begins)],
    ),
    ("desired-state", &[("DesiredState", Match::Is)]),
];

/// States that tasks can be wanted in.
const DESIRED: [&str; 6] = [
    "ready", "running", "complete", "shutdown", "accepted", "remove",
];

pub(super) async fn run(
    client: &Client,
    command: TaskCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let TaskCommand::Inspect(args) = command;
    let mut found = Vec::new();
    for name in &args.refs {
        found.push(client.get(&format!("/v1/tasks/{}", segment(name))).await);
    }
    show(&args, found, out)
}

/// Shows the tasks that the API has at these paths. What is not there is told afterwards.
pub(super) async fn list(
    client: &Client,
    paths: &[String],
    args: &TaskListArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let filters = Filters::of(&args.filter, &KEYS)?;
    if let Some(state) = filters
        .values("desired-state")
        .find(|state| !is_state(state))
    {
        bail!(
            "Invalid desired-state filter: '{state}'; write running, ready, complete or shutdown"
        );
    }
    let (mut tasks, mut refused) = (Vec::new(), Vec::new());
    for path in paths {
        match client.get::<Vec<TaskRow>>(path).await {
            Ok(more) => tasks.extend(more),
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    if !tasks.is_empty() || refused.is_empty() {
        let words = TaskWords {
            whole: args.no_trunc,
            ids: args.no_resolve,
        };
        let mut listing = rows::tasks(tasks, words, Timestamp::now());
        listing.keep(&filters);
        out.listing(&listing, &args.format)?;
    }
    finish(&refused)
}

fn is_state(text: &str) -> bool {
    DESIRED.iter().any(|state| text.eq_ignore_ascii_case(state))
}
