//! Programs beside that of a task, inside of its walls.

use std::ffi::OsString;
use std::path::Path;

use weft_model::exec::Exec;
use weft_model::objects::Task;
use weft_shim::guest::{Descriptors, Guest};
use weft_sys::process::Process;

use super::{RunError, Runner, find_program};

impl Runner {
    /// Starts one with the environment of the task and its own. The process ends with it, with the
    /// status that a shell would show. `name` tells guests of one task apart.
    ///
    /// # Errors
    /// See [`RunError`]; [`RunError::Launch`] also where the task does not run.
    pub(crate) fn start_guest(
        &self,
        task: &Task,
        exec: &Exec,
        name: &str,
        descriptors: Descriptors,
    ) -> Result<Process, RunError> {
        let program = exec.args.first().ok_or(RunError::NoCommand)?;
        let mut env = self.expanded_env(task)?;
        env.extend(exec.env.iter().cloned());
        let program = find_program(program, &env, &self.node_name)?;
        let mut spec = self.spec(task, program, Vec::new())?;
        spec.args = exec.args.iter().skip(1).map(OsString::from).collect();
        if exec.terminal.is_some() {
            // The first one: what the task or the user says counts more.
            spec.env.insert(0, ("TERM".into(), "xterm".into()));
        }
        for pair in &exec.env {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !key.is_empty() && !pair.contains('\0') {
                spec.env.push((key.into(), value.into()));
            }
        }
        if !exec.user.is_empty() {
            spec.user = Some(exec.user.clone());
        }
        let dir = self.task_dir(&task.id)?;
        let guest = Guest {
            program: &self.shim,
            dir: &dir,
            name,
            spec: &spec,
            cwd: &Path::new("/").join(&exec.dir),
            terminal: exec.terminal.is_some(),
        };
        Ok(guest.start(descriptors)?)
    }
}
