//! What people see of services and tasks: all but the credentials that nodes fetch images with. Those
//! are in the log, which is sealed, in the orders of nodes that have a task, and nowhere else.

use std::sync::Arc;

use weft_model::api::{ServiceDetail, TaskRow, UpdatePlan};
use weft_model::objects::{PullOptions, Service, ServiceSpec, TaskSpec};

/// What is answered to calls of the node API.
pub(super) trait Shown: Sized {
    /// The same without credentials.
    fn shown(self) -> Self;
}

impl Shown for Arc<TaskSpec> {
    fn shown(mut self) -> Self {
        // Nearly all have none, and are shared with the state.
        if !self.container.pull_options.is_empty() {
            Self::make_mut(&mut self).container.pull_options = PullOptions::default();
        }
        self
    }
}

impl Shown for ServiceSpec {
    fn shown(self) -> Self {
        Self {
            task: self.task.shown(),
            ..self
        }
    }
}

impl Shown for Service {
    fn shown(self) -> Self {
        let previous_spec = self.previous_spec.map(|previous| {
            let previous = Arc::unwrap_or_clone(previous);
            Arc::new(previous.shown())
        });
        Self {
            spec: self.spec.shown(),
            previous_spec,
            ..self
        }
    }
}

impl Shown for ServiceDetail {
    fn shown(self) -> Self {
        Self {
            service: self.service.shown(),
            ..self
        }
    }
}

impl Shown for UpdatePlan {
    fn shown(self) -> Self {
        Self {
            before: self.before.shown(),
            after: self.after.shown(),
            ..self
        }
    }
}

impl Shown for TaskRow {
    fn shown(mut self) -> Self {
        self.task.spec = self.task.spec.shown();
        self
    }
}

#[cfg(test)]
mod tests {
    use weft_model::api::ServiceStatus;
    use weft_model::objects::{ContainerSpec, Meta, ServiceEndpoint};

    use super::*;

    fn spec() -> ServiceSpec {
        let container = ContainerSpec {
            image: "registry.example/web".to_owned(),
            pull_options: PullOptions {
                registry_auth: "VEhFU0VDUkVU".to_owned(),
            },
            ..ContainerSpec::default()
        };
        let task = TaskSpec {
            container,
            ..TaskSpec::default()
        };
        ServiceSpec {
            name: "web".to_owned(),
            task: Arc::new(task),
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn credentials_are_in_no_answer() {
        let service = Service {
            id: "s1".into(),
            meta: Meta::default(),
            spec: spec(),
            previous_spec: Some(Arc::new(spec())),
            endpoint: ServiceEndpoint::default(),
            update_status: None,
            job_status: None,
            rebalancing: None,
            homes: Vec::new(),
        };
        let plan = UpdatePlan {
            before: spec(),
            after: spec(),
            tasks: 1,
            replaced: 0,
            warnings: Vec::new(),
        };
        let detail = ServiceDetail {
            service: service.clone(),
            status: ServiceStatus::default(),
            port_errors: Vec::new(),
            waiting: Vec::new(),
        };
        let written = serde_json::to_string(&service).unwrap();
        assert!(written.contains("VEhFU0VDUkVU"), "the log has them");
        for text in [
            serde_json::to_string(&service.shown()).unwrap(),
            serde_json::to_string(&detail.shown()).unwrap(),
            serde_json::to_string(&plan.shown()).unwrap(),
        ] {
            assert!(text.contains("registry.example/web"), "{text}");
            assert!(!text.contains("VEhFU0VDUkVU"), "{text}");
            assert!(!text.contains("PullOptions"), "{text}");
        }
    }
}
