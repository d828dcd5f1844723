//! Why something is not done with a volume.

use std::io;
use std::path::PathBuf;

/// What is wrong with what was asked for, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A name that is no name of a folder, such as a path.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    )]
    Characters(String),
    /// One character.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    Short,
    /// Longer than file systems take.
    #[error("volume name is too long: it has {0} characters and may have 255")]
    Long(usize),
    /// A driver that is not there: weft has no plugins.
    #[error("plugin {0:?} not found: weft has the driver \"local\" alone")]
    Driver(String),
    /// An option that the driver does not have.
    #[error("invalid option: {0:?}: there are \"type\", \"device\", \"o\" and \"size\"")]
    Option(String),
    /// An option that another one needs.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// A limit that nobody would hold.
    #[error(
        "quota size requested but no quota support: for a volume in memory write type=tmpfs, \
         device=tmpfs, o=size=100m"
    )]
    Quota,
    /// A port in the address of a share.
    #[error("port not allowed in CIFS device URL, include 'port' in 'o='")]
    Port,
    /// A text that the kernel cannot be handed.
    #[error("the option {0:?} has a NUL character or is longer than 4095 bytes")]
    Text(&'static str),
}

/// Whose the fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What was asked for cannot be.
    Request,
    /// There is no such volume.
    NotFound,
    /// Somebody uses it.
    InUse,
    /// The node's disk or kernel.
    Node,
}

/// Why something is not done with a volume. Nothing was changed, if the text does not say so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// It cannot be made as it was asked for.
    #[error("create {name}: {fault}")]
    Invalid {
        /// What was to be its name.
        name: String,
        /// What is wrong.
        fault: Fault,
    },
    /// There is none.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// Tasks use it.
    #[error("remove {name}: volume is in use - [{}]", .tasks.join(", "))]
    InUse {
        /// Which.
        name: String,
        /// Their ids.
        tasks: Vec<String>,
    },
    /// What is to be shown there cannot be mounted.
    #[error("failed to mount local volume {name}: {why}")]
    Mount {
        /// Which.
        name: String,
        /// What the kernel or the resolver said, without options: they may hold a password.
        why: String,
    },
    /// A folder inside a volume that cannot be had.
    #[error("volume {name}: subpath {subpath:?}: {why}")]
    Subpath {
        /// Which.
        name: String,
        /// The folder.
        subpath: String,
        /// Why not.
        why: String,
    },
    /// What the image has at its place could not be copied; the volume is empty, as it was.
    #[error("volume {name} cannot be filled with what the image has at {target}: {source}")]
    Fill {
        /// Which.
        name: String,
        /// Where in the image.
        target: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The source of a bind.
    #[error("invalid bind mount source, must be an absolute path: {0}")]
    BindRelative(String),
    /// The source of a bind.
    #[error(
        "invalid bind mount source, source path not found: {0} (it is looked for on the node of the \
         task; bind-create-src makes it)"
    )]
    BindMissing(String),
    /// The source of a bind could not be made.
    #[error("cannot make the bind mount source {path}: {source}")]
    BindMake {
        /// Which.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
    /// It is no volume that was to be attached.
    #[error("a mount of {0} is no volume")]
    NoVolume(String),
    /// The disk.
    #[error("volumes: {doing} {}: {source}", .path.display())]
    Io {
        /// What could not be done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl VolumeError {
    /// Whose the fault is.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Invalid { .. }
            | Self::BindRelative(_)
            | Self::BindMissing(_)
            | Self::Subpath { .. }
            | Self::NoVolume(_) => Cause::Request,
            Self::NotFound(_) => Cause::NotFound,
            Self::InUse { .. } => Cause::InUse,
            Self::Mount { .. } | Self::Fill { .. } | Self::BindMake { .. } | Self::Io { .. } => {
                Cause::Node
            }
        }
    }
}

/// For `map_err`: what could not be done, and with what.
pub(crate) fn failed(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.into();
    move |source| VolumeError::Io {
        doing,
        path,
        source,
    }
}
