//! Names, as a task sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::cluster::Service;
use super::walk::Walk;

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn lookups(walk: &mut Walk<'_, '_>, service: &Service) -> anyhow::Result<()> {
    walk.transcript
        .section("Names, asked of 127.0.0.11 inside a task")?;
    let task = service.tasks.first().context("no task runs")?.clone();
    let other = service.tasks.last().context("no task runs")?.clone();
    let all: Vec<String> = service.tasks.iter().map(|t| t.ip.to_string()).collect();
    let cases = [
        (
            "the service name is its virtual address",
            "web".to_owned(),
            vec![service.vip.to_string()],
            false,
        ),
        (
            "tasks.web is every task",
            "tasks.web".to_owned(),
            all,
            false,
        ),
        (
            "a task has a name, over TCP too",
            other.name.clone(),
            vec![other.ip.to_string()],
            true,
        ),
        (
            "the guest has the name that it was given",
            "guest".to_owned(),
            Vec::new(),
            false,
        ),
    ];
    for (claim, name, expected, tcp) in cases {
        let mut words = vec!["demo-dns"];
        if tcp {
            words.push("--tcp");
        }
        words.push(&name);
        let expected: BTreeSet<String> = expected.into_iter().collect();
        let asked = |text: &str| -> anyhow::Result<()> {
            let found: BTreeSet<String> = text.lines().map(str::to_owned).collect();
            ensure!(
                !found.is_empty() && (expected.is_empty() || found == expected),
                "{name} is {found:?}, not {expected:?}"
            );
            Ok(())
        };
        walk.check(claim, |walk| {
            walk.eventually(LIMIT, |walk| {
                asked(&walk.tool_quietly(&task.node, Some(&task.netns), &words)?)
            })?;
            let inside = Some(("web", task.netns.as_path()));
            asked(&walk.tool(&task.node, inside, &words)?)
        })?;
    }
    Ok(())
}
