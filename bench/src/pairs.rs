//! Runs of one test on two sides, taking turns.

use std::time::Duration;

use weft_cli::complain;
use weft_lab::Stop;

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

/// A test with its runs.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) meaning: Meaning,
    /// What weft is compared with: `kernel`, another balancer, or weft itself in an easier case.
    pub(crate) against: &'static str,
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
            weft: Vec::new(),
            other: Vec::new(),
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
        let one = |side: &dyn Fn(Duration) -> anyhow::Result<Run>| {
            stop.going_on()?;
            side(pace.length)
        };
        let (mut all_ours, mut all_theirs) = (Vec::new(), Vec::new());
        for pair in 1..=pace.pairs {
            // Who goes first changes, so that neither side always finds the machine warmer.
            let (run, against) = if pair % 2 == 1 {
                let run = one(&ours)?;
                (run, one(&theirs)?)
            } else {
                let against = one(&theirs)?;
                (one(&ours)?, against)
            };
            let unit = self.meaning.unit;
            complain(&format!(
                "{}, pair {pair} of {}: weft {}, {} {} {unit}",
                self.name,
                pace.pairs,
                shown(run.rate, unit),
                self.against,
                shown(against.rate, unit)
            ));
            all_ours.push(run);
            all_theirs.push(against);
        }
        (self.weft, self.other) = (all_ours, all_theirs);
        Ok(self)
    }
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
