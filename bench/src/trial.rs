//! A test of ways between two sandboxes that is still to be made.

use std::time::Duration;

use weft_lab::Stop;

use crate::busy::BusyLoops;
use crate::conditions::{Conditions, FastPath};
use crate::load::Way;
use crate::measure::Work;
use crate::pairs::{Measure, Pace, Test, WARM_UP, rounds};
use crate::run::Run;

/// A test without runs, and what is done in each.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    test: Test,
    work: Work,
    conditions: Option<Conditions>,
    busy: Option<&'a BusyLoops>,
}

impl<'a> Trial<'a> {
    /// `against` is what weft is compared with.
    pub(crate) fn new(name: impl Into<String>, work: Work, against: &'static str) -> Self {
        Self {
            test: Test::new(name, work.meaning(), against),
            work,
            conditions: None,
            busy: None,
        }
    }

    /// The same under such conditions, with the busy loops that are a part of them.
    pub(crate) fn under(self, conditions: Conditions, busy: Option<&'a BusyLoops>) -> Self {
        Self {
            conditions: Some(conditions),
            busy,
            ..self
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
        let ours = |length| {
            let _meanwhile = prepare()?;
            self.measure(weft, length)
        };
        let theirs = |length| self.measure(other, length);
        stop.going_on()?;
        ours(WARM_UP)?;
        stop.going_on()?;
        theirs(WARM_UP)?;
        let test = match self.conditions {
            Some(conditions) => self.test.clone().under(conditions),
            None => self.test.clone(),
        };
        test.run_both(pace, stop, ours, theirs)
    }

    /// Measures several sides of weft in rounds with the other one: a test for each of them. Their
    /// conditions are those of this trial but for the fast path.
    pub(crate) fn run_sides(
        self,
        pace: Pace,
        sides: &[(FastPath, Way<'_>)],
        other: &Way<'_>,
        stop: &Stop,
    ) -> anyhow::Result<Vec<Test>> {
        for way in sides.iter().map(|(_, way)| way).chain([other]) {
            stop.going_on()?;
            self.measure(way, WARM_UP)?;
        }
        let test_of = |fast_path| {
            let test = self.test.clone();
            match self.conditions {
                Some(conditions) => test.under(Conditions {
                    fast_path,
                    ..conditions
                }),
                None => test,
            }
        };
        let mut tests: Vec<Test> = sides.iter().map(|side| test_of(side.0)).collect();
        let trial = &self;
        let measure = |way| move |length| trial.measure(way, length);
        let ours: Vec<_> = sides.iter().map(|(_, way)| measure(way)).collect();
        let ours: Vec<Measure<'_>> = ours.iter().map(|side| side as Measure<'_>).collect();
        rounds(&mut tests, pace, stop, &ours, &measure(other))?;
        Ok(tests)
    }

    fn measure(&self, way: &Way<'_>, length: Duration) -> anyhow::Result<Run> {
        let Some(busy) = self.busy else {
            return self.work.measure(way, length);
        };
        let before = busy.used()?;
        let mut run = self.work.measure(way, length)?;
        // What the neighbours use is not what packets cost. Their time is counted finer than the
        // machine's, so that of an idle run may come out below zero.
        let used = busy.used()? - before;
        run.usage.machine = (run.usage.machine - used).max(0.0);
        Ok(run)
    }
}
