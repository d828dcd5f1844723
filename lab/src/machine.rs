//! One machine of a lab, and what can be asked of it.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_sys::netns::Netns;
use weft_sys::process::Signal;

use crate::output::{last_words, note};
use crate::patience::LOOK;
use crate::process::{ProcessRef, arg0, children};

/// `arg0` of an agent.
pub(crate) const AGENT: &str = "weftd";

/// How long agents may take to stop before the plug is pulled.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A node, the switch, or the machine outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) name: String,
    /// None for the switch.
    pub(crate) addr: Option<IpAddr>,
    /// The process that the machine stands and falls with.
    pub(crate) plug: ProcessRef,
    /// Process 1 of the machine.
    pub(crate) init: ProcessRef,
    /// Socket of the node API; none where no agent runs.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) log: PathBuf,
}

/// What is known of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// `node1`, …
    pub name: String,
    /// Underlay address.
    pub addr: Option<IpAddr>,
    /// False once the plug was pulled.
    pub up: bool,
    /// Process id of the agent as this process sees it, while it runs.
    pub agent_pid: Option<u32>,
    /// Socket of the node API.
    pub socket: Option<PathBuf>,
    /// Output of everything on the machine.
    pub log: PathBuf,
}

impl Machine {
    /// Fails where the machine is off.
    fn check_on(&self) -> anyhow::Result<()> {
        if !self.init.is_alive() {
            bail!("{} is down", self.name);
        }
        Ok(())
    }

    pub(crate) fn addr(&self) -> anyhow::Result<IpAddr> {
        self.addr
            .with_context(|| format!("{} has no address", self.name))
    }

    pub(crate) fn socket(&self) -> anyhow::Result<&Path> {
        self.socket
            .as_deref()
            .with_context(|| format!("no agent runs on {}", self.name))
    }

    pub(crate) fn status(&self) -> NodeStatus {
        NodeStatus {
            name: self.name.clone(),
            addr: self.addr,
            up: self.init.is_alive(),
            agent_pid: self.agent(),
            socket: self.socket.clone(),
            log: self.log.clone(),
        }
    }

    /// Process id of the agent, as this process sees it.
    pub(crate) fn agent(&self) -> Option<u32> {
        if self.socket.is_none() || !self.init.is_alive() {
            return None;
        }
        children(self.init.pid)
            .into_iter()
            .find(|pid| arg0(*pid) == AGENT)
    }

    /// Sends a signal to the agent, which is returned.
    pub(crate) fn signal_agent(&self, signal: Signal) -> anyhow::Result<ProcessRef> {
        let pid = self
            .agent()
            .with_context(|| format!("no agent runs on {}", self.name))?;
        let agent = ProcessRef::of(pid)?;
        agent.signal(signal)?;
        Ok(agent)
    }

    /// A command that `program` will run on the machine.
    pub(crate) fn entering(
        &self,
        program: &Path,
        how: &[&str],
        command: &[&str],
    ) -> anyhow::Result<Command> {
        self.check_on()?;
        let mut enter = Command::new(program);
        enter
            .arg("lab-enter")
            .args(how)
            .arg(self.init.pid.to_string())
            .arg("--")
            .args(command);
        Ok(enter)
    }

    /// Its own network namespace, or one that it knows by `path`.
    pub(crate) fn netns(&self, path: Option<&Path>) -> anyhow::Result<Netns> {
        self.check_on()?;
        Ok(match path {
            None => Netns::of_pid(self.init.pid)?,
            Some(path) => {
                let inside = path.strip_prefix("/").unwrap_or(path);
                Netns::open(Path::new(&format!("/proc/{}/root", self.init.pid)).join(inside))?
            }
        })
    }

    /// Waits until its agent, if it has one, answers on its socket.
    pub(crate) fn wait_ready(&self, limit: Duration, deadline: Instant) -> anyhow::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        while UnixStream::connect(socket).is_err() {
            if !self.init.is_alive() {
                bail!("{} ended{}", self.name, last_words(&self.log));
            }
            if Instant::now() > deadline {
                bail!(
                    "weftd on {} is not ready after {} s{}",
                    self.name,
                    limit.as_secs(),
                    last_words(&self.log)
                );
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Asks the agent to end, and everything on the machine with it; pulls the plug where there is none.
    pub(crate) fn ask_to_end(&self) -> anyhow::Result<()> {
        if self.agent().is_some() {
            self.signal_agent(Signal::TERM).map(drop)
        } else {
            self.plug.signal(Signal::KILL)
        }
    }

    /// Waits until it has ended after [`Machine::ask_to_end`]; pulls the plug at `deadline`.
    pub(crate) fn end_by(&self, deadline: Instant) -> anyhow::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if !self.plug.wait_end(left)? {
            note(&format!("{}: weftd does not stop, killing it", self.name));
            self.plug.signal(Signal::KILL)?;
        }
        if !self.init.wait_end(STOP_LIMIT)? {
            bail!("{} does not end", self.name);
        }
        Ok(())
    }

    /// Pulls the plug, and waits until everything is dark.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.plug.signal(Signal::KILL)?;
        if !self.init.wait_end(STOP_LIMIT)? {
            bail!("{} does not end although its plug was pulled", self.name);
        }
        Ok(())
    }
}
