//! Why a task was not started.

use std::fmt;
use std::io;
use std::path::PathBuf;

use weft_cluster::CommandError;
use weft_model::capability::UnknownCapability;
use weft_model::objects::PayloadKind;
use weft_runtime::bundle::BundleError;
use weft_runtime::merged::MergeError;
use weft_runtime::rootfs::RootfsError;
use weft_shim::launch::LaunchError;
use weft_volumes::VolumeError;

use super::super::SandboxError;

/// Why a task was not started. Nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Config: there is nothing to run.
    #[error(
        "no command: name the program after the image, as in `weft service create --name web host /usr/bin/web`"
    )]
    NoCommand,
    /// Config: there is no such program here.
    #[error(
        "program {program:?} was not found on node {node} (looked in {looked_in}): install it on every node, or give its full path"
    )]
    NoProgram {
        /// As given.
        program: String,
        /// Name of this node.
        node: String,
        /// Folders, or the path itself.
        looked_in: String,
    },
    /// Config: the file is there but cannot be run.
    #[error("{program:?} on node {node} is not an executable file")]
    NotExecutable {
        /// Full path.
        program: PathBuf,
        /// Name of this node.
        node: String,
    },
    /// Peer: the manager sent an id that is no file name.
    #[error("task id {0:?} is not made of letters and digits")]
    BadId(String),
    /// Local: a file of the task.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Config: a capability that this version does not know.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// Config: a template of its environment, host name or mounts.
    #[error(transparent)]
    Template(#[from] CommandError),
    /// Local or Config: the process.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Local: the node has nothing that runs containers.
    #[error("node {node} runs no containers: {why}")]
    NoRuntime {
        /// Name of this node.
        node: String,
        /// What to install.
        why: String,
    },
    /// Config: a process 1 of weft's is wanted, and the node has none.
    #[error(
        "node {node} has no program for --init: this weftd was built without its static shim, and none of {looked_for} is there; install the package catatonit or tini"
    )]
    NoInit {
        /// Name of this node.
        node: String,
        /// Names of programs.
        looked_for: String,
    },
    /// Peer: it was never prepared here, or what was written beside it is gone.
    #[error("the container of the task is not prepared: {0} cannot be read")]
    NotPrepared(PathBuf),
    /// Local: its file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// Config: what image and service say together.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Config or Local: what the runtime program is told.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Config or Local: what it sees besides its image.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Config: a bind that is to be read-only with all below it, and cannot be here. The text has
    /// Docker's words.
    #[error(
        "mount {0:?}: rro is not supported by the container runtime or the kernel of this node: bind-recursive=readonly needs Linux 5.12 and runc 1.1 or crun 1.4 at least; update them, or leave bind-recursive out, with which mounts below may be writable"
    )]
    RecursiveReadOnly(String),
    /// Peer: bytes of a secret or a config have not come.
    #[error("the {kind} {name} is not here: it comes with the orders of a manager")]
    NoPayload {
        /// Which of the two.
        kind: PayloadKind,
        /// Which one.
        name: String,
    },
    /// Config: the file of a secret or a config.
    #[error(
        "{kind} {name}: its {what} {given:?} is none: give a path for target, and numbers for uid and gid"
    )]
    PayloadFile {
        /// Which of the two.
        kind: PayloadKind,
        /// Which one.
        name: String,
        /// `target`, `uid` or `gid`.
        what: &'static str,
        /// As it is in the spec.
        given: String,
    },
    /// Config or Local: a program of the node would not see it.
    #[error(
        "{kind} {name}: there is no file {target:?} on node {node}, and none is made on its disk: create an empty one there, or give the {kind} a target below /run/secrets"
    )]
    PayloadTarget {
        /// Which of the two.
        kind: PayloadKind,
        /// Which one.
        name: String,
        /// Where it was to be seen.
        target: PathBuf,
        /// Name of this node.
        node: String,
    },
    /// Config: what a secret or a config leaves open.
    #[error("the template of {kind} {name}: {why}")]
    PayloadTemplate {
        /// Which of the two.
        kind: PayloadKind,
        /// Which one.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Local: secrets and configs.
    #[error(
        "cannot keep secrets and configs of the task in memory at {path}, or take them away: {source}"
    )]
    Memory {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Config: a kernel setting of its network namespace.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Config or Local: the container did not start. The text begins as Docker's.
    #[error("{}", not_started(.0))]
    Container(LaunchError),
}

/// How every error of a container begins that did not start, in Docker's words.
const NOT_STARTED: &str = "starting container failed";

/// Why a container did not start; the shim begins most of its sentences so itself.
pub(crate) fn not_started(why: &impl fmt::Display) -> String {
    let why = why.to_string();
    if why.starts_with(NOT_STARTED) {
        return why;
    }
    format!("{NOT_STARTED}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_start_says_so_once() {
        let whole = "starting container failed: no program";
        assert_eq!(not_started(&"no program"), whole);
        assert_eq!(not_started(&whole), whole);
    }
}
