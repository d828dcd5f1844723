//! The nodes of the walk with several managers, and what these say of all of them.

use std::time::Duration;

use super::walk::Walk;

pub(super) const MANAGERS: [&str; 3] = ["node1", "node2", "node3"];
pub(super) const WORKERS: [&str; 2] = ["node4", "node5"];

/// For what takes a moment.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) const NO_LEADER: &str = "The swarm does not have a leader.";

/// A row of `node ls`, for comparisons.
const ROW: &str = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";

/// Waits until a manager lists all of these rows.
pub(super) fn lists(walk: &mut Walk<'_, '_>, asked: &str, wanted: &[String]) -> anyhow::Result<()> {
    walk.eventually(LIMIT, |walk| {
        let text = walk.quietly(asked, &["node", "ls", "--format", ROW])?;
        let rows: Vec<&str> = text.lines().map(str::trim_end).collect();
        let missing = wanted.iter().find(|row| !rows.contains(&row.as_str()));
        if let Some(missing) = missing {
            anyhow::bail!("{missing:?} is not among {rows:?}");
        }
        Ok(())
    })
}
