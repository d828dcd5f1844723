//! Entering a task that runs: a process with one thread moves into what process 1 of the task is in.

use std::path::Path;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::Process;

use crate::cgroup;
use crate::confinement::Confinement;
use crate::spec::Spec;
use crate::user::{self, User};

/// Moves the calling process, which is in the task's PID namespace already, into its control groups, in
/// one of its own there where `own_group` names it, and into its other namespaces, where root and working
/// directory are the task's. Returns who it is to become, by the files that it sees then, and
/// what else it is to be held to.
///
/// # Errors
/// It is not where the task is, there is no such user, or the container's bundle is not there.
pub(crate) fn enter(
    spec: &Spec,
    init: &Process,
    own_group: Option<&Path>,
) -> anyhow::Result<(Option<User>, Confinement)> {
    // While the node's files are seen.
    let confinement = Confinement::of(spec)?;
    if spec.container.is_some() {
        // Until it executes the program, its descriptors and its own file are the node's. With the
        // capabilities of the container alone nobody inside may look at them (proc(5)).
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        cgroup::join_those_of(init.pid())?;
    } else if let Some(group) = &spec.cgroup {
        cgroup::join(group);
    }
    if let Some(own) = own_group {
        cgroup::join_inside(own);
    }
    let inside = Kinds {
        net: true,
        mount: true,
        uts: true,
        ipc: true,
        cgroup: true,
        ..Kinds::default()
    };
    namespaces::enter(init, inside)?;
    Ok((user::of(spec)?, confinement))
}
