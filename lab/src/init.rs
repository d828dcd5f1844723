//! Process 1 of a machine (`lab-init`): starts its service again when that dies, as systemd does
//! with `Restart=always`, and reaps orphans.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use weft_sys::namespaces;
use weft_sys::process::{Exit, Signal};

use crate::node::NodeSpec;
use crate::output::note;

/// Pause before the service is started again.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// A service that ends with an error sooner than this cannot run at all.
const QUICK: Duration = Duration::from_secs(1);

/// How often in a row a service may end quickly before the machine gives up.
const MAX_QUICK_ENDS: u32 = 5;

/// Is process 1 until its service ends on request. Without a service it waits for ever.
///
/// # Errors
/// The service cannot be started, or ended quickly too often.
pub(crate) fn run_init(spec_path: &Path) -> anyhow::Result<ExitCode> {
    // `lab-node` is the plug: when it is pulled, everything here goes dark.
    namespaces::set_parent_death_signal(Signal::KILL)?;
    let spec = NodeSpec::read(spec_path)?;
    // Once: a program that was built anew meanwhile has its old path.
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    // A container may have masked parts of `/proc`; then the kernel refuses a new one.
    if let Err(error) = namespaces::mount_proc() {
        note(&format!(
            "{}: /proc shows the processes of the whole machine: {error}",
            spec.name
        ));
    }
    let Some((arg0, args)) = &spec.service else {
        return wait_for_ever();
    };
    let mut quick_ends = 0;
    loop {
        let started = Instant::now();
        let service = Command::new(&program)
            .arg0(arg0)
            .args(args)
            .envs(spec.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .spawn()
            .with_context(|| format!("cannot start {arg0} ({})", program.display()))?;
        let status = reap_until(&service)?;
        note(&format!("{}: {arg0} ended: {status}", spec.name));
        match status {
            // Stopped on request, with or without a handler.
            Exit::Code(0) => return Ok(ExitCode::SUCCESS),
            Exit::Signal(signal) if signal == Signal::TERM.as_raw() => {
                return Ok(ExitCode::SUCCESS);
            }
            Exit::Code(_) if started.elapsed() < QUICK => {
                quick_ends += 1;
                if quick_ends == MAX_QUICK_ENDS {
                    note(&format!(
                        "{}: {arg0} ended quickly {MAX_QUICK_ENDS} times, giving up",
                        spec.name
                    ));
                    return Ok(ExitCode::FAILURE);
                }
            }
            _ => quick_ends = 0,
        }
        std::thread::sleep(RESTART_DELAY);
    }
}

/// Waits for `service`, and for every orphan that ends meanwhile.
fn reap_until(service: &Child) -> anyhow::Result<Exit> {
    loop {
        match namespaces::wait_any().context("cannot wait for the service")? {
            Some((pid, exit)) if pid == service.id() => return Ok(exit),
            Some(_) => {}
            None => bail!("the service was waited for by somebody else"),
        }
    }
}

fn wait_for_ever() -> anyhow::Result<ExitCode> {
    loop {
        // Orphans may come later, so the end of the last one is no end.
        if namespaces::wait_any()?.is_none() {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
