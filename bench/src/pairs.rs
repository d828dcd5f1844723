//! Runs of one test on two sides, taking turns.

use std::time::Duration;

use weft_cli::complain;
use weft_lab::{Bed, Stop};

use crate::conditions::{Conditions, FastPath};
use crate::figures::median;
use crate::run::{Meaning, Run};

/// Length of the runs that nobody counts, which warm caches and neighbours up.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// How often and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) pairs: u8,
    pub(crate) length: Duration,
}

/// Measures a side for that long.
pub(crate) type Measure<'a> = &'a dyn Fn(Duration) -> anyhow::Result<Run>;

/// A test with its runs.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) meaning: Meaning,
    /// What weft is compared with: `kernel`, another balancer, or weft itself in an easier case.
    pub(crate) against: &'static str,
    /// What weft is called beside it.
    pub(crate) side: &'static str,
    /// Where the bench has a choice of them.
    pub(crate) conditions: Option<Conditions>,
    pub(crate) weft: Vec<Run>,
    pub(crate) other: Vec<Run>,
}

impl Test {
    /// Nothing measured yet.
    pub(crate) fn new(name: impl Into<String>, meaning: Meaning, against: &'static str) -> Self {
        Self {
            name: name.into(),
            meaning,
            against,
            side: FastPath::Off.side(),
            conditions: None,
            weft: Vec::new(),
            other: Vec::new(),
        }
    }

    /// The same under such conditions.
    pub(crate) fn under(mut self, conditions: Conditions) -> Self {
        self.side = conditions.fast_path.side();
        if conditions.fast_path == FastPath::Auto {
            self.name.push_str(", fast path");
        }
        self.conditions = Some(conditions);
        self
    }

    /// Its name, with the bed where that is not the usual one.
    pub(crate) fn title(&self) -> String {
        match self.conditions {
            Some(Conditions { bed, .. }) if bed != Bed::default() => {
                format!("{} ({})", self.name, bed.name())
            }
            _ => self.name.clone(),
        }
    }

    /// Measures both in pairs, without any run before that nobody counts.
    pub(crate) fn run_both(
        mut self,
        pace: Pace,
        stop: &Stop,
        ours: impl Fn(Duration) -> anyhow::Result<Run>,
        theirs: impl Fn(Duration) -> anyhow::Result<Run>,
    ) -> anyhow::Result<Self> {
        let tests = std::slice::from_mut(&mut self);
        rounds(tests, pace, stop, &[&ours], &theirs)?;
        Ok(self)
    }
}

/// Measures several sides of weft in rounds with the one that all of them are compared with; no run
/// before that nobody counts. `tests` has one test for each of `ours`; all get the same runs of
/// `theirs`.
pub(crate) fn rounds<'a>(
    tests: &mut [Test],
    pace: Pace,
    stop: &Stop,
    ours: &[Measure<'a>],
    theirs: Measure<'a>,
) -> anyhow::Result<()> {
    let sides: Vec<Measure<'a>> = ours.iter().copied().chain([theirs]).collect();
    for round in 1..=pace.pairs {
        // Who goes first changes, so that no side always finds the machine warmer.
        let first = usize::from(round - 1) % sides.len();
        let mut runs = Vec::with_capacity(sides.len());
        for side in sides.iter().cycle().skip(first).take(sides.len()) {
            stop.going_on()?;
            runs.push(side(pace.length)?);
        }
        // Back into the order of the sides.
        runs.rotate_right(first);
        let Some(against) = runs.pop() else {
            continue;
        };
        tell(tests, (round, pace.pairs), &runs, &against);
        for (test, run) in tests.iter_mut().zip(runs) {
            test.weft.push(run);
            test.other.push(against.clone());
        }
    }
    Ok(())
}

/// One line of what a round brought.
fn tell(tests: &[Test], (round, rounds): (u8, u8), runs: &[Run], against: &Run) {
    let Some(test) = tests.first() else {
        return;
    };
    let unit = test.meaning.unit;
    let ours = tests.iter().zip(runs);
    let ours: Vec<String> = ours
        .map(|(test, run)| format!("{} {}", test.side, shown(run.rate, unit)))
        .collect();
    complain(&format!(
        "{}, pair {round} of {rounds}: {}, {} {} {unit}",
        test.title(),
        ours.join(", "),
        test.against,
        shown(against.rate, unit)
    ));
}

/// The median of a figure over some runs.
pub(crate) fn median_of(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    median(&runs.iter().map(value).collect::<Vec<_>>())
}

/// A figure as people read it.
pub(crate) fn shown(value: f64, unit: &str) -> String {
    match unit {
        "Gbit/s" => format!("{:.2}", value / 1e9),
        "1/s" | "" => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::measure::Work;

    #[test]
    fn sides_take_turns_and_share_the_runs_of_the_one_they_are_compared_with() {
        let turns = RefCell::new(Vec::new());
        let side = |rate: f64| {
            let turns = &turns;
            move |length: Duration| {
                turns.borrow_mut().push(rate);
                anyhow::Ok(Run {
                    rate: rate * 100.0 + turns.borrow().len() as f64,
                    seconds: length.as_secs_f64(),
                    ..Run::default()
                })
            }
        };
        let (weft, fast, kernel) = (side(1.0), side(2.0), side(3.0));
        let meaning = Work::RoundTrips { concurrent: 1 }.meaning();
        let mut tests = [FastPath::Off, FastPath::Auto].map(|fast_path| {
            Test::new("trips", meaning, "kernel").under(Conditions {
                bed: Bed::Nic,
                busy_loops: 0,
                fast_path,
            })
        });
        let pace = Pace {
            pairs: 4,
            length: Duration::from_secs(2),
        };
        rounds(&mut tests, pace, &Stop::default(), &[&weft, &fast], &kernel).unwrap();
        let expected = [1.0, 2.0, 3.0, 2.0, 3.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0, 3.0];
        assert_eq!(*turns.borrow(), expected);
        let rates = |runs: &[Run]| runs.iter().map(|run| run.rate).collect::<Vec<_>>();
        assert_eq!(rates(&tests[0].weft), [101.0, 106.0, 108.0, 110.0]);
        assert_eq!(rates(&tests[1].weft), [202.0, 204.0, 209.0, 211.0]);
        assert_eq!(rates(&tests[0].other), [303.0, 305.0, 307.0, 312.0]);
        assert_eq!(rates(&tests[1].other), rates(&tests[0].other));
        assert_eq!(tests[0].title(), "trips (nic)");
        assert_eq!(tests[1].title(), "trips, fast path (nic)");
        assert_eq!((tests[0].side, tests[1].side), ("weft", "fast path"));
    }

    #[test]
    fn the_usual_bed_needs_no_word() {
        let test = Test::new("trips", Work::Rest.meaning(), "kernel");
        assert_eq!(test.title(), "trips");
        let usual = test.under(Conditions {
            bed: Bed::Veth,
            busy_loops: 2,
            fast_path: FastPath::Off,
        });
        assert_eq!((usual.title().as_str(), usual.side), ("trips", "weft"));
    }
}
