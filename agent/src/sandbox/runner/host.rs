//! Programs of the node itself, behind their walls.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use weft_model::capability;
use weft_model::objects::Task;
use weft_shim::spec::{Bind, Spec};

use super::{LOG_LIMIT_BYTES, RunError, Runner, find_program, program, walls};

/// The file that a program of the node sees the node's own of.
const NOT_SHOWN: &str = "hostname";

impl Runner {
    /// The full path of the task's program.
    pub(super) fn check_host(&self, task: &Task) -> Result<PathBuf, RunError> {
        let program = task.spec.container.args.first();
        let program = program.ok_or(RunError::NoCommand)?;
        let env = self.expanded_env(task)?;
        self.hostname(task)?;
        self.check_host_payloads(task)?;
        find_program(program, &env, &self.node_name)
    }

    /// Writes the task's files, and says what its shim is to run.
    pub(super) fn host_spec(&self, task: &Task, dir: &Path) -> Result<Spec, RunError> {
        let program = self.check_host(task)?;
        let files = self.write_files(task, dir)?;
        let shown = files.into_iter().filter(|file| file.name != NOT_SHOWN);
        let binds = shown.map(|file| Bind {
            source: file.path,
            target: file.target.into(),
        });
        Ok(Spec {
            payloads: self.payload_binds(task)?,
            ..self.spec(task, program, binds.collect())?
        })
    }

    pub(super) fn spec(
        &self,
        task: &Task,
        program: PathBuf,
        binds: Vec<Bind>,
    ) -> Result<Spec, RunError> {
        let container = &task.spec.container;
        let user = Some(container.user.clone()).filter(|user| !user.is_empty());
        let args = container.args.iter().skip(1).map(OsString::from);
        let dir = Some(PathBuf::from(&container.dir));
        Ok(Spec {
            program,
            args: args.collect(),
            env: self.environment(task)?,
            user,
            groups: container.groups.clone(),
            cwd: dir.filter(|dir| !dir.as_os_str().is_empty()),
            capabilities: capability::granted(&container.cap_add, &container.cap_drop)?.0,
            no_new_privileges: container.privileges.no_new_privileges,
            binds,
            payloads: Vec::new(),
            hostname: self.hostname(task)?,
            hidden: self.hidden.clone(),
            cgroup: Some(walls::control_group(
                &self.node_name,
                &self.node_id,
                &task.id,
            )),
            limits: walls::limits(task),
            log_limit_bytes: LOG_LIMIT_BYTES,
            container: None,
        })
    }

    /// Defaults, then the spec's, then ours, which no spec can override.
    fn environment(&self, task: &Task) -> Result<Vec<(OsString, OsString)>, RunError> {
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), program::SEARCH_PATH.into()),
            ("HOSTNAME".into(), self.hostname(task)?.into()),
        ];
        env.extend(
            self.expanded_env(task)?
                .iter()
                .filter_map(|pair| variable(pair)),
        );
        env.extend([
            ("WEFT_TASK_ID".into(), task.id.as_str().into()),
            ("WEFT_TASK_NAME".into(), task.name().into()),
            ("WEFT_TASK_SLOT".into(), task.slot.to_string().into()),
            (
                "WEFT_SERVICE_NAME".into(),
                task.service_name.as_str().into(),
            ),
            ("WEFT_NODE_NAME".into(), self.node_name.as_str().into()),
            ("WEFT_NODE_ID".into(), self.node_id.as_str().into()),
        ]);
        Ok(env)
    }
}

/// A variable of an environment. An empty key, or a NUL anywhere, cannot be passed to a program.
pub(super) fn variable(pair: &str) -> Option<(OsString, OsString)> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    (!key.is_empty() && !pair.contains('\0')).then(|| (key.into(), value.into()))
}
