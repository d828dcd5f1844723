//! Whether this process may do what a node must do, in one sentence.

use std::io;
use std::path::Path;

/// What is missing, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MissingPrivilege {
    /// No right to change the network.
    #[error(
        "no permission to change the network (CAP_NET_ADMIN): run as root, or inside a user namespace: `unshare -Urmn {program}`"
    )]
    NetAdmin {
        /// Name of this program.
        program: String,
    },
    /// No right to enter and mount namespaces.
    #[error(
        "no permission to enter namespaces (CAP_SYS_ADMIN): run as root, or inside a user namespace: `unshare -Urmn {program}`"
    )]
    SysAdmin {
        /// Name of this program.
        program: String,
    },
    /// No TAP devices.
    #[error(
        "cannot open /dev/net/tun ({source}): load the `tun` module, or give this container the device (`--device /dev/net/tun`) and permission to use it"
    )]
    Tun {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Checks for `CAP_NET_ADMIN`, `CAP_SYS_ADMIN` and `/dev/net/tun`.
///
/// # Errors
/// The first thing that is missing.
pub fn check() -> Result<(), MissingPrivilege> {
    let program = || {
        let name = std::env::args_os().next().unwrap_or_default();
        Path::new(&name)
            .file_name()
            .unwrap_or(&name)
            .to_string_lossy()
            .into_owned()
    };
    let effective = effective_capabilities().unwrap_or(0);
    if effective & (1 << CAP_NET_ADMIN) == 0 {
        return Err(MissingPrivilege::NetAdmin { program: program() });
    }
    if effective & (1 << CAP_SYS_ADMIN) == 0 {
        return Err(MissingPrivilege::SysAdmin { program: program() });
    }
    check_tun().map_err(|source| MissingPrivilege::Tun { source })
}

/// Opens `/dev/net/tun` and closes it again; makes no device.
///
/// # Errors
/// What the kernel said.
pub fn check_tun() -> io::Result<()> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(drop)
}

/// Capabilities that the calling thread has, as a bit mask by the kernel's numbers; nothing where
/// `/proc` does not say.
#[must_use]
pub fn effective_capabilities() -> Option<u64> {
    parse_effective(&std::fs::read_to_string("/proc/thread-self/status").ok()?)
}

fn parse_effective(status: &str) -> Option<u64> {
    let hex = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_status() {
        let status = "Name:\tweftd\nCapPrm:\t0000000000000000\nCapEff:\t0000000000203000\n";
        let caps = parse_effective(status).expect("parsed");
        assert_ne!(caps & (1 << CAP_NET_ADMIN), 0);
        assert_ne!(caps & (1 << CAP_SYS_ADMIN), 0);
        assert_eq!(parse_effective("CapEff:\tzz\n"), None);
        assert_eq!(parse_effective(""), None);
    }

    #[test]
    fn this_machine_is_judged_as_it_is() {
        // Tests in namespaces need the same things, so a refusal here must name one of them.
        match check() {
            Ok(()) => assert_ne!(
                effective_capabilities().unwrap_or(0) & (1 << CAP_NET_ADMIN),
                0
            ),
            Err(missing) => {
                assert!(missing.to_string().contains("run as root") || check_tun().is_err())
            }
        }
    }
}
