//! Why a layer is not unpacked.

use std::io;

/// Longest part of a hostile name that a message shows, in characters.
const SHOWN: usize = 120;

/// Why one entry is refused: its archive is wrong, or is meant to do harm. Nothing outside of the
/// layer's folder was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A component `..`.
    #[error("`..` in a name may lead out of the layer")]
    Parent,
    /// A symbolic link on the way to the entry.
    #[error("a link on its way leads out of the layer, or nowhere")]
    Link,
    /// No name, or a name of which nothing is left.
    #[error("it has no name")]
    NoName,
    /// A zero byte in a name.
    #[error("its name has a zero byte")]
    Zero,
    /// Longer than what a file system takes.
    #[error("a name of {bytes} bytes; {limit} are allowed")]
    LongName {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Too many folders above it.
    #[error("it lies below more than {0} folders")]
    Deep(usize),
    /// A whiteout that names nothing, or a reserved name elsewhere.
    #[error(
        "names that begin with `.wh.` stand for what a layer removes, and this one names nothing"
    )]
    Whiteout,
    /// A file stands where the entry needs a folder.
    #[error("something that is no folder stands where its folder should be")]
    NotFolder,
    /// The root of the layer as something else than a folder.
    #[error("the root of a layer has to be a folder")]
    Root,
    /// A hard link to what this layer does not have, or to a folder.
    #[error("it is a hard link to {0:?}, which is no file of this layer")]
    Target(String),
    /// A kind of entry that no layer has.
    #[error("entries of kind {0:?} are not known")]
    Kind(char),
    /// A number out of the kernel's range.
    #[error("its {0} is out of range")]
    Number(&'static str),
    /// An owner that this user namespace does not have.
    #[error(
        "its owner {uid}:{gid} does not exist in this user namespace: map more ids into it, or run weftd as root"
    )]
    Owner {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A device, without the privilege for it.
    #[error(
        "it is a device, which only root outside of user namespaces may make: run weftd as root, or use an image without device nodes"
    )]
    Device,
    /// A whiteout, without the privilege for it.
    #[error(
        "it removes something of a lower layer, and this process may make no whiteouts: run weftd as root, or in a user namespace of Linux 5.8 or newer"
    )]
    WhiteoutDevice,
    /// More entries than allowed.
    #[error("a layer of more than {0} entries")]
    Entries(u64),
    /// More bytes than allowed.
    #[error("a layer of more than {0} bytes")]
    Bytes(u64),
    /// Compressed more than honest content ever is.
    #[error("more than {0} bytes for each compressed one: a decompression bomb")]
    Bomb(u64),
    /// An extended header that is larger than allowed.
    #[error("an extended header of {bytes} bytes; {limit} are allowed")]
    Extended {
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Folders whose names take more memory than allowed.
    #[error("the names of its folders take more than {0} bytes")]
    Folders(u64),
    /// A sparse file whose map is wrong.
    #[error("its map of a sparse file is wrong: {0}")]
    Sparse(&'static str),
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Remote: one entry is not what it should be.
    #[error("entry {number} {name:?} is refused: {why}")]
    Refused {
        /// Its place in the archive, from 1.
        number: u64,
        /// Its name, cut.
        name: String,
        /// Why.
        why: Refusal,
    },
    /// Remote: no entry can be read any more.
    #[error("the archive is damaged at entry {number} {name:?}: {why}")]
    Damaged {
        /// Which entry could not be read, from 1.
        number: u64,
        /// Its name, cut; empty where that could not be read either.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Local or remote: the bytes cannot be read, or not decompressed.
    #[error("cannot read the archive at entry {number}: {source}")]
    Read {
        /// Which entry was read, from 1.
        number: u64,
        /// Why.
        source: io::Error,
    },
    /// Local: the disk refused an entry.
    #[error("entry {number} {name:?}: cannot {what}: {source}")]
    Io {
        /// Its place in the archive, from 1; 0 for the layer's folder itself.
        number: u64,
        /// Its name, cut.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LayerError {
    /// What the disk or the reader said, where that was the reason.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Read { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Refused { .. } | Self::Damaged { .. } => None,
        }
    }

    /// An error of reading: a limit of the stream comes as one, too.
    pub(crate) fn reading(number: u64, name: &[u8], source: io::Error) -> Self {
        match refusal_in(&source) {
            Some(why) => Self::Refused {
                number,
                name: shown(name),
                why,
            },
            None => Self::Read { number, source },
        }
    }
}

/// Why one entry was not unpacked, before it is said which one.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Refusal),
    Cut,
    Read(io::Error),
    Io(&'static str, io::Error),
}

impl Fault {
    /// What was tried in vain.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io(what, errno.into())
    }

    /// For the entry of this number and name.
    pub(crate) fn at(self, number: u64, name: &[u8]) -> LayerError {
        match self {
            Self::Refused(why) => LayerError::Refused {
                number,
                name: shown(name),
                why,
            },
            Self::Cut => LayerError::Damaged {
                number,
                name: shown(name),
                why: "it ends in the middle of a file",
            },
            Self::Read(source) => LayerError::reading(number, name, source),
            Self::Io(what, source) => LayerError::Io {
                number,
                name: shown(name),
                what,
                source,
            },
        }
    }
}

impl From<Refusal> for Fault {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

/// The refusal that travelled through a reader as an error of its.
fn refusal_in(error: &io::Error) -> Option<Refusal> {
    error.get_ref()?.downcast_ref::<Refusal>().cloned()
}

/// A hostile name as far as a message shows it.
pub(crate) fn shown(name: &[u8]) -> String {
    let end = name.len().min(4 * SHOWN);
    let text = String::from_utf8_lossy(&name[..end]);
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() || end < name.len() {
        cut.push('…');
    }
    cut
}
