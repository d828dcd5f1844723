//! Output of tasks, wherever they are: each node is asked for its own, and what it has is told in the
//! order of time. With `follow` the answer goes on in the order in which lines arrive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use weft_cluster::{ClusterState, CommandError, ErrorKind, Leadership};
use weft_model::api::{LogItem, LogTask, LogsQuery};
use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::{Task, TaskState};
use weft_model::talk::Question;

use super::engine::{Engine, stopped};
use crate::exchange::Exchange;

/// Bytes of lines that go out together.
const TOGETHER: usize = 32 << 10;
/// Bytes that a node may send without a line end: a longest line, escaped.
const MAX_ITEM: usize = 256 << 10;

/// Why what is followed ends.
const NOT_LED: &str = "another manager leads the swarm now; give the command again";

/// Tasks that are named where a node does not answer.
const SHOWN: usize = 5;

/// Whose output.
#[derive(Debug, Clone)]
enum Of {
    Service(ServiceId),
    Task(TaskId),
}

impl Of {
    fn find(state: &ClusterState, reference: &str) -> Result<Self, CommandError> {
        match state.find_service(reference) {
            Ok(service) => return Ok(Self::Service(service.id.clone())),
            Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        match state.find_task(reference) {
            Ok(task) => Ok(Self::Task(task.id.clone())),
            Err(error) if error.kind == ErrorKind::NotFound => Err(CommandError::not_found(
                format!("no such task or service: {reference}"),
            )),
            Err(error) => Err(error),
        }
    }

    fn tasks<'a>(&self, state: &'a ClusterState) -> Vec<&'a Task> {
        match self {
            Self::Service(id) => state.tasks_of(id).collect(),
            Self::Task(id) => state.tasks.get(id).into_iter().collect(),
        }
    }

    /// Whether there may be more of it later.
    fn lasts(&self, state: &ClusterState) -> bool {
        match self {
            Self::Service(id) => state.services.contains_key(id),
            Self::Task(id) => state.tasks.get(id).is_some_and(|task| task.node.is_none()),
        }
    }
}

/// Begins to tell. The other end of what is returned is read by nobody.
pub(super) fn begin(
    core: &Arc<Engine>,
    reference: &str,
    query: LogsQuery,
) -> Result<Exchange, CommandError> {
    let of = Of::find(&core.state(), reference)?;
    let (user, here) = Exchange::pair();
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let mut stop = core.stop.subscribe();
        let mut leadership = core.store.leadership();
        let mut telling = Telling {
            core: &core,
            of,
            query,
            told: BTreeSet::new(),
            rejected: BTreeSet::new(),
            to: here.outgoing.clone(),
        };
        tokio::select! {
            _ = telling.tell() => {}
            () = here.outgoing.closed() => {}
            () = stopped(&mut stop) => {}
            // Nodes have their sessions with another one then.
            () = lost(&mut leadership) => {
                let why = LogItem::Incomplete(NOT_LED.to_owned());
                if say(vec![why], &here.outgoing).await.is_err() {
                    tracing::debug!("nobody hears why the output ends");
                }
            }
        }
    });
    Ok(user)
}

/// Until this manager leads no more.
async fn lost(leadership: &mut watch::Receiver<Leadership>) {
    drop(leadership.wait_for(|leadership| !leadership.leads()).await);
}

/// Nobody reads any more.
struct Gone;

struct Telling<'a> {
    core: &'a Arc<Engine>,
    of: Of,
    query: LogsQuery,
    /// Tasks that were asked for.
    told: BTreeSet<TaskId>,
    /// Those of which it is said that they did not run.
    rejected: BTreeSet<TaskId>,
    to: mpsc::Sender<Bytes>,
}

impl Telling<'_> {
    async fn tell(&mut self) -> Result<(), Gone> {
        let mut states = self.core.store.subscribe();
        let (mut sources, mut missing) = self.ask_for_new(self.query, true).await?;
        missing.extend(self.rejected());
        merge(&mut sources, &self.to).await?;
        let mut rest: Vec<_> = missing.into_iter().map(LogItem::Incomplete).collect();
        rest.push(LogItem::CaughtUp);
        say(rest, &self.to).await?;
        if !self.query.follow {
            return Ok(());
        }
        let mut followed = JoinSet::new();
        follow(&mut followed, sources, &self.to);
        loop {
            let rejected = self.rejected().into_iter().map(LogItem::Incomplete);
            say(rejected.collect(), &self.to).await?;
            if followed.is_empty() && !self.of.lasts(&self.core.state()) {
                return Ok(());
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return Ok(()) },
                Some(_) = followed.join_next() => continue,
            }
            let later = LogsQuery {
                follow: true,
                ..LogsQuery::default()
            };
            let (sources, missing) = self.ask_for_new(later, false).await?;
            let missing = missing.into_iter().map(LogItem::Incomplete).collect();
            say(missing, &self.to).await?;
            follow(&mut followed, sources, &self.to);
        }
    }

    /// Tasks that were rejected since the last time: most have written nothing, and nobody else says why.
    fn rejected(&mut self) -> Vec<String> {
        let state = self.core.state();
        let mut by_cause: BTreeMap<&str, Vec<TaskId>> = BTreeMap::new();
        for task in self.of.tasks(&state) {
            let rejected = task.status.state == TaskState::Rejected;
            if rejected && self.rejected.insert(task.id.clone()) {
                let tasks = by_cause.entry(&task.status.err).or_default();
                tasks.push(task.id.clone());
            }
        }
        let said = by_cause.into_iter().map(|(cause, tasks)| {
            let (noun, verb) = match tasks.len() {
                1 => ("task", "was"),
                _ => ("tasks", "were"),
            };
            format!("{noun} {} {verb} rejected: {cause}", listed(&tasks))
        });
        said.collect()
    }

    /// Asks the nodes of tasks that were not asked for yet, and names those tasks. Tells what it did not
    /// get; of tasks without a node only when it is the first time.
    async fn ask_for_new(
        &mut self,
        query: LogsQuery,
        first: bool,
    ) -> Result<(Vec<Source>, Vec<String>), Gone> {
        let state = self.core.state();
        let (mut named, mut missing) = (Vec::new(), Vec::new());
        let mut on: BTreeMap<NodeId, Vec<TaskId>> = BTreeMap::new();
        for task in self.of.tasks(&state) {
            let Some(node) = &task.node else {
                if first {
                    missing.push(format!("task {} has not been scheduled", task.id));
                }
                continue;
            };
            if self.told.contains(&task.id) {
                continue;
            }
            self.told.insert(task.id.clone());
            named.push(LogItem::Task(named_task(&state, task, node)));
            on.entry(node.clone()).or_default().push(task.id.clone());
        }
        say(named, &self.to).await?;
        let mut asked = JoinSet::new();
        for (node, tasks) in on {
            let core = Arc::clone(self.core);
            let name = node_name(&state, &node);
            asked.spawn(async move {
                let question = Question::Logs {
                    tasks: tasks.clone(),
                    query,
                };
                match core.questions.ask(&node, &question).await {
                    Ok(exchange) => Ok(Source::new(exchange, tasks)),
                    Err(error) => Err(not_told(&name, &tasks, &error.message)),
                }
            });
        }
        let mut sources = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(source)) => sources.push(source),
                Ok(Err(why)) => missing.push(why),
                Err(error) => missing.push(format!("a defect of weftd: {error}")),
            }
        }
        Ok((sources, missing))
    }
}

/// What is followed goes to the reader as it comes.
fn follow(
    followed: &mut JoinSet<Result<(), Gone>>,
    sources: Vec<Source>,
    to: &mpsc::Sender<Bytes>,
) {
    for source in sources {
        followed.spawn(source.follow(to.clone()));
    }
}

fn node_name(state: &ClusterState, node: &NodeId) -> String {
    let known = state.nodes.get(node);
    known.map_or_else(|| node.to_string(), |n| n.description.hostname.clone())
}

fn named_task(state: &ClusterState, task: &Task, node: &NodeId) -> LogTask {
    LogTask {
        id: task.id.clone(),
        service: task.service.clone(),
        service_name: task.service_name.clone(),
        slot: task.slot,
        node: node.clone(),
        node_name: node_name(state, node),
    }
}

fn not_told(node: &str, tasks: &[TaskId], why: &str) -> String {
    format!("node {node} has the output of {}: {why}", listed(tasks))
}

/// The first ones, and how many there are besides.
fn listed(tasks: &[TaskId]) -> String {
    let some: Vec<&str> = tasks.iter().take(SHOWN).map(TaskId::as_str).collect();
    let more = match tasks.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", some.join(", "))
}

/// In pieces that connections take.
async fn say(items: Vec<LogItem>, to: &mpsc::Sender<Bytes>) -> Result<(), Gone> {
    let mut told = Vec::new();
    for item in items {
        add(&mut told, &item);
        if told.len() >= TOGETHER {
            let piece = std::mem::take(&mut told);
            to.send(piece.into()).await.map_err(|_| Gone)?;
        }
    }
    if told.is_empty() {
        return Ok(());
    }
    to.send(told.into()).await.map_err(|_| Gone)
}

fn add(lines: &mut Vec<u8>, item: &LogItem) {
    match serde_json::to_vec(item) {
        Ok(line) => {
            lines.extend(line);
            lines.push(b'\n');
        }
        Err(error) => tracing::error!(%error, "a line of output cannot be written"),
    }
}

/// What one node says.
struct Source {
    exchange: Exchange,
    /// Those that it was asked for: of others it has nothing to say.
    tasks: BTreeSet<TaskId>,
    /// A line that has no end yet.
    rest: Vec<u8>,
    items: VecDeque<LogItem>,
    caught_up: bool,
}

impl Source {
    fn new(exchange: Exchange, tasks: impl IntoIterator<Item = TaskId>) -> Self {
        Self {
            exchange,
            tasks: tasks.into_iter().collect(),
            rest: Vec::new(),
            items: VecDeque::new(),
            caught_up: false,
        }
    }

    /// More of what it says; false when that was all.
    async fn more(&mut self) -> bool {
        let piece = match self.exchange.incoming.recv().await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                self.items.push_back(LogItem::Incomplete(error.message));
                return false;
            }
            None => return false,
        };
        self.rest.extend_from_slice(&piece);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return self.rest.len() <= MAX_ITEM;
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        for line in whole.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(LogItem::Line(line)) if !self.tasks.contains(&line.task) => {
                    tracing::warn!(task = %line.task, "a node tells of a task that is not its own");
                }
                Ok(item) => self.items.push_back(item),
                Err(error) => tracing::warn!(%error, "a node sent a damaged line of output"),
            }
        }
        true
    }

    /// Until there is a line at hand, or no more of what there was when it was asked.
    async fn head(&mut self) -> Option<u64> {
        while !self.caught_up {
            match self.items.front() {
                Some(LogItem::Line(line)) => return Some(line.time),
                Some(LogItem::Incomplete(_)) => return Some(0),
                Some(LogItem::CaughtUp) => {
                    self.caught_up = true;
                    self.items.pop_front();
                }
                // A node names none.
                Some(LogItem::Task(_)) => drop(self.items.pop_front()),
                None => self.caught_up = !self.more().await && self.items.is_empty(),
            }
        }
        None
    }

    /// Passes on what it says from now on.
    async fn follow(mut self, to: mpsc::Sender<Bytes>) -> Result<(), Gone> {
        loop {
            let mut items = std::mem::take(&mut self.items);
            items.retain(|item| matches!(item, LogItem::Line(_) | LogItem::Incomplete(_)));
            say(items.into(), &to).await?;
            if !self.more().await && self.items.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Tells what nodes have, the oldest line first.
async fn merge(sources: &mut [Source], to: &mpsc::Sender<Bytes>) -> Result<(), Gone> {
    let mut told = Vec::new();
    loop {
        let mut oldest: Option<(u64, usize)> = None;
        for (index, source) in sources.iter_mut().enumerate() {
            if let Some(time) = source.head().await
                && oldest.is_none_or(|(least, _)| time < least)
            {
                oldest = Some((time, index));
            }
        }
        let Some((_, index)) = oldest else { break };
        if let Some(item) = sources[index].items.pop_front() {
            add(&mut told, &item);
        }
        if told.len() >= TOGETHER {
            let piece = std::mem::take(&mut told);
            to.send(piece.into()).await.map_err(|_| Gone)?;
        }
    }
    if told.is_empty() {
        return Ok(());
    }
    to.send(told.into()).await.map_err(|_| Gone)
}

#[cfg(test)]
mod tests {
    use weft_model::api::{LogLine, LogStream};

    use super::*;

    fn line(task: &str, time: u64) -> LogItem {
        LogItem::Line(LogLine {
            task: task.into(),
            stream: LogStream::Stdout,
            time,
            line: format!("{task} {time}"),
        })
    }

    fn lines(items: &[LogItem]) -> Bytes {
        let mut lines = Vec::new();
        items.iter().for_each(|item| add(&mut lines, item));
        lines.into()
    }

    /// A node that says this, in pieces of so many bytes.
    fn node(items: &[LogItem], piece: usize) -> Source {
        let (here, far) = Exchange::pair();
        let said = lines(items);
        tokio::spawn(async move {
            for piece in said.chunks(piece) {
                far.outgoing
                    .send(Bytes::copy_from_slice(piece))
                    .await
                    .unwrap();
            }
        });
        Source::new(here, ["a", "b"].map(TaskId::from))
    }

    async fn told(mut read: mpsc::Receiver<Bytes>) -> Vec<LogItem> {
        let mut text = Vec::new();
        while let Some(piece) = read.recv().await {
            text.extend_from_slice(&piece);
        }
        let lines = text.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
        lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_nodes_have_is_told_in_the_order_of_time() {
        for piece in [1, 7, 10_000] {
            let a = [line("a", 1), line("a", 4), LogItem::CaughtUp, line("a", 9)];
            let b = [line("b", 2), line("b", 3), line("b", 5)];
            let mut sources = [node(&a, piece), node(&b, piece)];
            let (to, read) = mpsc::channel(100);
            assert!(merge(&mut sources, &to).await.is_ok());
            drop(to);
            let expected =
                [1, 2, 3, 4, 5].map(|t| line(if [1, 4].contains(&t) { "a" } else { "b" }, t));
            assert_eq!(told(read).await, expected, "{piece}");
            // What came later is for who follows.
            let [a, _] = sources;
            let (to, read) = mpsc::channel(100);
            assert!(a.follow(to).await.is_ok());
            assert_eq!(told(read).await, [line("a", 9)]);
        }
    }

    #[tokio::test]
    async fn a_node_speaks_for_its_own_tasks_alone() {
        let forged = [line("a", 1), line("c", 2), line("b", 3)];
        let mut sources = [node(&forged, 100)];
        let (to, read) = mpsc::channel(100);
        assert!(merge(&mut sources, &to).await.is_ok());
        drop(to);
        assert_eq!(told(read).await, [line("a", 1), line("b", 3)]);
    }

    #[tokio::test]
    async fn a_damaged_line_costs_that_line() {
        let (here, far) = Exchange::pair();
        let mut sources = [Source::new(here, [TaskId::from("a")])];
        far.outgoing.send("{\n".into()).await.unwrap();
        far.outgoing.send(lines(&[line("a", 1)])).await.unwrap();
        drop(far);
        let (to, read) = mpsc::channel(100);
        assert!(merge(&mut sources, &to).await.is_ok());
        drop(to);
        assert_eq!(told(read).await, [line("a", 1)]);
    }
}
