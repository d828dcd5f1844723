//! The process that a machine stands and falls with (`lab-node`): it makes the namespaces and
//! waits for process 1 in them.
//!
//! It talks with the lab over its own standard input and output, one line at a time:
//!
//! | who | line | meaning |
//! |---|---|---|
//! | node | `namespaces` | they are made, links may be moved in |
//! | lab | `go` | the links are there, start |
//! | node | `init PID` | process 1 runs |
//!
//! When the lab goes away before `go`, the node ends.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use rustix::process::getppid;
use serde::{Deserialize, Serialize};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::Signal;

use crate::output::note;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What process 1 starts and keeps running: `arg0` and arguments for this very program.
pub(crate) type Service = (String, Vec<String>);

/// What a machine shall be; handed over as a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeSpec {
    pub(crate) name: String,
    /// Folder of the lab: stays visible although `/run` becomes the machine's own.
    pub(crate) lab_dir: PathBuf,
    pub(crate) service: Option<Service>,
    pub(crate) env: Vec<(String, String)>,
    /// Process that the machine dies with.
    pub(crate) parent: Option<u32>,
}

impl NodeSpec {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Is a machine until process 1 in it ends. Must be called before any thread is started.
///
/// # Errors
/// No permission for namespaces or mounts; a spec that cannot be read.
pub(crate) fn run_node(spec_path: &Path) -> anyhow::Result<ExitCode> {
    let spec = NodeSpec::read(spec_path)?;
    if let Some(parent) = spec.parent {
        die_with(parent)?;
    }
    namespaces::unshare(Kinds::machine()).context("cannot make the namespaces of a node")?;
    namespaces::set_hostname(&spec.name).context("cannot set the node's host name")?;
    own_run(&spec.lab_dir)?;

    let mut answers = io::stdin().lock().lines();
    let say = |line: &str| -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    };
    say("namespaces")?;
    match answers.next() {
        Some(Ok(line)) if line == "go" => {}
        _ => bail!("the lab went away"),
    }
    // The first child after the unshare is process 1 of the new PID namespace.
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut init = Command::new(program)
        .arg("lab-init")
        .arg(spec_path)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .spawn()
        .context("cannot start process 1 of the node")?;
    say(&format!("init {}", init.id()))?;
    let status = init.wait().context("cannot wait for process 1")?;
    note(&format!("{}: process 1 ended: {status}", spec.name));
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lets the kernel kill this process when its parent's thread ends.
fn die_with(parent: u32) -> anyhow::Result<()> {
    namespaces::set_parent_death_signal(Signal::KILL)?;
    // It may have ended before the line above.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now != Some(parent) {
        bail!("the parent process ended");
    }
    Ok(())
}

/// Gives the machine a `/run` and a `/sys` of its own; the lab's folder stays visible when it is
/// below `/run`. Mounts made here are seen by nobody else.
fn own_run(lab_dir: &Path) -> anyhow::Result<()> {
    namespaces::make_mounts_private().context("cannot make the mounts of a node private")?;
    let lab = File::open(lab_dir).with_context(|| format!("cannot open {}", lab_dir.display()))?;
    let run = Path::new("/run");
    namespaces::mount_tmpfs(run)
        .and_then(|()| fs::set_permissions(run, Permissions::from_mode(0o755)))
        .context("cannot give the node a /run of its own")?;
    if lab_dir.starts_with(run) {
        fs::create_dir_all(lab_dir)
            .with_context(|| format!("cannot make {}", lab_dir.display()))?;
        let source = format!("/proc/self/fd/{}", lab.as_raw_fd());
        namespaces::bind(Path::new(&source), lab_dir, true)
            .context("cannot show the lab's folder to the node")?;
    }
    fs::create_dir_all("/run/netns").context("cannot make /run/netns")?;
    own_sys();
    Ok(())
}

/// What an own `/sys` cannot have is said in the machine's log: it runs without.
fn own_sys() {
    // A new `/sys` hides what is mounted below the old one, and runtimes of containers make groups in
    // these trees. The descriptor goes on to mean the old place.
    let trees = Path::new(CGROUPS);
    let hidden = File::open(trees);
    if let Err(error) = namespaces::mount_sys() {
        note(&format!(
            "/sys/class/net shows the links of the host: {error}"
        ));
        return;
    }
    // A machine without control groups has nothing to show.
    let Ok(hidden) = hidden else { return };
    let source = format!("/proc/self/fd/{}", hidden.as_raw_fd());
    if let Err(error) = namespaces::bind(Path::new(&source), trees, true) {
        note(&format!("{CGROUPS} shows no control groups: {error}"));
    }
}
