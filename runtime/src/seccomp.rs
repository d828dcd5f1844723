//! System calls that a container cannot make: a list of what is denied, as everything else is allowed.
//!
//! Docker's profile is a list of what is allowed, which knows no call that is newer than itself. This
//! one denies what has broken out of containers, what reaches the machine instead of the container, and
//! what no container needs; a capability that the container has opens what it is there for. What the
//! kernel itself asks a capability for in the first user namespace is mostly left to it. Families of
//! sockets are not told apart: on x86 the library of filters would take all sockets away from those
//! programs of 32 bits that make them by socketcall(2).

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// By number, as capabilities(7) has them.
mod capability {
    pub(super) const DAC_READ_SEARCH: u32 = 2;
    pub(super) const SYS_MODULE: u32 = 16;
    pub(super) const SYS_RAWIO: u32 = 17;
    pub(super) const SYS_PTRACE: u32 = 19;
    pub(super) const SYS_PACCT: u32 = 20;
    pub(super) const SYS_ADMIN: u32 = 21;
    pub(super) const SYS_BOOT: u32 = 22;
    pub(super) const SYS_NICE: u32 = 23;
    pub(super) const SYS_TIME: u32 = 25;
    pub(super) const SYS_TTY_CONFIG: u32 = 26;
    pub(super) const SYSLOG: u32 = 34;
    pub(super) const PERFMON: u32 = 38;
    pub(super) const BPF: u32 = 39;
}

use capability as cap;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Denied to everybody: keys of the kernel are in no namespace; the others are large, new or obsolete,
/// and have been the way out of many containers.
const ALWAYS: &[&str] = &[
    "add_key",
    "create_module",
    "get_kernel_syms",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "nfsservctl",
    "query_module",
    "request_key",
    "swapoff",
    "swapon",
    "_sysctl",
    "sysfs",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
];

/// Denied but to who has any of these capabilities.
const UNLESS: &[(&[u32], &[&str])] = &[
    (
        &[cap::SYS_ADMIN],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "listmount",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "statmount",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (&[cap::SYS_ADMIN, cap::BPF], &["bpf"]),
    (&[cap::SYS_ADMIN, cap::PERFMON], &["perf_event_open"]),
    (&[cap::SYS_ADMIN, cap::SYSLOG], &["syslog"]),
    (&[cap::DAC_READ_SEARCH], &["open_by_handle_at"]),
    (&[cap::SYS_BOOT], &["reboot"]),
    (
        &[cap::SYS_MODULE],
        &["delete_module", "finit_module", "init_module"],
    ),
    (
        &[cap::SYS_NICE],
        &[
            "get_mempolicy",
            "mbind",
            "migrate_pages",
            "move_pages",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    (&[cap::SYS_PACCT], &["acct"]),
    (&[cap::SYS_PTRACE], &["kcmp", "pidfd_getfd"]),
    (&[cap::SYS_RAWIO], &["ioperm", "iopl"]),
    (
        &[cap::SYS_TIME],
        &[
            "clock_adjtime",
            "clock_adjtime64",
            "clock_settime",
            "clock_settime64",
            "settimeofday",
            "stime",
        ],
    ),
    (&[cap::SYS_TTY_CONFIG], &["vhangup"]),
];

/// `CLONE_NEW…` of clone(2): mount, cgroup, UTS, IPC, user, PID, network.
const NEW_NAMESPACES: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];
/// The filter for a container with these capabilities, a bit for each.
///
/// # Errors
/// None that is known: those of the builders.
pub(crate) fn profile(capabilities: u64) -> Result<LinuxSeccomp, OciSpecError> {
    let has = |number: u32| capabilities & (1 << number) != 0;
    let mut syscalls = vec![deny(ALWAYS, EPERM, None)?];
    for (opens, names) in UNLESS {
        if !opens.iter().copied().any(has) {
            syscalls.push(deny(names, EPERM, None)?);
        }
    }
    if !has(cap::SYS_ADMIN) {
        // Its flags are in memory, where no filter looks: the C library takes clone(2) instead.
        syscalls.push(deny(&["clone3"], ENOSYS, None)?);
        for flag in NEW_NAMESPACES {
            let set = flag_is_set(flags_of_clone(), flag)?;
            syscalls.push(deny(&["clone"], EPERM, Some(set))?);
        }
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures(architectures(std::env::consts::ARCH))
        .syscalls(syscalls)
        .build()
}

/// Where clone(2) has its flags: s390 has them second.
fn flags_of_clone() -> usize {
    usize::from(std::env::consts::ARCH == "s390x")
}

fn deny(
    names: &[&str],
    errno: u32,
    when: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut syscall = LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno)
        .build()?;
    syscall.set_args(when.map(|when| vec![when]));
    Ok(syscall)
}

/// `(argument & value) == value_two`.
fn flag_is_set(index: usize, flag: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(flag)
        .value_two(flag)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
}

/// The machine's own, and those of programs that its kernel runs besides.
fn architectures(machine: &str) -> Vec<Arch> {
    match machine {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        "powerpc64" => vec![Arch::ScmpArchPpc64le],
        "loongarch64" => vec![Arch::ScmpArchLoongarch64],
        _ => vec![Arch::ScmpArchNative],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(capabilities: u64) -> Vec<String> {
        let profile = profile(capabilities).expect("a profile");
        let syscalls = profile.syscalls().as_deref().expect("some");
        syscalls
            .iter()
            .flat_map(|call| call.names().clone())
            .collect()
    }

    #[test]
    fn a_capability_opens_what_it_is_there_for() {
        let default = denied(0xa804_25fb);
        for name in [
            "mount", "bpf", "unshare", "clone", "clone3", "keyctl", "reboot",
        ] {
            assert!(default.contains(&name.to_owned()), "{name}");
        }
        // What programs of every day use.
        for name in [
            "openat",
            "socket",
            "futex",
            "ptrace",
            "chroot",
            "personality",
            "seccomp",
            "prctl",
        ] {
            assert!(!default.contains(&name.to_owned()), "{name}");
        }
        let admin = denied(0xa804_25fb | 1 << cap::SYS_ADMIN);
        for name in [
            "mount",
            "bpf",
            "unshare",
            "clone",
            "clone3",
            "perf_event_open",
        ] {
            assert!(!admin.contains(&name.to_owned()), "{name}");
        }
        for name in ["keyctl", "io_uring_setup", "reboot"] {
            assert!(admin.contains(&name.to_owned()), "{name}");
        }
        let bpf = denied(1 << cap::BPF);
        assert!(!bpf.contains(&"bpf".to_owned()) && bpf.contains(&"mount".to_owned()));
    }

    #[test]
    fn the_filter_is_written_as_oci_has_it() {
        let profile = profile(0).expect("a profile");
        let json = serde_json::to_value(&profile).expect("JSON");
        assert_eq!(json["defaultAction"], "SCMP_ACT_ALLOW");
        let calls = json["syscalls"].as_array().expect("calls");
        let clones: Vec<_> = calls.iter().filter(|c| c["names"][0] == "clone").collect();
        assert_eq!(clones.len(), 7);
        let user = serde_json::json!({
            "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{
                "index": flags_of_clone(), "value": 0x1000_0000, "valueTwo": 0x1000_0000,
                "op": "SCMP_CMP_MASKED_EQ",
            }],
        });
        assert!(clones.contains(&&user), "{clones:?}");
        let clone3 = calls
            .iter()
            .find(|c| c["names"][0] == "clone3")
            .expect("denied");
        assert_eq!(clone3["errnoRet"], 38);
        let archs = serde_json::to_value(architectures("x86_64")).expect("JSON");
        let expected = serde_json::json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        assert_eq!(archs, expected);
    }

    /// What the runtime program does for a container, the shim does for what is run inside of it.
    #[test]
    fn all_of_it_can_be_denied_without_the_runtime_program() {
        for name in denied(0) {
            assert!(weft_sys::seccomp::is_known(&name), "{name}");
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        let mut names: Vec<&str> = ALWAYS.to_vec();
        names.extend(UNLESS.iter().flat_map(|(_, names)| names.iter()));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
