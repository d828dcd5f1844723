//! One entry of an archive, as its headers tell of it.

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Folder,
    Fifo,
    Other(u8),
}

/// A time since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    /// Below 1,000,000,000.
    pub(crate) nanos: u32,
}

/// A part of a sparse file that is not all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// An attribute of a file: its name and its value.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// One entry; its content is read from [`super::Members`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place in the archive, from 1.
    pub(crate) number: u64,
    /// As it stands there.
    pub(crate) name: Vec<u8>,
    /// What a link names.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permissions, with set-id and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) modified: Time,
    /// Major and minor number.
    pub(crate) device: (i64, i64),
    /// Bytes of the file when it is unpacked.
    pub(crate) size: u64,
    /// What of it stands in the archive, in order; all of it when none.
    pub(crate) sparse: Option<Vec<Chunk>>,
    pub(crate) attributes: Vec<Attribute>,
}
