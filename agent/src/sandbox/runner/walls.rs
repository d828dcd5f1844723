//! What of the node is kept from its tasks, and where they are kept apart.

use std::path::{Path, PathBuf};

use weft_model::capability::Capabilities;
use weft_model::id::{NodeId, TaskId};
use weft_model::objects::Task;
use weft_shim::spec::Limits;

/// weft's own folders and the socket of the node API, as tasks must not see them: keys, tokens,
/// orders and the specs of other services are there. Relative paths are this process's.
#[must_use]
pub fn hidden(data_dir: &Path, run_dir: &Path, socket: &Path) -> Vec<PathBuf> {
    [data_dir, run_dir, socket]
        .into_iter()
        .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
        .collect()
}

/// Control group of a task, below the mount point of each tree. The nodes of a lab share the trees
/// of their machine.
pub(super) fn control_group(node_name: &str, node: &NodeId, task: &TaskId) -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let named = node_name.chars().all(plain)
        && node_name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && node_name.len() <= 64;
    let node = if named { node_name } else { node.as_str() };
    Path::new("weft").join(node).join(task.as_str())
}

/// What a task may use at most.
pub(super) fn limits(task: &Task) -> Limits {
    let limits = &task.spec.resources.limits;
    Limits {
        nano_cpus: limits.nano_cpus,
        memory_bytes: limits.memory_bytes,
        pids: limits.pids,
    }
}

/// Says which capabilities a task asks for in vain.
pub(super) fn tell_missing(task: &TaskId, asked: u64, own: u64) {
    if let Some(missing) = missing(asked, own) {
        tracing::warn!(
            %task,
            ?missing,
            "a task has fewer capabilities than its service asks for: weftd has not got them itself \
             (CapabilityBoundingSet= of its unit)"
        );
    }
}

/// What of the capabilities that a task is granted it does not get, because the agent has not got it:
/// nobody hands on more than he has.
fn missing(granted: u64, own: u64) -> Option<Capabilities> {
    let missing = granted & !own;
    (missing != 0).then_some(Capabilities(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_the_agent_lacks_are_named() {
        let named = |granted, own| missing(granted, own).map(|missing| format!("{missing:?}"));
        assert_eq!(named(0b1, 0b11), None);
        // CAP_CHOWN, CAP_SYS_TIME.
        assert_eq!(
            named(0b1 | 1 << 25, 0b11).as_deref(),
            Some("{\"SYS_TIME\"}")
        );
    }

    #[test]
    fn a_group_is_named_after_node_and_task() {
        let (node, task) = (NodeId::from("n1"), TaskId::from("t1"));
        let group = |name: &str| control_group(name, &node, &task);
        assert_eq!(group("node-1.example"), Path::new("weft/node-1.example/t1"));
        for odd in ["..", "a/b", "", "-x", &"x".repeat(65)] {
            assert_eq!(group(odd), Path::new("weft/n1/t1"), "{odd}");
        }
    }

    #[test]
    fn what_is_hidden_does_not_depend_on_where_the_shim_starts() {
        let hidden = hidden(
            Path::new("data"),
            Path::new("/run/weft"),
            Path::new("s.sock"),
        );
        assert!(hidden.iter().all(|path| path.is_absolute()), "{hidden:?}");
    }
}
