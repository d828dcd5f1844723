//! Runs commands on the machines of the demo, shows them, and waits for what has to come true.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use weft_lab::{Lab, Stop};

use super::transcript::Transcript;

/// Pause between two looks at something that only a look can tell.
const LOOK: Duration = Duration::from_millis(50);

/// No command of the demo may take longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The demo while it runs.
pub(super) struct Walk<'a, 'b> {
    pub(super) lab: &'a mut Lab,
    pub(super) stop: &'a Stop,
    pub(super) transcript: &'a mut Transcript<'b>,
    /// This very program.
    pub(super) program: String,
    /// Names of the nodes.
    pub(super) nodes: Vec<String>,
}

/// A task as `weft service ps --format json` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskInfo {
    pub(super) name: String,
    pub(super) node: String,
    /// Its address on the demo's network.
    pub(super) ip: IpAddr,
    /// Its network namespace on its node.
    pub(super) netns: PathBuf,
}

impl<'a, 'b> Walk<'a, 'b> {
    pub(super) fn new(
        lab: &'a mut Lab,
        stop: &'a Stop,
        transcript: &'a mut Transcript<'b>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let nodes = lab.nodes().map(str::to_owned).collect();
        Ok(Self {
            lab,
            stop,
            transcript,
            program,
            nodes,
        })
    }

    /// Runs `weft` against a node, shown with its output; fails when the command does.
    pub(super) fn weft(&mut self, node: &str, words: &[&str]) -> anyhow::Result<String> {
        let shown: Vec<&str> = ["weft"].iter().chain(words).copied().collect();
        self.transcript.command(node, &shown)?;
        let text = self.quietly(node, words)?;
        self.transcript.output(&text)?;
        Ok(text)
    }

    /// Runs `weft` against a node without showing it.
    pub(super) fn quietly(&self, node: &str, words: &[&str]) -> anyhow::Result<String> {
        let host = format!("unix://{}", self.lab.socket(node)?.display());
        let mut command = Command::new(&self.program);
        command.args(["-H", &host]).args(words);
        self.run(command)
            .with_context(|| format!("weft {} on {node}", words.join(" ")))
    }

    /// Runs one of `weft`'s small tools on a machine, or in a namespace there; shown.
    pub(super) fn tool(
        &mut self,
        machine: &str,
        netns: Option<(&str, &Path)>,
        words: &[&str],
    ) -> anyhow::Result<String> {
        let shown: Vec<&str> = ["weft"].iter().chain(words).copied().collect();
        let place = match netns {
            Some((name, _)) => format!("{machine}/{name}"),
            None => machine.to_owned(),
        };
        self.transcript.command(&place, &shown)?;
        let text = self.tool_quietly(machine, netns.map(|(_, path)| path), words)?;
        self.transcript.output(&text)?;
        Ok(text)
    }

    /// As [`Walk::tool`], not shown.
    pub(super) fn tool_quietly(
        &self,
        machine: &str,
        netns: Option<&Path>,
        words: &[&str],
    ) -> anyhow::Result<String> {
        let words: Vec<&str> = [self.program.as_str()]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let command = match netns {
            Some(path) => self.lab.command_in(machine, path, &words)?,
            None => self.lab.command(machine, &words)?,
        };
        self.run(command)
    }

    /// Runs any program on a machine; shown.
    pub(super) fn run_shown(&mut self, machine: &str, words: &[&str]) -> anyhow::Result<()> {
        self.transcript.command(machine, words)?;
        let text = self.run_quietly(machine, words)?;
        Ok(self.transcript.output(&text)?)
    }

    /// As [`Walk::run_shown`], not shown.
    pub(super) fn run_quietly(&self, machine: &str, words: &[&str]) -> anyhow::Result<String> {
        self.run(self.lab.command(machine, words)?)
    }

    /// Runs a command to its end, unless the demo is stopped or it takes too long.
    fn run(&self, mut command: Command) -> anyhow::Result<String> {
        let mut child = command
            .env_remove("WEFT_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run weft again")?;
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let status = self.wait(&mut child);
        if status.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let (stdout, stderr) = (collected(stdout), collected(stderr));
        let status = status?;
        if !status.success() {
            let said = stderr.trim();
            let said = said.strip_prefix("weft: ").unwrap_or(said);
            if said.is_empty() {
                bail!("it ended with {status}");
            }
            bail!("{said}");
        }
        // Warnings belong to the transcript too.
        Ok(stdout + &stderr)
    }

    fn wait(&self, child: &mut Child) -> anyhow::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            self.going_on()?;
            if Instant::now() > deadline {
                bail!("no end after {} s", COMMAND_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Fails once the demo shall stop.
    pub(super) fn going_on(&self) -> anyhow::Result<()> {
        self.stop.going_on()
    }

    /// Tries until it works; the last failure counts when the time is over.
    pub(super) fn eventually<T>(
        &mut self,
        limit: Duration,
        mut attempt: impl FnMut(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let error = match attempt(self) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.going_on()?;
            if Instant::now() > deadline {
                return Err(error.context(format!("not within {} s", limit.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Checks a claim and tells how long it took to hold. An answer only if it held.
    pub(super) fn check<T>(
        &mut self,
        claim: &str,
        attempt: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let started = Instant::now();
        let result = attempt(self);
        self.going_on()?;
        Ok(self.transcript.check(claim, started.elapsed(), result)?)
    }

    /// As [`Walk::check`], for what everything after it needs.
    pub(super) fn require<T>(
        &mut self,
        claim: &str,
        attempt: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.check(claim, attempt)?
            .context("the rest of the walk needs that")
    }

    /// Tasks of `web` that run and shall run.
    pub(super) fn running_tasks(&self) -> anyhow::Result<Vec<TaskInfo>> {
        let network = self.quietly(
            "node1",
            &[
                "network",
                "inspect",
                "--format",
                "{{.ID}}",
                super::cluster::NETWORK,
            ],
        )?;
        let text = self.quietly("node1", &["service", "ps", "web", "--format", "json"])?;
        let mut tasks = Vec::new();
        for line in text.lines() {
            let row: Value = serde_json::from_str(line)?;
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            if field("DesiredState") != "Running" || field("State") != "Running" {
                continue;
            }
            let attachment = row["Addresses"]
                .as_array()
                .and_then(|all| all.iter().find(|a| a["Network"] == network.trim()))
                .with_context(|| format!("{} has no address on the network", field("TaskName")))?;
            let ip = attachment["IPs"][0].as_str().unwrap_or_default();
            tasks.push(TaskInfo {
                name: field("TaskName"),
                node: field("Node"),
                ip: ip
                    .parse()
                    .with_context(|| format!("{ip:?} is no address"))?,
                netns: Path::new("/run/weft/netns").join(field("ID")),
            });
        }
        tasks.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(tasks)
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            drop(pipe.read_to_end(&mut bytes));
        }
        bytes
    })
}

fn collected(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}
