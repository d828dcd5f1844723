//! `weft events`: what the manager of this node tells, as lines of JSON.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use weft_model::api::{Event, EventsQuery};
use weft_swarm::{EventBatch, EventReader};
use weft_sys::clock::unix_ms;

/// Pieces of the stream that wait for the client. After that it is the manager who remembers.
const PIECES: usize = 4;

/// Streams events until the moment that was asked for, the client goes away, or manager or node stop.
pub(crate) fn stream(
    reader: EventReader,
    query: EventsQuery,
    mut stopping: watch::Receiver<bool>,
) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        tokio::select! {
            () = pump(reader, query.until, &sender) => {}
            () = sender.closed() => {}
            () = stopped(&mut stopping) => {}
        }
    });
    receiver
}

/// Waits until the node stops.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

async fn pump(mut reader: EventReader, until: Option<u64>, sender: &mpsc::Sender<Bytes>) {
    loop {
        let next = match until {
            Some(until) => {
                let left = Duration::from_millis(until.saturating_sub(unix_ms()));
                // What is there already is read also when the time is over.
                let next = tokio::time::timeout(left, reader.next()).await;
                next.unwrap_or_default()
            }
            None => reader.next().await,
        };
        let Some(batch) = next else {
            return;
        };
        let lines = lines(&batch, until, unix_ms());
        if !lines.is_empty() && sender.send(lines.into()).await.is_err() {
            return;
        }
    }
}

fn lines(batch: &EventBatch, until: Option<u64>, now: u64) -> Vec<u8> {
    let missed = (batch.missed > 0).then(|| Event::missed(batch.missed, now));
    let events = batch.events.iter().map(|event| &**event);
    let events = events.filter(|event| until.is_none_or(|until| event.at_ms() <= until));
    let mut lines = Vec::new();
    for event in missed.iter().chain(events) {
        match serde_json::to_vec(event) {
            Ok(line) => {
                lines.extend(line);
                lines.push(b'\n');
            }
            Err(error) => tracing::error!(%error, "an event cannot be written"),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_model::api::{EventAction, EventActor, EventKind};

    use super::*;

    #[test]
    fn a_line_for_each_event_and_one_for_what_was_missed() {
        let event = |at_ms| {
            let actor = EventActor {
                id: "n1".to_owned(),
                ..EventActor::default()
            };
            Arc::new(Event::new(
                EventKind::Node,
                EventAction::Update,
                actor,
                at_ms,
            ))
        };
        let batch = EventBatch {
            missed: 3,
            events: vec![event(1_000), event(2_500)],
        };
        let text = |until| String::from_utf8(lines(&batch, until, 9_000)).unwrap();
        let missed = r#"{"Type":"stream","Action":"missed","Actor":{"ID":"","Attributes":{"count":"3"}},"scope":"swarm","time":9,"timeNano":9000000000}"#;
        let line = |time, nano: u64| {
            format!(
                r#"{{"Type":"node","Action":"update","Actor":{{"ID":"n1","Attributes":{{}}}},"scope":"swarm","time":{time},"timeNano":{nano}}}"#
            )
        };
        let (first, second) = (line(1, 1_000_000_000), line(2, 2_500_000_000));
        assert_eq!(text(None), format!("{missed}\n{first}\n{second}\n"));
        assert_eq!(text(Some(1_000)), format!("{missed}\n{first}\n"));
    }
}
