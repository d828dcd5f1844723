//! What the walk of a day looks at: rows of `service ps`, and lines of docker's progress.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::walk::Walk;

/// For what takes a moment.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Characters of a bar between its ends, but for the head of its arrow.
const BAR: usize = 50;

/// A row of `service ps`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Row {
    /// ` \_ ` of a task that another one took the place of.
    pub(super) indent: String,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) desired_state: String,
    pub(super) state: String,
    pub(super) error: String,
}

impl Row {
    pub(super) fn runs(&self) -> bool {
        self.states() == ("Running", "Running")
    }

    /// Wanted, and seen.
    pub(super) fn states(&self) -> (&str, &str) {
        (self.desired_state.as_str(), self.state.as_str())
    }

    pub(super) fn is_old(&self) -> bool {
        !self.indent.is_empty()
    }
}

/// The tasks of the service, as a manager lists them.
pub(super) fn rows(walk: &Walk<'_, '_>, asked: &str) -> anyhow::Result<Vec<Row>> {
    let text = walk.quietly(asked, &["service", "ps", "web", "--format", "json"])?;
    let rows = text.lines().map(serde_json::from_str::<Row>);
    Ok(rows.collect::<Result<Vec<Row>, _>>()?)
}

/// How many tasks run on each node that has some.
pub(super) fn by_node(rows: &[Row]) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.runs()) {
        *counts.entry(row.node.as_str()).or_default() += 1;
    }
    counts
}

/// Waits until so many tasks run.
pub(super) fn running(walk: &mut Walk<'_, '_>, wanted: usize) -> anyhow::Result<Vec<Row>> {
    walk.eventually(LIMIT, |walk| {
        let rows = rows(walk, "node1")?;
        let count = rows.iter().filter(|row| row.runs()).count();
        ensure!(count == wanted, "{count} of {wanted} tasks run");
        Ok(rows)
    })
}

/// Waits until so many tasks run on nodes that have some, the largest number first.
pub(super) fn spread(walk: &mut Walk<'_, '_>, wanted: &[usize]) -> anyhow::Result<Vec<Row>> {
    walk.eventually(LIMIT, |walk| {
        let rows = rows(walk, "node1")?;
        let mut counts: Vec<usize> = by_node(&rows).into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        ensure!(counts == wanted, "tasks run on nodes as {counts:?}");
        Ok(rows)
    })
}

/// What bars look like in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bars {
    Full,
    /// Of a rollback.
    Empty,
}

/// Checks what docker's progress leaves on a terminal: `head`, the tasks with their bars, the verdict.
pub(super) fn converged(
    lines: &[String],
    head: &[&str],
    tasks: usize,
    bars: Bars,
) -> anyhow::Result<()> {
    let bar = bar(bars);
    let what = match bars {
        Bars::Full => "",
        Bars::Empty => "rolling back update: ",
    };
    let mut wanted: Vec<String> = head.iter().map(|line| (*line).to_owned()).collect();
    wanted.push(format!(
        "overall progress: {what}{tasks} out of {tasks} tasks"
    ));
    wanted.extend((1..=tasks).map(|number| format!("{number}/{tasks}: running   {bar}")));
    let rest = with_verdict(lines)?;
    ensure!(rest == wanted, "it shows {rest:#?} and not {wanted:#?}");
    Ok(())
}

/// The same of a service with one task on each node: lines begin with the ids of these.
pub(super) fn converged_on_nodes(lines: &[String], nodes: usize) -> anyhow::Result<()> {
    let rest = with_verdict(lines)?;
    let overall = format!("overall progress: {nodes} out of {nodes} tasks");
    let (first, rest) = rest.split_first().context("it shows nothing")?;
    ensure!(*first == overall, "it shows {first:?} and not {overall:?}");
    let full = format!(": running   {}", bar(Bars::Full));
    let short = |line: &String| {
        let id = line.strip_suffix(&full);
        id.is_some_and(|id| id.len() == 12 && is_id(id))
    };
    ensure!(
        rest.len() == nodes && rest.iter().all(short),
        "these are no lines of {nodes} nodes: {rest:#?}"
    );
    Ok(())
}

/// The line that says how it ended is the last one; those before.
fn with_verdict(lines: &[String]) -> anyhow::Result<&[String]> {
    let (last, rest) = lines.split_last().context("it shows nothing")?;
    let id = last.strip_prefix("verify: Service ");
    let id = id.and_then(|rest| rest.strip_suffix(" converged"));
    ensure!(id.is_some_and(is_id), "it ends with {last:?}");
    Ok(rest)
}

fn bar(bars: Bars) -> String {
    match bars {
        Bars::Full => format!("[{}>]", "=".repeat(BAR)),
        Bars::Empty => format!("[>{}]", " ".repeat(BAR)),
    }
}

/// As ids are written.
pub(super) fn is_id(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty() && text.chars().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_converged_is_known_by_its_lines() {
        let full = "=".repeat(50);
        let text = format!(
            "web scaled to 2\noverall progress: 2 out of 2 tasks\n1/2: running   [{full}>]\n\
             2/2: running   [{full}>]\nverify: Service abc1 converged"
        );
        converged(&lines(&text), &["web scaled to 2"], 2, Bars::Full).unwrap();
        for (tasks, bars) in [(3, Bars::Full), (2, Bars::Empty)] {
            converged(&lines(&text), &["web scaled to 2"], tasks, bars).unwrap_err();
        }
        let cut_off = &lines(&text)[..4];
        converged(cut_off, &["web scaled to 2"], 2, Bars::Full).unwrap_err();

        let text = format!(
            "overall progress: 1 out of 1 tasks\naaaaaaaaaaa1: running   [{full}>]\n\
             verify: Service abc1 converged"
        );
        converged_on_nodes(&lines(&text), 1).unwrap();
        converged_on_nodes(&lines(&text.replace("aaa1", "1")), 1).unwrap_err();
    }
}
