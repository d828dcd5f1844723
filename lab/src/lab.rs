//! A cluster of machines, and what can be done to them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::IpNet;
use weft_sys::netns::Netns;
use weft_sys::private_folder::{PrivateError, make_private};
use weft_sys::process::Signal;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use crate::config::{LabConfig, OUTSIDE, SWITCH};
use crate::node::NodeSpec;
use crate::output::note;
use crate::process::{ProcessRef, arg0, children};
use crate::state::{Machine, State};
use crate::wiring;

/// `arg0` of an agent.
const AGENT: &str = "weftd";

/// How long agents may take to stop before the plug is pulled.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Pause between two looks at something that only a look can tell.
const LOOK: Duration = Duration::from_millis(20);

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

impl Lab {
    /// Builds the machines and cables and starts the agents; returns before they are ready.
    ///
    /// # Errors
    /// Bad settings, a lab of that name that runs already, no permission. Nothing is left behind.
    pub fn create(config: &LabConfig) -> anyhow::Result<Self> {
        config.check()?;
        make_room(&config.dir)?;
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
        lab.build(config)?;
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
        let dir = config.dir.join(name);
        let log = config.log(name);
        for folder in [Some(dir.as_path()), log.parent()].into_iter().flatten() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let socket = dir.join("weft.sock");
        let (service, socket) = match name {
            SWITCH => (None, None),
            _ if name != OUTSIDE && !config.agents => (None, None),
            OUTSIDE if config.outside_args.is_empty() => (None, None),
            OUTSIDE => (Some(("weft".to_owned(), config.outside_args.clone())), None),
            _ => {
                let mut args = vec![
                    "-H".to_owned(),
                    format!("unix://{}", socket.display()),
                    "--data-dir".to_owned(),
                    dir.join("data").display().to_string(),
                    "--name".to_owned(),
                    name.to_owned(),
                ];
                args.extend(config.agent_args.iter().cloned());
                (Some((AGENT.to_owned(), args)), Some(socket))
            }
        };
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
        let mut birth = Birth::begin(config, &spec_path, &log)?;
        let started = birth.finish(wire);
        let plug = birth.child.id();
        self.plugs.push(birth.child);
        let (netns, init) =
            started.with_context(|| format!("cannot start {name}{}", last_words(&log)))?;
        self.state.machines.push(Machine {
            name: name.to_owned(),
            addr,
            plug: ProcessRef::of(plug)?,
            init: ProcessRef::of(init)?,
            socket,
            log,
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
        self.state
            .machine(node)?
            .addr
            .with_context(|| format!("{node} has no address"))
    }

    /// Socket of a node's API.
    ///
    /// # Errors
    /// No such node.
    pub fn socket(&self, node: &str) -> anyhow::Result<&Path> {
        self.state
            .machine(node)?
            .socket
            .as_deref()
            .with_context(|| format!("no agent runs on {node}"))
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
        if !machine.init.is_alive() {
            bail!("{node} is down");
        }
        let mut enter = Command::new(&self.program);
        enter
            .arg("lab-enter")
            .args(how)
            .arg(machine.init.pid.to_string())
            .arg("--")
            .args(command);
        Ok(enter)
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
            mtu,
        )
    }

    /// The machine's own network namespace, or one that it knows by `path`. Holding it keeps the
    /// namespace alive when the machine is killed.
    ///
    /// # Errors
    /// No such machine or namespace.
    pub fn netns(&self, node: &str, path: Option<&Path>) -> anyhow::Result<Netns> {
        let machine = self.state.machine(node)?;
        if !machine.init.is_alive() {
            bail!("{node} is down");
        }
        Ok(match path {
            None => Netns::of_pid(machine.init.pid)?,
            Some(path) => {
                let inside = path.strip_prefix("/").unwrap_or(path);
                Netns::open(Path::new(&format!("/proc/{}/root", machine.init.pid)).join(inside))?
            }
        })
    }

    /// Process id of the agent of a node, as this process sees it.
    ///
    /// # Errors
    /// No such machine.
    pub fn agent_pid(&self, node: &str) -> anyhow::Result<Option<u32>> {
        Ok(agent_of(self.state.machine(node)?))
    }

    /// Pulls the plug of a machine: every process on it is gone at once, and its link.
    ///
    /// # Errors
    /// No such machine; the kernel does not let go of it.
    pub fn kill_node(&mut self, node: &str) -> anyhow::Result<()> {
        let machine = self.state.machine(node)?;
        machine.plug.signal(Signal::KILL)?;
        if !machine.init.wait_end(STOP_LIMIT)? {
            bail!("{node} does not end although its plug was pulled");
        }
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
    pub fn stop_node(&mut self, node: &str) -> anyhow::Result<()> {
        self.check_node(node)?;
        let machine = self.state.machine(node)?.clone();
        if !machine.init.is_alive() {
            bail!("{node} is off already: `weft lab start {node}` starts it");
        }
        if let Some(pid) = agent_of(&machine) {
            ProcessRef::of(pid)?.signal(Signal::TERM)?;
            if machine.plug.wait_end(STOP_LIMIT)? {
                return Ok(());
            }
            note(&format!("{node}: weftd does not stop, killing it"));
        }
        self.kill_node(node)
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
        let addr = machine
            .addr
            .with_context(|| format!("{node} has no address"))?;
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
        let pid = self
            .agent_pid(node)?
            .with_context(|| format!("no agent runs on {node}"))?;
        let agent = ProcessRef::of(pid)?;
        agent.signal(Signal::KILL)?;
        agent.wait_end(STOP_LIMIT)?;
        Ok(pid)
    }

    /// Stops the agent of a node where it stands, or lets it go on.
    ///
    /// # Errors
    /// No such machine; no agent runs there.
    pub fn freeze_agent(&self, node: &str, frozen: bool) -> anyhow::Result<()> {
        let pid = self
            .agent_pid(node)?
            .with_context(|| format!("no agent runs on {node}"))?;
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        ProcessRef::of(pid)?.signal(signal)?;
        Ok(())
    }

    /// Waits until the agent of every node that is up answers on its socket.
    ///
    /// # Errors
    /// One does not in that time, or ended; with the last lines of its log.
    pub fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        self.wait_for(&self.state.machines, limit, deadline)
    }

    /// The same for one node.
    ///
    /// # Errors
    /// No such node; or as [`Lab::wait_ready`].
    pub fn wait_ready_of(&self, node: &str, limit: Duration) -> anyhow::Result<()> {
        let machine = std::slice::from_ref(self.state.machine(node)?);
        self.wait_for(machine, limit, Instant::now() + limit)
    }

    fn wait_for(
        &self,
        machines: &[Machine],
        limit: Duration,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        for machine in machines {
            let Some(socket) = &machine.socket else {
                continue;
            };
            while UnixStream::connect(socket).is_err() {
                if !machine.init.is_alive() {
                    bail!("{} ended{}", machine.name, last_words(&machine.log));
                }
                if Instant::now() > deadline {
                    bail!(
                        "weftd on {} is not ready after {} s{}",
                        machine.name,
                        limit.as_secs(),
                        last_words(&machine.log)
                    );
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// What runs.
    #[must_use]
    pub fn status(&self) -> Vec<NodeStatus> {
        self.state
            .machines
            .iter()
            .map(|machine| NodeStatus {
                name: machine.name.clone(),
                addr: machine.addr,
                up: machine.init.is_alive(),
                agent_pid: agent_of(machine),
                socket: machine.socket.clone(),
                log: machine.log.clone(),
            })
            .collect()
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
            if let Some(pid) = agent_of(machine) {
                remember(ProcessRef::of(pid).and_then(|agent| agent.signal(Signal::TERM)));
            } else {
                remember(machine.plug.signal(Signal::KILL));
            }
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for machine in &self.state.machines {
            let left = deadline.saturating_duration_since(Instant::now());
            match machine.plug.wait_end(left) {
                Ok(true) => {}
                Ok(false) => {
                    note(&format!(
                        "{}: weftd does not stop, killing it",
                        machine.name
                    ));
                    remember(machine.plug.signal(Signal::KILL));
                }
                Err(error) => remember(Err(error)),
            }
            match machine.init.wait_end(STOP_LIMIT) {
                Ok(true) => {}
                Ok(false) => remember(Err(anyhow::anyhow!("{} does not end", machine.name))),
                Err(error) => remember(Err(error)),
            }
        }
        for child in &mut self.plugs {
            // One that never became a machine is still waiting for its cables.
            remember(child.kill().map_err(Into::into));
            remember(child.wait().map(drop).map_err(Into::into));
        }
        self.plugs.clear();
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

/// A machine that is being made (see `node`).
struct Birth {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Birth {
    fn begin(config: &LabConfig, spec: &Path, log: &Path) -> anyhow::Result<Self> {
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // A group of its own: Ctrl-C is for the one who made the lab, who then takes it down.
        let mut child = Command::new(&config.program)
            .arg("lab-node")
            .arg(spec)
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
        })
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("its first process ended");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Returns the namespace of the machine and the id of its process 1.
    fn finish(
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

/// Makes the folder of a new lab, after removing what a lab that was killed left there. Nobody else
/// may enter it: sockets, specs and keys of agents lie in it.
fn make_room(dir: &Path) -> anyhow::Result<()> {
    match State::load(dir) {
        Ok(old) if old.machines.iter().any(|m| m.plug.is_alive()) => bail!(
            "lab {} runs already in {}: stop it with `weft lab down --name {}`",
            old.name,
            dir.display(),
            old.name
        ),
        Ok(_) => {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?
        }
        Err(error) if error.is::<PrivateError>() => return Err(error),
        Err(_) => {
            let in_use = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
            if in_use {
                bail!(
                    "{} is not empty and holds no lab: remove it or choose another folder",
                    dir.display()
                );
            }
        }
    }
    make_private(dir)?;
    Ok(())
}

/// Where `ip netns` looks for it.
fn netns_path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn agent_of(machine: &Machine) -> Option<u32> {
    if machine.socket.is_none() || !machine.init.is_alive() {
        return None;
    }
    children(machine.init.pid)
        .into_iter()
        .find(|pid| arg0(*pid) == AGENT)
}

/// The end of a log, to be put behind a message; empty when there is none.
fn last_words(log: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
    if tail.is_empty() {
        format!("; its log {} is empty", log.display())
    } else {
        format!("; the end of {}:\n  {tail}", log.display())
    }
}
