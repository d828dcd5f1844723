//! `weft task`, `weft service ps` and `weft node ps`.

use std::process::ExitCode;

use jiff::Timestamp;
use weft_client::{Client, Refused, segment};
use weft_model::api::TaskRow;

use crate::args::{TaskCommand, TaskListArgs};
use crate::commands::rows::{self, TaskWords};
use crate::commands::{finish, show};
use crate::output::Printer;

/// Keys of `--filter`, and the fields that they look at.
const KEYS: [(&str, &str); 4] = [
    ("id", "ID"),
    ("name", "Name"),
    ("node", "Node"),
    ("desired-state", "DesiredState"),
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
        listing.keep(&args.filter.filters, &KEYS)?;
        out.listing(&listing, &args.format)?;
    }
    finish(&refused)
}
