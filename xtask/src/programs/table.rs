//! The programs, what needs them, and their packages.

use super::packager::Packager;

/// A program that something here runs.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) name: &'static str,
    /// What needs it.
    pub(super) purpose: &'static str,
    apt: &'static str,
    dnf: &'static str,
    apk: &'static str,
}

impl Program {
    /// The package with it; more than one where a space is.
    pub(super) fn package(&self, packager: Packager) -> &'static str {
        match packager {
            Packager::Apt => self.apt,
            Packager::Dnf => self.dnf,
            Packager::Apk => self.apk,
        }
    }
}

/// Packages are those of apt, dnf and apk.
const fn program(
    name: &'static str,
    purpose: &'static str,
    [apt, dnf, apk]: [&'static str; 3],
) -> Program {
    Program {
        name,
        purpose,
        apt,
        dnf,
        apk,
    }
}

// Headers and the start files of a program are recommended by Debian's gcc, not required. Where there
// is none, this program cannot be built: `x` has the same packages.
pub(super) const CC: Program = program(
    "cc",
    "compiles aws-lc, the cryptography of TLS, and links every program",
    ["gcc libc6-dev", "gcc", "gcc musl-dev"],
);
const NFT: Program = program(
    "nft",
    "rules of published ports and of the way to the outside",
    ["nftables"; 3],
);

const RUNC: Program = program(
    "runc",
    "containers of tests, benches and a demo",
    ["runc"; 3],
);
const IP: Program = program(
    "ip",
    "makes links, addresses and namespaces for tests",
    ["iproute2", "iproute", "iproute2"],
);
const PING: Program = program(
    "ping",
    "packets through overlays and gateways",
    ["iputils-ping", "iputils", "iputils"],
);

// Images are made of it: a variant that needs libraries will not do.
const BUSYBOX: Program = program(
    "busybox",
    "what is in the images of tests, benches and a demo",
    ["busybox-static", "busybox", "busybox-static"],
);

/// What `weft demo` runs, from the source on.
pub(crate) const DEMO: &[Program] = &[CC, NFT];

/// What `weft demo --stack` runs.
pub(crate) const STACK_DEMO: &[Program] = &[CC, NFT, RUNC, BUSYBOX];

/// What the tests of the workspace run. Where busybox is named, its variant will do as well.
pub(crate) const TESTS: &[Program] = &[
    CC,
    NFT,
    program("git", "applies the tutorial's patch", ["git"; 3]),
    IP,
    program(
        "bridge",
        "tests look at forwarding entries",
        ["iproute2", "iproute", "iproute2"],
    ),
    program(
        "ss",
        "tests compare connections with the kernel's own",
        ["iproute2", "iproute", "iproute2"],
    ),
    PING,
    program(
        "pgrep",
        "tests find processes of tasks",
        ["procps", "procps-ng", "procps-ng"],
    ),
    program(
        "kill",
        "tests end processes of nodes",
        ["procps", "util-linux", "busybox"],
    ),
    program(
        "sysctl",
        "settings of hosts that tests imitate",
        ["procps", "procps-ng", "procps-ng"],
    ),
    program(
        "nsenter",
        "tests look into namespaces of tasks",
        ["util-linux"; 3],
    ),
    program(
        "unshare",
        "namespaces that weft did not make",
        ["util-linux"; 3],
    ),
    program(
        "setpriv",
        "an ordinary user, for whom doors stay closed",
        ["util-linux"; 3],
    ),
    program(
        "mount",
        "small disks that fill up",
        ["mount", "util-linux", "util-linux"],
    ),
    program(
        "perl",
        "replicas that end while they answer",
        ["perl-base", "perl-interpreter perl-IO", "perl"],
    ),
    program(
        "bash",
        "commands of README, as they stand there",
        ["bash"; 3],
    ),
    program(
        "curl",
        "commands of README, as they stand there",
        ["curl"; 3],
    ),
    program(
        "find",
        "tests list files that are left",
        ["findutils", "findutils", "busybox"],
    ),
    program(
        "xargs",
        "a test makes many services at once",
        ["findutils", "findutils", "busybox"],
    ),
    program(
        "hostname",
        "tests ask tasks for theirs",
        ["hostname", "hostname", "busybox"],
    ),
    RUNC,
    BUSYBOX,
    program("grep", "tests look for secrets in files", ["grep"; 3]),
    program(
        "docker-registry",
        "images that come from a registry",
        ["docker-registry", "docker-distribution", "docker-registry"],
    ),
];

/// What `cargo xtask kernels` runs, here and in its guests.
pub(crate) const KERNELS: &[Program] = &[
    CC,
    NFT,
    IP,
    PING,
    BUSYBOX,
    program(
        "qemu-system-x86_64",
        "boots other kernels",
        [
            "qemu-system-x86",
            "qemu-system-x86-core",
            "qemu-system-x86_64",
        ],
    ),
    program("cpio", "packs what a kernel boots with", ["cpio"; 3]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_program_is_there_once_with_packages_that_have_names() {
        for table in [DEMO, STACK_DEMO, TESTS, KERNELS] {
            let names: BTreeSet<_> = table.iter().map(|program| program.name).collect();
            assert_eq!(names.len(), table.len());
            for program in table {
                for packager in [Packager::Apt, Packager::Dnf, Packager::Apk] {
                    let mut words = program.package(packager).split(' ');
                    assert!(words.all(|word| !word.is_empty()), "{}", program.name);
                }
            }
        }
    }

    #[test]
    fn tests_run_the_demo_too() {
        let there = |program: &Program| TESTS.iter().any(|other| other.name == program.name);
        assert!(DEMO.iter().chain(STACK_DEMO).all(there));
    }
}
