//! The labs of this machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{OUTSIDE, SWITCH};
use crate::state::State;

/// A lab that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabSummary {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Nodes that it has.
    pub nodes: usize,
    /// Nodes that are on.
    pub up: usize,
}

/// The labs in a folder, by name. What is no lab of this user is left out.
#[must_use]
pub fn list(dir: &Path) -> Vec<LabSummary> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let labs = entries.filter_map(|entry| State::load(&entry.path()).ok());
    let mut labs: Vec<LabSummary> = labs
        .map(|state| {
            let nodes = || {
                let machines = state.machines.iter();
                machines.filter(|m| ![SWITCH, OUTSIDE].contains(&m.name.as_str()))
            };
            LabSummary {
                nodes: nodes().count(),
                up: nodes().filter(|m| m.init.is_alive()).count(),
                name: state.name.clone(),
                dir: state.dir.clone(),
            }
        })
        .collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}
