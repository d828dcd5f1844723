//! `weft node inspect --pretty`, in docker's layout (docker/cli `cli/command/node/formatter.go`). What
//! an agent does not say of its machine has no lines.

use std::process::ExitCode;

use jiff::Timestamp;
use weft_client::Refused;
use weft_model::api::NodeRow;

use crate::commands::{finish, rows};
use crate::output::{Printer, shown};

/// Shows the nodes that there are. What is not there is told afterwards.
pub(super) fn show(
    found: Vec<anyhow::Result<NodeRow>>,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let mut refused = Vec::new();
    for result in found {
        match result {
            Ok(row) => out.line(&pretty(&row))?,
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    out.flush()?;
    finish(&refused)
}

fn pretty(row: &NodeRow) -> String {
    let node = &row.node;
    let mut lines = vec![format!("ID:\t\t\t{}", shown(node.id.as_str()))];
    if !node.spec.labels.is_empty() {
        lines.push("Labels:".to_owned());
    }
    for (key, value) in &node.spec.labels {
        lines.push(match value.as_str() {
            "" => format!(" - {}", shown(key)),
            value => format!(" - {}={}", shown(key), shown(value)),
        });
    }
    let said = &node.description;
    lines.push(format!(
        "Hostname:              \t{}",
        shown(&said.hostname)
    ));
    lines.push(format!(
        "Joined at:             \t{}",
        moment(node.meta.created_at)
    ));
    lines.push("Status:".to_owned());
    lines.push(format!(" State:\t\t\t{}", rows::status(row)));
    let message = rows::message(row);
    if !message.is_empty() {
        lines.push(format!(" Message:              \t{}", shown(&message)));
    }
    let availability = rows::word(&node.spec.availability);
    lines.push(format!(" Availability:         \t{availability}"));
    lines.push(format!(" Address:\t\t{}", node.status.addr));
    if let Some(manager) = &node.manager_status {
        lines.push("Manager Status:".to_owned());
        lines.push(format!(" Address:\t\t{}", manager.addr));
        let reachability = rows::word(&manager.reachability);
        lines.push(format!(" Raft Status:\t\t{reachability}"));
        let leader = if manager.leader { "Yes" } else { "No" };
        lines.push(format!(" Leader:\t\t{leader}"));
    }
    lines.push(format!(
        "Engine Version:\t\t{}",
        shown(&said.engine.version)
    ));
    lines.join("\n")
}

/// As Go prints a time, in lower case.
pub(super) fn moment(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    moment
        .strftime("%Y-%m-%d %H:%M:%S%.f +0000 utc")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        assert_eq!(moment(1_767_323_045_000), "2026-01-02 03:04:05 +0000 utc");
        assert_eq!(
            moment(1_767_323_045_670),
            "2026-01-02 03:04:05.67 +0000 utc"
        );
    }
}
