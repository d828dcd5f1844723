//! How the tasks of a service are replaced when it changes, and how far that is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::meta::Version;
use crate::id::TaskId;

/// What follows when too many new tasks fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// The rest stays as it is.
    #[default]
    Pause,
    /// Nothing: all tasks are replaced.
    Continue,
    /// The service is what it was before, and so are its tasks.
    Rollback,
}

/// Which of two tasks of a slot comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The new one starts once the old one has ended.
    #[default]
    StopFirst,
    /// The old one is stopped once the new one runs.
    StartFirst,
}

/// A part of a whole, from 0 to 1, to the millionth; written as a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// Parts of the whole.
    const PARTS: u32 = 1_000_000;

    /// From a number between 0 and 1; nothing for any other.
    #[must_use]
    pub fn new(ratio: f64) -> Option<Self> {
        let fits = (0.0..=1.0).contains(&ratio);
        fits.then(|| Self((ratio * f64::from(Self::PARTS)).round() as u32))
    }

    /// Whether `part` of `whole` is more than this; of nothing, anything is.
    #[must_use]
    pub fn is_exceeded(self, part: usize, whole: usize) -> bool {
        let [part, whole] = [part, whole].map(|n| n as u128);
        part * u128::from(Self::PARTS) > u128::from(self.0) * whole
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        Self::from(ratio.0) / Self::from(Ratio::PARTS)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&f64::from(*self), f)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64((*self).into())
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let ratio = f64::deserialize(from)?;
        Self::new(ratio).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{ratio} is no ratio: write a number from 0 to 1"
            ))
        })
    }
}

/// How tasks are replaced, Swarm's defaults. What is not known here is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateConfig {
    /// Slots that are worked on at a time; 0 is all of them.
    pub parallelism: u32,
    /// Between a new task that runs and the next slot; written in nanoseconds, as all times here.
    #[serde(with = "crate::time::nanoseconds")]
    pub delay: Duration,
    /// When too many new tasks fail.
    pub failure_action: FailureAction,
    /// For so long a new task that ends counts as failed.
    #[serde(with = "crate::time::nanoseconds")]
    pub monitor: Duration,
    /// Part of the slots that may fail.
    pub max_failure_ratio: Ratio,
    /// Which task of a slot comes first.
    pub order: UpdateOrder,
    /// A new task that does not run after this time counts as failed; 0 is for ever.
    #[serde(with = "crate::time::nanoseconds")]
    pub timeout: Duration,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::default(),
            monitor: Duration::from_secs(5),
            max_failure_ratio: Ratio::default(),
            order: UpdateOrder::default(),
            timeout: Duration::from_secs(5 * 60),
        }
    }
}

impl UpdateConfig {
    /// True where nobody asked for anything else than Swarm does.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How long new tasks are watched: a delay that is not shorter than `monitor` is watched too.
    #[must_use]
    pub fn watched(&self) -> Duration {
        if self.monitor.is_zero() && self.delay.is_zero() {
            Duration::ZERO
        } else if self.delay >= self.monitor {
            self.delay.saturating_add(Duration::from_secs(1))
        } else {
            self.monitor
        }
    }
}

/// How far the tasks of a service are replaced. Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Slots are worked on.
    Updating,
    /// Too many new tasks failed; nothing is done until the next update.
    Paused,
    /// All tasks are what the service says.
    Completed,
    /// Slots are worked on, with the specification of before.
    RollbackStarted,
    /// Too many tasks failed in that, too.
    RollbackPaused,
    /// All tasks are what the service said before.
    RollbackCompleted,
}

impl UpdateState {
    /// True while slots are worked on.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// True once nothing is left to do.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::RollbackCompleted)
    }

    /// True of a way back.
    #[must_use]
    pub fn is_rollback(self) -> bool {
        matches!(
            self,
            Self::RollbackStarted | Self::RollbackPaused | Self::RollbackCompleted
        )
    }

    /// The word of the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }
}

/// The last update of a service that replaced tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// How far it is.
    pub state: UpdateState,
    /// When it began: Unix milliseconds, written as RFC 3339.
    #[serde(with = "crate::time::rfc3339")]
    pub started_at: u64,
    /// When all tasks were replaced, likewise.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::time::maybe_rfc3339"
    )]
    pub completed_at: Option<u64>,
    /// The same for people: Docker's words, and what to do.
    pub message: String,
    /// Version of the service that its new tasks have at least.
    pub spec_version: Version,
    /// Slots that were to be worked on when it began.
    pub slots: u32,
    /// The task that it is paused for.
    #[serde(default, rename = "TaskID", skip_serializing_if = "Option::is_none")]
    pub failed: Option<TaskId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        for (text, of) in [("0", (0, 1)), ("0.2", (1, 5)), ("1", (5, 5))] {
            let ratio: Ratio = serde_json::from_str(text).expect(text);
            assert!(!ratio.is_exceeded(of.0, of.1), "{text}");
            assert!(ratio.is_exceeded(of.0 + 1, of.1), "{text}");
        }
        let ratio = Ratio::new(0.2).expect("a ratio");
        assert_eq!(serde_json::to_string(&ratio).expect("written"), "0.2");
        assert_eq!(ratio.to_string(), "0.2");
        for wrong in ["-0.1", "1.01", "1e9"] {
            let error = serde_json::from_str::<Ratio>(wrong).expect_err(wrong);
            assert!(error.to_string().contains("from 0 to 1"), "{error}");
        }
        assert_eq!(Ratio::new(f64::NAN), None);
    }

    #[test]
    fn a_delay_is_watched() {
        let seconds = |delay, monitor| {
            let config = UpdateConfig {
                delay: Duration::from_secs(delay),
                monitor: Duration::from_secs(monitor),
                ..UpdateConfig::default()
            };
            config.watched().as_secs()
        };
        assert_eq!(seconds(0, 5), 5);
        assert_eq!(seconds(5, 5), 6);
        assert_eq!(seconds(10, 0), 11);
        assert_eq!(seconds(0, 0), 0);
    }

    #[test]
    fn states_are_dockers() {
        for state in [
            UpdateState::Updating,
            UpdateState::Paused,
            UpdateState::Completed,
            UpdateState::RollbackStarted,
            UpdateState::RollbackPaused,
            UpdateState::RollbackCompleted,
        ] {
            let text = serde_json::to_string(&state).expect("written");
            assert_eq!(text, format!("\"{}\"", state.word()));
        }
    }
}
