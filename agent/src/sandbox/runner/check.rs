//! Commands inside tasks that run.

use std::ffi::OsString;
use std::time::Duration;

use weft_model::objects::{Runtime, Task};
use weft_shim::check::{Check, Checking};
use weft_shim::spec::Spec;

use super::{RunError, Runner, find_program};

impl Runner {
    /// Begins to run a command as the task's program is run, beside it. Blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`RunError`]; it does not run, or there is no such program here.
    pub(crate) fn begin_check(
        &self,
        task: &Task,
        command: &[String],
        limit: Duration,
    ) -> Result<Checking, RunError> {
        let spec = match task.spec.runtime {
            Runtime::Host => {
                let (program, args) = command.split_first().ok_or(RunError::NoCommand)?;
                let program = find_program(program, &self.expanded_env(task)?, &self.node_name)?;
                Spec {
                    args: args.iter().map(OsString::from).collect(),
                    ..self.spec(task, program, Vec::new())?
                }
            }
            Runtime::Container => self.spec_inside(task, command)?,
        };
        let check = Check {
            program: self.entering(),
            dir: &self.task_dir(&task.id)?,
            spec: &spec,
            limit,
        };
        Ok(check.start()?)
    }
}
