//! Whose bytes there are of a blob that is on its way, and who is to blame where they are wrong. Pure.

use std::collections::BTreeSet;

/// An attempt that brought so many bytes more than any before was worth it.
const WORTH: u64 = 64 * 1024;
/// How often a source that has several places to ask may send wrong bytes.
const MOST_WRONG: u32 = 8;

/// What is known of the bytes of one blob.
#[derive(Debug)]
pub(super) struct Origin {
    /// Whose bytes are in the partial file …
    parts: BTreeSet<usize>,
    /// … and others of unknown origin, as an earlier pull left them.
    unknown: bool,
    /// Bytes in the partial file, as far as this pull knows.
    size: u64,
    /// The most that there was of it, since bytes were wrong.
    best: u64,
    /// Bytes of several sources were wrong together: they are not mixed any more.
    alone: bool,
    /// Those who gave the first parts then.
    suspects: BTreeSet<usize>,
    wrong: Vec<u32>,
}

/// Who gave bytes that were wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// All of them.
    pub(super) parts: BTreeSet<usize>,
    /// True where it is not known which one of them it was.
    pub(super) mixed: bool,
}

impl Origin {
    pub(super) fn new(sources: usize) -> Self {
        Self {
            parts: BTreeSet::new(),
            unknown: false,
            size: 0,
            best: 0,
            alone: false,
            suspects: BTreeSet::new(),
            wrong: vec![0; sources],
        }
    }

    /// In which order they are asked: who may have given a bad part is the last one.
    pub(super) fn order(&self, mut open: Vec<usize>) -> Vec<usize> {
        open.sort_by_key(|n| self.suspects.contains(n));
        open
    }

    /// Whether a source has to begin at the start though `offset` bytes are here.
    pub(super) fn begins_anew(&self, source: usize, offset: u64) -> bool {
        let own = !self.unknown && self.size == offset && self.parts == BTreeSet::from([source]);
        self.alone && offset > 0 && !own
    }

    /// A source sent the bytes from `from` to `to`, which are here. True when that was a gain.
    pub(super) fn came(&mut self, source: usize, from: u64, to: u64) -> bool {
        if from == 0 {
            self.parts.clear();
            self.unknown = false;
        } else if from != self.size {
            self.unknown = true;
        }
        if to > from {
            self.parts.insert(source);
        }
        self.size = to;
        let gained = to >= self.best.saturating_add(WORTH);
        if gained {
            self.best = to;
        }
        gained
    }

    /// All of it was here, the last bytes by `source`, and it was not what it should be: it was thrown
    /// away. Mixed at most once.
    pub(super) fn was_wrong(&mut self, source: usize) -> Wrong {
        let mut parts = std::mem::take(&mut self.parts);
        parts.insert(source);
        let mixed = !self.alone && (self.unknown || parts.len() > 1);
        if mixed {
            self.alone = true;
            let others = parts.iter().copied().filter(|n| *n != source);
            self.suspects.extend(others);
        }
        (self.unknown, self.size, self.best) = (false, 0, 0);
        Wrong { parts, mixed }
    }

    /// A source alone sent wrong bytes: whether it may do so again, where it has another place to ask.
    pub(super) fn may_err_again(&mut self, source: usize) -> bool {
        self.wrong[source] += 1;
        self.wrong[source] < MOST_WRONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_of_several_are_never_mixed_again() {
        let mut origin = Origin::new(2);
        assert!(origin.came(0, 0, WORTH));
        assert!(!origin.begins_anew(1, WORTH));
        assert!(origin.came(1, WORTH, 3 * WORTH));
        let wrong = origin.was_wrong(1);
        assert!(wrong.mixed);
        assert_eq!(wrong.parts, BTreeSet::from([0, 1]));
        assert_eq!(origin.order(vec![0, 1]), [1, 0]);
        origin.came(1, 0, WORTH);
        assert!(!origin.begins_anew(1, WORTH), "its own part");
        assert!(origin.begins_anew(0, WORTH) && !origin.begins_anew(0, 0));
        assert!(
            origin.begins_anew(1, WORTH + 1),
            "somebody else wrote there"
        );
        origin.came(1, WORTH, 3 * WORTH);
        assert!(!origin.was_wrong(1).mixed, "it is known who it was");
    }

    #[test]
    fn what_an_earlier_pull_left_may_be_the_damage() {
        let mut origin = Origin::new(1);
        origin.came(0, 10, 20);
        assert!(origin.was_wrong(0).mixed);
        assert_eq!(origin.order(vec![0]), [0]);
        origin.came(0, 0, 20);
        assert!(!origin.was_wrong(0).mixed);
    }

    #[test]
    fn only_more_than_ever_before_is_a_gain() {
        let mut origin = Origin::new(1);
        assert!(origin.came(0, 0, 2 * WORTH));
        assert!(!origin.came(0, 0, 2 * WORTH));
        assert!(!origin.came(0, 0, 3 * WORTH - 1));
        assert!(origin.came(0, 3 * WORTH - 1, 3 * WORTH));
        assert!((1..MOST_WRONG).all(|_| origin.may_err_again(0)));
        assert!(!origin.may_err_again(0));
    }
}
