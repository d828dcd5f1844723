//! The replicas of a service as one choice sees them.

use std::cmp::Ordering;

use super::estimate::{Estimate, Score};
use super::rng::Rng;
use super::{Balancer, Choice};
use crate::replica::Replica;

/// A service's replicas, and who of them is left out.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    replicas: &'a [Replica],
    pub(super) choice: Choice<'a>,
    estimate: Estimate,
    /// Ejected replicas stay out if they do so for longer than this.
    cutoff: u64,
}

impl<'a> View<'a> {
    pub(super) fn new(
        balancer: &Balancer,
        replicas: &'a [Replica],
        choice: Choice<'a>,
        rng: &mut Rng,
    ) -> Self {
        let able = replicas.iter().filter(|r| can_take(r, choice));
        Self {
            replicas,
            choice,
            estimate: Estimate::new(balancer, able, choice.now, rng),
            cutoff: u64::MAX,
        }
    }

    /// The same without the ejected ones. No more than half of them stay out, and never all.
    pub(super) fn healthy(mut self) -> Self {
        self.cutoff = self.cutoff();
        self
    }

    /// The same, and ejections are overlooked.
    pub(super) fn everyone(mut self) -> Self {
        self.cutoff = u64::MAX;
        self
    }

    /// What keeps out those with the longest back-offs, when more than half are ejected: more than
    /// that fail at once when it is not they who fail, or when all are lost anyhow.
    fn cutoff(&self) -> u64 {
        let (mut all, mut out, mut last) = (0usize, 0usize, 0);
        for replica in self.able() {
            all += 1;
            if let Some(until) = replica.load.health().out_until(self.choice.now) {
                out += 1;
                last = until.max(last);
            }
        }
        let half = all / 2;
        if out <= half {
            return 0;
        }
        // The least time that at most half of them exceed.
        let (mut low, mut high) = (self.choice.now.0, last);
        while low < high {
            let middle = low + (high - low) / 2;
            let beyond = self.able().filter(|r| self.is_out(r, middle)).count();
            if beyond <= half {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        high
    }

    fn is_out(&self, replica: &Replica, cutoff: u64) -> bool {
        let until = replica.load.health().out_until(self.choice.now);
        until.is_some_and(|until| until > cutoff)
    }

    /// Those that would take a connection of this kind, were they not ejected.
    fn able(&self) -> impl Iterator<Item = &'a Replica> {
        let choice = self.choice;
        self.replicas.iter().filter(move |r| can_take(r, choice))
    }

    /// Those that may be chosen.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (usize, &'a Replica)> {
        let view = *self;
        self.replicas.iter().enumerate().filter(move |(_, r)| {
            can_take(r, view.choice)
                && !view.choice.tried.contains(&r.key)
                && !view.is_out(r, view.cutoff)
        })
    }

    /// The least loaded one, or the least loaded one here where those go first.
    pub(super) fn least_loaded(&self, spill_percent: u16, rng: &mut Rng) -> Option<usize> {
        let (mut any, mut here) = (Least::default(), Least::default());
        for (at, replica) in self.candidates() {
            let score = self.estimate.score(replica);
            any.add(at, score, rng);
            if self.choice.local_first && replica.local {
                here.add(at, score, rng);
            }
        }
        match (here.best, any.best) {
            (Some((here, score)), Some((_, least))) if score.is_within(spill_percent, &least) => {
                Some(here)
            }
            (_, any) => any.map(|(at, _)| at),
        }
    }

    /// The better of two random ones; of two here where those go first.
    pub(super) fn two_choices(&self, rng: &mut Rng) -> Option<usize> {
        let (mut any, mut here) = (Two::default(), Two::default());
        for (at, replica) in self.candidates() {
            let pair = if self.choice.local_first && replica.local {
                &mut here
            } else {
                &mut any
            };
            pair.add(at, self.estimate.score(replica), rng);
        }
        here.better(rng).or_else(|| any.better(rng))
    }
}

fn can_take(r: &Replica, choice: Choice<'_>) -> bool {
    !r.draining && r.ip.is_ipv6() == choice.ipv6
}

/// The least of those that were added; of several equals one by chance, which they have by the
/// pressure of their nodes.
#[derive(Default)]
struct Least {
    best: Option<(usize, Score)>,
    /// Chances of all that are equal to it.
    chances: u32,
}

impl Least {
    fn add(&mut self, at: usize, score: Score, rng: &mut Rng) {
        match self.best.as_ref().map(|(_, best)| score.cmp(best)) {
            Some(Ordering::Greater) => {}
            Some(Ordering::Equal) => {
                // Reservoir of size one.
                self.chances = self.chances.saturating_add(score.chances());
                if rng.below(self.chances) < score.chances() {
                    self.best = Some((at, score));
                }
            }
            Some(Ordering::Less) | None => {
                self.chances = score.chances();
                self.best = Some((at, score));
            }
        }
    }
}

/// Two random ones of those that were added.
#[derive(Default)]
struct Two {
    pair: [Option<(usize, Score)>; 2],
    seen: u32,
}

impl Two {
    fn add(&mut self, at: usize, score: Score, rng: &mut Rng) {
        // Reservoir of size two.
        let slot = if self.seen < 2 {
            self.seen
        } else {
            rng.below(self.seen + 1)
        };
        self.seen += 1;
        if let Some(place) = self.pair.get_mut(slot as usize) {
            *place = Some((at, score));
        }
    }

    fn better(&self, rng: &mut Rng) -> Option<usize> {
        match &self.pair {
            [Some((a, of_a)), Some((b, of_b))] => Some(match of_a.cmp(of_b) {
                Ordering::Less => *a,
                Ordering::Greater => *b,
                Ordering::Equal => {
                    let chances = of_a.chances() + of_b.chances();
                    if rng.below(chances) < of_a.chances() {
                        *a
                    } else {
                        *b
                    }
                }
            }),
            [Some((a, _)), None] => Some(*a),
            [None, _] => None,
        }
    }
}
