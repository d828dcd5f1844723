//! What clients of managers asked for and were told, and what has to be so after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_cluster::{Object, ObjectId};

use super::registers::{Operation, What, linearize};
use super::*;

#[derive(Debug, Default)]
struct Inner {
    /// Of each register.
    operations: BTreeMap<usize, Vec<Operation>>,
    /// Calls and answers so far.
    clock: u64,
    /// Numbers that were given out.
    numbers: u32,
    /// The newest version that anybody was told of.
    told: u64,
    /// What somebody was told is made.
    made: Vec<Object>,
    /// What somebody has asked to remove.
    unwanted: BTreeSet<ObjectId>,
    acknowledged: usize,
    faults: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Inner>);

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Call {
    at: u64,
    told: u64,
}

impl History {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that nobody else gets, from 1.
    pub(super) fn number(&self) -> u32 {
        let mut inner = self.inner();
        inner.numbers += 1;
        inner.numbers
    }

    /// Somebody asks now.
    pub(super) fn call(&self) -> Call {
        let mut inner = self.inner();
        inner.clock += 1;
        Call {
            at: inner.clock,
            told: inner.told,
        }
    }

    /// He is told what became of a change of a register. One that was refused is none.
    pub(super) fn changed(
        &self,
        register: usize,
        what: What,
        call: &Call,
        told: &Result<(), ProposeError>,
    ) {
        let mut inner = self.inner();
        inner.clock += 1;
        let back = match told {
            Ok(()) => Some(inner.clock),
            Err(ProposeError::Undecided) => None,
            Err(_) => return,
        };
        inner.acknowledged += usize::from(back.is_some());
        inner.note(register, what, call, back);
    }

    /// He is told what a register holds, in a state that was confirmed to be the newest.
    pub(super) fn read(
        &self,
        register: usize,
        value: Option<u32>,
        call: &Call,
        state: &ClusterState,
    ) {
        let mut inner = self.inner();
        inner.clock += 1;
        let back = Some(inner.clock);
        inner.note(register, What::Read(value), call, back);
        if state.version < call.told {
            let told = format!("version {} after {}", state.version, call.told);
            inner.faults.push(told);
        }
        inner.told = inner.told.max(state.version);
    }

    /// Somebody is told that it is made.
    pub(super) fn made(&self, object: impl Into<Object>) {
        let mut inner = self.inner();
        inner.made.push(object.into());
        inner.acknowledged += 1;
    }

    /// Somebody asks to remove it, and may hear nothing of it.
    pub(super) fn unwanted(&self, id: ObjectId) {
        self.inner().unwanted.insert(id);
    }

    /// How many changes were acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        self.inner().acknowledged
    }

    /// What is not as it has to be, when all is over and the state is this one.
    pub(super) fn faults(&self, state: &ClusterState) -> Vec<String> {
        let inner = self.inner();
        let mut faults = inner.faults.clone();
        for (register, operations) in &inner.operations {
            if let Err(error) = linearize(operations) {
                faults.push(format!("register {register}: {error}"));
            }
        }
        let kept = |object: &&Object| !inner.unwanted.contains(&object.id());
        for object in inner.made.iter().filter(kept) {
            let found = state.get(&object.id());
            if !found
                .as_ref()
                .is_some_and(|found| is_as_given(object, found))
            {
                faults.push(format!("made was {object:#?}, and there is {found:#?}"));
            }
        }
        faults
    }
}

impl Inner {
    fn note(&mut self, register: usize, what: What, call: &Call, back: Option<u64>) {
        let operations = self.operations.entry(register).or_default();
        operations.push(Operation {
            what,
            call: call.at,
            back,
        });
    }
}

/// Whether something has all that it was given when it was made.
fn is_as_given(made: &Object, found: &Object) -> bool {
    match (made, found) {
        (Object::Network(made), Object::Network(found)) => {
            made.vni == found.vni && made.subnets() == found.subnets()
        }
        (Object::Service(made), Object::Service(found)) => made.endpoint == found.endpoint,
        (Object::Node(made), Object::Node(found)) => made.ingress_ip == found.ingress_ip,
        _ => false,
    }
}
