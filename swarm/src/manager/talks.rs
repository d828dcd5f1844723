//! Conversations of users with the swarm, begun by the manager that leads.

use std::sync::Arc;

use weft_cluster::CommandError;
use weft_model::exec::Exec;
use weft_model::objects::TaskState;
use weft_model::talk::{Question, Talk};

use super::engine::Engine;
use super::{logs, volumes};
use crate::exchange::Exchange;

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
    let task = state.find_task(reference)?;
    let node = task
        .node
        .as_ref()
        .filter(|_| matches!(task.status.state, TaskState::Starting | TaskState::Running))
        .ok_or_else(|| {
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
        let known = state.nodes.get(node);
        let name = known.map_or(node.as_str(), |node| &node.description.hostname);
        CommandError::new(
            error.kind,
            format!("node {name} runs task {}: {}", task.name(), error.message),
        )
    })
}
