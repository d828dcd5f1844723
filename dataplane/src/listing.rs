//! Flows of all workers, for people: each worker tells a piece of its table at a time, between
//! packets.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel};
use std::time::Duration;

use weft_mesh::FlowRow;

use crate::handover::FlowQuestion;
use crate::shared::Shared;
use crate::worker::Worker;

/// Places of a table that a worker looks at in one round: some 20 µs.
const SLICE: usize = 1024;
/// Pieces on their way, at most; a worker that finds no room goes on with its packets first.
const PIECES: usize = 64;
/// How long a worker that has more to tell waits for packets.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);
/// How long nobody may say anything before the rest is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// The flows of all workers, as they come in.
#[derive(Debug)]
pub struct FlowListing {
    answers: Receiver<Vec<FlowRow>>,
    complete: bool,
}

impl FlowListing {
    /// Asks every worker for its flows.
    pub(crate) fn ask(shared: &Shared) -> Self {
        let (answer, answers) = sync_channel(PIECES);
        let mut complete = true;
        for inbox in &shared.inboxes {
            let question = FlowQuestion {
                answer: answer.clone(),
                next: 0,
            };
            complete &= inbox.questions.push(question).is_ok();
            inbox.wakeup.notify();
        }
        Self { answers, complete }
    }

    /// Collects the flows that `keep` lets through, `limit` at most. Blocks: for a large table some
    /// hundred milliseconds. The second value is false when there may be more.
    #[must_use]
    pub fn collect(
        self,
        limit: usize,
        mut keep: impl FnMut(&FlowRow) -> bool,
    ) -> (Vec<FlowRow>, bool) {
        let mut rows = Vec::new();
        loop {
            match self.answers.recv_timeout(PATIENCE) {
                Ok(piece) => {
                    rows.extend(piece.into_iter().filter(&mut keep));
                    if rows.len() > limit {
                        rows.truncate(limit);
                        return (rows, false);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return (rows, self.complete),
                Err(RecvTimeoutError::Timeout) => return (rows, false),
            }
        }
    }
}

impl Worker {
    /// Tells a piece of the flow table to whoever asks.
    pub(crate) fn tell_flows(&mut self) {
        let inbox = &self.shared.inboxes[self.index];
        let asked = self.question.take().or_else(|| inbox.questions.pop());
        let Some(question) = asked else { return };
        let mut rows = Vec::new();
        let next = self.flows.list(self.now, question.next, SLICE, &mut rows);
        match question.answer.try_send(rows) {
            Ok(()) => {
                self.question = next.map(|next| FlowQuestion { next, ..question });
            }
            // Nobody waits any more.
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.question = Some(question),
        }
        if self.question.is_none() {
            self.question = inbox.questions.pop();
        }
    }
}
