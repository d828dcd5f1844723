//! Runs commands on the machines of the demo, shows them, and waits for what has to come true.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use weft_lab::{Lab, Patience, Stop, Swarm, WIDE, run_typed};

use super::transcript::Transcript;

/// No command of the demo may take longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Nor one that waits for many tasks, one after the other.
const TYPED_LIMIT: Duration = Duration::from_secs(180);

/// The demo while it runs.
pub(super) struct Walk<'a, 'b> {
    pub(super) swarm: &'a mut Swarm,
    stop: &'a Stop,
    pub(super) transcript: &'a mut Transcript<'b>,
    /// This very program.
    pub(super) program: String,
    /// Names of the nodes.
    pub(super) nodes: Vec<String>,
}

impl<'a, 'b> Walk<'a, 'b> {
    pub(super) fn new(
        swarm: &'a mut Swarm,
        stop: &'a Stop,
        transcript: &'a mut Transcript<'b>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let nodes = swarm.lab().nodes().map(str::to_owned).collect();
        Ok(Self {
            swarm,
            stop,
            transcript,
            program,
            nodes,
        })
    }

    /// The machines.
    pub(super) fn lab(&self) -> &Lab {
        self.swarm.lab()
    }

    /// Runs `weft` against a node, shown with its output; fails when the command does.
    pub(super) fn weft(&mut self, node: &str, words: &[&str]) -> anyhow::Result<String> {
        let shown: Vec<&str> = ["weft"].iter().chain(words).copied().collect();
        self.transcript.command(node, &shown)?;
        let text = self.quietly(node, words)?;
        self.transcript.output(&text)?;
        Ok(text)
    }

    /// As [`Walk::weft`], on a terminal with room for docker's bars; the lines that this shows in the end.
    pub(super) fn typed(&mut self, node: &str, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let shown: Vec<&str> = ["weft"].iter().chain(words).copied().collect();
        self.transcript.command(node, &shown)?;
        let patience = Patience::new(TYPED_LIMIT, self.stop);
        let typed = run_typed(&mut self.command(node, words)?, WIDE, &patience)?;
        // Warnings belong to the transcript too.
        self.transcript
            .output(&format!("{}\n{}", typed.lines.join("\n"), typed.err))?;
        ensure!(typed.status.success(), "it ended with {}", typed.status);
        Ok(typed.lines)
    }

    /// Runs `weft` against a node that is to refuse the command in these words; shown.
    pub(super) fn refused(&mut self, node: &str, words: &[&str], says: &str) -> anyhow::Result<()> {
        let shown: Vec<&str> = ["weft"].iter().chain(words).copied().collect();
        self.transcript.command(node, &shown)?;
        let said = match self.quietly(node, words) {
            Ok(text) => bail!("it was carried out: {:?}", text.trim()),
            Err(error) => error.root_cause().to_string(),
        };
        self.transcript.output(&said)?;
        ensure!(said.contains(says), "it does not say {says:?}");
        Ok(())
    }

    /// Runs `weft` against a node without showing it.
    pub(super) fn quietly(&self, node: &str, words: &[&str]) -> anyhow::Result<String> {
        self.run(self.command(node, words)?)
            .with_context(|| format!("weft {} on {node}", words.join(" ")))
    }

    /// `weft` against a node.
    pub(super) fn command(&self, node: &str, words: &[&str]) -> anyhow::Result<Command> {
        let host = format!("unix://{}", self.lab().socket(node)?.display());
        let mut command = Command::new(&self.program);
        command.args(["-H", &host]).args(words);
        Ok(command)
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
            Some(path) => self.lab().command_in(machine, path, &words)?,
            None => self.lab().command(machine, &words)?,
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
        self.run(self.lab().command(machine, words)?)
    }

    /// Runs a command to its end, unless the demo is stopped or it takes too long.
    fn run(&self, mut command: Command) -> anyhow::Result<String> {
        let output = Patience::new(COMMAND_LIMIT, self.stop).run(&mut command)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            let said = stderr.trim();
            let said = said.strip_prefix("weft: ").unwrap_or(said);
            if said.is_empty() {
                bail!("it ended with {}", output.status);
            }
            bail!("{said}");
        }
        // Warnings belong to the transcript too.
        Ok(stdout + &stderr)
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
        Patience::new(limit, self.stop).until(|| attempt(self))
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
}
