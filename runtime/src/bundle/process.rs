//! The program of a container: who it is, what it may, and what it is told.

use std::collections::HashSet;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, UserBuilder,
};
use weft_model::capability;
use weft_model::objects::Ulimit;

use super::{BundleError, Container, INIT};
use crate::node::Node;
use crate::users::ImageUser;

pub(super) fn process(
    node: &Node,
    container: &Container<'_>,
    user: &ImageUser,
) -> Result<Process, BundleError> {
    let Container { merged, spec, .. } = *container;
    let mut args = Vec::new();
    if container.init.is_some() {
        args.extend([INIT.to_owned(), "--".to_owned()]);
    }
    args.extend(merged.args.iter().cloned());
    let mut groups = user.groups.clone();
    // What is not in the namespace cannot be had.
    groups.retain(|group| node.gids.has(*group));
    let rlimits = spec.ulimits.iter().map(rlimit);
    let rlimits = rlimits.collect::<Result<Vec<PosixRlimit>, BundleError>>()?;
    let of_user = UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(groups)
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(spec.tty)
        .user(of_user)
        .args(args)
        .env(merged.environment(container.hostname))
        .cwd(&*merged.cwd)
        .capabilities(capabilities(node, container.capabilities, user)?)
        .rlimits(rlimits)
        .no_new_privileges(spec.privileges.no_new_privileges)
        .build()?;
    process.set_apparmor_profile(node.apparmor.map(str::to_owned));
    // Not the agent's own: a supervisor may have made that one hard to kill. Who is not root of the
    // machine may only raise it.
    if !node.rootless() || spec.oom_score_adj > 0 {
        let score = spec.oom_score_adj.clamp(-1000, 1000);
        process.set_oom_score_adj(i32::try_from(score).ok());
    }
    Ok(process)
}

/// As Docker: others than root have none of them, and may gain these by files that say so.
fn capabilities(
    node: &Node,
    bits: u64,
    user: &ImageUser,
) -> Result<LinuxCapabilities, OciSpecError> {
    let known = match 1_u64.checked_shl(node.last_capability.saturating_add(1)) {
        Some(next) => bits & (next - 1),
        None => bits,
    };
    let names = capability::Capabilities(known).names();
    let set: Capabilities = names.filter_map(|name| name.parse().ok()).collect();
    let none: HashSet<Capability> = HashSet::new();
    let of_root = if user.uid == 0 {
        set.clone()
    } else {
        none.clone()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(set)
        .effective(of_root.clone())
        .permitted(of_root)
        .inheritable(none.clone())
        .ambient(none)
        .build()
}

/// -1 is no limit.
fn rlimit(limit: &Ulimit) -> Result<PosixRlimit, BundleError> {
    let Ulimit { name, hard, soft } = limit;
    // Docker's list: all of the kernel's, but for the size of the address space.
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let kind = kind
        .parse::<PosixRlimitType>()
        .ok()
        .filter(|kind| *kind != PosixRlimitType::RlimitAs)
        .ok_or_else(|| BundleError::Ulimit(name.chars().take(40).collect()))?;
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    if value(*soft) > value(*hard) {
        return Err(BundleError::UlimitOrder {
            name: name.clone(),
            soft: *soft,
            hard: *hard,
        });
    }
    Ok(PosixRlimitBuilder::default()
        .typ(kind)
        .hard(value(*hard))
        .soft(value(*soft))
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_the_name_that_oci_has() {
        let all = capability::Capabilities((1 << 41) - 1);
        let parsed: Capabilities = all.names().filter_map(|name| name.parse().ok()).collect();
        assert_eq!(parsed.len(), 41);
    }

    #[test]
    fn limits_are_named_as_docker_names_them() {
        let of = |name: &str, soft, hard| {
            rlimit(&Ulimit {
                name: name.to_owned(),
                hard,
                soft,
            })
        };
        for name in [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ] {
            let limit = of(name, 1, -1).expect(name);
            assert_eq!((limit.soft(), limit.hard()), (1, u64::MAX));
        }
        for odd in ["as", "files", "", "RLIMIT_CPU"] {
            let error = of(odd, 1, 1).expect_err(odd).to_string();
            assert_eq!(error, format!("invalid ulimit type: {odd}"));
        }
        of("nofile", -1, 10).expect_err("no limit is above any");
    }
}
