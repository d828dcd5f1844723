//! What tasks of this node have written, and write: for the manager that asks.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use weft_model::api::{LogItem, LogLine, LogStream, LogsQuery};
use weft_model::id::TaskId;
use weft_shim::lines::{Line, Lines};
use weft_swarm::Exchange;

use super::events::stopped;
use crate::blocking::blocking;
use crate::parts::handles::Handles;

/// Bytes of lines that are sent together.
const TOGETHER: usize = 32 << 10;
/// Between two looks at what a task has written since.
const LOOK: Duration = Duration::from_millis(100);
/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;
/// How long a task that the orders do not name may come yet: it has just been made.
const NEW: Duration = Duration::from_secs(10);
/// Last lines of a task that are held in memory at most.
const KEPT: usize = 1000;
/// Pieces that wait for the client.
const PIECES: usize = 4;

/// One task.
struct Source {
    task: TaskId,
    lines: Lines,
    /// Those that were asked for, of what there was at the beginning.
    tail: Option<VecDeque<Line>>,
    /// It writes nothing more.
    ended: bool,
}

impl Source {
    fn next_time(&mut self, all: bool) -> std::io::Result<Option<u64>> {
        if let Some(line) = self.tail.as_ref().and_then(VecDeque::front) {
            return Ok(Some(line.time));
        }
        self.lines.next_time(all || self.ended)
    }

    fn next(&mut self, all: bool) -> std::io::Result<Option<Line>> {
        if let Some(line) = self.tail.as_mut().and_then(VecDeque::pop_front) {
            return Ok(Some(line));
        }
        self.lines.next(all || self.ended)
    }

    /// Goes on with the last lines of what there is.
    fn keep_tail(&mut self, dir: &Path, count: u64, query: &LogsQuery) -> std::io::Result<()> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > KEPT {
            return self.skip_to_tail(dir, count, query);
        }
        let mut tail = VecDeque::new();
        while let Some(line) = self.lines.next(!query.follow)? {
            if is_asked_for(&line, query) && count > 0 {
                if tail.len() == count {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
        }
        self.tail = Some(tail);
        Ok(())
    }

    /// Reads twice what would take much memory: the first time to count.
    fn skip_to_tail(&mut self, dir: &Path, count: usize, query: &LogsQuery) -> std::io::Result<()> {
        let (mut counted, mut lines) = (0_usize, Lines::of(dir));
        while let Some(line) = lines.next(!query.follow)? {
            counted += usize::from(is_asked_for(&line, query));
        }
        let mut before = counted.saturating_sub(count);
        while before > 0
            && let Some(line) = self.lines.next(!query.follow)?
        {
            before -= usize::from(is_asked_for(&line, query));
        }
        Ok(())
    }
}

fn is_asked_for(line: &Line, query: &LogsQuery) -> bool {
    query
        .since
        .is_none_or(|since| line.time >= since.saturating_mul(NANOS))
}

/// The lines of several tasks, the oldest first.
struct Reader {
    handles: Arc<Handles>,
    sources: Vec<Source>,
    query: LogsQuery,
    since: Instant,
}

impl Reader {
    fn open(handles: Arc<Handles>, tasks: Vec<TaskId>, query: LogsQuery) -> anyhow::Result<Self> {
        let mut sources = Vec::new();
        for task in tasks {
            let dir: PathBuf = handles.runner.task_dir(&task)?;
            let mut source = Source {
                lines: Lines::of(&dir),
                ended: handles.runner.ended(&task)?.is_some(),
                tail: None,
                task,
            };
            if let Some(count) = query.tail {
                source.keep_tail(&dir, count, &query)?;
            }
            sources.push(source);
        }
        Ok(Self {
            handles,
            sources,
            query,
            since: Instant::now(),
        })
    }

    /// More lines; none when there are none at present.
    fn more(&mut self) -> anyhow::Result<Vec<u8>> {
        let all = !self.query.follow;
        let mut told = Vec::new();
        // Each is asked of the disk once, and again when a line of it is told: most have none left.
        let mut heads = BTreeSet::new();
        for (index, source) in self.sources.iter_mut().enumerate() {
            heads.extend(source.next_time(all)?.map(|time| (time, index)));
        }
        while told.len() < TOGETHER
            && let Some((_, index)) = heads.pop_first()
        {
            let source = &mut self.sources[index];
            if let Some(line) = source.next(all)?
                && is_asked_for(&line, &self.query)
            {
                add(&mut told, &item(&source.task, &line))?;
            }
            heads.extend(source.next_time(all)?.map(|time| (time, index)));
        }
        Ok(told)
    }

    /// Forgets tasks that had ended before all that they wrote was read; true when there are others.
    fn are_left(&mut self) -> anyhow::Result<bool> {
        self.sources.retain(|source| !source.ended);
        for source in &mut self.sources {
            // What it wrote before that is read once more.
            source.ended = is_over(&self.handles, &source.task, self.since.elapsed())?;
        }
        Ok(!self.sources.is_empty())
    }
}

/// Whether a task writes nothing more: it has ended, or there is nothing of it and nobody wants it here.
fn is_over(handles: &Handles, task: &TaskId, asked_for: Duration) -> anyhow::Result<bool> {
    if handles.runner.ended(task)?.is_some() {
        return Ok(true);
    }
    if asked_for < NEW || handles.runner.task_dir(task)?.exists() {
        return Ok(false);
    }
    let orders = handles.session.assignments().borrow().clone();
    let mut tasks = orders.iter().flat_map(|orders| &orders.own.tasks);
    Ok(!tasks.any(|known| known.id == *task && !known.status.state.is_terminal()))
}

fn item(task: &TaskId, line: &Line) -> LogItem {
    LogItem::Line(LogLine {
        task: task.clone(),
        stream: if line.stream == 0 {
            LogStream::Stdout
        } else {
            LogStream::Stderr
        },
        time: line.time,
        line: String::from_utf8_lossy(&line.text).into_owned(),
    })
}

fn add(lines: &mut Vec<u8>, item: &LogItem) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *lines, item)?;
    lines.push(b'\n');
    Ok(())
}

/// Answers until all is told, and with `follow` until the tasks have ended, or nobody listens.
pub(crate) async fn answer(
    handles: Arc<Handles>,
    tasks: Vec<TaskId>,
    query: LogsQuery,
    mut exchange: Exchange,
) {
    let out = exchange.outgoing.clone();
    let told = tokio::select! {
        told = tell(handles, tasks, query, &out) => told,
        // Whoever asked says nothing, and is gone when that ends.
        _ = exchange.incoming.recv() => return,
    };
    if let Err(error) = told {
        let why = LogItem::Incomplete(format!("{error:#}"));
        let mut line = Vec::new();
        if add(&mut line, &why).is_ok() {
            drop(out.send(line.into()).await);
        }
    }
    drop(out);
    exchange.finish().await;
}

/// What the swarm tells, for a client of the node API.
pub(crate) fn stream(
    mut exchange: Exchange,
    mut stopping: watch::Receiver<bool>,
) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        loop {
            let said = tokio::select! {
                said = exchange.incoming.recv() => said,
                () = sender.closed() => return,
                () = stopped(&mut stopping) => return,
            };
            let piece = match said {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    let mut line = Vec::new();
                    if add(&mut line, &LogItem::Incomplete(error.message)).is_err() {
                        return;
                    }
                    line.into()
                }
                None => return,
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn tell(
    handles: Arc<Handles>,
    tasks: Vec<TaskId>,
    query: LogsQuery,
    out: &mpsc::Sender<Bytes>,
) -> anyhow::Result<()> {
    let mut reader = blocking(move || Reader::open(handles, tasks, query)).await??;
    let mut caught_up = false;
    loop {
        let (read, told) = blocking(move || {
            let told = reader.more();
            (reader, told)
        })
        .await?;
        reader = read;
        let told = told?;
        if !told.is_empty() {
            out.send(told.into()).await?;
            continue;
        }
        if !caught_up {
            caught_up = true;
            let mut line = Vec::new();
            add(&mut line, &LogItem::CaughtUp)?;
            out.send(line.into()).await?;
        }
        if !query.follow {
            return Ok(());
        }
        let (read, left) = blocking(move || {
            let left = reader.are_left();
            (reader, left)
        })
        .await?;
        reader = read;
        if !left? {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_the_same_however_many() {
        let dir = tempfile::tempdir().expect("dir");
        let text: String = (0..5000).map(|n| format!("{n}\n")).collect();
        let [stdout, _] = weft_shim::output::NAMES;
        std::fs::write(dir.path().join(stdout), text).expect("output");
        for follow in [false, true] {
            for count in [0, 1, KEPT, KEPT + 1, 4999, 9000] {
                let mut source = Source {
                    task: "t1".into(),
                    lines: Lines::of(dir.path()),
                    tail: None,
                    ended: false,
                };
                let query = LogsQuery {
                    follow,
                    ..LogsQuery::default()
                };
                let asked = source.keep_tail(dir.path(), count as u64, &query);
                asked.expect("read");
                let mut told = Vec::new();
                while let Some(line) = source.next(!follow).expect("read") {
                    told.push(String::from_utf8(line.text).expect("text"));
                }
                let first = 5000_usize.saturating_sub(count);
                let last: Vec<String> = (first..5000).map(|n| n.to_string()).collect();
                assert_eq!(told, last, "{count}");
            }
        }
    }
}
