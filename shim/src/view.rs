//! What the task sees of the node: its file system, less weft's own folders, other processes, the
//! settings of the kernel, and disks as devices.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use weft_sys::error_text::without_numbers;
use weft_sys::mounts::{self, Attributes, NewFlags, Reach};
use weft_sys::namespaces;

use crate::devices::{self, Devices};
use crate::payloads;
use crate::spec::{Bind, Spec};

/// Not shown at all: what Docker masks.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Shown, not to be changed: as Docker does. Among them is what would start a program outside
/// (`core_pattern`), and the machine anew.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;

/// Makes the calling process's mount namespace, a new one, what the task is to see. Returns what
/// this machine refused and the task can do without.
///
/// A user namespace inside a container may refuse a new `/proc`, as the container's own hides parts
/// of it. Root there is nobody outside, so the task runs without that wall, and a warning says so.
/// On a node that is root itself everything has to succeed.
///
/// # Errors
/// A wall does not stand, or a file cannot be shown.
pub(crate) fn show(spec: &Spec) -> anyhow::Result<Vec<String>> {
    let mut view = View {
        warnings: Vec::new(),
        lenient: in_user_namespace(),
    };
    mounts::follow_parent().context("cannot keep the task's mounts to itself")?;
    for Bind { source, target } in &spec.binds {
        show_file(source, target).with_context(|| {
            format!(
                "cannot show {} as {}; create an empty file there",
                source.display(),
                target.display()
            )
        })?;
    }
    // After those: a config may be the task's own `/etc/hosts`. And while weft's folders are seen.
    payloads::show(&spec.payloads)?;
    view.wall(
        "hide the processes of the node from the task (/proc)",
        namespaces::mount_proc(),
    )?;
    view.show_sys()?;
    let shown = devices::show();
    mounts::set(Path::new("/"), Attributes::NO_DEVICES, Reach::All)
        .context("cannot keep devices on the node's disks closed")?;
    view.open_devices(shown)?;
    view.protect_kernel()?;
    for path in &spec.hidden {
        hide(path).with_context(|| format!("cannot hide {} from the task", path.display()))?;
    }
    Ok(view.warnings)
}

struct View {
    warnings: Vec<String>,
    /// What the kernel refuses is a warning.
    lenient: bool,
}

impl View {
    fn wall(&mut self, what: &str, result: io::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(error) if self.lenient => {
                let why = without_numbers(&error.to_string());
                self.warnings.push(format!(
                    "this user namespace does not allow to {what}: {why}"
                ));
                Ok(())
            }
            other => other.with_context(|| format!("cannot {what}")),
        }
    }

    fn protect_kernel(&mut self) -> anyhow::Result<()> {
        for path in MASKED {
            self.wall(&format!("hide {path}"), mask(Path::new(path)))?;
        }
        for path in READ_ONLY {
            self.wall(
                &format!("make {path} read-only"),
                read_only(Path::new(path)),
            )?;
        }
        Ok(())
    }

    /// The devices of the task's own network, nothing to be written, and its own control group.
    fn show_sys(&mut self) -> anyhow::Result<()> {
        let (sys, tree) = (Path::new("/sys"), Path::new("/sys/fs/cgroup"));
        if !sys.exists() {
            return Ok(());
        }
        let unified = rustix::fs::statfs(tree).is_ok_and(|fs| fs.f_type.cast_unsigned() == CGROUP2);
        let flags = NewFlags {
            read_only: true,
            ..NewFlags::default()
        };
        let fresh = mounts::mount_new("sysfs", sys, flags, "")
            .or_else(|_| mounts::set(sys, Attributes::READ_ONLY, Reach::All));
        self.wall("make /sys read-only", fresh)?;
        if unified {
            // Programs read their limits there; one that finds none takes the machine's.
            drop(mounts::mount_new("cgroup2", tree, flags, ""));
        }
        Ok(())
    }

    /// After all mounts were closed for devices: those of the new `/dev` may be opened, or where
    /// there is none, those of the node's.
    fn open_devices(&mut self, shown: io::Result<Devices>) -> anyhow::Result<()> {
        let dev = Path::new("/dev");
        let opened = shown.and_then(|devices| {
            devices.open().inspect_err(|_| {
                drop(mounts::take_away(dev));
            })
        });
        if opened.is_err() && self.lenient {
            drop(mounts::clear(dev, Attributes::NO_DEVICES, Reach::All));
        }
        self.wall("give the task a /dev of its own", opened)
    }
}

/// Where nothing is, as on a system for which nobody wrote `/etc/hosts`, an empty file is made first, as
/// container runtimes do: programs take it for none.
fn show_file(source: &Path, target: &Path) -> io::Result<()> {
    match namespaces::bind(source, target, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && source.exists() => {
            let file = File::options().append(true).create(true).open(target)?;
            // Whatever the umask is.
            file.set_permissions(Permissions::from_mode(0o644))?;
            namespaces::bind(source, target, false)
        }
        other => other,
    }
}

/// Puts an empty folder or file over what is there; nothing there is fine.
fn hide(path: &Path) -> io::Result<()> {
    match std::fs::canonicalize(path) {
        Ok(path) => mask(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn mask(path: &Path) -> io::Result<()> {
    let masked = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let flags = NewFlags {
                read_only: true,
                ..NewFlags::default()
            };
            mounts::mount_new("tmpfs", path, flags, "size=4k,nr_inodes=2,mode=555")
        }
        Ok(_) => namespaces::bind(Path::new("/dev/null"), path, false),
        Err(error) => Err(error),
    };
    match masked {
        // This kernel does not have it, or a hidden folder above took it along.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_only(path: &Path) -> io::Result<()> {
    match namespaces::bind(path, path, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => mounts::set(path, Attributes::READ_ONLY, Reach::All),
    }
}

/// user_namespaces(7): the first one maps every id to itself.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    fields != ["0", "0", "4294967295"]
}
