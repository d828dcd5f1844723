//! A cluster of machines, and what can be done to them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::IpNet;
use weft_sys::netns::Netns;
use weft_sys::process::Signal;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use crate::birth::Birth;
use crate::config::{LabConfig, OUTSIDE, SWITCH};
use crate::folder::{make_room, make_store, remove_store};
use crate::groups;
use crate::machine::{Machine, NodeStatus, STOP_LIMIT};
use crate::output::{last_words, note};
use crate::process::ProcessRef;
use crate::state::State;
use crate::wiring;

/// A cluster in namespaces. Dropping the value that created it takes everything down, unless
/// [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    state: State,
    /// The multi-call program that commands on machines go through. Never what a file says.
    program: PathBuf,
    /// Processes that are children of this one, to be waited for.
    plugs: Vec<Child>,
    owned: bool,
}

impl Lab {
    /// Builds the machines and cables and starts the agents; returns before they are ready.
    ///
    /// # Errors
    /// Bad settings, a lab of that name that runs already, no permission. Nothing is left behind.
    pub fn create(config: &LabConfig) -> anyhow::Result<Self> {
        config.check()?;
        make_room(&config.dir)?;
        let config = LabConfig {
            image_store: Some(make_store(config)?),
            ..config.clone()
        };
        let state = State {
            name: config.name.clone(),
            dir: config.dir.clone(),
            machines: Vec::new(),
            config: config.clone(),
        };
        let mut lab = Self {
            state,
            program: config.program.clone(),
            plugs: Vec::new(),
            owned: true,
        };
        lab.state.save()?;
        if let Some((path, text)) = config.agent_file() {
            replace_file(&path, text.as_bytes(), PRIVATE, Outlives::Process)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        lab.build(&config)?;
        Ok(lab)
    }

    fn build(&mut self, config: &LabConfig) -> anyhow::Result<()> {
        let switch = self.start(config, SWITCH, None, |switch| {
            wiring::make_switch(switch, config.mtu)
        })?;
        let plug_in = |name: &str, addr: IpAddr, machine: &Netns| {
            wiring::plug_in(&switch, machine, name, addr, config)
        };
        let outside = config.outside_addr();
        self.start(config, OUTSIDE, Some(outside), |machine| {
            plug_in(OUTSIDE, outside, machine)
        })?;
        for index in 1..=config.nodes {
            let name = format!("node{index}");
            let addr = config.node_addr(index);
            self.start(config, &name, Some(addr), |machine| {
                plug_in(&name, addr, machine)
            })?;
        }
        Ok(())
    }

    /// Starts one machine; its cables are laid by `wire` before anything runs on it.
    fn start(
        &mut self,
        config: &LabConfig,
        name: &str,
        addr: Option<IpAddr>,
        wire: impl FnOnce(&Netns) -> anyhow::Result<()>,
    ) -> anyhow::Result<Netns> {
        let mut birth = Birth::begin(config, name)?;
        let started = birth.finish(wire);
        let plug = birth.child.id();
        self.plugs.push(birth.child);
        let (netns, init) =
            started.with_context(|| format!("cannot start {name}{}", last_words(&birth.log)))?;
        self.state.machines.push(Machine {
            name: name.to_owned(),
            addr,
            plug: ProcessRef::of(plug)?,
            init: ProcessRef::of(init)?,
            socket: birth.socket,
            log: birth.log,
        });
        self.state.save()?;
        Ok(netns)
    }

    /// Finds the lab whose folder is `dir`; it goes on when the value is dropped. Commands go through
    /// this very program.
    ///
    /// # Errors
    /// There is none, or it is another user's.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            state: State::load(dir)?,
            program: std::env::current_exe().context("cannot find the path of this program")?,
            plugs: Vec::new(),
            owned: false,
        })
    }

    /// Lets the lab go on when this value is dropped.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// Folder of the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.state.dir
    }

    /// Names of the nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.state
            .machines
            .iter()
            .map(|m| m.name.as_str())
            .filter(|name| ![SWITCH, OUTSIDE].contains(name))
    }

    /// Underlay address of a machine.
    ///
    /// # Errors
    /// No such machine.
    pub fn node_addr(&self, node: &str) -> anyhow::Result<IpAddr> {
        self.state.machine(node)?.addr()
    }

    /// Socket of a node's API.
    ///
    /// # Errors
    /// No such node.
    pub fn socket(&self, node: &str) -> anyhow::Result<&Path> {
        self.state.machine(node)?.socket()
    }

    /// File with the output of everything on a machine.
    ///
    /// # Errors
    /// No such machine.
    pub fn log(&self, node: &str) -> anyhow::Result<&Path> {
        Ok(&self.state.machine(node)?.log)
    }

    /// A command that will run on a machine; its exit status is the command's.
    ///
    /// # Errors
    /// No such machine, or it is down.
    pub fn command(&self, node: &str, command: &[&str]) -> anyhow::Result<Command> {
        self.entering(node, &[], command)
    }

    /// As [`Lab::command`], in a network namespace of that machine (`/run/netns/x`).
    ///
    /// # Errors
    /// No such machine, or it is down.
    pub fn command_in(
        &self,
        node: &str,
        netns: &Path,
        command: &[&str],
    ) -> anyhow::Result<Command> {
        let netns = netns.display().to_string();
        self.entering(node, &["--netns", &netns], command)
    }

    fn entering(&self, node: &str, how: &[&str], command: &[&str]) -> anyhow::Result<Command> {
        let machine = self.state.machine(node)?;
        machine.entering(&self.program, how, command)
    }

    /// Runs a command on a machine and returns what it printed.
    ///
    /// # Errors
    /// No such machine, or it cannot be entered at all; a command that fails is no error.
    pub fn exec(&self, node: &str, command: &[&str]) -> anyhow::Result<Output> {
        self.command(node, command)?
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run a command on {node}"))
    }

    /// Makes a network namespace on a machine and returns its path there.
    ///
    /// # Errors
    /// No such machine; a namespace of that name exists.
    pub fn add_netns(&self, node: &str, name: &str) -> anyhow::Result<PathBuf> {
        self.add_netnses(node, &[name])?;
        Ok(netns_path(name))
    }

    /// Makes many network namespaces on a machine by one process, and returns their paths there.
    ///
    /// # Errors
    /// No such machine; a namespace of such a name exists. Those before it were made.
    pub fn add_netnses(
        &self,
        node: &str,
        names: &[impl AsRef<str>],
    ) -> anyhow::Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = names.iter().map(|n| netns_path(n.as_ref())).collect();
        let program = self.program.display().to_string();
        let texts: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let mut command = vec![program.as_str(), "lab-netns"];
        command.extend(texts.iter().map(String::as_str));
        let output = self.exec(node, &command)?;
        if !output.status.success() {
            bail!(
                "cannot make a namespace on {node}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(paths)
    }

    /// Lays a cable from the switch to a network namespace of a machine: an address on the underlay
    /// beside the machine's own, on an interface called `underlay0`. The namespace keeps what else
    /// it has.
    ///
    /// # Errors
    /// No such machine or namespace; a cable of that name exists already.
    pub fn plug_in(&self, node: &str, netns: &Path, addr: IpNet) -> anyhow::Result<()> {
        let name = netns.file_name().unwrap_or_default().to_string_lossy();
        let mtu = wiring::switch_mtu(&self.netns(SWITCH, None)?)?;
        wiring::plug_in_more(
            &self.netns(SWITCH, None)?,
            &self.netns(node, Some(netns))?,
            &name,
            addr,
            (mtu, self.state.config.bed),
        )
    }

    /// The machine's own network namespace, or one that it knows by `path`. Holding it keeps the
    /// namespace alive when the machine is killed.
    ///
    /// # Errors
    /// No such machine or namespace.
    pub fn netns(&self, node: &str, path: Option<&Path>) -> anyhow::Result<Netns> {
        self.state.machine(node)?.netns(path)
    }

    /// Process id of the agent of a node, as this process sees it.
    ///
    /// # Errors
    /// No such machine.
    pub fn agent_pid(&self, node: &str) -> anyhow::Result<Option<u32>> {
        Ok(self.state.machine(node)?.agent())
    }

    /// Pulls the plug of a machine: every process on it is gone at once, and its link.
    ///
    /// # Errors
    /// No such machine; the kernel does not let go of it.
    pub fn kill_node(&mut self, node: &str) -> anyhow::Result<()> {
        let machine = self.state.machine(node)?;
        machine.kill()?;
        let plug = machine.plug.pid;
        for child in &mut self.plugs {
            if child.id() == plug {
                child.wait()?;
            }
        }
        Ok(())
    }

    /// Switches a node off: its agent is asked to end, and everything on the node ends with it.
    ///
    /// # Errors
    /// No such node, it is off already, or it does not end.
    pub fn stop_node(&self, node: &str) -> anyhow::Result<()> {
        self.check_node(node)?;
        let machine = self.state.machine(node)?;
        if !machine.init.is_alive() {
            bail!("{node} is off already: `weft lab start {node}` starts it");
        }
        machine.ask_to_end()?;
        machine.end_by(Instant::now() + STOP_LIMIT)
    }

    /// Switches a node on again, as after a power cut: its disk is what it was, nothing runs yet but
    /// the agent.
    ///
    /// # Errors
    /// No such node, it is on, or it cannot be made.
    pub fn start_node(&mut self, node: &str) -> anyhow::Result<()> {
        self.check_node(node)?;
        let machine = self.state.machine(node)?.clone();
        if machine.init.is_alive() {
            bail!("{node} is on: `weft lab stop {node}` stops it");
        }
        let config = LabConfig {
            program: self.program.clone(),
            dies_with_parent: self.owned && self.state.config.dies_with_parent,
            ..self.state.config.clone()
        };
        let switch = self.netns(SWITCH, None)?;
        wiring::unplug(&switch, node)?;
        let addr = machine.addr()?;
        let place = self.state.machines.iter().position(|m| m.name == node);
        if let Some(place) = place {
            self.state.machines.remove(place);
        }
        let started = self.start(&config, node, Some(addr), |netns| {
            wiring::plug_in(&switch, netns, node, addr, &config)
        });
        match (started, place) {
            (Ok(_), Some(place)) => {
                // Where it was, so that lists stay in order.
                if let Some(new) = self.state.machines.pop() {
                    self.state.machines.insert(place, new);
                }
            }
            (Err(error), Some(place)) => {
                self.state.machines.insert(place, machine);
                return Err(error);
            }
            (started, None) => drop(started?),
        }
        self.state.save()
    }

    fn check_node(&self, node: &str) -> anyhow::Result<()> {
        if [SWITCH, OUTSIDE].contains(&node) {
            bail!("{node} is no node of the cluster: it runs as long as the lab");
        }
        self.state.machine(node).map(drop)
    }

    /// Kills the agent of a node; the machine starts it again, as systemd would. Returns the
    /// process id that it had.
    ///
    /// # Errors
    /// No such machine; no agent runs there.
    pub fn kill_agent(&self, node: &str) -> anyhow::Result<u32> {
        let agent = self.state.machine(node)?.signal_agent(Signal::KILL)?;
        agent.wait_end(STOP_LIMIT)?;
        Ok(agent.pid)
    }

    /// Stops the agent of a node where it stands, or lets it go on.
    ///
    /// # Errors
    /// No such machine; no agent runs there.
    pub fn freeze_agent(&self, node: &str, frozen: bool) -> anyhow::Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        self.state.machine(node)?.signal_agent(signal).map(drop)
    }

    /// Waits until the agent of every node that is up answers on its socket.
    ///
    /// # Errors
    /// One does not in that time, or ended; with the last lines of its log.
    pub fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut machines = self.state.machines.iter();
        machines.try_for_each(|machine| machine.wait_ready(limit, deadline))
    }

    /// The same for one node.
    ///
    /// # Errors
    /// No such node; or as [`Lab::wait_ready`].
    pub fn wait_ready_of(&self, node: &str, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        self.state.machine(node)?.wait_ready(limit, deadline)
    }

    /// What runs.
    #[must_use]
    pub fn status(&self) -> Vec<NodeStatus> {
        self.state.machines.iter().map(Machine::status).collect()
    }

    /// Stops the agents, pulls every plug, and removes the lab's folder.
    ///
    /// # Errors
    /// The first thing that could not be undone; the rest is undone all the same.
    pub fn down(mut self) -> anyhow::Result<()> {
        self.owned = false;
        self.take_down()
    }

    fn take_down(&mut self) -> anyhow::Result<()> {
        let mut first_error = Ok(());
        let mut remember = |result: anyhow::Result<()>| {
            if first_error.is_ok() {
                first_error = result;
            }
        };
        for machine in &self.state.machines {
            remember(machine.ask_to_end());
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for machine in &self.state.machines {
            remember(machine.end_by(deadline));
        }
        for child in &mut self.plugs {
            // One that never became a machine is still waiting for its cables.
            remember(child.kill().map_err(Into::into));
            remember(child.wait().map(drop).map_err(Into::into));
        }
        self.plugs.clear();
        groups::remove(&self.state);
        if let Some(store) = &self.state.config.image_store {
            remember(remove_store(store));
        }
        match fs::remove_dir_all(&self.state.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => remember(
                Err(e).with_context(|| format!("cannot remove {}", self.state.dir.display())),
            ),
            _ => {}
        }
        first_error
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.take_down()
        {
            note(&format!("lab {}: {error:#}", self.state.name));
        }
    }
}

/// Where `ip netns` looks for it.
fn netns_path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}
