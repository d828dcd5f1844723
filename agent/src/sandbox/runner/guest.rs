//! Programs beside that of a task, inside of its walls.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use weft_model::exec::Exec;
use weft_model::objects::{Runtime, Task};
use weft_shim::guest::{Descriptors, Guest};
use weft_shim::launch::LaunchError;
use weft_shim::spec::Spec;
use weft_sys::process::Process;
use weft_sys::terminal::Size;

use super::host::variable;
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
        self.begin_guest(task, exec, name, |guest| guest.start(descriptors))
    }

    /// The same on a terminal of this size, and this side of that.
    ///
    /// # Errors
    /// As of [`Runner::start_guest`]; there are no more terminals.
    pub(crate) fn start_guest_on_terminal(
        &self,
        task: &Task,
        exec: &Exec,
        name: &str,
        size: Size,
    ) -> Result<(Process, OwnedFd), RunError> {
        self.begin_guest(task, exec, name, |guest| guest.start_on_terminal(size))
    }

    fn begin_guest<T>(
        &self,
        task: &Task,
        exec: &Exec,
        name: &str,
        start: impl FnOnce(Guest<'_>) -> Result<T, LaunchError>,
    ) -> Result<T, RunError> {
        let mut spec = match task.spec.runtime {
            Runtime::Host => self.spec_beside(task, exec)?,
            Runtime::Container => self.spec_inside(task, &exec.args)?,
        };
        if exec.terminal.is_some() && !spec.env.iter().any(|(key, _)| key == "TERM") {
            // The first one: what the user says counts more.
            spec.env.insert(0, ("TERM".into(), "xterm".into()));
        }
        spec.env
            .extend(exec.env.iter().filter_map(|pair| variable(pair)));
        if !exec.user.is_empty() {
            spec.user = Some(exec.user.clone());
            // Those that the service adds are its own user's.
            spec.groups = Vec::new();
        }
        // What is relative is so to where the task itself begins.
        let mut cwd = PathBuf::from("/");
        cwd.extend(&spec.cwd);
        cwd.push(&exec.dir);
        let dir = self.task_dir(&task.id)?;
        let guest = Guest {
            program: self.entering(),
            dir: &dir,
            name,
            spec: &spec,
            cwd: &cwd,
        };
        Ok(start(guest)?)
    }

    /// A program of the node, with the environment of the task.
    fn spec_beside(&self, task: &Task, exec: &Exec) -> Result<Spec, RunError> {
        let (program, args) = exec.args.split_first().ok_or(RunError::NoCommand)?;
        let mut env = self.expanded_env(task)?;
        env.extend(exec.env.iter().cloned());
        let program = find_program(program, &env, &self.node_name)?;
        Ok(Spec {
            args: args.iter().map(OsString::from).collect(),
            ..self.spec(task, program, Vec::new())?
        })
    }
}
