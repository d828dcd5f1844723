//! How a machine is made: what it shall be, its first process, and the cables that are laid while that
//! waits.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use weft_sys::netns::Netns;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use crate::config::{LabConfig, OUTSIDE, SWITCH};
use crate::machine::AGENT;
use crate::node::{NodeSpec, Service};

/// A machine that is being made (see `node`).
#[derive(Debug)]
pub(crate) struct Birth {
    /// Its first process.
    pub(crate) child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Of the node API; none where no agent will run.
    pub(crate) socket: Option<PathBuf>,
    /// Output of everything on the machine.
    pub(crate) log: PathBuf,
}

impl Birth {
    /// Makes the folder of the machine and starts its first process.
    pub(crate) fn begin(config: &LabConfig, name: &str) -> anyhow::Result<Self> {
        let (dir, log) = (config.dir.join(name), config.log(name));
        for folder in [Some(dir.as_path()), log.parent()].into_iter().flatten() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (service, socket) = service(config, name, &dir);
        let spec = NodeSpec {
            name: name.to_owned(),
            lab_dir: config.dir.clone(),
            service,
            env: config.env.clone(),
            parent: config.dies_with_parent.then(std::process::id),
        };
        let spec_path = dir.join("spec.json");
        let text = serde_json::to_vec_pretty(&spec)?;
        replace_file(&spec_path, &text, PRIVATE, Outlives::Process)
            .with_context(|| format!("cannot write {}", spec_path.display()))?;
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // A group of its own: Ctrl-C is for the one who made the lab, who then takes it down.
        let mut child = Command::new(&config.program)
            .arg("lab-node")
            .arg(&spec_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", config.program.display()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the pipes of a node are missing");
        };
        Ok(Self {
            child,
            to,
            from: BufReader::new(from),
            socket,
            log,
        })
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("its first process ended");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Lays the cables and lets process 1 start; returns the namespace of the machine and the id of its
    /// process 1.
    pub(crate) fn finish(
        &mut self,
        wire: impl FnOnce(&Netns) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Netns, u32)> {
        let line = self.hear()?;
        if line != "namespaces" {
            bail!("its first process said {line:?}");
        }
        let netns = Netns::of_pid(self.child.id())?;
        wire(&netns)?;
        writeln!(self.to, "go")?;
        let line = self.hear()?;
        let pid = line.strip_prefix("init ").and_then(|pid| pid.parse().ok());
        Ok((
            netns,
            pid.with_context(|| format!("its first process said {line:?}"))?,
        ))
    }
}

/// What process 1 of a machine starts and keeps running, and the socket of the node API where that is
/// an agent.
fn service(config: &LabConfig, name: &str, dir: &Path) -> (Option<Service>, Option<PathBuf>) {
    match name {
        SWITCH => (None, None),
        OUTSIDE if config.outside_args.is_empty() => (None, None),
        OUTSIDE => (Some(("weft".to_owned(), config.outside_args.clone())), None),
        _ if !config.agents => (None, None),
        _ => {
            let socket = dir.join("weft.sock");
            let mut args = vec![
                "-H".to_owned(),
                format!("unix://{}", socket.display()),
                "--data-dir".to_owned(),
                dir.join("data").display().to_string(),
                "--name".to_owned(),
                name.to_owned(),
            ];
            if config.shares_images
                && let Some(store) = &config.image_store
            {
                args.extend(["--image-store".to_owned(), store.display().to_string()]);
            }
            if let Some((path, _)) = config.agent_file() {
                args.extend(["--config".to_owned(), path.display().to_string()]);
            }
            args.extend(config.agent_args.iter().cloned());
            (Some((AGENT.to_owned(), args)), Some(socket))
        }
    }
}
