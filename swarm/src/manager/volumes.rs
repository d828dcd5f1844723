//! Volumes are the nodes' own: the manager that leads asks them, all at once, and tells what each has
//! answered, or why it has not.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_cluster::{CommandError, ErrorKind};
use weft_model::api::{VolumeAnswer, VolumeAsk, VolumeRefusal};
use weft_model::id::NodeId;
use weft_model::talk::Question;

use super::engine::{Engine, stopped};
use crate::exchange::Exchange;

/// Until a node has answered as a whole: it may have to remove much.
const PATIENCE: Duration = Duration::from_secs(50);
/// Bytes of one node's answer at most.
const MAX_ANSWER: usize = 8 << 20;
/// Bytes that are told together.
const TOGETHER: usize = 64 << 10;

/// Begins to ask one node, or all: a line with the number of answers, and one for each, by the names of
/// nodes. What is returned is the user's end.
pub(super) fn begin(
    core: &Arc<Engine>,
    node: Option<&str>,
    asked: &VolumeAsk,
) -> Result<Exchange, CommandError> {
    let state = core.state();
    let mut nodes: Vec<(String, NodeId)> = match node {
        Some(reference) => vec![state.find_node(reference)?],
        None => state.nodes.values().collect(),
    }
    .into_iter()
    .map(|node| (node.description.hostname.clone(), node.id.clone()))
    .collect();
    nodes.sort();
    let (user, here) = Exchange::pair();
    let (core, asked) = (Arc::clone(core), asked.clone());
    tokio::spawn(async move {
        let mut stop = core.stop.subscribe();
        let told = tokio::select! {
            () = tell(&core, nodes, asked, &here.outgoing) => true,
            () = here.outgoing.closed() => false,
            () = stopped(&mut stop) => false,
        };
        if told {
            here.finish().await;
        }
    });
    Ok(user)
}

async fn tell(
    core: &Arc<Engine>,
    nodes: Vec<(String, NodeId)>,
    asked: VolumeAsk,
    to: &mpsc::Sender<Bytes>,
) {
    let mut asking = JoinSet::new();
    for (at, (name, node)) in nodes.into_iter().enumerate() {
        let (core, asked) = (Arc::clone(core), asked.clone());
        asking.spawn(async move { (at, answer_of(&core, &node, name, asked).await) });
    }
    let mut answers = Vec::new();
    while let Some(answered) = asking.join_next().await {
        match answered {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                tracing::warn!(%error, "a node was not asked about its volumes");
                return;
            }
        }
    }
    answers.sort_by_key(|(at, _)| *at);
    let mut text = format!("{}\n", answers.len()).into_bytes();
    for (_, answer) in answers {
        if let Err(error) = serde_json::to_writer(&mut text, &answer) {
            tracing::warn!(%error, "an answer about volumes cannot be written");
            return;
        }
        text.push(b'\n');
    }
    let text = Bytes::from(text);
    for start in (0..text.len()).step_by(TOGETHER) {
        let piece = text.slice(start..text.len().min(start + TOGETHER));
        if to.send(piece).await.is_err() {
            return;
        }
    }
}

/// What one node answers, in its name: that it would be another one counts for nothing.
async fn answer_of(core: &Engine, node: &NodeId, name: String, asked: VolumeAsk) -> VolumeAnswer {
    let answered = timeout(PATIENCE, hear(core, node, asked)).await;
    let answered = answered.unwrap_or_else(|_| {
        Err(CommandError::unavailable(format!(
            "it did not answer within {} seconds; it may still do what was asked",
            PATIENCE.as_secs()
        )))
    });
    let mut answer = answered.unwrap_or_else(|error| VolumeAnswer {
        refused: Some(VolumeRefusal {
            status: status(error.kind),
            message: format!("node {name}: {}", error.message),
        }),
        ..VolumeAnswer::default()
    });
    for volume in &mut answer.volumes {
        volume.node.clone_from(&name);
    }
    answer.node = name;
    answer
}

fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::BadRequest => 400,
        ErrorKind::Forbidden => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::Conflict => 409,
        ErrorKind::Unavailable | ErrorKind::NotLed => 503,
    }
}

async fn hear(
    core: &Engine,
    node: &NodeId,
    asked: VolumeAsk,
) -> Result<VolumeAnswer, CommandError> {
    let question = Question::Volumes { asked };
    let mut exchange = core.questions.ask(node, &question).await?;
    let mut text = BytesMut::new();
    while let Some(piece) = exchange.incoming.recv().await {
        let piece = piece?;
        if text.len() + piece.len() > MAX_ANSWER {
            return Err(CommandError::unavailable(format!(
                "its answer has more than {MAX_ANSWER} bytes"
            )));
        }
        text.extend_from_slice(&piece);
    }
    serde_json::from_slice(&text)
        .map_err(|_| CommandError::unavailable("it ended before it had answered; try again"))
}
