//! The description of a container for its runtime program: `config.json` of OCI's runtime
//! specification, with what Docker gives each container.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{RootBuilder, Spec, SpecBuilder};
use weft_model::objects::{ContainerSpec, ResourceLimits};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use crate::merged::Merged;
use crate::mounts::{self, File, MountError, TaskMount};
use crate::node::Node;
use crate::users::{self, ImageUser};

pub use crate::users::UnknownUser;

mod linux;
mod process;

/// What runc 1.1, crun 1.8 and all that came after them read.
const VERSION: &str = "1.0.2";
/// Where Docker has its own process 1 of a container.
const INIT: &str = "/sbin/docker-init";
const CONFIG: &str = "config.json";

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Config or Remote: who it is.
    #[error(transparent)]
    User(#[from] UnknownUser),
    /// Local: a node without root has one user alone.
    #[error(
        "the container is to be {kind} {id}, and this node has none of that number: run the node as root, or the container with --user 0"
    )]
    NoSuchId {
        /// `user` or `group`.
        kind: &'static str,
        /// Its number.
        id: u32,
    },
    /// Config or Local: what it sees.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Config: a kernel setting that is not its own.
    #[error(
        "sysctl {0:?} is not allowed: only those of a container's own namespaces are, kernel.{{msgmax,msgmnb,msgmni,sem,shmall,shmmax,shmmni,shm_rmid_forced}}, fs.mqueue.* and net.*"
    )]
    Sysctl(String),
    /// Config: no limit of setrlimit(2).
    #[error("invalid ulimit type: {0}")]
    Ulimit(String),
    /// Config: the lower one is above the upper one.
    #[error("ulimit {name} soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder {
        /// Which one.
        name: String,
        /// What counts.
        soft: i64,
        /// What it can be raised to.
        hard: i64,
    },
    /// Bug: not what OCI allows.
    #[error("cannot describe the container: {0}")]
    Spec(#[from] OciSpecError),
    /// Local: the file.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// All that a container is made of.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// What the runtime program calls it.
    pub id: &'a str,
    /// What image and service come to.
    pub merged: &'a Merged,
    /// What the service says, templates expanded. Its mounts are not looked at: see `mounts`.
    pub spec: &'a ContainerSpec,
    /// Its root file system, mounted: a full path. Names of users are looked up there.
    pub rootfs: &'a Path,
    /// The network namespace that it joins. Its settings (`net.*`) are made by who has made it.
    pub netns: &'a Path,
    /// Host name.
    pub hostname: &'a str,
    /// Files of the node, and their places in the container: `/etc/hosts`, `/etc/hostname`,
    /// `/etc/resolv.conf`.
    pub files: &'a [(PathBuf, &'static str)],
    /// What the service mounts: volumes are folders by now.
    pub mounts: &'a [TaskMount],
    /// Its control group from the root of the trees, such as `/weft/NODE/TASK`.
    pub cgroup: &'a Path,
    /// What it may use at most.
    pub limits: ResourceLimits,
    /// Capabilities of root in it, a bit for each.
    pub capabilities: u64,
    /// A static program of the node that is process 1 and starts the container's program.
    pub init: Option<&'a Path>,
}

/// Describes a container of this node, as Docker's are.
///
/// # Errors
/// See [`BundleError`].
pub fn bundle(container: &Container<'_>) -> Result<Spec, BundleError> {
    on(&Node::read(), container)
}

fn on(node: &Node, container: &Container<'_>) -> Result<Spec, BundleError> {
    let Container { merged, spec, .. } = *container;
    let user = users::find(container.rootfs, &merged.user, &spec.groups)?;
    check_ids(node, &user)?;
    let mut files: Vec<File<'_>> = container
        .files
        .iter()
        .map(|(source, target)| File {
            source,
            target,
            // As Docker: a container that can write nowhere does not write there.
            read_only: spec.read_only,
        })
        .collect();
    files.extend(container.init.map(|source| File {
        source,
        target: INIT,
        read_only: true,
    }));
    let mounts = mounts::all(node, container.mounts, &files)?;
    let root = RootBuilder::default()
        .path(mounts::absolute(container.rootfs))
        .readonly(spec.read_only)
        .build()?;
    let process = process::process(node, container, &user)?;
    let linux = linux::linux(node, container, mounts.propagation)?;
    Ok(SpecBuilder::default()
        .version(VERSION)
        .root(root)
        .hostname(container.hostname)
        .mounts(mounts.mounts)
        .process(process)
        .linux(linux)
        .build()?)
}

/// The kernel's word would be "invalid argument".
fn check_ids(node: &Node, user: &ImageUser) -> Result<(), BundleError> {
    for (kind, id, ids) in [
        ("user", user.uid, &node.uids),
        ("group", user.gid, &node.gids),
    ] {
        if !ids.has(id) {
            return Err(BundleError::NoSuchId { kind, id });
        }
    }
    Ok(())
}

/// Kernel settings that are a container's own, as Docker's client and engine allow them, and the domain
/// of its UTS namespace; nothing of what the kernel keeps for all. Managers take the same names
/// (`container.rs` of the cluster).
fn allowed_sysctls(asked: &BTreeMap<String, String>) -> Result<(), BundleError> {
    const KERNEL: [&str; 9] = [
        "kernel.domainname",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let is_word = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    // A dot in the name of an interface is written as `/`, as sysctl(8) has it.
    let is_name = |key: &str| {
        let of_network = key.starts_with("net.");
        let mut parts = key.split(|c| c == '.' || (of_network && c == '/'));
        parts.all(is_word)
    };
    let is_own = |key: &str| {
        let own = ["net.", "fs.mqueue."];
        KERNEL.contains(&key) || own.iter().any(|start| key.starts_with(start))
    };
    match asked.keys().find(|key| !is_name(key) || !is_own(key)) {
        None => Ok(()),
        Some(key) => Err(BundleError::Sysctl(key.chars().take(80).collect())),
    }
}

/// Writes the description to `dir/config.json`, for its owner alone: the environment may hold secrets.
///
/// # Errors
/// The disk's.
pub fn write(dir: &Path, spec: &Spec) -> Result<(), BundleError> {
    let path = dir.join(CONFIG);
    let json = serde_json::to_vec(spec).map_err(OciSpecError::SerDe)?;
    // Made again for each start: nobody needs it when the power is gone.
    replace_file(&path, &json, PRIVATE, Outlives::Process)
        .map_err(|source| BundleError::Write { path, source })
}

#[cfg(test)]
mod tests;
