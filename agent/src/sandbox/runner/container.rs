//! Containers: the file system of an image, what the service adds to it, and the bundle that the
//! runtime program starts them by.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use weft_images::Image;
use weft_model::capability;
use weft_model::id::TaskId;
use weft_model::objects::{ContainerSpec, MountType, Task};
use weft_runtime::bundle::{self, Container};
use weft_runtime::merged::{Merged, merge};
use weft_runtime::rootfs;
use weft_shim::spec::{OciContainer, Spec};
use weft_sys::privileges;
use weft_volumes::check_bind;

use super::engine::{self, Containers};
use super::files::TaskFile;
use super::kept::Kept;
use super::mounts::{same_place, task_mounts};
use super::{LOG_LIMIT_BYTES, RunError, Runner, network_settings, payloads, running, walls};

/// Below the folder of a task: its file system as it sees it.
const ROOTFS: &str = "rootfs";

/// The id of a task's container: 64 hexadecimal digits, the same wherever somebody asks.
#[must_use]
pub(crate) fn container_id(task: &TaskId) -> String {
    let hash = digest(&SHA256, task.as_str().as_bytes());
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

impl Runner {
    fn containers(&self) -> Result<&Containers, RunError> {
        self.containers.as_ref().ok_or_else(|| RunError::NoRuntime {
            node: self.node_name.clone(),
            why: "it was started without".to_owned(),
        })
    }

    /// The runtime program.
    fn runtime(&self) -> Result<(&Containers, PathBuf), RunError> {
        let containers = self.containers()?;
        match containers.engine.program() {
            Ok(program) => Ok((containers, program.path.clone())),
            Err(why) => Err(RunError::NoRuntime {
                node: self.node_name.clone(),
                why: why.to_owned(),
            }),
        }
    }

    /// What can be known of a container before its image is here.
    pub(super) fn check_container(&self, task: &Task) -> Result<(), RunError> {
        self.task_dir(&task.id)?;
        self.runtime()?;
        let spec = self.expanded(task)?;
        capability::granted(&spec.cap_add, &spec.cap_drop)?;
        self.init_of(&spec)?;
        network_settings::check(&spec.sysctls)?;
        payloads::check(task)?;
        for mount in &spec.mounts {
            if mount.kind == MountType::Bind {
                check_bind(mount)?;
            }
        }
        Ok(())
    }

    fn init_of(&self, spec: &ContainerSpec) -> Result<Option<PathBuf>, RunError> {
        if spec.init != Some(true) {
            return Ok(None);
        }
        if self.shim_is_static {
            return Ok(Some(self.shim.clone()));
        }
        let init = engine::init().ok_or_else(|| RunError::NoInit {
            node: self.node_name.clone(),
            looked_for: engine::INITS.join(", "),
        })?;
        Ok(Some(init))
    }

    /// Makes all that the runtime program needs to start the task's container: its file system of the
    /// layers of `image`, its files and volumes, and its bundle. `netns` is where its network namespace
    /// is bound. What an earlier attempt left is replaced; [`Runner::finish`] takes it away again.
    /// Secrets and configs were kept before ([`Runner::keep_payloads`]).
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn prepare(
        &self,
        task: &Task,
        image: &Image,
        layers: &[PathBuf],
        netns: &Path,
    ) -> Result<(), RunError> {
        let dir = self.task_dir(&task.id)?;
        let (containers, runtime) = self.runtime()?;
        if let Some(earlier) = Kept::read(&dir) {
            earlier.end(&dir);
        }
        let files = self.write_files(task, &dir)?;
        rootfs::unmount(&dir)?;
        rootfs::mount(layers, &dir)?;
        let rootfs = dir.join(ROOTFS);
        let spec = self.expanded(task)?;
        let merged = merge(&spec, &image.config, image.health.as_ref())?;
        let mut mounts = task_mounts(task, &spec, &merged, containers, &rootfs)?;
        mounts.extend(self.payload_mounts(task)?);
        let cgroup = walls::control_group(&self.node_name, &self.node_id, &task.id);
        let (id, capabilities) = (container_id(&task.id), granted(task)?);
        let mut bundle = bundle::bundle(&Container {
            id: &id,
            merged: &merged,
            spec: &spec,
            rootfs: &rootfs,
            netns,
            hostname: &spec.hostname,
            files: &shown(files, &spec),
            mounts: &mounts,
            cgroup: &Path::new("/").join(&cgroup),
            limits: task.spec.resources.limits,
            capabilities,
            init: self.init_of(&spec)?.as_deref(),
        })?;
        // The agent sets these. The runtime program is in that namespace already, takes it for the node's
        // and would refuse them.
        let linux = bundle.linux_mut().as_mut();
        if let Some(settings) = linux.and_then(|linux| linux.sysctl_mut().as_mut()) {
            settings.retain(|name, _| !network_settings::is_one(name));
        }
        bundle::write(&dir, &bundle)?;
        let oci = OciContainer {
            runtime,
            root: containers.engine.root().to_owned(),
            bundle: std::path::absolute(&dir).unwrap_or_else(|_| dir.clone()),
            id,
            terminal: spec.tty,
        };
        kept(spec, merged, oci, cgroup, capabilities).write(&dir)
    }

    /// What the shim of a container is told: the rest is in its bundle.
    pub(super) fn container_spec(&self, task: &Task, kept: &Kept) -> Spec {
        Spec {
            program: PathBuf::new(),
            args: Vec::new(),
            env: Vec::new(),
            user: kept.user.clone(),
            groups: kept.groups.clone(),
            cwd: Some(kept.cwd.clone()),
            capabilities: kept.capabilities,
            no_new_privileges: task.spec.container.privileges.no_new_privileges,
            binds: Vec::new(),
            payloads: Vec::new(),
            hostname: kept.hostname.clone(),
            hidden: Vec::new(),
            cgroup: Some(kept.cgroup.clone()),
            limits: walls::limits(task),
            log_limit_bytes: LOG_LIMIT_BYTES,
            container: Some(kept.oci.clone()),
        }
    }

    /// A program inside of a container that runs: as its own one is, with its environment.
    pub(super) fn spec_inside(&self, task: &Task, words: &[String]) -> Result<Spec, RunError> {
        let dir = self.task_dir(&task.id)?;
        let kept = Kept::read(&dir);
        let kept = kept.ok_or_else(|| RunError::NotPrepared(dir.join(super::kept::FILE)))?;
        let (program, args) = words.split_first().ok_or(RunError::NoCommand)?;
        if program.is_empty() {
            return Err(RunError::NoCommand);
        }
        let env = kept.environment()?;
        Ok(Spec {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: env
                .iter()
                .filter_map(|pair| super::host::variable(pair))
                .collect(),
            ..self.container_spec(task, &kept)
        })
    }

    /// Takes away what a container had in its folder and of the node's volumes. Each step is tried,
    /// whatever the others say; nothing there is success.
    pub(super) fn clear_container(&self, task: &TaskId, dir: &Path) -> Result<(), RunError> {
        let kept = Kept::read(dir);
        if kept.is_none() && !dir.join(ROOTFS).exists() {
            return Ok(());
        }
        // Where the shim has written down the end it has left nothing.
        if let Some(kept) = &kept
            && running::read_end(dir).is_none()
        {
            kept.end(dir);
        }
        let released = match &self.containers {
            Some(containers) => containers.volumes.release(task),
            None => Ok(()),
        };
        let unmounted = rootfs::unmount(dir);
        released?;
        unmounted?;
        Ok(())
    }
}

/// What the service asks for, of what the agent has itself.
fn granted(task: &Task) -> Result<u64, RunError> {
    let container = &task.spec.container;
    let asked = capability::granted(&container.cap_add, &container.cap_drop)?.0;
    let own = privileges::effective_capabilities().unwrap_or(u64::MAX);
    walls::tell_missing(&task.id, asked, own);
    Ok(asked & own)
}

/// The task's files, without those in whose place the service mounts something.
fn shown(files: Vec<TaskFile>, spec: &ContainerSpec) -> Vec<(PathBuf, &'static str)> {
    let free = |file: &TaskFile| {
        let mut mounts = spec.mounts.iter();
        !mounts.any(|mount| same_place(&mount.target, file.target))
    };
    let files = files.into_iter().filter(free);
    files.map(|file| (file.path, file.target)).collect()
}

fn kept(
    spec: ContainerSpec,
    merged: Merged,
    oci: OciContainer,
    cgroup: PathBuf,
    capabilities: u64,
) -> Kept {
    Kept {
        oci,
        cgroup,
        user: Some(merged.user).filter(|user| !user.is_empty()),
        groups: spec.groups,
        cwd: merged.cwd.into(),
        hostname: spec.hostname,
        capabilities,
        health: merged.health,
        stop_signal: merged.stop_signal,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Arc;

    use weft_model::id::{NodeId, ServiceId};
    use weft_model::objects::{
        HealthConfig, Meta, Mount, Runtime, TaskSpec, TaskState, TaskStatus, Version,
    };
    use weft_volumes::Volumes;

    use super::super::engine::ContainerEngine;
    use super::*;

    fn task(container: ContainerSpec) -> Task {
        Task {
            id: TaskId::from("t1"),
            meta: Meta::default(),
            service: ServiceId::from("s1"),
            service_name: "web".to_owned(),
            slot: 1,
            node: Some(NodeId::from("n1")),
            spec_version: Version { index: 1 },
            job_iteration: None,
            spec: Arc::new(TaskSpec {
                runtime: Runtime::Container,
                container,
                ..TaskSpec::default()
            }),
            attachments: Vec::new(),
            desired: TaskState::Running,
            status: TaskStatus::default(),
            restarts: Vec::new(),
        }
    }

    #[test]
    fn a_node_without_a_runtime_rejects_containers_and_says_what_to_install() {
        let dir = tempfile::tempdir().expect("dir");
        let runner = Runner::new(dir.path().join("tasks"), "node-1", NodeId::from("n1"));
        let task = task(ContainerSpec::default());
        let error = runner.check(&task).expect_err("no engine");
        assert!(matches!(error, RunError::NoRuntime { .. }), "{error}");
        let given = Path::new("/no/such/runtime");
        let engine = ContainerEngine::find(Some(given), dir.path(), dir.path());
        let volumes = Volumes::open(&dir.path().join("volumes")).expect("volumes");
        let error = runner.with_containers(engine, volumes).check(&task);
        let error = error.expect_err("no program").to_string();
        let begins = "node node-1 runs no containers: ";
        assert!(error.starts_with(begins), "{error}");
        assert!(error.contains("/no/such/runtime"), "{error}");
        assert!(!dir.path().join("tasks").exists());
    }

    #[test]
    fn what_is_run_inside_is_as_the_containers_own_program() {
        let dir = tempfile::tempdir().expect("dir");
        let runner = Runner::new(dir.path(), "node-1", NodeId::from("n1"));
        let task = task(ContainerSpec {
            // Of the service; what counts is what the container was started with.
            env: vec!["COLOUR=blue".to_owned()],
            ..ContainerSpec::default()
        });
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let error = runner.spec_inside(&task, &words(&["sh"]));
        assert!(matches!(error, Err(RunError::NotPrepared(_))), "{error:?}");
        let folder = runner.task_dir(&task.id).expect("dir");
        std::fs::create_dir(&folder).expect("folder");
        let container = Kept {
            oci: OciContainer {
                runtime: "/usr/bin/runc".into(),
                root: "/run/weft/runtime".into(),
                bundle: folder.clone(),
                id: container_id(&task.id),
                terminal: false,
            },
            cgroup: "weft/node-1/t1".into(),
            user: Some("web".to_owned()),
            groups: words(&["7"]),
            cwd: "/srv".into(),
            hostname: "web-1".to_owned(),
            capabilities: 1,
            health: Some(HealthConfig::none()),
            stop_signal: String::new(),
        };
        container.write(&folder).expect("written");
        let bundle = r#"{"process":{"env":["PATH=/bin","COLOUR=red"]}}"#;
        std::fs::write(folder.join("config.json"), bundle).expect("written");
        let spec = runner
            .spec_inside(&task, &words(&["sh", "-c", "true"]))
            .expect("a spec");
        // Looked for among the container's files.
        assert_eq!(spec.program, Path::new("sh"));
        assert_eq!(spec.args, ["-c", "true"]);
        let env = [("PATH", "/bin"), ("COLOUR", "red")];
        assert_eq!(
            spec.env,
            env.map(|(key, value)| (OsString::from(key), OsString::from(value)))
        );
        assert_eq!(spec.user.as_deref(), Some("web"));
        assert_eq!(spec.cwd.as_deref(), Some(Path::new("/srv")));
        assert_eq!(spec.container, Some(container.oci));
        for none in [&[][..], &[""]] {
            let error = runner.spec_inside(&task, &words(none));
            assert!(matches!(error, Err(RunError::NoCommand)), "{error:?}");
        }
    }

    #[test]
    fn the_id_of_a_container_follows_from_its_task() {
        let id = container_id(&TaskId::from("t1"));
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(id, container_id(&TaskId::from("t1")));
        assert_ne!(id, container_id(&TaskId::from("t2")));
    }

    #[test]
    fn a_file_that_the_service_mounts_itself_is_not_shown() {
        let file = |name, target| TaskFile {
            name,
            path: Path::new("/d").join(name),
            target,
        };
        let files = || {
            vec![
                file("hosts", "/etc/hosts"),
                file("hostname", "/etc/hostname"),
            ]
        };
        let mut spec = ContainerSpec::default();
        assert_eq!(shown(files(), &spec).len(), 2);
        spec.mounts.push(Mount {
            target: "/etc//hosts/".to_owned(),
            ..Mount::default()
        });
        let left = shown(files(), &spec);
        assert_eq!(left, [("/d/hostname".into(), "/etc/hostname")]);
    }
}
