//! What was proposed and is not in the log yet. The state with all of it is the head: who plans on it
//! need not wait until those before him are stored.
//!
//! A head may have to be taken back, when what it holds is not stored. Then another line of heads
//! begins: what was planned on a head of an earlier one is stale, whatever its version.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use weft_cluster::{Change, ClusterState, Entry, ProposeError, Reply, Stale};
use weft_model::id::NodeId;

use crate::desired_store::Head;

/// Bytes of what goes into one entry of the log, and of one proposal, which may be an entry of its
/// own.
const MAX_BATCH: usize = 1 << 20;
const MAX_PROPOSAL: usize = 32 << 20;

/// Tells a proposer what became of it.
pub(super) type Answer = oneshot::Sender<Result<(), ProposeError>>;

/// Who waits for it.
pub(super) type Answered = oneshot::Receiver<Result<(), ProposeError>>;

/// Whether proposals are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taking {
    /// This manager leads.
    Open,
    /// Another one does, or none.
    NotLed(Option<NodeId>),
    /// The manager stops.
    Closed,
}

impl Taking {
    fn refusal(&self) -> Option<ProposeError> {
        match self {
            Self::Open => None,
            Self::NotLed(leader) => Some(ProposeError::NotLeader {
                leader: leader.clone(),
            }),
            Self::Closed => Some(ProposeError::Closed),
        }
    }
}

/// A proposal in its place, or somebody who waits until all before him is stored.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Option<Entry>,
    bytes: usize,
    pub(super) answer: Answer,
}

#[derive(Debug)]
struct Inner {
    taking: Taking,
    head: Head,
    waiting: VecDeque<Waiting>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pipeline {
    inner: Mutex<Inner>,
    more: Notify,
}

/// Counts the bytes of what is written, and keeps none.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bytes_of(changes: &[Change]) -> Result<usize, ProposeError> {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, changes).map_err(|e| ProposeError::Disk(e.to_string()))?;
    if count.0 > MAX_PROPOSAL {
        return Err(ProposeError::TooLarge {
            bytes: count.0,
            limit: MAX_PROPOSAL,
        });
    }
    Ok(count.0)
}

/// Tells one of them; he may not wait any more.
pub(super) fn tell(answer: Answer, result: Result<(), ProposeError>) {
    drop(answer.send(result));
}

impl Pipeline {
    /// Takes nothing yet.
    pub(super) fn new(state: Arc<ClusterState>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                taking: Taking::NotLed(None),
                head: Head { state, line: 0 },
                waiting: VecDeque::new(),
            }),
            more: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to plan on: `state`, which is stored, or what will come of it.
    pub(super) fn head(&self, state: &Arc<ClusterState>) -> Head {
        let inner = self.inner();
        match inner.taking {
            Taking::Open => inner.head.clone(),
            // Nothing is under way, and the state goes on by itself.
            Taking::NotLed(_) | Taking::Closed => Head {
                state: Arc::clone(state),
                line: inner.head.line,
            },
        }
    }

    /// Takes changes that were planned on `on`.
    ///
    /// # Errors
    /// It does not: nothing will change.
    pub(super) fn propose(
        &self,
        on: &Head,
        changes: Vec<Change>,
    ) -> Result<Answered, ProposeError> {
        let bytes = bytes_of(&changes)?;
        let entry = Entry {
            base: on.state.version,
            changes,
        };
        let mut inner = self.inner();
        if let Some(refusal) = inner.taking.refusal() {
            return Err(refusal);
        }
        let stale = Stale {
            planned: entry.base,
            actual: inner.head.state.version,
        };
        if on.line != inner.head.line {
            return Err(stale.into());
        }
        entry.check(&inner.head.state)?;
        let mut state = ClusterState::clone(&inner.head.state);
        if let Reply::Stale(stale) = entry.apply(&mut state) {
            return Err(stale.into());
        }
        inner.head.state = Arc::new(state);
        Ok(self.enqueue(inner, Some(entry), bytes))
    }

    /// Waits until the state of a head is stored; `stored` is the version that is. Nothing when it is.
    ///
    /// # Errors
    /// It was taken back, or may yet be.
    pub(super) fn settle(&self, on: &Head, stored: u64) -> Result<Option<Answered>, ProposeError> {
        let inner = self.inner();
        if on.line != inner.head.line {
            return Err(ProposeError::Stale(Stale {
                planned: on.state.version,
                actual: inner.head.state.version,
            }));
        }
        if on.state.version <= stored {
            return Ok(None);
        }
        if let Some(refusal) = inner.taking.refusal() {
            return Err(refusal);
        }
        Ok(Some(self.enqueue(inner, None, 0)))
    }

    fn enqueue(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        entry: Option<Entry>,
        bytes: usize,
    ) -> Answered {
        let (answer, answered) = oneshot::channel();
        inner.waiting.push_back(Waiting {
            entry,
            bytes,
            answer,
        });
        drop(inner);
        self.more.notify_one();
        answered
    }

    /// Waits for proposals, and takes the next ones out: as many as go into one entry.
    pub(super) async fn next(&self) -> Vec<Waiting> {
        loop {
            let more = self.more.notified();
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            more.await;
        }
    }

    fn take(&self) -> Vec<Waiting> {
        let mut inner = self.inner();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = inner.waiting.front() {
            bytes += next.bytes;
            if bytes > MAX_BATCH && !batch.is_empty() {
                break;
            }
            batch.extend(inner.waiting.pop_front());
        }
        batch
    }

    /// Takes proposals from now on. All before is stored, and `state` has it.
    pub(super) fn open(&self, state: Arc<ClusterState>) {
        self.begin(Some(Taking::Open), state);
    }

    /// What is waiting, and was in the log's hands, counts no more: those who wait plan again.
    pub(super) fn reset(&self, state: Arc<ClusterState>) {
        self.begin(None, state);
    }

    /// Takes no more proposals.
    pub(super) fn shut(&self, taking: Taking, state: Arc<ClusterState>) {
        self.begin(Some(taking), state);
    }

    /// Begins a line of heads.
    fn begin(&self, taking: Option<Taking>, state: Arc<ClusterState>) {
        let mut inner = self.inner();
        if let Some(taking) = taking
            && inner.taking != Taking::Closed
        {
            inner.taking = taking;
        }
        inner.head = Head {
            line: inner.head.line + 1,
            state,
        };
        let actual = inner.head.state.version;
        for waiting in std::mem::take(&mut inner.waiting) {
            let planned = waiting.entry.map_or(actual, |entry| entry.base);
            let stale = || ProposeError::Stale(Stale { planned, actual });
            let refusal = inner.taking.refusal().unwrap_or_else(stale);
            tell(waiting.answer, Err(refusal));
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_cluster::{Counters, Object, ObjectId};
    use weft_model::id::NetworkId;

    use super::*;

    fn change(vni: u32) -> Vec<Change> {
        vec![Change::Put(Object::Counters(Counters {
            last_vni: vni,
            ..Counters::default()
        }))]
    }

    fn opened() -> (Pipeline, Arc<ClusterState>) {
        let state = Arc::new(ClusterState::default());
        let pipeline = Pipeline::new(Arc::clone(&state));
        pipeline.open(Arc::clone(&state));
        (pipeline, state)
    }

    #[tokio::test]
    async fn proposals_do_not_wait_for_each_other_and_travel_together() {
        let (pipeline, state) = opened();
        let mut answers = Vec::new();
        for vni in 1..=3 {
            let head = pipeline.head(&state);
            assert_eq!(head.state.counters.last_vni, vni - 1);
            answers.push(pipeline.propose(&head, change(vni)).unwrap());
        }
        let bases = |batch: &[Waiting]| -> Vec<u64> {
            let entries = batch.iter().filter_map(|w| w.entry.as_ref());
            entries.map(|entry| entry.base).collect()
        };
        let batch = pipeline.next().await;
        assert_eq!(bases(&batch), [0, 1, 2]);
        let late = pipeline.head(&state);
        drop(pipeline.propose(&late, change(9)).unwrap());
        assert_eq!(bases(&pipeline.next().await), [3]);
        for waiting in batch {
            tell(waiting.answer, Ok(()));
        }
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(state.version, 0, "what is stored is another matter");
    }

    #[tokio::test]
    async fn who_planned_on_a_head_that_was_taken_back_plans_again() {
        let (pipeline, state) = opened();
        let first = pipeline.head(&state);
        let lost = pipeline.propose(&first, change(1)).unwrap();
        let waiting = pipeline.propose(&pipeline.head(&state), change(2)).unwrap();
        let seen = pipeline.head(&state);
        let settled = pipeline.settle(&seen, state.version).unwrap().unwrap();
        // The first is on its way when the disk fails; something else gets its version.
        drop(lost);
        let mut other = ClusterState::default();
        other.apply(&change(7));
        other.apply(&change(8));
        let other = Arc::new(other);
        pipeline.reset(Arc::clone(&other));
        assert!(matches!(
            waiting.await.unwrap(),
            Err(ProposeError::Stale(_))
        ));
        assert!(matches!(
            settled.await.unwrap(),
            Err(ProposeError::Stale(_))
        ));
        assert_eq!(seen.state.version, other.version, "the same number");
        let refused = pipeline.propose(&seen, change(3)).unwrap_err();
        assert!(matches!(refused, ProposeError::Stale(_)), "{refused}");
        let refused = pipeline.settle(&seen, other.version).unwrap_err();
        assert!(matches!(refused, ProposeError::Stale(_)), "{refused}");
        let again = pipeline.head(&other);
        assert!(pipeline.settle(&again, other.version).unwrap().is_none());
        drop(pipeline.propose(&again, change(3)).unwrap());
    }

    #[tokio::test]
    async fn nobody_is_left_waiting_when_another_manager_leads() {
        let (pipeline, state) = opened();
        let head = pipeline.head(&state);
        let waiting = pipeline.propose(&head, change(1)).unwrap();
        let leader = NodeId::from("other");
        pipeline.shut(Taking::NotLed(Some(leader.clone())), Arc::clone(&state));
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(&error, ProposeError::NotLeader { leader: Some(l) } if *l == leader));
        let head = pipeline.head(&state);
        assert_eq!(head.state.version, 0);
        let error = pipeline.propose(&head, change(1)).unwrap_err();
        assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}");
        pipeline.shut(Taking::Closed, Arc::clone(&state));
        pipeline.open(Arc::clone(&state));
        let error = pipeline.propose(&head, change(1)).unwrap_err();
        assert!(matches!(error, ProposeError::Closed), "{error}");
    }

    #[tokio::test]
    async fn an_entry_has_a_length_and_so_has_a_proposal() {
        let (pipeline, state) = opened();
        let long = |bytes: usize| {
            let id = NetworkId("x".repeat(bytes));
            vec![Change::Delete(ObjectId::Network(id))]
        };
        let propose = |bytes| pipeline.propose(&pipeline.head(&state), long(bytes));
        for _ in 0..3 {
            drop(propose(MAX_BATCH / 2 - 100).unwrap());
        }
        assert_eq!(pipeline.next().await.len(), 2, "two fill an entry");
        assert_eq!(pipeline.next().await.len(), 1);
        drop(propose(MAX_BATCH * 3).unwrap());
        drop(propose(1).unwrap());
        assert_eq!(pipeline.next().await.len(), 1, "a long one goes alone");
        let error = propose(MAX_PROPOSAL + 1).unwrap_err().to_string();
        assert!(
            error.contains("bytes, and an entry of the log may have 33554432: ask for less"),
            "{error}"
        );
    }
}
