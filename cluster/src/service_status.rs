//! How far a service is, in docker's numbers.

use weft_model::api::ServiceStatus;
use weft_model::id::NodeId;
use weft_model::objects::{NodeState, Service, ServiceMode, Task, TaskState};

use super::conditions::{is_eligible, is_wanted};
use super::filters::Demands;
use super::jobs;
use super::state::ClusterState;

/// Tasks of a service that run, and how many there are to be; of a job, how many there may be at one
/// time, or have not ended yet where there is one on each node.
///
/// What an update is yet to replace runs as well and is counted, as docker counts it: users are
/// served by it. [`ServiceStatus::up_to_date`] tells who is of the specification of now.
#[must_use]
pub fn service_status(state: &ClusterState, service: &Service) -> ServiceStatus {
    // What a node that is down was last heard to run is nothing that anybody reaches.
    let is_up = |node: &NodeId| {
        let node = state.nodes.get(node);
        node.is_some_and(|node| node.status.state != NodeState::Down)
    };
    let is_running = |task: &Task| {
        task.status.state == TaskState::Running && task.node.as_ref().is_some_and(is_up)
    };
    let (mut all, mut outdated) = (0, 0);
    for task in state.tasks_of(&service.id).filter(|task| is_running(task)) {
        all += 1;
        outdated += u32::from(!is_wanted(task) || task.spec != service.spec.task);
    }
    ServiceStatus {
        running: all,
        outdated,
        desired: desired(state, service),
        completed: jobs::completed(state, service),
    }
}

fn desired(state: &ClusterState, service: &Service) -> u32 {
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
        ServiceMode::Global | ServiceMode::GlobalJob => {
            let demands = Demands::of(&service.spec.task);
            // Nodes that have done their part of a job are none that are to do it.
            let done = jobs::done_on(state, service);
            let nodes = state.nodes.values();
            let nodes = nodes.filter(|n| is_eligible(n) && demands.fit(n));
            let open = nodes.filter(|n| !done.contains(&n.id)).count();
            u32::try_from(open).unwrap_or(u32::MAX)
        }
    }
}
