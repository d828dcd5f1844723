//! What a lab leaves on disk, so that other processes find it again: `state.json`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::process::ProcessRef;

/// A lab that exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) machines: Vec<Machine>,
}

/// One machine: a node, the switch, or the one outside.
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

impl State {
    fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let path = Self::path(&self.dir);
        let text = serde_json::to_vec_pretty(self)?;
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the state of the lab in `dir`.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} cannot be read: was it written by another version? `weft lab down` removes the lab",
                    path.display()
                )
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => bail!(
                "there is no lab in {}: start one with `weft lab up`",
                dir.display()
            ),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(crate) fn machine(&self, name: &str) -> anyhow::Result<&Machine> {
        self.machines
            .iter()
            .find(|m| m.name == name)
            .with_context(|| {
                let known: Vec<_> = self.machines.iter().map(|m| m.name.as_str()).collect();
                format!(
                    "lab {} has no node {name:?}: it has {}",
                    self.name,
                    known.join(", ")
                )
            })
    }
}
