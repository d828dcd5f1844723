//! Capabilities of Linux as users of Docker spell them: what root in a task may do.

use std::fmt;

/// capabilities(7), by the kernel's numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a task has unless its service says otherwise: Docker's fourteen.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const ALL: &str = "ALL";

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown capability {0:?}: write ALL or one of {names}, with or without CAP_ in front",
    names = NAMES.join(", ")
)]
pub struct UnknownCapability(String);

/// A set of capabilities: bit 0 is `CAP_CHOWN`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Their names, without `CAP_`, by number.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let names = NAMES.into_iter().enumerate();
        let names = names.filter(move |(bit, _)| self.0 & (1 << bit) != 0);
        names.map(|(_, name)| name)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A name as it is stored: `CAP_NET_ADMIN` for `net_admin`, or `ALL`.
///
/// # Errors
/// There is no such capability.
pub fn canonical(name: &str) -> Result<String, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if upper == ALL {
        Ok(upper)
    } else if NAMES.contains(&short) {
        Ok(format!("CAP_{short}"))
    } else {
        // It may come from anywhere, and a message is read by people.
        Err(UnknownCapability(name.chars().take(40).collect()))
    }
}

/// What a task has with these added and dropped, by Docker's rules: with `ALL` added everything but
/// what is dropped; with `ALL` dropped what is added alone; else Docker's fourteen without what is
/// dropped, and what is added.
///
/// # Errors
/// One of the names is no capability.
pub fn granted(
    add: &[impl AsRef<str>],
    drop: &[impl AsRef<str>],
) -> Result<Capabilities, UnknownCapability> {
    let (add, drop) = (set(add)?, set(drop)?);
    let all = (1 << NAMES.len()) - 1;
    let default = DEFAULT
        .iter()
        .try_fold(0, |set, name| Ok(set | bits(name)?))?;
    let dropped = drop.names;
    Ok(Capabilities(match (add.all, drop.all) {
        (true, _) => all & !dropped,
        (false, true) => add.names,
        (false, false) => default & !dropped | add.names,
    }))
}

#[derive(Default)]
struct Set {
    all: bool,
    names: u64,
}

fn set(names: &[impl AsRef<str>]) -> Result<Set, UnknownCapability> {
    let mut set = Set::default();
    for name in names {
        let name = canonical(name.as_ref())?;
        if name == ALL {
            set.all = true;
        } else {
            set.names |= bits(&name)?;
        }
    }
    Ok(set)
}

fn bits(name: &str) -> Result<u64, UnknownCapability> {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    let at = NAMES.iter().position(|known| *known == short);
    at.map(|at| 1 << at)
        .ok_or_else(|| UnknownCapability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> u64 {
        granted(add, drop).expect("known names").0
    }

    #[test]
    fn the_default_is_dockers() {
        // `CapBnd` of a container of Docker.
        assert_eq!(of(&[], &[]), 0xa804_25fb);
    }

    #[test]
    fn added_and_dropped_by_dockers_rules() {
        let (net_admin, kill) = (1 << 12, 1 << 5);
        let default = of(&[], &[]);
        assert_eq!(of(&["NET_ADMIN"], &[]), default | net_admin);
        assert_eq!(
            of(&["cap_net_admin"], &["Kill"]),
            default & !kill | net_admin
        );
        assert_eq!(of(&["KILL"], &["KILL"]), default);
        assert_eq!(of(&[], &["ALL"]), 0);
        assert_eq!(of(&["kill"], &["all"]), kill);
        assert_eq!(of(&["ALL"], &["KILL"]), ((1 << 41) - 1) & !kill);
        assert_eq!(of(&["ALL"], &["ALL"]), (1 << 41) - 1);
        let shown = format!("{:?}", granted(&["kill"], &["all"]).expect("known"));
        assert_eq!(shown, r#"{"KILL"}"#);
    }

    #[test]
    fn names_are_spelled_out_when_one_is_wrong() {
        assert_eq!(canonical("net_admin").expect("known"), "CAP_NET_ADMIN");
        assert_eq!(canonical("all").expect("known"), "ALL");
        for wrong in ["NET", "CAP_", "CAP_ALL", "", "CAP_CAP_KILL"] {
            let error = canonical(wrong).expect_err(wrong).to_string();
            assert!(
                error.starts_with(&format!("unknown capability {wrong:?}: write ALL")),
                "{error}"
            );
            assert!(error.contains("NET_ADMIN, NET_RAW"), "{error}");
        }
        assert!(
            granted(&["x".repeat(1 << 20)], &[] as &[&str])
                .expect_err("long")
                .to_string()
                .len()
                < 800
        );
    }
}
