//! `weft events`: what changes in the swarm, a line for each (docker/cli `cli/command/system/events.go`).

use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use weft_client::Client;
use weft_model::api::{Event, EventAction, EventKind};

use crate::args::{EventsArgs, FormatArgs, parse_moment};
use crate::output::{Listing, Printer, complain, shown};

/// Keys of `--filter`.
const KEYS: [&str; 9] = [
    "type", "event", "scope", "node", "network", "service", "task", "secret", "config",
];

pub(super) async fn run(
    client: &Client,
    args: &EventsArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    check_filters(&args.filter.filters)?;
    let form = Form::of(args.format.as_deref())?;
    let zone = TimeZone::system();
    let path = path(args, Timestamp::now(), &zone)?;
    let mut answer = client.stream(&path).await?;
    let mut lines = Lines::default();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let piece = tokio::select! {
            piece = answer.next() => piece?,
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        };
        let ended = piece.is_none();
        let events = match piece {
            Some(piece) => lines.add(&piece)?,
            None => lines.end()?,
        };
        for event in events {
            show(&event, args, &form, &zone, out)?;
        }
        out.flush()?;
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn path(args: &EventsArgs, now: Timestamp, zone: &TimeZone) -> anyhow::Result<String> {
    let mut query = Vec::new();
    for (name, text) in [("since", &args.since), ("until", &args.until)] {
        if let Some(text) = text {
            let ms = parse_moment(text, now, zone).map_err(anyhow::Error::msg)?;
            query.push(format!("{name}={ms}"));
        }
    }
    Ok(match query.as_slice() {
        [] => "/v1/events".to_owned(),
        query => format!("/v1/events?{}", query.join("&")),
    })
}

/// How an event is written.
enum Form {
    /// Docker's line.
    Line,
    /// As the node sent it.
    Json,
    /// By a Go template.
    Template(String),
}

impl Form {
    fn of(format: Option<&str>) -> anyhow::Result<Self> {
        match format {
            None | Some("") => Ok(Self::Line),
            Some("json" | "{{json .}}") => Ok(Self::Json),
            Some(format) if format.starts_with("table") => bail!(
                "a stream is no table: give json, or a Go template such as '{{{{.Type}}}} {{{{.Action}}}}'"
            ),
            Some(template) => Ok(Self::Template(template.to_owned())),
        }
    }
}

fn show(
    event: &Event,
    args: &EventsArgs,
    form: &Form,
    zone: &TimeZone,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let missed = event.action == EventAction::Missed;
    if !missed && !is_asked_for(event, &args.filter.filters) {
        return Ok(());
    }
    match form {
        Form::Line if missed => {
            let count = event.actor.attributes.get("count");
            let count = count.map_or("some", String::as_str);
            complain(&format!(
                "weft: {count} events are missing here: they came faster than they were read"
            ));
        }
        Form::Line => out.line(&line(event, zone))?,
        Form::Json => row(serde_json::to_value(event)?, "json", out)?,
        Form::Template(template) => row(fields(event)?, template, out)?,
    }
    Ok(())
}

fn row(event: Value, format: &str, out: &mut Printer) -> anyhow::Result<()> {
    let mut listing = Listing::new(&[], "", "ID");
    listing.push(event);
    let format = FormatArgs {
        format: Some(format.to_owned()),
        quiet: false,
    };
    out.listing(&listing, &format)
}

/// Go's names of the fields beside those of JSON.
fn fields(event: &Event) -> anyhow::Result<Value> {
    let mut fields = serde_json::to_value(event)?;
    fields["ID"] = json!(event.actor.id);
    fields["Scope"] = json!(event.scope);
    fields["Time"] = json!(event.time);
    fields["TimeNano"] = json!(event.time_nano);
    Ok(fields)
}

fn name<T: serde::Serialize>(word: T) -> String {
    match serde_json::to_value(word) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// `TIME TYPE ACTION ID (KEY=VALUE, …)`
fn line(event: &Event, zone: &TimeZone) -> String {
    let ms = i64::try_from(event.at_ms()).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    let offset = zone.to_offset(time);
    let time = if offset == Offset::UTC {
        format!("{time:.9}")
    } else {
        format!("{:.9}", time.display_with_offset(offset))
    };
    let (kind, action) = (name(event.kind), name(event.action));
    let attributes = event.actor.attributes.iter();
    let attributes: Vec<String> = attributes
        .map(|(key, value)| format!("{}={}", shown(key), shown(value)))
        .collect();
    let about = match attributes.join(", ") {
        none if none.is_empty() => String::new(),
        some => format!(" ({some})"),
    };
    format!("{time} {kind} {action} {}{about}", shown(&event.actor.id))
}

fn check_filters(filters: &[(String, String)]) -> anyhow::Result<()> {
    match filters
        .iter()
        .find(|(key, _)| !KEYS.contains(&key.as_str()))
    {
        Some((key, _)) => bail!("invalid filter '{key}': there is {}", KEYS.join(", ")),
        None => Ok(()),
    }
}

/// Any of the values of one key, and so of each key. An object is named by its name or the start of
/// its id; a task also belongs to its service and its node.
fn is_asked_for(event: &Event, filters: &[(String, String)]) -> bool {
    let has = |key: &str, value: &str| {
        let found = event.actor.attributes.get(key);
        found.is_some_and(|found| found == value)
    };
    let itself = |value: &str| event.actor.id.starts_with(value) || has("name", value);
    let is = |key: &str, value: &str| match key {
        "type" => name(event.kind) == value,
        "event" => name(event.action) == value,
        "scope" => name(event.scope) == value,
        "node" => match event.kind {
            EventKind::Node => itself(value),
            _ => has("node", value),
        },
        "service" => match event.kind {
            EventKind::Service => itself(value),
            _ => has("service", value),
        },
        "network" => event.kind == EventKind::Network && itself(value),
        "task" => event.kind == EventKind::Task && itself(value),
        "secret" => event.kind == EventKind::Secret && itself(value),
        "config" => event.kind == EventKind::Config && itself(value),
        _ => false,
    };
    KEYS.iter().all(|key| {
        let mut values = filters.iter().filter(|(k, _)| k == key).peekable();
        values.peek().is_none() || values.any(|(key, value)| is(key, value))
    })
}

/// Lines of a stream, whose pieces end anywhere.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The events whose lines are whole now.
    fn add(&mut self, piece: &[u8]) -> anyhow::Result<Vec<Event>> {
        self.0.extend_from_slice(piece);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        let lines = whole.split(|byte| *byte == b'\n');
        lines.map(read).filter_map(Result::transpose).collect()
    }

    /// What stands behind the last line end.
    fn end(&mut self) -> anyhow::Result<Vec<Event>> {
        let event = read(&std::mem::take(&mut self.0))?;
        Ok(event.into_iter().collect())
    }
}

fn read(line: &[u8]) -> anyhow::Result<Option<Event>> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let event = serde_json::from_slice(line);
    let event = event.context(
        "weftd sent an event of an unexpected form: are weft and weftd of the same version?",
    )?;
    Ok(Some(event))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_model::api::EventActor;

    use super::*;

    fn event(kind: EventKind, action: EventAction, id: &str, said: &[(&str, &str)]) -> Event {
        let said = said.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let actor = EventActor {
            id: id.to_owned(),
            attributes: said.collect::<BTreeMap<_, _>>(),
        };
        Event::new(kind, action, actor, 1_767_366_245_250)
    }

    fn drained() -> Event {
        let said = [
            ("name", "node1"),
            ("availability.new", "drain"),
            ("availability.old", "active"),
        ];
        event(EventKind::Node, EventAction::Update, "abc", &said)
    }

    #[test]
    fn lines_are_dockers() {
        assert_eq!(
            line(&drained(), &TimeZone::UTC),
            "2026-01-02T15:04:05.250000000Z node update abc (availability.new=drain, \
             availability.old=active, name=node1)"
        );
        let east = TimeZone::fixed(Offset::constant(2));
        let bare = event(EventKind::Task, EventAction::Remove, "t1", &[]);
        assert_eq!(
            line(&bare, &east),
            "2026-01-02T17:04:05.250000000+02:00 task remove t1"
        );
        let hostile = event(
            EventKind::Node,
            EventAction::Create,
            "n",
            &[("name", "a\nb")],
        );
        assert_eq!(line(&hostile, &TimeZone::UTC).lines().count(), 1);
    }

    #[test]
    fn filters_are_dockers() {
        let said = [("name", "web.1.t1"), ("service", "web"), ("node", "abc")];
        let task = event(EventKind::Task, EventAction::Create, "t1", &said);
        let node = drained();
        let kept = |filters: &[(&str, &str)]| {
            let filters: Vec<(String, String)> = filters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            check_filters(&filters).unwrap();
            [&node, &task].map(|event| is_asked_for(event, &filters))
        };
        assert_eq!(kept(&[]), [true, true]);
        assert_eq!(kept(&[("type", "node")]), [true, false]);
        assert_eq!(kept(&[("type", "node"), ("type", "task")]), [true, true]);
        assert_eq!(kept(&[("type", "node"), ("event", "create")]), [false; 2]);
        assert_eq!(kept(&[("node", "abc")]), [true, true]);
        assert_eq!(kept(&[("node", "node1")]), [true, false]);
        assert_eq!(kept(&[("service", "web")]), [false, true]);
        assert_eq!(kept(&[("task", "t"), ("scope", "swarm")]), [false, true]);
        let said = [("name", "app.conf")];
        let config = event(EventKind::Config, EventAction::Create, "c1", &said);
        let is =
            |key: &str, value: &str| is_asked_for(&config, &[(key.to_owned(), value.to_owned())]);
        assert!(is("config", "app.conf") && is("config", "c") && is("type", "config"));
        assert!(!is("secret", "app.conf") && !is("config", "app") && !is("type", "secret"));
        let unknown = [("image".to_owned(), "x".to_owned())];
        let error = check_filters(&unknown).unwrap_err().to_string();
        assert!(error.starts_with("invalid filter 'image': there is type, event"));
    }

    #[test]
    fn pieces_end_anywhere() {
        let text = format!("{}\n", serde_json::to_string(&drained()).unwrap()).repeat(3);
        for length in [1, 7, 100, text.len()] {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(length) {
                found.extend(lines.add(piece).unwrap());
            }
            found.extend(lines.end().unwrap());
            assert_eq!(found, [drained(), drained(), drained()], "{length}");
        }
        let mut lines = Lines::default();
        assert!(lines.add(b"{}\n").is_err());
        assert_eq!(lines.add(b"{").unwrap(), []);
        assert!(lines.end().is_err(), "it was cut off");
    }
}
