//! What is made of the reports on the replicas of one service on one network.

use std::collections::{BTreeMap, BTreeSet};

/// More connections than one node has to one replica: its flow tables hold fewer.
pub(super) const MOST_OF_ONE_NODE: u32 = 1 << 24;

/// A figure that is small is believed whatever others say.
pub(super) const BELIEVED: u32 = 16;

/// A number, of a node or of a replica, and connections.
pub(super) type Named = (usize, u32);

/// What all others have open to one replica, as far as it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Figures {
    /// For the limit of the service: what a node reports counts up to the limit, as it cannot have
    /// more. What one liar can take away by that is bounded by the share that this node always has.
    pub(crate) claimed: u32,
    /// For the choice among replicas. A liar that says four billion of all replicas but his own
    /// would draw all clients there. So a node's figure counts in full as long as it is like those
    /// that the same node reports of the service's other replicas: whoever balances has about as
    /// many everywhere, up to twice the least. What goes beyond that counts up to the largest figure
    /// that anybody else has for that replica, this node included, and [`BELIEVED`] connections: a
    /// liar moves the choice by no more than another node's honest load does.
    pub(crate) balanced: u32,
}

/// What one node has open to the replicas of the group.
#[derive(Debug, Default)]
struct FromNode {
    /// By number of the replica.
    named: BTreeMap<usize, u32>,
    /// The least of those that take connections; what is not reported is zero.
    least: u32,
}

impl FromNode {
    fn least_of(&self, replicas: &BTreeMap<usize, bool>, ready: usize) -> u32 {
        let named = self.named.iter();
        let named = named.filter(|(number, _)| replicas.get(*number) == Some(&true));
        let mut count = 0;
        let figures = named.map(|(_, figure)| {
            count += 1;
            *figure
        });
        let least = figures.min().unwrap_or(0);
        if count == ready { least } else { 0 }
    }
}

/// Replicas among which one is chosen, what is said of them, and what of that is new.
#[derive(Debug)]
pub(super) struct Choice {
    /// What one node can have open to one of them.
    most: u32,
    /// By number, whether it takes connections.
    replicas: BTreeMap<usize, bool>,
    /// How many of them do.
    ready: usize,
    /// By number of who says it.
    said: BTreeMap<usize, FromNode>,
    /// Since the last look: who says something else, of which replicas, or everything is new.
    news: BTreeSet<usize>,
    touched: BTreeSet<usize>,
    anew: bool,
}

impl Choice {
    /// Nothing is in it.
    pub(super) const fn new(most: u32) -> Self {
        Self {
            most,
            replicas: BTreeMap::new(),
            ready: 0,
            said: BTreeMap::new(),
            news: BTreeSet::new(),
            touched: BTreeSet::new(),
            anew: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// The numbers of its replicas.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> {
        self.replicas.keys().copied()
    }

    /// Says what one node can have open to one replica; true where that is new.
    pub(super) fn set_most(&mut self, most: u32) -> bool {
        let new = self.most != most;
        self.most = most;
        self.anew |= new;
        new
    }

    /// A replica is in it, of which this is reported.
    pub(super) fn join(&mut self, number: usize, ready: bool, reports: &[Named]) {
        let was = self.replicas.insert(number, ready);
        if was == Some(ready) {
            return;
        }
        self.ready -= usize::from(was == Some(true));
        self.ready += usize::from(ready);
        for (by, figure) in reports {
            let from = self.said.entry(*by).or_default();
            from.named.insert(number, *figure);
        }
        self.anew = true;
    }

    /// It is no longer in it.
    pub(super) fn leave(&mut self, number: usize, reports: &[Named]) {
        let was = self.replicas.remove(&number);
        self.ready -= usize::from(was == Some(true));
        for (by, _) in reports {
            self.take_back(*by, number);
        }
        self.anew = true;
    }

    fn take_back(&mut self, by: usize, number: usize) {
        if let Some(from) = self.said.get_mut(&by) {
            from.named.remove(&number);
            if from.named.is_empty() {
                self.said.remove(&by);
            }
        }
    }

    /// Somebody reports something else of a replica, or nothing any more.
    pub(super) fn say(&mut self, by: usize, number: usize, figure: Option<u32>) {
        match figure {
            Some(figure) => {
                let from = self.said.entry(by).or_default();
                from.named.insert(number, figure);
            }
            None => self.take_back(by, number),
        }
        self.news.insert(by);
        self.touched.insert(number);
    }

    /// Nobody has reported anything.
    pub(super) fn forget(&mut self) {
        self.said.clear();
        self.anew = true;
    }

    /// Looks again at a replica.
    pub(super) fn touch(&mut self, number: usize) {
        self.touched.insert(number);
    }

    /// The replicas whose figures may be others than at the last look.
    pub(super) fn settle(&mut self) -> BTreeSet<usize> {
        let news = std::mem::take(&mut self.news);
        let mut touched = std::mem::take(&mut self.touched);
        let (replicas, ready) = (&self.replicas, self.ready);
        if std::mem::take(&mut self.anew) {
            for from in self.said.values_mut() {
                from.least = from.least_of(replicas, ready);
            }
            return replicas.keys().copied().collect();
        }
        for by in news {
            let Some(from) = self.said.get_mut(&by) else {
                continue;
            };
            let least = from.least_of(replicas, ready);
            if least != from.least {
                from.least = least;
                touched.extend(from.named.keys());
            }
        }
        touched
    }

    /// What comes of the reports on a replica, of which this node has `own` open.
    pub(super) fn figures(&self, own: u32, reports: &[Named]) -> Figures {
        let (mut claimed, mut balanced) = (0_u64, 0_u64);
        let mut largest = Largest::with(own);
        for (by, figure) in reports {
            largest.add(*by, *figure);
            claimed += u64::from((*figure).min(self.most));
            balanced += u64::from(*figure);
        }
        // Every other figure has a larger one that bears it out.
        if let Some(by) = largest.by {
            let least = self.said.get(&by).map_or(0, |from| from.least);
            let bound = largest.second.saturating_add(BELIEVED);
            let bound = bound.max(least.saturating_mul(2));
            balanced -= u64::from(largest.figure.saturating_sub(bound));
        }
        let all = |sum: u64| u32::try_from(sum).unwrap_or(u32::MAX);
        Figures {
            claimed: all(claimed),
            balanced: all(balanced),
        }
    }
}

/// The largest figure of a replica, which of the others says it, and the second largest.
#[derive(Debug, Clone, Copy)]
struct Largest {
    figure: u32,
    by: Option<usize>,
    second: u32,
}

impl Largest {
    /// This node's own.
    const fn with(own: u32) -> Self {
        Self {
            figure: own,
            by: None,
            second: 0,
        }
    }

    fn add(&mut self, by: usize, figure: u32) {
        if figure > self.figure {
            *self = Self {
                figure,
                by: Some(by),
                second: self.figure,
            };
        } else {
            self.second = self.second.max(figure);
        }
    }
}
