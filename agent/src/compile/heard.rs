//! What the other nodes say, as far as tables are made from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, NodeRecord};

/// What one node says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Of itself. It says so last: who has said this has said all.
    pub(crate) node: Option<Arc<NodeRecord>>,
    /// Of endpoints.
    pub(crate) endpoints: Vec<Arc<EndpointRecord>>,
}

/// Changes that are remembered: more at once call for a look at everything, which costs as much.
const REMEMBERED: usize = 1024;

/// By who speaks. Words that are the same allocation are the same, and who has said something else
/// lately is known, so readers see what has changed without a look at what has not.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    words: BTreeMap<NodeId, Arc<Words>>,
    /// Whose words came, went or changed last, in this order.
    lately: VecDeque<NodeId>,
    /// How many changes there were before these.
    earlier: u64,
    /// The same in every mark of these words, and of no others.
    of: Arc<()>,
}

/// A moment in the life of a [`Heard`].
#[derive(Debug)]
pub(crate) struct Mark {
    of: Arc<()>,
    changes: u64,
}

impl Heard {
    pub(crate) fn get(&self, id: &NodeId) -> Option<&Arc<Words>> {
        self.words.get(id)
    }

    /// Those who speak, and their words.
    pub(crate) const fn words(&self) -> &BTreeMap<NodeId, Arc<Words>> {
        &self.words
    }

    /// A node says this from now on. What is the same allocation is no change.
    pub(crate) fn insert(&mut self, id: NodeId, words: Arc<Words>) {
        let same = self.get(&id).is_some_and(|was| Arc::ptr_eq(was, &words));
        if !same {
            self.note(id.clone());
            self.words.insert(id, words);
        }
    }

    /// A node says nothing any more.
    pub(crate) fn remove(&mut self, id: &NodeId) {
        if let Some((id, _)) = self.words.remove_entry(id) {
            self.note(id);
        }
    }

    fn note(&mut self, id: NodeId) {
        self.lately.push_back(id);
        if self.lately.len() > REMEMBERED {
            self.lately.pop_front();
            self.earlier += 1;
        }
    }

    /// This moment.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            of: Arc::clone(&self.of),
            changes: self.changes(),
        }
    }

    fn changes(&self) -> u64 {
        self.earlier + self.lately.len() as u64
    }

    /// Whose words came, went or changed since; none where that is not remembered, or where other
    /// words were marked.
    pub(crate) fn since(&self, mark: &Mark) -> Option<BTreeSet<&NodeId>> {
        if !Arc::ptr_eq(&self.of, &mark.of) || mark.changes < self.earlier {
            return None;
        }
        let new = usize::try_from(self.changes() - mark.changes).ok()?;
        Some(self.lately.iter().rev().take(new).collect())
    }
}

impl FromIterator<(NodeId, Arc<Words>)> for Heard {
    fn from_iter<T: IntoIterator<Item = (NodeId, Arc<Words>)>>(words: T) -> Self {
        Self {
            words: words.into_iter().collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_said_something_else_since_is_known_for_a_while() {
        let mut heard = Heard::default();
        let (a, b) = (NodeId::from("a"), NodeId::from("b"));
        let words = Arc::new(Words::default());
        let start = heard.mark();
        heard.insert(a.clone(), Arc::clone(&words));
        heard.insert(b.clone(), Arc::clone(&words));
        assert_eq!(heard.since(&start), Some([&a, &b].into()));
        let both = heard.mark();
        heard.insert(a.clone(), Arc::clone(&words));
        heard.remove(&NodeId::from("c"));
        assert_eq!(heard.since(&both), Some([].into()), "nothing is new");
        heard.remove(&b);
        assert_eq!(heard.since(&both), Some([&b].into()));
        assert_eq!(heard.words().len(), 1);
        for _ in 0..REMEMBERED {
            heard.insert(a.clone(), Arc::new(Words::default()));
        }
        assert_eq!(heard.since(&both), None, "too long ago");
        let other = Heard::from_iter([(a, words)]);
        assert_eq!(other.since(&heard.mark()), None, "of other words");
    }
}
