//! What a lab leaves on disk, so that other processes find it again: `state.json`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_sys::private_folder::{check_folder, open_own};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use crate::config::LabConfig;
use crate::machine::Machine;

/// A lab that exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) machines: Vec<Machine>,
    /// What it was made with: a node is made again likewise.
    pub(crate) config: LabConfig,
}

impl State {
    fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let path = Self::path(&self.dir);
        let text = serde_json::to_vec_pretty(self)?;
        // A lab does not outlive the machine.
        replace_file(&path, &text, PRIVATE, Outlives::Process)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the state of the lab in `dir`, which has to be this user's: it says which processes are
    /// entered and ended.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = Self::path(dir);
        if !path.try_exists().unwrap_or(true) {
            bail!(
                "there is no lab in {}: start one with `weft lab up`",
                dir.display()
            );
        }
        check_folder(dir)?;
        let mut text = String::new();
        open_own(&path)?
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{} cannot be read: was it written by another version? `weft lab down` removes the lab",
                path.display()
            )
        })
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
