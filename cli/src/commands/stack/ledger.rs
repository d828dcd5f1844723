//! How far a deployment got, for when it does not get to its end.

use std::collections::VecDeque;

use super::steps::Step;

/// What is done, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    done: Vec<String>,
    /// The first of them is at work.
    left: VecDeque<String>,
}

/// Why it did not get further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The step at work was refused, or could not be sent.
    Refused,
    /// Nobody waited for the answer.
    Interrupted,
}

impl Ledger {
    /// Nothing is done yet.
    #[must_use]
    pub(super) fn of(steps: &[Step]) -> Self {
        Self {
            done: Vec::new(),
            left: steps.iter().map(Step::what).collect(),
        }
    }

    /// The step at work is done.
    pub(super) fn finish(&mut self) {
        self.done.extend(self.left.pop_front());
    }

    /// For people, with the next step.
    #[must_use]
    pub(super) fn text(&self, cause: Cause) -> String {
        let mut text = match self.done.as_slice() {
            [] => "nothing was done".to_owned(),
            done => format!("done: {}", joined(done)),
        };
        if !self.left.is_empty() {
            text.push_str("; not done: ");
            text.push_str(&joined(&self.left));
        }
        if let (Cause::Interrupted, Some(at_work)) = (cause, self.left.front()) {
            text.push_str(&format!(" ({at_work} may have been)"));
        }
        text.push_str("; run the same command again to finish");
        text
    }
}

fn joined<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            ledger.text(Cause::Refused),
            "nothing was done; not done: network a, network b, network c; run the same command again \
             to finish"
        );
        ledger.finish();
        assert_eq!(
            ledger.text(Cause::Interrupted),
            "done: network a; not done: network b, network c (network b may have been); run the same \
             command again to finish"
        );
        ledger.finish();
        assert_eq!(
            ledger.text(Cause::Refused),
            "done: network a, network b; not done: network c; run the same command again to finish"
        );
    }
}
