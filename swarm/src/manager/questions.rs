//! Questions to nodes. Only a node itself can be sure of the way between it and its manager, so it
//! calls: it listens for questions, and answers each by a call of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use weft_cluster::CommandError;
use weft_model::id::NodeId;
use weft_model::talk;

use crate::convert::{SCHEMA, encode, from_status};
use crate::exchange::Exchange;
use crate::proto::Question;

/// Until a node has begun to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that wait until a node has heard them.
const UNHEARD: usize = 64;

type Heard = mpsc::Sender<Question>;

/// Who waits for the answer to a question, and of which node.
#[derive(Debug)]
struct Asked {
    node: NodeId,
    answered: oneshot::Sender<Exchange>,
}

#[derive(Debug, Default)]
struct Inner {
    listeners: BTreeMap<NodeId, Heard>,
    asked: BTreeMap<u64, Asked>,
    last: u64,
}

/// Nodes that listen, and questions without an answer.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Inner>);

/// A question that may be given up.
struct Pending<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.questions.inner().asked.remove(&self.id);
    }
}

impl Questions {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a node; the answer goes on for as long as both ends like.
    pub(super) async fn ask(
        &self,
        node: &NodeId,
        question: &talk::Question,
    ) -> Result<Exchange, CommandError> {
        let question_json = encode(question).map_err(|status| from_status(&status))?;
        let (answered, answer) = oneshot::channel();
        let (pending, heard, question) = {
            let mut inner = self.inner();
            inner.last += 1;
            let id = inner.last;
            let heard = inner.listeners.get(node).filter(|h| !h.is_closed());
            let heard = heard.cloned().ok_or_else(|| {
                CommandError::unavailable(
                    "it has no session with the manager that leads, or its weftd is of an \
                     earlier version; `weft node ls` says how it is",
                )
            })?;
            let node = node.clone();
            inner.asked.insert(id, Asked { node, answered });
            let pending = Pending {
                questions: self,
                id,
            };
            let question = Question {
                id,
                schema: SCHEMA,
                question_json,
            };
            (pending, heard, question)
        };
        let asked = heard.try_send(question);
        asked
            .map_err(|_| CommandError::unavailable("it does not take more questions; try again"))?;
        let answer = timeout(PATIENCE, answer).await;
        drop(pending);
        match answer {
            Ok(Ok(exchange)) => Ok(exchange),
            _ => Err(CommandError::unavailable(format!(
                "it did not answer within {} seconds",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// What a node is asked from now on.
    pub(super) fn listen(&self, node: &NodeId) -> mpsc::Receiver<Question> {
        let (heard, questions) = mpsc::channel(UNHEARD);
        let mut inner = self.inner();
        inner.listeners.retain(|_, heard| !heard.is_closed());
        inner.listeners.insert(node.clone(), heard);
        questions
    }

    /// Who waits for this answer of this node.
    pub(super) fn answered(&self, node: &NodeId, id: u64) -> Option<oneshot::Sender<Exchange>> {
        let mut inner = self.inner();
        if inner.asked.get(&id)?.node != *node {
            return None;
        }
        inner.asked.remove(&id).map(|asked| asked.answered)
    }
}

#[cfg(test)]
mod tests {
    use weft_model::api::LogsQuery;

    use super::*;

    fn question() -> talk::Question {
        talk::Question::Logs {
            tasks: vec!["t1".into()],
            query: LogsQuery::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_by_the_node_that_was_asked() {
        let questions = Questions::default();
        let question = question();
        let (n1, n2) = (NodeId::from("n1"), NodeId::from("n2"));
        let refused = questions.ask(&n1, &question).await.unwrap_err();
        assert!(refused.message.contains("no session"), "{refused}");
        let mut heard = questions.listen(&n1);
        let asked = questions.ask(&n1, &question);
        let answered = async {
            let heard = heard.recv().await.unwrap();
            let read: talk::Question = serde_json::from_slice(&heard.question_json).unwrap();
            assert_eq!(read, question);
            let (ours, theirs) = Exchange::pair();
            let waiting = questions.answered(&n1, heard.id).unwrap();
            assert!(waiting.send(theirs).is_ok());
            assert!(questions.answered(&n1, heard.id).is_none(), "once");
            ours
        };
        let (mut exchange, ours) = tokio::join!(async { asked.await.unwrap() }, answered);
        ours.outgoing.send("line".into()).await.unwrap();
        assert_eq!(exchange.incoming.recv().await, Some(Ok("line".into())));
        // Another node may not answer, and nobody is waited for without end.
        let asked = questions.ask(&n1, &question);
        let forged = async {
            let id = heard.recv().await.unwrap().id;
            assert!(questions.answered(&n2, id).is_none());
        };
        let (asked, ()) = tokio::join!(asked, forged);
        assert!(asked.unwrap_err().message.contains("did not answer"));
        assert!(questions.inner().asked.is_empty());
    }
}
