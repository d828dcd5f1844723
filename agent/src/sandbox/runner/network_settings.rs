//! Kernel settings of a container's network namespace (`--sysctl net.…`). The agent has made the
//! namespace, and a runtime program sets nothing in one that it has not made.

use std::collections::BTreeMap;

use super::super::sysctl;
use super::super::{Sandbox, SandboxError};

/// What Docker sets where the service says nothing: ports below 1024 and pings are for every user.
const DEFAULTS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0\t2147483647"),
];

/// Whether a setting is one of the network.
pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("net.") || name.starts_with("net/")
}

/// Refuses names of the network that are none.
pub(super) fn check(settings: &BTreeMap<String, String>) -> Result<(), SandboxError> {
    let mut names = settings.keys().filter(|name| is_one(name));
    names.try_for_each(|name| path(name).map(drop))
}

/// Sets them, and Docker's where they are not among them.
pub(super) fn apply(
    sandbox: &Sandbox,
    settings: &BTreeMap<String, String>,
) -> Result<(), SandboxError> {
    let inside = || {
        for (name, value) in DEFAULTS {
            let given = settings.keys().any(|key| key.replace('/', ".") == name);
            if !given && let Err(error) = sysctl::set(&path(name)?, value) {
                // A node inside a container may not be allowed to.
                tracing::debug!(%error, "a setting of the sandbox stays as it is");
            }
        }
        let mut own = settings.iter().filter(|(name, _)| is_one(name));
        own.try_for_each(|(name, value)| sysctl::set(&path(name)?, value))
    };
    sandbox
        .netns()
        .run_in(inside)
        .map_err(SandboxError::Enter)?
}

/// Below `/proc/sys`. Both ways of writing it are known; a dot in a name of an interface is written as
/// `/` in the one that has dots between, as sysctl(8) has it.
fn path(name: &str) -> Result<String, SandboxError> {
    let first = name.find(['.', '/']).map(|at| &name[at..=at]);
    let path = match first {
        Some(".") => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    let plain = |part: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        !part.is_empty() && part != "." && part != ".." && part.chars().all(legal)
    };
    if path.starts_with("net/") && path.split('/').all(plain) {
        Ok(path)
    } else {
        Err(SandboxError::Sysctl {
            name: name.chars().filter(|c| !c.is_control()).take(100).collect(),
            source: std::io::Error::other("it is no name of a setting of the network"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_settings_of_the_network() {
        for (name, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/7.forwarding",
                "net/ipv4/conf/eth0.7/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.7/forwarding",
                "net/ipv4/conf/eth0.7/forwarding",
            ),
        ] {
            assert!(is_one(name), "{name}");
            assert_eq!(path(name).expect(name), expected);
        }
        for bad in [
            "net..ipv4",
            "net.//.kernel.x",
            "net/../kernel/panic",
            "net/",
            "net.",
            "net.ipv4.a b",
            "kernel.panic",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(!is_one("kernel.shmmax") && !is_one("network.x"));
        let of = |name: &str| BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        check(&of("kernel.shmmax")).expect("not of the network");
        let error = check(&of("net/../kernel/panic")).expect_err("refused");
        assert!(error.to_string().contains("net/../kernel/panic"), "{error}");
    }
}
