//! Which source is asked next, when, and when to give up. Pure: the pauses are the caller's.

use std::time::Duration;

use crate::source::{SourceError, SourceErrorKind};

/// Rounds through the sources without any gain.
const ROUNDS: u32 = 5;
/// Pause after the first round; twice as long after each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Who asks for more patience than this gets an error that says so.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What became of each source, for one piece of content.
#[derive(Debug)]
pub(super) struct Attempts {
    errors: Vec<Option<SourceError>>,
    rounds: u32,
    /// The last source knows best: where it says no, nobody is asked again.
    last_decides: bool,
}

impl Attempts {
    pub(super) fn new(sources: usize, last_decides: bool) -> Self {
        Self {
            errors: vec![None; sources],
            rounds: 0,
            last_decides,
        }
    }

    /// Who is asked in this round.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.errors.len())
            .filter(|n| {
                self.errors[*n]
                    .as_ref()
                    .is_none_or(SourceError::is_transient)
            })
            .collect()
    }

    pub(super) fn failed(&mut self, source: usize, error: SourceError) {
        self.errors[source] = Some(error);
    }

    /// Something came: whoever broke off may do so again.
    pub(super) fn gained(&mut self) {
        self.rounds = 0;
    }

    /// After a round: how long to wait before the next one.
    ///
    /// # Errors
    /// There is none: what the last source said, which is the registry; `None` where there are no sources.
    pub(super) fn next_pause(&mut self) -> Result<Duration, Option<SourceError>> {
        self.rounds += 1;
        let decided = self.last_decides
            && self
                .errors
                .last()
                .and_then(Option::as_ref)
                .is_some_and(|error| !error.is_transient());
        let pause = self.pause();
        let over = decided || self.is_hopeless();
        if over || self.rounds >= ROUNDS || pause > MAX_PAUSE {
            return Err(self.errors.iter().rev().find_map(Clone::clone));
        }
        Ok(pause)
    }

    /// Nobody is left who may answer otherwise within a few seconds.
    fn is_hopeless(&self) -> bool {
        self.open().into_iter().all(|n| {
            let error = self.errors[n].as_ref();
            error.is_some_and(|error| error.kind == SourceErrorKind::Down)
        })
    }

    /// As long as it takes until the first of them may answer otherwise.
    fn pause(&self) -> Duration {
        let usual = FIRST_PAUSE * 2_u32.pow(self.rounds.saturating_sub(1).min(8));
        let asked = self
            .errors
            .iter()
            .flatten()
            .filter(|error| error.is_transient())
            .map(|error| match error.kind {
                SourceErrorKind::Busy {
                    retry_after: Some(wait),
                } => wait.max(usual),
                _ => usual,
            })
            .min();
        asked.unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: SourceErrorKind) -> SourceError {
        SourceError::new(kind, format!("{kind:?}"))
    }

    fn busy(seconds: u64) -> SourceError {
        error(SourceErrorKind::Busy {
            retry_after: Some(Duration::from_secs(seconds)),
        })
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut attempts = Attempts::new(1, true);
        let mut pauses = Vec::new();
        let last = loop {
            assert_eq!(attempts.open(), [0]);
            attempts.failed(0, error(SourceErrorKind::Unreachable));
            match attempts.next_pause() {
                Ok(pause) => pauses.push(pause.as_millis()),
                Err(error) => break error.expect("an error"),
            }
        };
        assert_eq!(pauses, [500, 1000, 2000, 4000]);
        assert_eq!(last.kind, SourceErrorKind::Unreachable);
    }

    #[test]
    fn a_gain_begins_anew() {
        let mut attempts = Attempts::new(1, false);
        for _ in 0..100 {
            attempts.failed(0, error(SourceErrorKind::Unreachable));
            attempts.gained();
            assert_eq!(attempts.next_pause(), Ok(FIRST_PAUSE));
        }
    }

    #[test]
    fn who_does_not_have_it_is_not_asked_again() {
        let mut attempts = Attempts::new(3, false);
        attempts.failed(0, error(SourceErrorKind::Missing));
        attempts.failed(1, error(SourceErrorKind::Unreachable));
        attempts.failed(2, error(SourceErrorKind::Denied));
        assert_eq!(attempts.open(), [1]);
        assert_eq!(attempts.next_pause(), Ok(FIRST_PAUSE));

        let mut attempts = Attempts::new(2, true);
        attempts.failed(0, error(SourceErrorKind::Unreachable));
        attempts.failed(1, error(SourceErrorKind::Missing));
        let said = attempts.next_pause().expect_err("the last one decides");
        assert_eq!(said.expect("an error").kind, SourceErrorKind::Missing);
        assert_eq!(Attempts::new(0, true).next_pause(), Err(None));
    }

    #[test]
    fn who_was_not_asked_again_is_not_waited_for() {
        let mut attempts = Attempts::new(2, true);
        attempts.failed(0, error(SourceErrorKind::Missing));
        attempts.failed(1, error(SourceErrorKind::Down));
        let said = attempts.next_pause().expect_err("nobody is left");
        assert_eq!(said.expect("an error").kind, SourceErrorKind::Down);
        // Another one may have it soon.
        let mut attempts = Attempts::new(2, true);
        attempts.failed(0, error(SourceErrorKind::Unreachable));
        attempts.failed(1, error(SourceErrorKind::Down));
        assert_eq!(attempts.next_pause(), Ok(FIRST_PAUSE));
    }

    #[test]
    fn patience_has_an_end() {
        let mut attempts = Attempts::new(1, true);
        attempts.failed(0, busy(7));
        assert_eq!(attempts.next_pause(), Ok(Duration::from_secs(7)));
        attempts.failed(0, busy(3600));
        assert_eq!(attempts.next_pause(), Err(Some(busy(3600))));
        // Another one can be asked earlier.
        let mut attempts = Attempts::new(2, true);
        attempts.failed(0, error(SourceErrorKind::Unreachable));
        attempts.failed(1, busy(3600));
        assert_eq!(attempts.next_pause(), Ok(FIRST_PAUSE));
    }
}
