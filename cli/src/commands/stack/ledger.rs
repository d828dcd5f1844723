//! How far a deployment got, for when it does not get to its end.

use std::collections::VecDeque;

use hyper::StatusCode;
use weft_client::Refused;

use super::steps::Step;
use crate::commands::service_update::is_outdated;

/// What another deploy of the same files would meet again, though no manager refused it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Hopeless(pub(super) String);

/// A step in words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `network vote_front`
    what: String,
    /// `created`
    becoming: &'static str,
}

/// What is done, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    done: Vec<String>,
    /// The first of `left` is sent.
    at_work: bool,
    left: VecDeque<Entry>,
}

/// Why it did not get further, which decides whether it is of use to run it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The step at work was refused for what it says: it would be again.
    Refused,
    /// It was refused for how the swarm is at the moment: no leader, other versions.
    Busy,
    /// Nobody knows what became of it: there was no answer.
    Unanswered,
    /// Nobody waited for the answer.
    Interrupted,
}

impl Cause {
    /// Why a step failed.
    #[must_use]
    pub(super) fn of(error: &anyhow::Error) -> Self {
        if error.is::<Hopeless>() {
            return Self::Refused;
        }
        let Some(refused) = error.downcast_ref::<Refused>() else {
            return Self::Unanswered;
        };
        // What somebody removed meanwhile is made anew, or told with all the rest, by the next one.
        let is_gone = refused.status == StatusCode::NOT_FOUND;
        if refused.status.is_server_error() || is_gone || is_outdated(error) {
            Self::Busy
        } else {
            Self::Refused
        }
    }
}

impl Ledger {
    /// Nothing is done yet.
    #[must_use]
    pub(super) fn of(steps: &[Step]) -> Self {
        let left = steps.iter().map(|step| Entry {
            what: step.what(),
            becoming: step.becoming(),
        });
        Self {
            done: Vec::new(),
            at_work: false,
            left: left.collect(),
        }
    }

    /// The next step is sent.
    pub(super) fn begin(&mut self) {
        self.at_work = true;
    }

    /// The step at work is done.
    pub(super) fn finish(&mut self) {
        self.at_work = false;
        self.done
            .extend(self.left.pop_front().map(|entry| entry.what));
    }

    /// For people, with the next step.
    #[must_use]
    pub(super) fn text(&self, cause: Cause) -> String {
        let is_unknown = self.at_work && matches!(cause, Cause::Unanswered | Cause::Interrupted);
        let mut left = self.left.iter();
        let unknown = if is_unknown { left.next() } else { None };
        let mut parts = Vec::new();
        if !self.done.is_empty() {
            parts.push(format!("done: {}", self.done.join(", ")));
        } else if unknown.is_none() {
            parts.push("nothing was done".to_owned());
        }
        if let Some(Entry { what, becoming }) = unknown {
            parts.push(format!("not known: {what} (it was being {becoming})"));
        }
        let left: Vec<&str> = left.map(|entry| entry.what.as_str()).collect();
        if !left.is_empty() {
            parts.push(format!("not done: {}", left.join(", ")));
        }
        parts.push(match cause {
            Cause::Refused => "mend that and deploy again: nothing is done twice".to_owned(),
            Cause::Busy | Cause::Unanswered | Cause::Interrupted => {
                "run the same command again to finish".to_owned()
            }
        });
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use weft_model::objects::NetworkSpec;

    use super::*;

    fn network(name: &str) -> Step {
        Step::CreateNetwork(NetworkSpec {
            name: name.to_owned(),
            ..NetworkSpec::default()
        })
    }

    #[test]
    fn what_is_done_and_what_is_not_is_told() {
        let mut ledger = Ledger::of(&["a", "b", "c"].map(network));
        // It waits for others.
        assert_eq!(
            ledger.text(Cause::Interrupted),
            "nothing was done; not done: network a, network b, network c; run the same command again \
             to finish"
        );
        ledger.begin();
        assert_eq!(
            ledger.text(Cause::Refused),
            "nothing was done; not done: network a, network b, network c; mend that and deploy again: \
             nothing is done twice"
        );
        assert_eq!(
            ledger.text(Cause::Unanswered),
            "not known: network a (it was being created); not done: network b, network c; run the same \
             command again to finish"
        );
        ledger.finish();
        ledger.begin();
        assert_eq!(
            ledger.text(Cause::Interrupted),
            "done: network a; not known: network b (it was being created); not done: network c; run the \
             same command again to finish"
        );
        ledger.finish();
        ledger.begin();
        assert_eq!(
            ledger.text(Cause::Busy),
            "done: network a, network b; not done: network c; run the same command again to finish"
        );
        assert_eq!(
            ledger.text(Cause::Interrupted),
            "done: network a, network b; not known: network c (it was being created); run the same \
             command again to finish"
        );
    }

    #[test]
    fn only_what_another_run_mends_asks_for_one() {
        let refused = |status: StatusCode, message: &str| {
            let refused = Refused {
                status,
                message: message.to_owned(),
            };
            let failed: anyhow::Result<()> = Err(refused.into());
            failed.context("failed to create service vote_web")
        };
        let old = "update out of sequence: it was read at version 3 and is at 4";
        let taken = "port '80' is already in use by service 'web'";
        for (failed, cause) in [
            (refused(StatusCode::CONFLICT, taken), Cause::Refused),
            (refused(StatusCode::BAD_REQUEST, "no"), Cause::Refused),
            (refused(StatusCode::CONFLICT, old), Cause::Busy),
            (refused(StatusCode::NOT_FOUND, "gone"), Cause::Busy),
            (
                refused(StatusCode::SERVICE_UNAVAILABLE, "no leader"),
                Cause::Busy,
            ),
            (
                Err(Hopeless("it does not start".to_owned())).context("failed"),
                Cause::Refused,
            ),
            (
                Err(anyhow::anyhow!("did not answer within 60 s")).context("failed"),
                Cause::Unanswered,
            ),
        ] {
            let error = failed.expect_err("it failed");
            assert_eq!(Cause::of(&error), cause, "{error:#}");
        }
    }
}
