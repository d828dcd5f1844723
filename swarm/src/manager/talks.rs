//! Conversations of users with the swarm, begun by the manager that leads.

use std::sync::Arc;

use weft_cluster::{ClusterState, CommandError, ErrorKind};
use weft_model::exec::Exec;
use weft_model::id::NodeId;
use weft_model::objects::{Service, Task, TaskState};
use weft_model::talk::{Question, Talk};

use super::engine::Engine;
use super::{logs, volumes};
use crate::exchange::Exchange;

/// Tasks that are named where a service was given at most.
const SHOWN: usize = 5;

/// Begins one; what is returned is the user's end.
pub(super) async fn begin(core: &Arc<Engine>, talk: Talk) -> Result<Exchange, CommandError> {
    core.check_leads()?;
    match talk {
        Talk::Logs { reference, query } => logs::begin(core, &reference, query),
        Talk::Exec { reference, exec } => self::exec(core, &reference, exec).await,
        Talk::Volumes { node, asked } => volumes::begin(core, node.as_deref(), &asked),
    }
}

/// A program in a task, if that runs, whether its checks pass or not.
async fn exec(core: &Engine, reference: &str, exec: Exec) -> Result<Exchange, CommandError> {
    let state = core.state();
    let task = state.find_task(reference);
    let task = task.map_err(|error| match state.find_service(reference) {
        Ok(service) if error.kind == ErrorKind::NotFound => not_a_task(&state, service),
        _ => error,
    })?;
    let node = task.node.as_ref().filter(|_| runs(task)).ok_or_else(|| {
        CommandError::conflict(format!(
            "task {} does not run; `weft service ps {}` shows those that do",
            task.name(),
            task.service_name
        ))
    })?;
    let question = Question::Exec {
        task: task.id.clone(),
        exec,
    };
    let answer = core.questions.ask(node, &question).await;
    answer.map_err(|error| {
        let name = host_name(&state, node);
        CommandError::new(
            error.kind,
            format!("node {name} runs task {}: {}", task.name(), error.message),
        )
    })
}

fn runs(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Starting | TaskState::Running)
}

fn host_name<'a>(state: &'a ClusterState, node: &'a NodeId) -> &'a str {
    let known = state.nodes.get(node);
    known.map_or(node.as_str(), |node| &node.description.hostname)
}

/// A service in place of a task: which of its tasks there are.
fn not_a_task(state: &ClusterState, service: &Service) -> CommandError {
    let name = &service.spec.name;
    let running = state.tasks_of(&service.id).filter(|task| runs(task));
    let mut running: Vec<(u32, &NodeId)> = running
        .filter_map(|task| Some((task.slot, task.node.as_ref()?)))
        .collect();
    running.sort_unstable();
    // As they are found again: of a service with one on each node the node stands for the slot.
    let reference = |(slot, node): &(u32, &NodeId)| match slot {
        0 => format!("{name}.{node}"),
        slot => format!("{name}.{slot}"),
    };
    let Some(first) = running.first().map(reference) else {
        return CommandError::not_found(format!(
            "{name} is a service, and none of its tasks runs: `weft service ps {name}` shows why"
        ));
    };
    let shown = running.iter().take(SHOWN);
    let shown = shown.map(|task| format!("{} on {}", reference(task), host_name(state, task.1)));
    let mut shown: Vec<String> = shown.collect();
    if running.len() > SHOWN {
        shown.push(format!("{} more", running.len() - SHOWN));
    }
    CommandError::not_found(format!(
        "{name} is a service; its tasks: {}: weft exec {first} CMD",
        shown.join(", ")
    ))
}
