//! What is mounted in a container: what Docker mounts in each, files of weft's, and what the task asks
//! for, in the order in which the runtime program mounts it.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};
use weft_model::objects::Propagation;

use crate::cgroups::CgroupKind;
use crate::merged::clean;
use crate::mountinfo;
use crate::node::Node;

/// Something that a task sees besides its image. Paths are resolved by who mounts: `source` on the
/// node, `target` in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskMount {
    /// A folder or file of the node.
    Bind {
        /// Full path on the node.
        source: PathBuf,
        /// Full path in the container.
        target: PathBuf,
        /// It cannot be written to.
        read_only: bool,
        /// Nor can what is mounted below it; the runtime program has to know `rro`
        /// ([`Features`](crate::program::Features)).
        recursive_read_only: bool,
        /// What is mounted below it is seen.
        recursive: bool,
        /// How mounts below it travel.
        propagation: Propagation,
    },
    /// Memory.
    Tmpfs {
        /// Full path in the container.
        target: PathBuf,
        /// At most; 0 is what the kernel allows.
        size_bytes: u64,
        /// Mode of its folder; 0 is 1777.
        mode: u32,
    },
    /// A file of the node's memory, as a secret or a config is: nobody writes or executes it.
    File {
        /// Full path on the node.
        source: PathBuf,
        /// Full path in the container.
        target: PathBuf,
    },
}

impl TaskMount {
    fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } | Self::File { target, .. } => {
                target
            }
        }
    }
}

/// Why something cannot be mounted. The texts begin as Docker's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// Config: no place.
    #[error("invalid mount target {0:?}: it needs to be an absolute path, and not the root")]
    Target(PathBuf),
    /// Config: two at one place.
    #[error("duplicate mount point: {0}")]
    Duplicate(String),
    /// Local: mounts cannot travel from there.
    #[error(
        "path {path} is mounted on {on} but it is not a {wanted} mount: `mount --make-{wanted} {on}` on the node, or leave bind-propagation out"
    )]
    Propagation {
        /// The source.
        path: PathBuf,
        /// The mount that it is on.
        on: PathBuf,
        /// `shared`, or `slave`.
        wanted: &'static str,
    },
    /// Local: the source.
    #[error("invalid bind mount source, source path not found: {path}: {source}")]
    Source {
        /// It.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Bug: not what OCI allows.
    #[error(transparent)]
    Spec(#[from] OciSpecError),
}

/// What is mounted, in order.
#[derive(Debug)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
    /// Of the root, where a bind needs another one than the runtime program's.
    pub(crate) propagation: Option<&'static str>,
}

/// What Docker mounts in each container (moby, `oci/defaults.go`).
fn defaults(node: &Node) -> Result<Vec<Mount>, OciSpecError> {
    let mut pts = "nosuid noexec newinstance ptmxmode=0666 mode=0620".to_owned();
    // Group `tty`: a namespace of one user does not have it.
    if node.gids.has(5) {
        pts.push_str(" gid=5");
    }
    let shm = "nosuid noexec nodev mode=1777 size=67108864";
    let dev = "nosuid strictatime mode=755 size=65536k";
    let nothing = "nosuid noexec nodev";
    let read_only = "nosuid noexec nodev ro";
    let table = [
        ("/proc", "proc", "proc", nothing),
        ("/dev", "tmpfs", "tmpfs", dev),
        ("/dev/pts", "devpts", "devpts", &*pts),
        ("/sys", "sysfs", "sysfs", read_only),
        ("/sys/fs/cgroup", "cgroup", "cgroup", read_only),
        ("/dev/mqueue", "mqueue", "mqueue", nothing),
        ("/dev/shm", "tmpfs", "shm", shm),
    ];
    let no_cgroups = node.rootless() || node.cgroups == CgroupKind::None;
    table
        .into_iter()
        .filter(|(_, kind, ..)| !(no_cgroups && *kind == "cgroup"))
        .map(|(place, kind, source, options)| mount(place, kind, Path::new(source), words(options)))
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn mount(
    place: &str,
    kind: &str,
    source: &Path,
    options: Vec<String>,
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(place)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
}

/// To a runtime program paths that are not full ones begin at the bundle.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A file of the node's at a fixed place of the container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File<'a> {
    pub(crate) source: &'a Path,
    pub(crate) target: &'a str,
    pub(crate) read_only: bool,
}

/// All mounts of a container. Where the task mounts something at the place of a file or of one of
/// Docker's mounts, that one is left out. What the task mounts is in the order of depth, so that
/// nothing is hidden by what is mounted above it.
///
/// # Errors
/// See [`MountError`].
pub(crate) fn all(
    node: &Node,
    of_task: &[TaskMount],
    files: &[File<'_>],
) -> Result<Mounts, MountError> {
    let mut places: Vec<String> = Vec::new();
    let mut own = Vec::new();
    let mut propagation = None;
    for asked in of_task {
        let target = asked.target();
        let bad = || MountError::Target(target.to_owned());
        let place = target.to_str().and_then(clean).filter(|place| place != "/");
        let place = place.ok_or_else(bad)?;
        if places.contains(&place) {
            return Err(MountError::Duplicate(place));
        }
        own.push(asked_for(asked, &place)?);
        propagation = root_propagation(node, asked, propagation)?;
        places.push(place);
    }
    for file in files {
        if !places.iter().any(|place| place == file.target) {
            let access = if file.read_only { "ro" } else { "rw" };
            let options = words(&format!("bind {access} rprivate"));
            own.push(mount(file.target, "bind", &absolute(file.source), options)?);
        }
    }
    own.sort_by_key(|mount| mount.destination().components().count());
    let is_hidden = |mount: &Mount| {
        let place = mount.destination();
        // Docker's own are below `/dev` and `/sys`, and whoever mounts another `/dev` has all of it.
        places.iter().any(|taken| place == Path::new(taken))
            || (place.starts_with("/dev") && places.iter().any(|taken| taken == "/dev"))
            || (place.starts_with("/sys") && places.iter().any(|taken| taken == "/sys"))
    };
    let mut mounts = defaults(node)?;
    mounts.retain(|mount| !is_hidden(mount));
    mounts.extend(own);
    Ok(Mounts {
        mounts,
        propagation,
    })
}

fn asked_for(asked: &TaskMount, place: &str) -> Result<Mount, OciSpecError> {
    match asked {
        TaskMount::Bind {
            source,
            read_only,
            recursive_read_only,
            recursive,
            propagation,
            ..
        } => {
            let how = if *recursive { "rbind" } else { "bind" };
            let mut options = vec![how, if *read_only { "ro" } else { "rw" }];
            // Beside `ro`: a program that does not know it leaves it out without a word.
            if *read_only && *recursive_read_only {
                options.push("rro");
            }
            options.push(word(*propagation));
            let options = words(&options.join(" "));
            mount(place, "bind", &absolute(source), options)
        }
        TaskMount::Tmpfs {
            size_bytes, mode, ..
        } => {
            let mut options = words("noexec nosuid nodev rprivate");
            if *size_bytes > 0 {
                options.push(format!("size={size_bytes}"));
            }
            let mode = if *mode == 0 { 0o1777 } else { *mode };
            options.push(format!("mode={mode:o}"));
            mount(place, "tmpfs", Path::new("tmpfs"), options)
        }
        TaskMount::File { source, .. } => {
            // All of them: what is not named is taken from the mount that it is a bind of.
            let options = words("bind ro nosuid nodev noexec rprivate");
            mount(place, "bind", &absolute(source), options)
        }
    }
}

/// mount(8)'s word.
fn word(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Rprivate => "rprivate",
        Propagation::Private => "private",
        Propagation::Rshared => "rshared",
        Propagation::Shared => "shared",
        Propagation::Rslave => "rslave",
        Propagation::Slave => "slave",
    }
}

/// As moby's `oci_linux.go`: mounts travel only where both the source's mount and the container's
/// root let them.
fn root_propagation(
    node: &Node,
    asked: &TaskMount,
    so_far: Option<&'static str>,
) -> Result<Option<&'static str>, MountError> {
    let TaskMount::Bind {
        source,
        propagation,
        ..
    } = asked
    else {
        return Ok(so_far);
    };
    let (wanted, root) = match propagation {
        Propagation::Rprivate | Propagation::Private => return Ok(so_far),
        Propagation::Rshared | Propagation::Shared => ("shared", "shared"),
        Propagation::Rslave | Propagation::Slave => ("slave", "rslave"),
    };
    let real = source.canonicalize().map_err(|error| MountError::Source {
        path: source.clone(),
        source: error,
    })?;
    let on = mountinfo::holding(&node.mounts, &real);
    let travels = on.is_some_and(|on| on.is_shared() || (wanted == "slave" && on.is_slave()));
    if !travels {
        return Err(MountError::Propagation {
            path: source.clone(),
            on: on.map_or_else(|| PathBuf::from("/"), |on| on.point.clone()),
            wanted: if wanted == "slave" { "shared" } else { wanted },
        });
    }
    Ok(match so_far {
        Some("shared") => so_far,
        _ => Some(root),
    })
}

#[cfg(test)]
mod tests;
