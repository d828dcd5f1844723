//! A machine with another kernel: what it boots with, and what it prints.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{Kernel, SELF_TEST, run};

/// How lines begin that are for us.
pub(super) const SAYS: &str = "weft: ";

/// Programs of this machine that the tests run, and the one that is all others.
const HOST_PROGRAMS: [&str; 4] = ["busybox", "ip", "nft", "ping"];

/// Below a kernel's modules: those of networks and what they need.
const MODULES: [&str; 5] = [
    "kernel/net",
    "kernel/drivers/net",
    "kernel/lib",
    "kernel/crypto",
    "kernel/arch",
];
/// No guest has such devices, and they are most of it.
const UNUSED: [&str; 2] = ["kernel/drivers/net/ethernet", "kernel/drivers/net/wireless"];
/// What a kernel has without modules.
const BUILT_IN: [&str; 2] = ["modules.builtin", "modules.order"];

/// Seconds that a guest may take: the tests take one or two minutes.
const LIMIT: &str = "600";

/// The kernel loads modules of tests by itself, as the tests ask for what is in them.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for name in veth sch_ingress cls_bpf tun vxlan nf_tables; do modprobe $name; done
ip link set lo up
";

/// The file with what a guest has printed.
pub(super) fn console(folder: &Path) -> PathBuf {
    folder.join("console")
}

/// Boots `kernel` with `programs` and runs the self-test, then each of `tests` with its arguments; what
/// it printed. Everything is in `folder`, which is made anew. Programs of this machine are found by
/// `path`.
pub(super) fn boot(
    kernel: &Kernel,
    programs: &[(&str, PathBuf)],
    tests: &[(&str, String)],
    path: &OsStr,
    folder: &Path,
) -> anyhow::Result<String> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let root = folder.join("root");
    for name in ["bin", "dev", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))
            .with_context(|| format!("cannot make {}", root.display()))?;
    }
    // The kernel looks for modprobe there.
    symlink("bin", root.join("sbin")).context("cannot make a link")?;
    for (name, program) in programs {
        add_program(&root, name, program)?;
    }
    for name in HOST_PROGRAMS {
        let found = std::env::split_paths(path)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file());
        add_program(&root, name, &found.with_context(|| format!("no {name}"))?)?;
    }
    add_modules(&root, kernel)?;
    let init = root.join("init");
    fs::write(&init, script(tests)).context("cannot write init")?;
    fs::set_permissions(&init, Permissions::from_mode(0o755)).context("cannot change init")?;
    let pack = "find . | cpio --quiet -o -H newc > ../initramfs";
    run(Command::new("sh").current_dir(&root).args(["-c", pack]))?;
    let printed = emulate(kernel, &folder.join("initramfs"))?;
    let console = console(folder);
    fs::write(&console, &printed).with_context(|| format!("cannot write {}", console.display()))?;
    // Tens of MB, which are made anew each time; the text is what somebody may want.
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    Ok(printed)
}

/// The first process: it must not end before the machine does.
fn script(tests: &[(&str, String)]) -> String {
    let mut text = format!("{INIT}echo \"{SAYS}{SELF_TEST}: $({SELF_TEST})\"\n");
    for (name, arguments) in tests {
        writeln!(
            text,
            "{name} --test-threads=1 {arguments}\necho \"{SAYS}{name}: $?\""
        )
        .expect("a String takes all");
    }
    text.push_str("poweroff -f\n");
    text
}

/// Copies a program, and the libraries that it is linked with to where it looks for them.
fn add_program(root: &Path, name: &str, program: &Path) -> anyhow::Result<()> {
    let copy = |from: &Path, to: &Path| {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(program, &root.join("bin").join(name))?;
    // It fails where a program needs none.
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    for library in libraries(&listed) {
        let to = root.join(library.trim_start_matches('/'));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        copy(Path::new(library), &to)?;
    }
    Ok(())
}

/// Of what `ldd` prints.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn add_modules(root: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let release = kernel.release()?;
    let to = root.join("lib/modules").join(release);
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut is_there = false;
    for name in MODULES.iter().chain(&BUILT_IN) {
        let from = kernel.modules.join(name);
        if !from.exists() {
            continue;
        }
        is_there = true;
        let to = to.join(name);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        run(Command::new("cp").arg("-r").args([&from, &to]))?;
    }
    ensure!(
        is_there,
        "{} has no modules of a kernel",
        kernel.modules.display()
    );
    for name in UNUSED {
        let unused = to.join(name);
        if unused.exists() {
            fs::remove_dir_all(&unused)
                .with_context(|| format!("cannot remove {}", unused.display()))?;
        }
    }
    run(Command::new("busybox")
        .args(["depmod", "-b"])
        .arg(root)
        .arg(release))?;
    Ok(())
}

/// Runs the machine until it switches itself off, or for [`LIMIT`]; what it printed.
fn emulate(kernel: &Kernel, initramfs: &Path) -> anyhow::Result<String> {
    // Its errors are of use with what came before.
    let output = Command::new("timeout")
        .args([LIMIT, "nice", "-n", "19", "qemu-system-x86_64"])
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1G"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .output()
        .context("cannot run timeout")?;
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_a_program_looks_for_by_their_paths() {
        let listed = "\tlinux-vdso.so.1 (0x00007f)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<&str> = libraries(listed).collect();
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(libraries("\tnot a dynamic executable\n").count(), 0);
    }

    #[test]
    fn the_first_process_says_how_programs_ended_and_ends_the_machine() {
        let text = script(&[("streams", "--skip a".to_owned())]);
        let end = "echo \"weft: self_test: $(self_test)\"\n\
                   streams --test-threads=1 --skip a\necho \"weft: streams: $?\"\npoweroff -f\n";
        assert!(text.starts_with("#!/bin/busybox sh\n"), "{text}");
        assert!(text.ends_with(end), "{text}");
    }
}
