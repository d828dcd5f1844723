//! Whether a register could have given the answers that its clients heard: the search of Wing and Gong
//! ("Testing and verifying concurrent objects", 1993), which remembers where it was as Lowe's does
//! ("Testing for linearizability", 2017).

use std::collections::{BTreeSet, HashSet};

/// What a client did to a register. Each value is written once at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Read(Option<u32>),
    Write(u32),
    /// A write that counts only on this value.
    Swap {
        from: Option<u32>,
        to: u32,
    },
}

impl What {
    /// What the register holds after it; nothing when it does not hold `value` before.
    fn on(self, value: Option<u32>) -> Option<Option<u32>> {
        match self {
            Self::Read(seen) => (seen == value).then_some(value),
            Self::Write(new) => Some(Some(new)),
            Self::Swap { from, to } => (from == value).then_some(Some(to)),
        }
    }

    /// Which value its client has seen.
    fn seen(self) -> Option<u32> {
        match self {
            Self::Read(seen) | Self::Swap { from: seen, .. } => seen,
            Self::Write(_) => None,
        }
    }

    fn written(self) -> Option<u32> {
        match self {
            Self::Write(to) | Self::Swap { to, .. } => Some(to),
            Self::Read(_) => None,
        }
    }
}

/// From the call to the answer, in numbers that grow with each of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) what: What,
    pub(super) call: u64,
    /// Nothing when the client was not told whether it was done.
    pub(super) back: Option<u64>,
}

/// One that was done, before `back`.
#[derive(Debug, Clone, Copy)]
struct Done {
    what: What,
    call: u64,
    back: u64,
}

/// What was done for certain, by its calls. A write of unknown fate counts when somebody saw its value,
/// and then before that one was answered; one that nobody saw could be left out of any order.
fn done(operations: &[Operation]) -> Vec<Done> {
    let (mut done, mut unknown) = (Vec::new(), Vec::new());
    for Operation { what, call, back } in operations.iter().copied() {
        match back {
            Some(back) => done.push(Done { what, call, back }),
            None => unknown.push((what, call)),
        }
    }
    loop {
        let before = done.len();
        unknown.retain(|(what, call)| {
            let saw = |other: &&Done| other.what.seen() == what.written();
            let back = done.iter().filter(saw).map(|other| other.back).min();
            if let Some(back) = back {
                let (what, call) = (*what, *call);
                done.push(Done { what, call, back });
            }
            back.is_none()
        });
        if done.len() == before {
            break;
        }
    }
    done.sort_by_key(|operation| operation.call);
    done
}

/// A part of an order: all before `first` and those in `ahead` are in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reached {
    first: usize,
    ahead: BTreeSet<usize>,
    value: Option<u32>,
}

impl Reached {
    /// The same, and this one after it.
    fn then(&self, at: usize, value: Option<u32>) -> Self {
        let mut next = self.clone();
        next.value = value;
        next.ahead.insert(at);
        while next.ahead.remove(&next.first) {
            next.first += 1;
        }
        next
    }

    /// Which may come next: those that were called before any that is left was answered.
    fn candidates(&self, operations: &[Done]) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut answered = u64::MAX;
        for (at, operation) in operations.iter().enumerate().skip(self.first) {
            if operation.call > answered {
                break;
            }
            if !self.ahead.contains(&at) {
                candidates.push(at);
                answered = answered.min(operation.back);
            }
        }
        candidates
    }
}

/// Looks for an order of what was done to a register that was empty at first, in which each comes
/// between its call and its answer, and sees what was written last.
///
/// # Errors
/// There is none: what the clients did where the search came to its end, for people.
pub(super) fn linearize(operations: &[Operation]) -> Result<(), String> {
    let operations = done(operations);
    let begin = Reached {
        first: 0,
        ahead: BTreeSet::new(),
        value: None,
    };
    let mut farthest = begin.clone();
    let mut known = HashSet::from([begin.clone()]);
    let mut open = vec![begin];
    while let Some(reached) = open.pop() {
        if reached.first == operations.len() {
            return Ok(());
        }
        for at in reached.candidates(&operations) {
            if let Some(value) = operations[at].what.on(reached.value) {
                let next = reached.then(at, value);
                if known.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        if reached.first > farthest.first {
            farthest = reached;
        }
    }
    let around = farthest.first.saturating_sub(4)..(farthest.first + 8).min(operations.len());
    let around = &operations[around];
    Err(format!("no order after {farthest:?}: {around:#?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(what: What, call: u64, back: u64) -> Operation {
        let back = Some(back);
        Operation { what, call, back }
    }

    fn unknown(what: What, call: u64) -> Operation {
        let back = None;
        Operation { what, call, back }
    }

    const fn swap(from: u32, to: u32) -> What {
        let from = Some(from);
        What::Swap { from, to }
    }

    #[test]
    fn answers_that_one_register_gives_have_an_order() {
        let one_after_the_other = [
            known(What::Read(None), 1, 2),
            known(What::Write(7), 3, 4),
            known(swap(7, 8), 5, 6),
            known(What::Read(Some(8)), 7, 8),
        ];
        // Who reads while somebody writes sees the one or the other.
        let at_once = [
            known(What::Write(1), 1, 10),
            known(What::Read(None), 2, 3),
            known(What::Read(Some(1)), 4, 5),
            known(What::Write(2), 6, 12),
            known(What::Read(Some(1)), 7, 8),
            known(What::Read(Some(2)), 11, 13),
        ];
        let late = [
            unknown(What::Write(1), 1),
            unknown(What::Write(3), 2),
            known(What::Write(2), 3, 4),
            known(What::Read(Some(2)), 5, 6),
            known(What::Read(Some(1)), 7, 8),
        ];
        // Nobody was told of 5, which 6 needs, which was read.
        let through_others = [
            unknown(What::Write(5), 1),
            unknown(swap(5, 6), 2),
            known(What::Read(Some(6)), 3, 4),
        ];
        for history in [&one_after_the_other[..], &at_once, &late, &through_others] {
            assert_eq!(linearize(history), Ok(()));
        }
    }

    #[test]
    fn answers_that_no_register_gives_have_none() {
        let lost = [
            known(What::Write(1), 1, 2),
            known(What::Write(2), 3, 4),
            known(What::Read(Some(1)), 5, 6),
        ];
        let back = [
            known(What::Write(1), 1, 9),
            known(What::Read(Some(1)), 2, 3),
            known(What::Read(None), 4, 5),
        ];
        let twice = [
            known(What::Write(1), 1, 2),
            known(swap(1, 2), 3, 6),
            known(swap(1, 3), 4, 5),
        ];
        let from_nowhere = [known(What::Read(Some(9)), 1, 2)];
        let before_its_call = [known(What::Read(Some(1)), 1, 2), unknown(What::Write(1), 3)];
        let undone = [
            unknown(What::Write(1), 1),
            known(What::Read(Some(1)), 2, 3),
            known(What::Read(None), 4, 5),
        ];
        for history in [
            &lost[..],
            &back,
            &twice,
            &from_nowhere,
            &before_its_call,
            &undone,
        ] {
            let error = linearize(history).unwrap_err();
            assert!(error.contains("no order"), "{error}");
        }
    }

    #[test]
    fn long_histories_of_many_clients_take_no_time() {
        // Four clients who are at it all the time: each write is seen by the next client.
        let operations: Vec<Operation> = (0..4000_u32)
            .map(|number| {
                let (what, call) = match number % 2 {
                    0 => (What::Write(number), u64::from(number) * 4),
                    _ => (What::Read(Some(number - 1)), u64::from(number) * 4),
                };
                known(what, call, call + 10)
            })
            .collect();
        assert_eq!(linearize(&operations), Ok(()));
    }
}
