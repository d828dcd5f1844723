//! `weft service logs`, in docker's form (docker/cli `cli/command/service/logs.go`).

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use weft_client::{Client, segment};
use weft_model::api::{LogItem, LogLine, LogStream, LogTask};
use weft_model::id::TaskId;

use crate::args::{LogsArgs, Tail, parse_moment};
use crate::output::{Printer, complain, shown, write_error};

/// Between a task and what it wrote.
const BAR: &str = "    | ";

pub(super) async fn run(
    client: &Client,
    args: &LogsArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let path = path(args, Timestamp::now(), &TimeZone::system())?;
    let mut answer = client.stream(&path).await?;
    let mut rest = Vec::new();
    let mut view = View::new(args);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let piece = tokio::select! {
            piece = answer.next() => piece?,
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        };
        let Some(piece) = piece else { break };
        rest.extend_from_slice(&piece);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            continue;
        };
        let left = rest.split_off(end + 1);
        let whole = std::mem::replace(&mut rest, left);
        for line in whole.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            let item: LogItem = serde_json::from_slice(line).context(
                "weftd sent a line of an unexpected form: are weft and weftd of the same version?",
            )?;
            view.show(item, out)?;
        }
        out.flush()?;
    }
    view.tell_what_is_missing();
    Ok(ExitCode::SUCCESS)
}

fn path(args: &LogsArgs, now: Timestamp, zone: &TimeZone) -> anyhow::Result<String> {
    let mut query = Vec::new();
    if args.follow {
        query.push("follow=true".to_owned());
    }
    if let Some(since) = &args.since {
        let ms = parse_moment(since, now, zone).map_err(anyhow::Error::msg)?;
        query.push(format!("since={ms}"));
    }
    if let Tail::Last(count) = args.tail {
        query.push(format!("tail={count}"));
    }
    let path = format!("/v1/services/{}/logs", segment(&args.of));
    Ok(match query.as_slice() {
        [] => path,
        query => format!("{path}?{}", query.join("&")),
    })
}

/// What is known of the tasks so far.
struct View<'a> {
    args: &'a LogsArgs,
    tasks: BTreeMap<TaskId, LogTask>,
    /// Characters of the longest slot.
    width: usize,
    missing: Vec<String>,
    caught_up: bool,
}

impl<'a> View<'a> {
    const fn new(args: &'a LogsArgs) -> Self {
        Self {
            args,
            tasks: BTreeMap::new(),
            width: 0,
            missing: Vec::new(),
            caught_up: false,
        }
    }

    fn show(&mut self, item: LogItem, out: &mut Printer) -> anyhow::Result<()> {
        match item {
            LogItem::Task(task) => {
                self.width = self.width.max(task.slot.to_string().len());
                self.tasks.insert(task.id.clone(), task);
            }
            LogItem::Line(line) => {
                let text = self.line(&line);
                match line.stream {
                    LogStream::Stdout => out.output(&text)?,
                    LogStream::Stderr => {
                        // What was written before goes first.
                        out.flush()?;
                        write_error(&text);
                    }
                }
            }
            LogItem::CaughtUp => {
                self.caught_up = true;
                if self.args.follow {
                    self.tell_what_is_missing();
                }
            }
            LogItem::Incomplete(why) => {
                self.missing.push(why);
                if self.caught_up {
                    self.tell_what_is_missing();
                }
            }
        }
        Ok(())
    }

    fn line(&self, line: &LogLine) -> String {
        let mut text = String::new();
        if self.args.timestamps {
            let moment = Timestamp::from_nanosecond(i128::from(line.time));
            text = format!("{:.9} ", moment.unwrap_or(Timestamp::MAX));
        }
        if !self.args.raw {
            text.push_str(&self.prefix(&line.task));
        }
        text + &line.line
    }

    fn prefix(&self, id: &TaskId) -> String {
        let Some(task) = self.tasks.get(id) else {
            return format!("{}{BAR}", shown(id.as_str()));
        };
        let args = self.args;
        let (service, node) = if args.no_resolve {
            (task.service.as_str(), task.node.as_str())
        } else {
            (task.service_name.as_str(), task.node_name.as_str())
        };
        let id = match (args.no_task_ids, args.no_trunc) {
            (true, _) => String::new(),
            (false, true) => format!(".{}", shown(id.as_str())),
            (false, false) => format!(".{}", shown(id.short())),
        };
        let slot = task.slot.to_string();
        let padding = " ".repeat(self.width.saturating_sub(slot.len()));
        format!(
            "{}.{slot}{id}@{}{padding}{BAR}",
            shown(service),
            shown(node)
        )
    }

    fn tell_what_is_missing(&mut self) {
        let missing = std::mem::take(&mut self.missing);
        if !missing.is_empty() {
            complain(&format!(
                "warning: incomplete log stream. some logs could not be retrieved for the following \
                 reasons: {}",
                missing.join(", ")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, ServiceCommand};

    fn args(more: &[&str]) -> LogsArgs {
        let words = ["weft", "service", "logs"].iter().chain(more);
        match Cli::try_parse_from(words.chain(&["web"])).unwrap().command {
            Command::Service(ServiceCommand::Logs(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn task(id: &str, slot: u32) -> LogTask {
        LogTask {
            id: id.into(),
            service: "s".into(),
            service_name: "web".to_owned(),
            slot,
            node: "n".into(),
            node_name: "node1".to_owned(),
        }
    }

    /// How a line of the task in slot 1 looks, beside one in slot 12.
    fn seen(more: &[&str]) -> String {
        let args = args(more);
        let mut view = View::new(&args);
        let mut out = Printer::to(Box::new(Vec::<u8>::new()));
        for task in [task("000dtask0abcdefghijkl", 1), task("t12", 12)] {
            view.show(LogItem::Task(task), &mut out).unwrap();
        }
        view.line(&LogLine {
            task: "000dtask0abcdefghijkl".into(),
            stream: LogStream::Stdout,
            time: 1_767_366_245_250_000_000,
            line: "hello".to_owned(),
        })
    }

    #[test]
    fn lines_are_dockers() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "web.1.000dtask0abc@node1     | hello"),
            (&["--no-task-ids"], "web.1@node1     | hello"),
            (
                &["--no-trunc"],
                "web.1.000dtask0abcdefghijkl@node1     | hello",
            ),
            (&["--no-resolve"], "s.1.000dtask0abc@n     | hello"),
            (&["--raw"], "hello"),
            (&["--raw", "-t"], "2026-01-02T15:04:05.250000000Z hello"),
        ];
        for (flags, line) in cases {
            assert_eq!(seen(flags), line, "{flags:?}");
        }
    }

    #[test]
    fn questions_are_put_into_the_path() {
        let now = Timestamp::from_millisecond(1_000_000).unwrap();
        let path = |more: &[&str]| path(&args(more), now, &TimeZone::UTC).unwrap();
        assert_eq!(path(&[]), "/v1/services/web/logs");
        assert_eq!(path(&["-n", "all"]), "/v1/services/web/logs");
        assert_eq!(
            path(&["-f", "--since", "1s", "--tail", "7"]),
            "/v1/services/web/logs?follow=true&since=999000&tail=7"
        );
        assert!(Cli::try_parse_from(["weft", "service", "logs", "-n", "few", "web"]).is_err());
    }
}
