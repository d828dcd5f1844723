//! How much a replica has to do by now, from what is known of it.

use std::cmp::Ordering;
use std::time::Duration;

use weft_wire::Instant;

use super::{Balancer, Policy, Rng};
use crate::pressure::NodePressure;
use crate::replica::Replica;

/// One connection, in the unit of estimates.
const ONE: i64 = 256;
/// A report has lost half its meaning after so many mean lifetimes: the queue of a busy replica
/// outlives its connections.
const HALF_LIFE: u128 = 4;
/// Least part of a full share, of [`ONE`], in a slow start, and by what it grows.
const FIRST_SHARE: u64 = 16;
/// Loads are compared by quarters of a connection.
const QUARTER: i64 = ONE / 4;
/// The others are believed to have so much more traffic than this node at most.
const MOST_MIRRORED: u64 = 64;

/// Estimates loads for one choice.
#[derive(Clone, Copy)]
pub(super) struct Estimate {
    policy: Policy,
    now: Instant,
    slow_start: Duration,
    lifetime: Option<Duration>,
    /// Connections of all others for one of this node, in [`ONE`]: what this node has done since
    /// it reported last, they have done as well, so many times, and said nothing yet. Without it
    /// all would follow one report to the same replica.
    mirrored: i64,
    /// Added before loads and shares are rounded down, the same for all replicas: below [`ONE`].
    /// What an old report still says, a 256th of a connection maybe, would else send everything to
    /// one of two replicas that have nothing to do; so it tells them apart once in 64 choices.
    dither: i64,
}

impl Estimate {
    pub(super) fn new<'a>(
        balancer: &Balancer,
        replicas: impl Iterator<Item = &'a Replica>,
        now: Instant,
        rng: &mut Rng,
    ) -> Self {
        let mut mirrored = 0;
        if balancer.policy == Policy::Adaptive {
            let (mut others, mut reported) = (0u64, 0u64);
            for replica in replicas {
                if let Some(own) = replica.load.reported() {
                    others += u64::from(replica.load.others());
                    reported += u64::from(own);
                }
            }
            let ratio = (others.saturating_mul(256))
                .checked_div(reported)
                .unwrap_or(0);
            mirrored = ratio.min(MOST_MIRRORED * 256).cast_signed();
        }
        Self {
            policy: balancer.policy,
            now,
            slow_start: balancer.slow_start,
            lifetime: balancer.load.mean_lifetime(),
            mirrored,
            dither: i64::from(rng.below(256)),
        }
    }

    pub(super) fn score(&self, replica: &Replica) -> Score {
        let load = self.load(replica) + self.dither * QUARTER / ONE;
        let share = self.share(replica) + self.dither.cast_unsigned() / FIRST_SHARE;
        Score {
            load: load - load.rem_euclid(QUARTER),
            share: share - share % FIRST_SHARE,
            chances: chances(replica.load.node().get()),
        }
    }

    /// Connections that are likely to be open, in [`ONE`], but for a part that is the same for all
    /// replicas: less than none is possible.
    fn load(&self, replica: &Replica) -> i64 {
        let load = &replica.load;
        let own = i64::from(load.own());
        let others = i64::from(load.others());
        match self.policy {
            Policy::LeastOwn | Policy::TwoChoices => own * ONE,
            Policy::LeastConnections => (own + others) * ONE,
            Policy::Adaptive => {
                let since = load.reported().map_or(0, |told| own - i64::from(told));
                let steady = i64::from(load.steady());
                let others = (others - steady) * ONE + since * self.mirrored;
                let others = others * self.meaning(load.age_of_others(self.now)) / ONE;
                (own + steady) * ONE + others
            }
        }
    }

    /// What a report of this age says of the present, from [`ONE`] down to nothing. What it no
    /// longer says is the same guess for all replicas, and makes no difference between them.
    fn meaning(&self, age: Option<Duration>) -> i64 {
        let (Some(age), Some(lifetime)) = (age, self.lifetime) else {
            return ONE;
        };
        let half = HALF_LIFE * lifetime.as_nanos().max(1);
        i64::try_from(256 * half / (half + age.as_nanos())).unwrap_or(ONE)
    }

    /// Part of a full share that a replica has by now, from [`FIRST_SHARE`] to [`ONE`].
    fn share(&self, replica: &Replica) -> u64 {
        let whole = ONE.cast_unsigned();
        let Some(since) = replica.load.ready_since() else {
            return whole;
        };
        let ready = self.now.since(since);
        if ready >= self.slow_start {
            return whole;
        }
        let part = u128::from(whole) * ready.as_nanos() / self.slow_start.as_nanos().max(1);
        u64::try_from(part)
            .unwrap_or(whole)
            .clamp(FIRST_SHARE, whole)
    }
}

/// Chances among equals of a replica whose node never waits.
const CALM: u32 = 256;
/// Of one whose node waits all the time: not none, as what waits there may not be the replica.
const LEAST_CHANCES: u32 = CALM / 16;

/// Chances in proportion to the time in which nothing on the node waits. No order: with little to
/// do all are equal, and the calmest of them would get everything.
fn chances(pressure: u16) -> u32 {
    let calm = u32::from(NodePressure::MAX.saturating_sub(pressure));
    (CALM * calm / u32::from(NodePressure::MAX)).max(LEAST_CHANCES)
}

/// Load for the share, were one connection added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    load: i64,
    share: u64,
    /// Among those whose load for the share is the same.
    chances: u32,
}

impl Score {
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        let product = |a: &Self, b: &Self| i128::from(a.load + ONE) * i128::from(b.share);
        product(self, other).cmp(&product(other, self))
    }

    /// How likely it is to be chosen among equals, beside their chances. Never zero.
    pub(super) const fn chances(&self) -> u32 {
        self.chances
    }

    /// Not loaded by more than `percent` of the least loaded one, and one connection.
    pub(super) fn is_within(&self, percent: u16, least: &Self) -> bool {
        let (mine, least_share) = (i128::from(self.load), i128::from(least.share));
        let least = i128::from(least.load.max(0)) * i128::from(self.share);
        100 * (mine - i128::from(ONE)) * least_share <= i128::from(percent) * least
    }
}
