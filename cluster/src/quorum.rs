//! How many managers a swarm may lose, and what is said about it.

use crate::error::CommandError;

/// The managers of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// How many there are.
    pub managers: usize,
    /// How many of them answer.
    pub reachable: usize,
}

impl Quorum {
    /// Managers that have to answer for anything to be decided.
    #[must_use]
    pub const fn needed(self) -> usize {
        self.managers / 2 + 1
    }

    /// Managers that may be lost without losing the quorum.
    #[must_use]
    pub const fn spare(self) -> usize {
        self.managers.saturating_sub(self.needed())
    }

    /// Whether anything can be decided.
    #[must_use]
    pub const fn is_there(self) -> bool {
        self.reachable >= self.needed()
    }

    /// The managers that stay when one goes, which answers or does not.
    const fn without(self, answers: bool) -> Self {
        Self {
            managers: self.managers.saturating_sub(1),
            reachable: self.reachable.saturating_sub(answers as usize),
        }
    }

    /// Whether a manager may be removed or demoted; `answers` says whether it is reachable itself.
    ///
    /// # Errors
    /// It is the last one, or those that stay would be no quorum: how many answer and are needed, and
    /// what to do.
    pub fn check_removal(self, answers: bool) -> Result<(), CommandError> {
        if self.managers <= 1 {
            return Err(CommandError::unavailable(
                "attempting to demote the last manager of the swarm; promote another node first",
            ));
        }
        let rest = self.without(answers);
        if rest.is_there() {
            return Ok(());
        }
        Err(CommandError::unavailable(format!(
            "can't remove member from the raft: this would result in a loss of quorum: of the {} \
             managers that stay {} would answer, and {} are needed; first demote one that does not \
             answer, start it again, or promote another node. `weft node demote --force` demotes it all \
             the same",
            rest.managers,
            rest.reachable,
            rest.needed()
        )))
    }

    /// What it costs to demote a manager by force; nothing where those that stay are a quorum.
    ///
    /// # Errors
    /// It is the last one.
    pub fn check_forced(self, answers: bool) -> Result<Option<String>, CommandError> {
        match self.check_removal(answers) {
            Ok(()) => Ok(None),
            Err(refused) if self.managers <= 1 => Err(refused),
            Err(_) => {
                let rest = self.without(answers);
                Ok(Some(format!(
                    "Of the {} managers that stay {} would answer, and {} are needed: nothing is decided until \
                     more of them are started, and what runs goes on meanwhile. If they do not come back, \
                     reinitialize the swarm with `weft swarm init --force-new-cluster` on one that is left.",
                    rest.managers,
                    rest.reachable,
                    rest.needed()
                )))
            }
        }
    }

    /// Why a manager does not leave without `--force`, in Docker's words, and the safe way.
    #[must_use]
    pub fn leave_refusal(self) -> String {
        let begin = "You are attempting to leave the swarm on a node that is participating as a \
                     manager. ";
        if self.managers <= 1 {
            return format!(
                "{begin}Removing the last manager erases all current state of the swarm. Use \
                 `--force` to ignore this message."
            );
        }
        // Who leaves without a word stays a member that does not answer.
        let answering = self.reachable.saturating_sub(1);
        let lost = if answering < self.needed() {
            format!(
                "Removing this node leaves {answering} managers out of {}. Without a Raft quorum \
                 your swarm will be inaccessible. ",
                self.managers
            )
        } else {
            String::new()
        };
        format!(
            "{begin}{lost}The only way to restore a swarm that has lost consensus is to reinitialize \
             it with `--force-new-cluster`. Use `--force` to suppress this message.\n`weft swarm leave \
             --demote` makes it a worker first, which the swarm survives."
        )
    }

    /// What is wrong with so many managers, if anything is.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        Self::warning_of(self.managers)
    }

    /// The same of a number of managers that there are about to be.
    #[must_use]
    pub const fn warning_of(managers: usize) -> Option<&'static str> {
        match managers {
            2 => Some(
                "Running Swarm in a two-manager configuration. This configuration provides no fault \
                 tolerance, and poses a high risk to lose control over the cluster: promote a third \
                 node, or demote one of the two",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(managers: usize, reachable: usize) -> Quorum {
        Quorum {
            managers,
            reachable,
        }
    }

    #[test]
    fn more_than_half_is_a_quorum() {
        for (managers, needed, spare) in [
            (1, 1, 0),
            (2, 2, 0),
            (3, 2, 1),
            (4, 3, 1),
            (5, 3, 2),
            (7, 4, 3),
        ] {
            let quorum = of(managers, needed);
            assert_eq!((quorum.needed(), quorum.spare()), (needed, spare));
            assert!(quorum.is_there());
            assert!(!of(managers, needed - 1).is_there());
            assert_eq!(quorum.warning().is_some(), managers == 2);
        }
    }

    #[test]
    fn a_removal_that_loses_the_quorum_is_refused_with_a_way_out() {
        of(3, 3).check_removal(true).unwrap();
        of(3, 2).check_removal(false).unwrap();
        of(2, 2).check_removal(true).unwrap();
        of(5, 4).check_removal(true).unwrap();
        let error = of(3, 2).check_removal(true).unwrap_err().message;
        let says = [
            "can't remove member from the raft: this would result in a loss of quorum",
            "of the 2 managers that stay 1 would answer, and 2 are needed",
            "first demote one that does not answer",
        ];
        for text in says {
            assert!(error.contains(text), "{error}");
        }
        let error = of(1, 1).check_removal(true).unwrap_err().message;
        assert!(error.contains("the last manager of the swarm"), "{error}");
    }

    #[test]
    fn force_removes_all_but_the_last_one_and_says_what_it_costs() {
        assert_eq!(of(3, 3).check_forced(true).unwrap(), None);
        assert_eq!(of(3, 2).check_forced(false).unwrap(), None);
        let costs = of(3, 2).check_forced(true).unwrap().expect("a warning");
        let says = [
            "Of the 2 managers that stay 1 would answer, and 2 are needed: nothing is decided",
            "`weft swarm init --force-new-cluster`",
        ];
        for text in says {
            assert!(costs.contains(text), "{costs}");
        }
        let error = of(1, 1).check_forced(true).unwrap_err().message;
        assert!(error.contains("the last manager of the swarm"), "{error}");
    }

    #[test]
    fn a_manager_is_told_what_its_leaving_means() {
        let last = of(1, 1).leave_refusal();
        assert!(last.ends_with(
            "erases all current state of the swarm. Use `--force` to ignore this message."
        ));
        let two = of(2, 2).leave_refusal();
        assert!(
            two.contains("leaves 1 managers out of 2. Without a Raft quorum"),
            "{two}"
        );
        let lame = of(3, 2).leave_refusal();
        assert!(lame.contains("leaves 1 managers out of 3. "), "{lame}");
        let three = of(3, 3).leave_refusal();
        assert!(!three.contains("leaves"), "{three}");
        assert!(three.contains("`--force-new-cluster`. Use `--force` to suppress this message."));
        assert!(three.contains("weft swarm leave --demote"));
    }
}
