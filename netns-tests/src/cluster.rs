//! A lab with a swarm in it, for one test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weft_lab::{Lab, LabConfig, OUTSIDE, Patience, Stop, Swarm, Task, WIDE, run_typed};
use weft_sys::netns::Netns;

use crate::said::Said;
use crate::wait::LIMIT;

/// For a command that waits for many tasks, one after the other.
const TYPED_LIMIT: Duration = Duration::from_secs(180);

/// Services whose tasks are printed after a failure, at most.
const NOTED_SERVICES: usize = 20;

/// Held for reading by every cluster, for writing by one whose times are measured.
static MACHINE: RwLock<()> = RwLock::new(());

#[derive(Debug)]
#[expect(dead_code, reason = "held for its Drop alone")]
enum Share {
    Some(RwLockReadGuard<'static, ()>),
    Whole(RwLockWriteGuard<'static, ()>),
}

/// For a test that builds no [`Cluster`] but loads the machine: waits for those that want it alone,
/// and keeps them away while it is held.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no cluster of this test program is there, and keeps them away while it is held.
pub fn machine_alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Variable of the environment that says for all clusters of a run what agents get as `--fast-path`,
/// but for tests that say so themselves.
pub const FAST_PATH: &str = "WEFT_TESTS_FAST_PATH";

/// Arguments of every agent.
fn agent_args(settings: &Settings) -> Vec<String> {
    let option = "--fast-path";
    let mut args = settings.agent_args.clone();
    if let Ok(value) = std::env::var(FAST_PATH)
        && !args.iter().any(|arg| arg == option)
    {
        args.extend([option.to_owned(), value]);
    }
    args
}

/// What a test wants its cluster to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of nodes.
    pub nodes: u8,
    /// The nodes are joined by IPv6 alone.
    pub ipv6: bool,
    /// More arguments for every agent.
    pub agent_args: Vec<String>,
    /// MTU of the underlay in bytes.
    pub mtu: u32,
    /// No other cluster of this test program runs meanwhile: times are measured.
    pub alone: bool,
    /// How many of the nodes, from the first on, are managers of [`Cluster::swarm`].
    pub managers: usize,
    /// The nodes have one folder of images. Without it each has its own, and gets them from others.
    pub shares_images: bool,
    /// `HOST:PORT` of registries that nodes may ask over plain HTTP.
    pub insecure_registries: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: 3,
            ipv6: false,
            agent_args: Vec::new(),
            mtu: 1500,
            alone: false,
            managers: 1,
            shares_images: true,
            insecure_registries: Vec::new(),
        }
    }
}

/// A lab, taken down with everything in it when it is dropped. The machine outside answers HTTP
/// on port 80 with the address that it sees.
#[derive(Debug)]
pub struct Cluster {
    swarm: Swarm,
    program: String,
    dir: TempDir,
    _share: Share,
}

impl Cluster {
    /// Machines with agents that answer, not in a swarm yet.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn bare(program: &str, settings: &Settings) -> Self {
        let share = if settings.alone {
            Share::Whole(machine_alone())
        } else {
            Share::Some(beside_others())
        };
        let dir = tempfile::tempdir().expect("a temporary folder");
        let name = dir
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().trim_start_matches('.').to_owned())
            .expect("a temporary folder has a name");
        let config = LabConfig {
            nodes: settings.nodes,
            dir: dir.path().join("lab"),
            program: PathBuf::from(program),
            agent_args: agent_args(settings),
            mtu: settings.mtu,
            shares_images: settings.shares_images,
            insecure_registries: settings.insecure_registries.clone(),
            outside_args: ["demo-http", "--port", "80", "--name", "outside"]
                .map(str::to_owned)
                .to_vec(),
            ..LabConfig::new(&name).expect("settings of a lab")
        };
        let config = if settings.ipv6 {
            config.over_ipv6()
        } else {
            config
        };
        let lab = Lab::create(&config).unwrap_or_else(|e| panic!("no lab: {e:#}"));
        let cluster = Self {
            swarm: told(Swarm::of(lab, Patience::new(LIMIT, &Stop::default()))),
            program: program.to_owned(),
            dir,
            _share: share,
        };
        told(cluster.lab().wait_ready(LIMIT));
        cluster
    }

    /// A swarm with every node in it, the first one its manager or, of several, its leader.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn swarm(program: &str, settings: &Settings) -> Self {
        let cluster = Self::bare(program, settings);
        told(cluster.swarm.form_with(settings.managers));
        cluster
    }

    /// The machines, and what can be done to them.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        self.swarm.lab()
    }

    /// The same, for what changes them.
    pub fn lab_mut(&mut self) -> &mut Lab {
        self.swarm.lab_mut()
    }

    /// Kills the agent of a node and waits until the next one runs.
    ///
    /// # Panics
    /// None does.
    pub fn restart_agent(&self, node: &str) {
        told(self.swarm.restart_agent(node));
    }

    /// `swarm init` on a node.
    ///
    /// # Panics
    /// It is refused.
    pub fn init(&self, node: &str) -> String {
        let addr = self.addr(node).to_string();
        self.weft(node, &["swarm", "init", "--advertise-addr", &addr])
            .ok()
    }

    /// From now on this manager is asked about the cluster, in place of the first node.
    pub fn ask(&self, node: &str) {
        self.swarm.ask(node);
    }

    /// The token for workers.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn token(&self) -> String {
        self.token_for("worker")
    }

    /// The token for a role.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn token_for(&self, role: &str) -> String {
        let words = ["swarm", "join-token", "-q", role];
        let text = self.weft(&self.swarm.asked(), &words).ok();
        text.trim().to_owned()
    }

    /// `swarm join` of a node to the manager that is asked about the cluster.
    #[must_use]
    pub fn join(&self, node: &str, token: &str) -> Said {
        let remote = self.at(&self.swarm.asked(), 2377).to_string();
        self.weft(node, &["swarm", "join", "--token", token, &remote])
    }

    /// Waits until one of these managers leads, and returns its name.
    ///
    /// # Panics
    /// None does in time.
    #[must_use]
    pub fn wait_leader(&self, among: &[&str]) -> String {
        told(self.swarm.wait_leader(among))
    }

    /// Waits until so many nodes are ready.
    ///
    /// # Panics
    /// They are not in time.
    pub fn wait_ready(&self, count: usize) {
        told(self.swarm.wait_nodes(count));
    }

    /// Runs `weft` against a node, as a person would.
    ///
    /// # Panics
    /// The program cannot be run at all.
    #[must_use]
    pub fn weft(&self, node: &str, words: &[&str]) -> Said {
        self.weft_reading(node, words, "")
    }

    /// The same for a command that reads this from its standard input.
    ///
    /// # Panics
    /// As of [`Cluster::weft`].
    #[must_use]
    pub fn weft_reading(&self, node: &str, words: &[&str], input: &str) -> Said {
        let shown = format!("{node}$ weft {}", words.join(" "));
        run_with_input(&mut self.command(node, words), shown, input)
    }

    /// Runs `weft` against a node on a terminal with room for docker's bars, as a person would. The
    /// lines that this shows in the end, without spaces at their end.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn typed(&self, node: &str, words: &[&str]) -> Vec<String> {
        self.typed_on(node, words, WIDE)
    }

    /// The same on a terminal of so many columns and rows.
    ///
    /// # Panics
    /// As of [`Cluster::typed`].
    #[must_use]
    pub fn typed_on(&self, node: &str, words: &[&str], size: (u16, u16)) -> Vec<String> {
        let patience = Patience::new(TYPED_LIMIT, &Stop::default());
        let typed = run_typed(&mut self.command(node, words), size, &patience);
        let typed = typed.unwrap_or_else(|e| panic!("{node}$ weft {}: {e:#}", words.join(" ")));
        assert!(typed.status.success(), "{node}$ {words:?}: {typed:#?}");
        typed.lines
    }

    fn command(&self, node: &str, words: &[&str]) -> Command {
        let socket = self.lab().socket(node).expect("the node has an agent");
        let mut command = Command::new(&self.program);
        command
            .args(["-H", &format!("unix://{}", socket.display())])
            .args(words);
        command
    }

    /// Runs a program on a machine, in a namespace of it when one is given.
    ///
    /// # Panics
    /// The machine is down.
    #[must_use]
    pub fn run(&self, machine: &str, netns: Option<&Path>, words: &[&str]) -> Said {
        let command = match netns {
            None => self.lab().command(machine, words),
            Some(path) => self.lab().command_in(machine, path, words),
        };
        let mut command = command.unwrap_or_else(|e| panic!("{machine}: {e:#}"));
        run(&mut command, format!("{machine}$ {}", words.join(" ")))
    }

    /// Looks a name up inside a sandbox: sorted addresses, or what went wrong.
    ///
    /// # Errors
    /// No such name, or no answer.
    pub fn lookup(&self, task: &Task, name: &str, tcp: bool) -> Result<Vec<String>, String> {
        let mut words = vec![self.program.as_str(), "demo-dns"];
        words.extend(tcp.then_some("--tcp"));
        words.push(name);
        let said = self.run(&task.node, Some(&task.netns), &words);
        match said.code {
            0 => Ok(said.out.lines().map(str::to_owned).collect()),
            _ => Err(said.err),
        }
    }

    /// Path of the program under test.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Path of the same program under the name of the agent.
    ///
    /// # Panics
    /// The link cannot be made.
    #[must_use]
    pub fn weftd(&self) -> String {
        let path = self.dir.path().join("weftd");
        if !path.exists() {
            symlink(&self.program, &path).expect("a link to the program");
        }
        path.display().to_string()
    }

    /// A folder for files of the test, removed with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Underlay address of a machine.
    ///
    /// # Panics
    /// No such machine.
    #[must_use]
    pub fn addr(&self, machine: &str) -> IpAddr {
        self.lab().node_addr(machine).expect("the machine exists")
    }

    /// A port of a machine on the underlay.
    #[must_use]
    pub fn at(&self, machine: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.addr(machine), port)
    }

    /// Namespace of the machine outside.
    #[must_use]
    pub fn outside(&self) -> Netns {
        self.netns(OUTSIDE, None)
    }

    /// Namespace of a machine, or one that it knows by `path`.
    ///
    /// # Panics
    /// No such machine or namespace.
    #[must_use]
    pub fn netns(&self, machine: &str, path: Option<&Path>) -> Netns {
        match self.lab().netns(machine, path) {
            Ok(netns) => netns,
            Err(error) => panic!("namespace of {machine}: {error:#}"),
        }
    }

    /// Makes an overlay network.
    ///
    /// # Panics
    /// It is refused.
    pub fn network(&self, name: &str) {
        let words = ["network", "create", name];
        self.weft(&self.swarm.asked(), &words).done();
    }

    /// Starts `replicas` of the HTTP server as service `web`, published on port 8000, and waits
    /// until the command line says that they run.
    ///
    /// # Panics
    /// They do not.
    pub fn web(&self, replicas: u8) -> Vec<Task> {
        self.network("front");
        self.serve_web(replicas)
    }

    /// The same on a network `front` that is there already.
    ///
    /// # Panics
    /// They do not.
    pub fn serve_web(&self, replicas: u8) -> Vec<Task> {
        let mut words = vec!["service", "create", "--name", "web", "--network", "front"];
        let replicas = replicas.to_string();
        words.extend(["-p", "8000:80", "--replicas", &replicas, "host"]);
        words.extend([self.program(), "demo-http", "--port", "80"]);
        let said = self.weft(&self.swarm.asked(), &words).ok();
        assert!(said.contains(" converged\n"), "{said}");
        self.tasks("web")
    }

    /// Tasks of a service that run and shall run, in the order of their nodes.
    ///
    /// # Panics
    /// The manager does not say.
    #[must_use]
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        told(self.swarm.tasks(service))
    }

    /// What an `ls` or `ps` of the manager that is asked prints with `--format json`.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn rows(&self, words: &[&str]) -> Vec<Value> {
        let words = [words, &["--format", "json"]].concat();
        let text = self.weft(&self.swarm.asked(), &words).ok();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a row is JSON"))
            .collect()
    }

    /// What an `inspect` of the manager that is asked prints.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn inspect(&self, kind: &str, name: &str) -> Value {
        let words = [kind, "inspect", name];
        let text = self.weft(&self.swarm.asked(), &words).ok();
        let all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].clone()
    }

    /// Virtual address of a service on a network.
    ///
    /// # Panics
    /// It has none.
    #[must_use]
    pub fn vip(&self, service: &str, network: &str) -> IpAddr {
        told(self.swarm.vip(service, network))
    }

    /// Attaches a namespace of its own, named `name`, and returns it with what was printed.
    ///
    /// # Panics
    /// It is refused.
    pub fn guest(&self, node: &str, name: &str, network: &str) -> (Netns, Value) {
        let path = self.lab().add_netns(node, name);
        let path = path.unwrap_or_else(|e| panic!("{node}: {e:#}"));
        let netns = path.display().to_string();
        let text = self
            .weft(
                node,
                &["network", "connect", "--name", name, network, &netns],
            )
            .ok();
        let printed = serde_json::from_str(&text).expect("connect prints JSON");
        (self.netns(node, Some(&path)), printed)
    }

    /// Packets that a node dropped for a reason, at all ports.
    ///
    /// # Panics
    /// The node does not say.
    #[must_use]
    pub fn drops(&self, node: &str, reason: &str) -> u64 {
        let text = self.weft(node, &["drops", "--format", "json"]).ok();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a row is JSON"))
            .find(|row| row["Reason"] == reason)
            .map_or(0, |row| row["Packets"].as_u64().expect("a number"))
    }

    /// A value of `/metrics` by its whole name with labels; 0 when it is not there.
    ///
    /// # Panics
    /// The node does not answer.
    #[must_use]
    pub fn metric(&self, node: &str, name: &str) -> u64 {
        let answer = told(self.swarm.get_text(node, "/metrics"));
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// Sends bytes to the socket of a node and returns everything that it answers, if anything.
    ///
    /// # Panics
    /// It does not accept the connection, or keeps it open without an answer.
    #[must_use]
    pub fn api(&self, node: &str, request: &[u8]) -> String {
        let socket = self.lab().socket(node).expect("the node has an agent");
        let mut stream = UnixStream::connect(socket).expect("the agent listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        // An agent that has heard enough may close early; its answer is what counts.
        drop(stream.write_all(request));
        // A whole request ends by itself, and the server takes a half-closed client for a gone one.
        if !request.windows(17).any(|w| w == b"connection: close") {
            drop(stream.shutdown(std::net::Shutdown::Write));
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                panic!(
                    "no end of the answer to {:?}",
                    String::from_utf8_lossy(request)
                )
            }
            _ => String::from_utf8_lossy(&answer).into_owned(),
        }
    }

    /// Process ids, as the node knows them, of the tasks that run there.
    #[must_use]
    pub fn task_pids(&self, node: &str) -> Vec<String> {
        let said = self.run(node, None, &["pgrep", "-f", "demo-http --port 80$"]);
        said.out.lines().map(str::to_owned).collect()
    }
}

impl Cluster {
    /// Prints what a node with an agent says of its ports and of the packets it dropped.
    fn note_what_nodes_say(&self, node: &str) {
        if self.lab().socket(node).is_err() {
            return;
        }
        for words in [&["drops"][..], &["mesh", "ls"], &["node", "ls"]] {
            let said = self.weft(node, words);
            crate::wait::note(&format!("--- {}\n{}{}", said.command, said.out, said.err));
        }
    }

    /// Prints what one node says of services and their tasks: true where it knows, as a manager.
    fn note_tasks(&self, node: &str) -> bool {
        if self.lab().socket(node).is_err() {
            return false;
        }
        // No leader may be what is wrong.
        let words = ["service", "ls", "--stale", "--format", "{{.Name}}"];
        let names = self.weft(node, &words);
        if names.code != 0 {
            return false;
        }
        for name in names.out.lines().take(NOTED_SERVICES) {
            let said = self.weft(node, &["service", "ps", "--stale", "--no-trunc", name]);
            crate::wait::note(&format!("--- {}\n{}{}", said.command, said.out, said.err));
        }
        true
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let machines = self.lab().status();
        // The first that knows them is enough.
        for machine in &machines {
            if self.note_tasks(&machine.name) {
                break;
            }
        }
        for machine in machines {
            self.note_what_nodes_say(&machine.name);
            let text = std::fs::read_to_string(&machine.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(30)..].join("\n  ");
            if !tail.is_empty() {
                crate::wait::note(&format!(
                    "--- end of the log of {}:\n  {tail}",
                    machine.name
                ));
            }
        }
    }
}

/// What a step came to.
#[track_caller]
fn told<T>(result: anyhow::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

/// Runs a command to its end.
fn run(command: &mut Command, shown: String) -> Said {
    run_with_input(command, shown, "")
}

fn run_with_input(command: &mut Command, shown: String, input: &str) -> Said {
    let patience = Patience::new(LIMIT + Duration::from_secs(30), &Stop::default());
    match patience.run_with_input(command, input) {
        Ok(output) => Said::new(shown, &output),
        Err(error) => panic!("{shown}: {error:#}"),
    }
}
