//! A test of ways between two sandboxes that is still to be made.

use weft_lab::Stop;

use crate::load::Way;
use crate::measure::Work;
use crate::pairs::{Pace, Test, WARM_UP};

/// A test without runs, and what is done in each.
#[derive(Debug)]
pub(crate) struct Trial {
    test: Test,
    work: Work,
}

impl Trial {
    /// `against` is what weft is compared with.
    pub(crate) fn new(name: impl Into<String>, work: Work, against: &'static str) -> Self {
        Self {
            test: Test::new(name, work.meaning(), against),
            work,
        }
    }

    /// Measures both in pairs; `prepare` is called before each run on weft's side, and what it
    /// returns lives as long as the run.
    pub(crate) fn run<T>(
        self,
        pace: Pace,
        (weft, other): (&Way<'_>, &Way<'_>),
        stop: &Stop,
        prepare: impl Fn() -> anyhow::Result<T>,
    ) -> anyhow::Result<Test> {
        let Self { test, work } = self;
        let ours = |length| {
            let _meanwhile = prepare()?;
            work.measure(weft, length)
        };
        let theirs = |length| work.measure(other, length);
        stop.going_on()?;
        ours(WARM_UP)?;
        stop.going_on()?;
        theirs(WARM_UP)?;
        test.run_both(pace, stop, ours, theirs)
    }
}
