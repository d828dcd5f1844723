//! Kernel settings of the calling thread's namespace.

use std::io;

use super::error::SandboxError;

/// Writes `/proc/sys/NAME` unless it has that value already: where `/proc/sys` is read-only
/// (containers), a host that is set up right needs no write.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(crate) fn set(name: &str, value: &str) -> Result<(), SandboxError> {
    if get(name)? == value {
        return Ok(());
    }
    std::fs::write(format!("/proc/sys/{name}"), value).map_err(failed(name))
}

/// Reads `/proc/sys/NAME`.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(crate) fn get(name: &str) -> Result<String, SandboxError> {
    let value = std::fs::read_to_string(format!("/proc/sys/{name}")).map_err(failed(name))?;
    Ok(value.trim().to_owned())
}

fn failed(name: &str) -> impl FnOnce(io::Error) -> SandboxError {
    |source| SandboxError::Sysctl {
        name: name.to_owned(),
        source,
    }
}

/// Tells the kernel that every IPv6 address of an interface is allocated, and that its link-local
/// one follows from the Ethernet address: there is nothing to detect, and nobody to ask for a
/// router.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(super) fn fixed_addresses(ifname: &str) -> Result<(), SandboxError> {
    for name in [
        "accept_ra",
        "autoconf",
        "accept_dad",
        "dad_transmits",
        "router_solicitations",
    ] {
        set_if_there(&format!("net/ipv6/conf/{ifname}/{name}"), "0")?;
    }
    Ok(())
}

/// As [`set`], for settings that a kernel built without IPv6 does not have.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(crate) fn set_if_there(name: &str, value: &str) -> Result<(), SandboxError> {
    match set(name, value) {
        Err(SandboxError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}
