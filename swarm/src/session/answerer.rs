//! Who answers what managers ask of this node.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use weft_model::talk::Question;

use crate::exchange::Exchange;

type Answer = dyn Fn(Question, Exchange) -> Answering + Send + Sync;
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers questions of managers: the agent.
#[derive(Clone)]
pub struct Answerer(Arc<Answer>);

impl fmt::Debug for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answerer(..)")
    }
}

impl Answerer {
    /// `answer` gets this node's end of the conversation. Its future may be dropped at any await, when
    /// the session ends.
    #[must_use]
    pub fn new<F, A>(answer: F) -> Self
    where
        F: Fn(Question, Exchange) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(move |question, exchange| -> Answering {
            Box::pin(answer(question, exchange))
        }))
    }

    pub(super) fn answer(&self, question: Question, exchange: Exchange) -> Answering {
        (self.0)(question, exchange)
    }
}
