//! How much one layer may be.

/// Limits of one layer. What is above is refused, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries, and folders that are made as entries are in them.
    pub entries: u64,
    /// Bytes of the archive when it is no longer compressed, and of the files in it.
    pub bytes: u64,
    /// Bytes of the archive for one byte of what it was compressed to …
    pub ratio: u64,
    /// … as soon as the archive has so many: small ones may be all zeros.
    pub ratio_from: u64,
    /// Bytes of a name, and of what a link names.
    pub name: usize,
    /// Folders above an entry.
    pub depth: usize,
    /// Bytes of one extended header (POSIX pax): names and attributes of one entry.
    pub extended: u64,
    /// Bytes of the names of all folders: they are remembered until their times are set.
    pub folders: u64,
}

impl Default for Limits {
    /// Far above what images have: the largest public ones have 300,000 entries and 20 GB in a layer.
    fn default() -> Self {
        Self {
            entries: 900_000,
            bytes: 64 << 30,
            ratio: 100,
            ratio_from: 1 << 30,
            // PATH_MAX of linux/limits.h.
            name: 4096,
            depth: 255,
            // As Go's archive/tar, which Docker reads layers by.
            extended: 1 << 20,
            folders: 64 << 20,
        }
    }
}
