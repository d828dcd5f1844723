//! Who of the nodes that want the same image at the same time asks the registry for it. Pure: what
//! others say and the time are arguments.
//!
//! A node says that it wants the image before it asks the others. Where one has it, or is fetching
//! it, it is taken from there. Else the one with the lowest rank goes to the registry: it claims
//! that, looks around once more after a moment, and goes if nobody with a lower rank wants the same
//! by then. The others wait for it, for a time. Two that begin within a moment see each other's
//! claims; should both go all the same, each has an image in the end, and the registry was asked
//! twice.

use std::time::Duration;

/// Between a claim and the look around after it: longer than a question and its answer take.
pub(super) const SETTLE: Duration = Duration::from_millis(40);
/// Between two looks at those who go first.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How long others may go first without a sign of progress. A node that is stuck costs no more.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Place of a node in the order of those who want the same: the digest of both their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub(super) String);

/// What a node does about an image that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has just begun, or waits.
    Wants,
    /// It goes to the registry if nobody goes first.
    Claims,
    /// It fetches it from the registry.
    Fetches,
    /// It takes it from other nodes.
    Follows,
}

impl Stage {
    /// As nodes tell each other.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Wants => "wants",
            Self::Claims => "claims",
            Self::Fetches => "fetches",
            Self::Follows => "follows",
        }
    }

    /// The stage of that name.
    pub(super) fn of(text: &str) -> Option<Self> {
        let all = [Self::Wants, Self::Claims, Self::Fetches, Self::Follows];
        all.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// What another node says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It has the image.
    Has,
    /// It does not have it, and does nothing about that.
    HasNot,
    /// It does something about it.
    At {
        /// What.
        stage: Stage,
        /// Its place in the order.
        rank: Rank,
    },
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Take it from other nodes, and what they lack from the registry.
    Follow,
    /// Ask the registry.
    Lead,
    /// Be at this stage, and ask the others again after this time.
    Ask(Stage, Duration),
}

/// The turn of one node for one image.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    own: Rank,
    stage: Stage,
    /// Since when others go first.
    waiting: Option<Duration>,
}

impl Turn {
    /// Of a node that has begun to want an image, and said so.
    pub(super) const fn new(own: Rank) -> Self {
        Self {
            own,
            stage: Stage::Wants,
            waiting: None,
        }
    }

    /// What to do, by what those said who answered. `now` is a time that never goes back.
    pub(super) fn handle(&mut self, now: Duration, said: &[Said]) -> Next {
        let is_there = |said: &Said| {
            let fetched = matches!(said, Said::At { stage, .. } if *stage == Stage::Fetches);
            *said == Said::Has || fetched
        };
        if said.iter().any(is_there) {
            return Next::Follow;
        }
        if said.is_empty() {
            // Nobody to agree with.
            return Next::Lead;
        }
        let goes_first = |said: &Said| match said {
            Said::At { stage, rank } => *stage != Stage::Follows && *rank < self.own,
            Said::Has | Said::HasNot => false,
        };
        if said.iter().any(goes_first) {
            let since = *self.waiting.get_or_insert(now);
            if now.saturating_sub(since) >= PATIENCE {
                return Next::Lead;
            }
            self.stage = Stage::Wants;
            return Next::Ask(Stage::Wants, LOOK);
        }
        self.waiting = None;
        if self.stage == Stage::Claims {
            return Next::Lead;
        }
        self.stage = Stage::Claims;
        Next::Ask(Stage::Claims, SETTLE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rank(text: &str) -> Rank {
        Rank(text.to_owned())
    }

    fn at(stage: Stage, of: &str) -> Said {
        let rank = rank(of);
        Said::At { stage, rank }
    }

    #[test]
    fn one_that_is_alone_goes_at_once() {
        let mut turn = Turn::new(rank("b"));
        assert_eq!(turn.handle(Duration::ZERO, &[]), Next::Lead);
        // And after one look around where others are there and do not want it.
        let mut turn = Turn::new(rank("b"));
        let nobody = [Said::HasNot, Said::HasNot];
        let claims = Next::Ask(Stage::Claims, SETTLE);
        assert_eq!(turn.handle(Duration::ZERO, &nobody), claims);
        assert_eq!(turn.handle(SETTLE, &nobody), Next::Lead);
    }

    #[test]
    fn what_is_there_or_on_its_way_is_taken_from_there() {
        for said in [Said::Has, at(Stage::Fetches, "z")] {
            for first in [Stage::Wants, Stage::Claims] {
                let mut turn = Turn::new(rank("a"));
                if first == Stage::Claims {
                    turn.handle(Duration::ZERO, &[Said::HasNot]);
                }
                let said = [Said::HasNot, said.clone()];
                assert_eq!(turn.handle(SETTLE, &said), Next::Follow);
            }
        }
        // Who follows has nothing of its own to give.
        let mut turn = Turn::new(rank("b"));
        let follower = [at(Stage::Follows, "a")];
        turn.handle(Duration::ZERO, &follower);
        assert_eq!(turn.handle(SETTLE, &follower), Next::Lead);
    }

    #[test]
    fn who_is_stuck_is_waited_for_no_longer_than_patience() {
        let mut turn = Turn::new(rank("b"));
        let stuck = [at(Stage::Claims, "a")];
        let (mut now, mut asked) = (Duration::from_secs(7), 0);
        while let Next::Ask(stage, pause) = turn.handle(now, &stuck) {
            assert_eq!(stage, Stage::Wants);
            now += pause;
            asked += 1;
            assert!(asked < 1000, "it never ends");
        }
        assert_eq!(now, Duration::from_secs(7) + PATIENCE);
        // One that goes away in between does not count.
        let mut turn = Turn::new(rank("b"));
        turn.handle(Duration::ZERO, &stuck);
        turn.handle(Duration::from_secs(1), &[Said::HasNot]);
        let again = turn.handle(Duration::from_millis(2900), &stuck);
        assert_eq!(again, Next::Ask(Stage::Wants, LOOK));
    }

    /// A number that looks like chance, always the same for a seed (Knuth's constants).
    fn chance(seed: &mut u64, below: u64) -> u64 {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    }

    /// When each node begins, how long an answer takes, and who leads in the end. A node asks all
    /// others at one moment, and has their answers at another.
    fn play(mut seed: u64, nodes: usize, latest_ms: u64) -> (usize, u64) {
        enum Due {
            Asks,
            Hears(Vec<Said>),
        }
        const FETCH: u64 = 700;
        let mut due: BTreeMap<(u64, usize), Due> = BTreeMap::new();
        let mut turns: BTreeMap<usize, Turn> = BTreeMap::new();
        let (mut stages, mut done) = (BTreeMap::<usize, Stage>::new(), BTreeMap::new());
        for node in 0..nodes {
            due.insert((chance(&mut seed, latest_ms + 1), node), Due::Asks);
        }
        let (mut leads, mut last) = (0, 0);
        while let Some(((now, node), what)) = due.pop_first() {
            let has = |node: usize, done: &BTreeMap<usize, u64>| {
                done.get(&node).is_some_and(|at| *at <= now)
            };
            match what {
                Due::Asks => {
                    turns
                        .entry(node)
                        .or_insert_with(|| Turn::new(rank(&format!("{node:03}"))));
                    stages.entry(node).or_insert(Stage::Wants);
                    let others = (0..nodes).filter(|other| *other != node);
                    let said = others.map(|other| match stages.get(&other) {
                        _ if has(other, &done) => Said::Has,
                        Some(stage) => at(*stage, &format!("{other:03}")),
                        None => Said::HasNot,
                    });
                    let said = said.collect();
                    let answered = now + 1 + chance(&mut seed, 15);
                    due.insert((answered, node), Due::Hears(said));
                }
                Due::Hears(said) => {
                    let turn = turns.get_mut(&node).expect("it has asked");
                    match turn.handle(Duration::from_millis(now), &said) {
                        Next::Ask(stage, pause) => {
                            stages.insert(node, stage);
                            let pause = u64::try_from(pause.as_millis()).expect("short");
                            due.insert((now + pause, node), Due::Asks);
                        }
                        Next::Lead => {
                            leads += 1;
                            stages.insert(node, Stage::Fetches);
                            done.insert(node, now + FETCH);
                            last = now;
                        }
                        Next::Follow => {
                            stages.insert(node, Stage::Follows);
                            last = now;
                        }
                    }
                }
            }
        }
        assert_eq!(stages.len(), nodes, "every one has come to an end");
        assert!(
            stages
                .values()
                .all(|s| matches!(s, Stage::Fetches | Stage::Follows))
        );
        (leads, last)
    }

    #[test]
    fn a_registry_is_asked_once_however_many_begin_at_whatever_moment() {
        for seed in 0..3000 {
            let nodes = 2 + usize::try_from(seed % 9).expect("small");
            let latest = [0, 5, 40, 200, 2000][usize::try_from(seed % 5).expect("small")];
            let (leads, last) = play(seed, nodes, latest);
            assert_eq!(leads, 1, "seed {seed}: {nodes} nodes within {latest} ms");
            assert!(last < latest + 2000, "seed {seed}: decided after {last} ms");
        }
    }
}
