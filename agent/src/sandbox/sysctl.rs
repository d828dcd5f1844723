//! Kernel settings of the calling thread's namespace.

use std::io;

use super::SandboxError;

/// Writes `/proc/sys/NAME` unless it has that value already: where `/proc/sys` is read-only
/// (containers), a host that is set up right needs no write.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(crate) fn set(name: &str, value: &str) -> Result<(), SandboxError> {
    let path = format!("/proc/sys/{name}");
    let failed = |source| SandboxError::Sysctl {
        name: name.to_owned(),
        source,
    };
    let now = std::fs::read_to_string(&path).map_err(failed)?;
    if now.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(failed)
}

/// As [`set`], for settings that a kernel built without IPv6 does not have.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(super) fn set_if_there(name: &str, value: &str) -> Result<(), SandboxError> {
    match set(name, value) {
        Err(SandboxError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}
