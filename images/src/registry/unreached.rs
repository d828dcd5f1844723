//! Hosts that could not be reached a moment ago: whoever asks again soon is told the same at once. Pure:
//! the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::error::RegistryError;
use super::manner::Manner;

/// For how long it counts what came of the last question.
const KEPT: Duration = Duration::from_secs(30);
/// Hosts that are remembered; a node asks fewer.
const MAX_HOSTS: usize = 64;

/// How long a host was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// It was not: resolver or kernel said no of their own accord.
    Not,
    /// As long as [`Manner::Brief`] waits.
    Briefly,
    /// As long as anybody waits.
    Long,
}

/// What came of the last question to a host.
#[derive(Debug)]
enum Last {
    /// It is there, whatever it said.
    Heard,
    /// Nothing.
    Failed(RegistryError, Waited),
}

/// What came of the last questions, by host.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    hosts: BTreeMap<String, (Instant, Last)>,
}

impl Unreached {
    /// The error of before, where that is answer enough for who asks in this manner.
    pub(super) fn recall(&self, host: &str, manner: Manner, now: Instant) -> Option<RegistryError> {
        let (at, Last::Failed(error, waited)) = self.hosts.get(host)? else {
            return None;
        };
        let counts = match manner {
            Manner::Again => false,
            Manner::Retry => *waited == Waited::Long,
            // A longer wait may end otherwise.
            Manner::Usual => *waited != Waited::Briefly,
            Manner::Brief => true,
        };
        let ago = now.saturating_duration_since(*at);
        (counts && ago < KEPT).then(|| RegistryError::Remembered {
            error: Box::new(error.clone()),
            ago,
        })
    }

    /// It could not be reached. One that has just answered others is there, and only slow this time.
    pub(super) fn note(&mut self, host: &str, error: &RegistryError, waited: Waited, now: Instant) {
        let answers = match self.hosts.get(host) {
            Some((at, Last::Heard)) => now.saturating_duration_since(*at) < KEPT,
            _ => false,
        };
        if !(answers && matches!(error, RegistryError::Silent { .. })) {
            self.put(host, Last::Failed(error.clone(), waited), now);
        }
    }

    /// It was reached.
    pub(super) fn heard(&mut self, host: &str, now: Instant) {
        self.put(host, Last::Heard, now);
    }

    fn put(&mut self, host: &str, last: Last, now: Instant) {
        let hosts = &mut self.hosts;
        hosts.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEPT);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(host) {
            let oldest = hosts.iter().min_by_key(|(_, (at, _))| *at);
            let oldest = oldest.map(|(host, _)| host.clone());
            if let Some(oldest) = oldest {
                hosts.remove(&oldest);
            }
        }
        hosts.insert(host.to_owned(), (now, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://registry.example";

    fn unknown() -> RegistryError {
        RegistryError::Name {
            host: "registry.example".to_owned(),
            reason: "the resolver has not answered within 10 s".to_owned(),
        }
    }

    fn silent() -> RegistryError {
        RegistryError::Silent {
            host: "registry.example".to_owned(),
            limit: Duration::from_secs(40),
        }
    }

    #[test]
    fn what_could_not_be_reached_is_remembered_for_a_while() {
        let mut unreached = Unreached::default();
        let begun = Instant::now();
        assert_eq!(unreached.recall(HOST, Manner::Usual, begun), None);
        unreached.note(HOST, &unknown(), Waited::Long, begun);
        let later = begun + Duration::from_secs(12);
        let error = unreached.recall(HOST, Manner::Usual, later);
        let text = error.expect("it is remembered").to_string();
        assert_eq!(
            text,
            format!("{} (remembered: asked 12 s ago)", unknown()),
            "the same sentence"
        );
        let other = "https://other.example";
        assert_eq!(unreached.recall(other, Manner::Usual, later), None);
        let over = begun + KEPT;
        assert_eq!(unreached.recall(HOST, Manner::Usual, over), None);
        // Whoever hears something ends it.
        unreached.heard(HOST, later);
        assert_eq!(unreached.recall(HOST, Manner::Usual, later), None);
    }

    #[test]
    fn a_failure_counts_for_who_would_wait_no_longer() {
        let now = Instant::now();
        for (waited, counts_for) in [
            (Waited::Not, [true, true, false, false]),
            (Waited::Briefly, [false, true, false, false]),
            (Waited::Long, [true, true, true, false]),
        ] {
            let mut unreached = Unreached::default();
            unreached.note(HOST, &unknown(), waited, now);
            let manners = [Manner::Usual, Manner::Brief, Manner::Retry, Manner::Again];
            let counts = manners.map(|manner| unreached.recall(HOST, manner, now).is_some());
            assert_eq!(counts, counts_for, "{waited:?}");
        }
    }

    #[test]
    fn one_that_answers_others_is_there() {
        let mut unreached = Unreached::default();
        let begun = Instant::now();
        unreached.heard(HOST, begun);
        let soon = begun + Duration::from_secs(10);
        unreached.note(HOST, &silent(), Waited::Long, soon);
        assert_eq!(unreached.recall(HOST, Manner::Usual, soon), None);
        // Not so where it is gone.
        unreached.note(HOST, &unknown(), Waited::Not, soon);
        assert!(unreached.recall(HOST, Manner::Usual, soon).is_some());
        let mut unreached = Unreached::default();
        unreached.heard(HOST, begun);
        let late = begun + KEPT;
        unreached.note(HOST, &silent(), Waited::Long, late);
        assert!(unreached.recall(HOST, Manner::Usual, late).is_some());
    }

    #[test]
    fn the_oldest_is_forgotten_for_the_newest() {
        let mut unreached = Unreached::default();
        let mut now = Instant::now();
        for n in 0..=MAX_HOSTS {
            now += Duration::from_millis(1);
            unreached.note(&format!("https://h{n}"), &unknown(), Waited::Not, now);
        }
        assert_eq!(unreached.hosts.len(), MAX_HOSTS);
        let recalled = |host: &str| unreached.recall(host, Manner::Usual, now).is_some();
        assert!(!recalled("https://h0") && recalled("https://h1"));
        assert!(recalled(&format!("https://h{MAX_HOSTS}")));
        unreached.heard("https://late", now + KEPT);
        assert_eq!(unreached.hosts.len(), 1, "what is over is not kept");
    }
}
