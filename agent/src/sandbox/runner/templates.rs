//! What of a task's spec depends on the task and its node.

use weft_cluster::{TemplateFields, expand, expand_hostname, expand_mount};
use weft_model::objects::{ContainerSpec, Mount, Task};

use super::{RunError, Runner, files};

impl Runner {
    /// What templates of the task can name.
    pub(super) fn template_fields(&self, task: &Task) -> TemplateFields {
        TemplateFields {
            service_id: task.service.to_string(),
            service_name: task.service_name.clone(),
            node_id: self.node_id.to_string(),
            node_hostname: self.node_name.clone(),
            architecture: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
            task_id: task.id.to_string(),
            task_name: task.name(),
            task_slot: match task.slot {
                0 => self.node_id.to_string(),
                slot => slot.to_string(),
            },
        }
    }

    /// `KEY=value`, or a `KEY` alone.
    pub(super) fn expanded_env(&self, task: &Task) -> Result<Vec<String>, RunError> {
        let fields = self.template_fields(task);
        let pairs = task.spec.container.env.iter();
        let expanded = pairs.map(|pair| -> Result<String, RunError> {
            match pair.split_once('=') {
                Some((key, value)) => Ok(format!("{key}={}", expand(value, &fields)?)),
                None => Ok(pair.clone()),
            }
        });
        expanded.collect()
    }

    /// The host name that the task sees.
    pub(super) fn hostname(&self, task: &Task) -> Result<String, RunError> {
        match task.spec.container.hostname.as_str() {
            "" => Ok(files::hostname(task)),
            given => Ok(expand_hostname(given, &self.template_fields(task))?),
        }
    }

    /// What the task sees besides its image.
    pub(super) fn expanded_mounts(&self, task: &Task) -> Result<Vec<Mount>, RunError> {
        let fields = self.template_fields(task);
        let mounts = task.spec.container.mounts.iter();
        let expanded =
            mounts.map(|mount| -> Result<Mount, RunError> { Ok(expand_mount(mount, &fields)?) });
        expanded.collect()
    }

    /// All of it, without who asks for the image.
    pub(super) fn expanded(&self, task: &Task) -> Result<ContainerSpec, RunError> {
        Ok(ContainerSpec {
            env: self.expanded_env(task)?,
            hostname: self.hostname(task)?,
            mounts: self.expanded_mounts(task)?,
            pull_options: weft_model::objects::PullOptions::default(),
            ..task.spec.container.clone()
        })
    }
}
