//! How many descriptors this process may open.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit from before [`raise`]; programs that are started get it back.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of this process (`RLIMIT_NOFILE`) to the hard one, and returns it; `None`
/// is no limit. Programs started with [`crate::process::Spawn`] begin with the limit from before:
/// some iterate over all possible descriptors, or use `select(2)`, which knows 1024.
///
/// # Errors
/// Not seen in practice: no privilege is needed. The limit is as before then.
pub fn raise() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let original = ORIGINAL.get_or_init(|| limit);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, raised)?;
        tracing::debug!(from = ?original.current, to = ?limit.maximum, "limit of open files raised");
    }
    Ok(limit.maximum)
}

/// What a started program must set, if anything was raised.
pub(crate) fn original() -> Option<Rlimit> {
    ORIGINAL.get().copied()
}
