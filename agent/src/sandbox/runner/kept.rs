//! What is written beside a container, for an agent that finds it running: `container.json`.
//!
//! Its environment is not in there: that stands in the bundle (`config.json`), which is for root alone
//! and goes with the container.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_model::objects::HealthConfig;
use weft_shim::leftovers;
use weft_shim::spec::{self, OciContainer};

use super::RunError;
use super::files::{ProcessRecord, write_json};

/// Its name in the folder of the task.
pub(super) const FILE: &str = "container.json";
/// What the runtime program reads, in the bundle.
pub(super) const BUNDLE_FILE: &str = "config.json";

/// A container, as whoever stops it, checks it, runs something inside of it or cleans up behind it has
/// to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// As its runtime program knows it.
    pub(super) oci: OciContainer,
    /// Its control group, below the mount point of each tree.
    pub(super) cgroup: PathBuf,
    /// `NAME|UID[:GROUP|GID]`; root when absent.
    pub(super) user: Option<String>,
    /// More groups of the user.
    pub(super) groups: Vec<String>,
    /// Working directory.
    pub(super) cwd: PathBuf,
    /// Host name that it sees.
    pub(super) hostname: String,
    /// What it may ever have, by the kernel's numbers.
    pub(super) capabilities: u64,
    /// The service's check, and what it leaves open from the image's.
    pub(super) health: Option<HealthConfig>,
    /// The service's, or the image's; empty for SIGTERM.
    pub(super) stop_signal: String,
}

/// What is read again of the bundle.
#[derive(Deserialize)]
struct Bundle {
    process: Process,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    env: Vec<String>,
}

impl Kept {
    /// # Errors
    /// [`RunError::File`].
    pub(super) fn write(&self, dir: &Path) -> Result<(), RunError> {
        write_json(dir, FILE, self)
    }

    /// `None` for a task that is no container; a damaged file is logged, and counts as none.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a container's file cannot be read");
                return None;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignoring a damaged file of a container");
                None
            }
        }
    }

    /// The environment that its program was started with.
    ///
    /// # Errors
    /// [`RunError::NotPrepared`].
    pub(super) fn environment(&self) -> Result<Vec<String>, RunError> {
        let path = self.oci.bundle.join(BUNDLE_FILE);
        // What is wrong with it could name what is in it.
        let bundle = std::fs::read(&path).ok();
        let bundle = bundle.and_then(|bytes| serde_json::from_slice::<Bundle>(&bytes).ok());
        match bundle {
            Some(bundle) => Ok(bundle.process.env),
            None => Err(RunError::NotPrepared(path)),
        }
    }

    /// Ends what is left of a container whose shim was killed; nothing left is success.
    pub(super) fn end(&self, dir: &Path) {
        // The shim's record is written before there is a process 1, in the same boot.
        let of_this_boot = ProcessRecord::read(dir).is_some_and(|record| record.is_of_this_boot());
        let known = if of_this_boot {
            Ok(())
        } else {
            spec::forget_init(dir)
        };
        let ended = known.and_then(|()| leftovers::end_container(dir, &self.oci, &self.cgroup));
        if let Err(error) = ended {
            tracing::warn!(
                container = self.oci.id,
                %error,
                "a container whose shim was killed may not be gone: its processes are in the control \
                 group of its task"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(dir: &Path) -> Kept {
        Kept {
            oci: OciContainer {
                runtime: "/usr/bin/runc".into(),
                root: "/run/weft/runtime".into(),
                bundle: dir.to_owned(),
                id: "abc".to_owned(),
                terminal: false,
            },
            cgroup: "weft/n1/t1".into(),
            user: Some("nginx".to_owned()),
            groups: vec!["7".to_owned()],
            cwd: "/srv".into(),
            hostname: "web".to_owned(),
            capabilities: 1 << 10,
            health: Some(HealthConfig::shell("true")),
            stop_signal: "SIGQUIT".to_owned(),
        }
    }

    #[test]
    fn a_container_is_known_again_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(Kept::read(dir.path()), None);
        let container = kept(dir.path());
        container.write(dir.path()).expect("write");
        assert_eq!(Kept::read(dir.path()), Some(container));
        std::fs::write(dir.path().join(FILE), "{").expect("write");
        assert_eq!(Kept::read(dir.path()), None);
    }

    #[test]
    fn nobody_is_killed_by_a_number_of_another_boot() {
        let dir = tempfile::tempdir().expect("dir");
        let mut container = kept(dir.path());
        container.oci.runtime = "/bin/true".into();
        container.cgroup = PathBuf::new();
        let mut bystander = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let pid = bystander.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let stat = stat.expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        // Field 22 of proc_pid_stat(5); the third is the first here.
        let start_time = fields.split(' ').nth(19).expect("a start time");
        let write = |name: &str, boot: &str| {
            let text = format!(r#"{{"pid":{pid},"start_time":{start_time},"boot_id":"{boot}"}}"#);
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        for record in [Some("another"), None] {
            let path = dir.path().join(super::super::files::RECORD);
            match record {
                Some(boot) => write(super::super::files::RECORD, boot),
                None => std::fs::remove_file(path).expect("removed"),
            }
            write("init.json", "");
            container.end(dir.path());
            assert!(!dir.path().join("init.json").exists(), "{record:?}");
            assert!(bystander.try_wait().expect("asked").is_none(), "{record:?}");
        }
        bystander.kill().expect("killed");
        bystander.wait().expect("ended");
    }

    #[test]
    fn the_environment_is_that_of_the_bundle_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let container = kept(dir.path());
        assert!(matches!(
            container.environment(),
            Err(RunError::NotPrepared(_))
        ));
        let bundle = r#"{"ociVersion":"1.0.2","process":{"args":["a"],"env":["A=b=c","E="]}}"#;
        std::fs::write(dir.path().join(BUNDLE_FILE), bundle).expect("write");
        assert_eq!(container.environment().expect("there"), ["A=b=c", "E="]);
        container.write(dir.path()).expect("write");
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("there");
        assert!(!text.contains("A=b"), "{text}");
    }
}
