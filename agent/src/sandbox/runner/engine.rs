//! What this node runs containers with: the OCI runtime program that was found when the agent started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_runtime::program::{self, Installed, OciRuntime, RuntimeProgram};
use weft_runtime::rootfs::{self, Driver};
use weft_volumes::Volumes;

/// The runtime program of this node, or why there is none. Copies are the same.
#[derive(Debug, Clone)]
pub struct ContainerEngine {
    found: Result<Arc<RuntimeProgram>, Arc<str>>,
    root: PathBuf,
    driver: &'static str,
    /// Whether a bind can be read-only with all that is mounted below it.
    recursive_read_only: bool,
}

/// What containers are made with on this node.
#[derive(Debug, Clone)]
pub(super) struct Containers {
    pub(super) engine: ContainerEngine,
    pub(super) volumes: Volumes,
}

/// What is written of a node that copies layers.
pub(crate) const COPIES: &str = "copy";
/// … and of one that puts them over each other.
const OVERLAY: &str = "overlay";

/// Where the program keeps what it knows of its containers, below the run directory.
const ROOT: &str = "runtime";
/// Programs that may be process 1 of a container (`--init`) where weftd has no static shim, the first one
/// that is there. They are linked statically: the container may have no libraries.
pub(super) const INITS: [&str; 3] = ["docker-init", "catatonit", "tini-static"];
/// Where they are looked for, as Docker does.
const INIT_FOLDERS: [&str; 6] = [
    "/usr/local/libexec/docker",
    "/usr/libexec/docker",
    "/usr/local/bin",
    "/usr/bin",
    "/usr/libexec",
    "/usr/libexec/podman",
];

impl ContainerEngine {
    /// Looks for a runtime program, or at the one that is `given`, and at what the file system of
    /// `data_dir` allows; blocks for some milliseconds. A node without a program runs those of its own
    /// file system alone.
    #[must_use]
    pub fn find(given: Option<&Path>, run_dir: &Path, data_dir: &Path) -> Self {
        let root = run_dir.join(ROOT);
        let found = program::find(given).map(Arc::new);
        let recursive_read_only = found.as_ref().is_ok_and(|program| {
            let installed = Installed {
                program: RuntimeProgram::clone(program),
                root: root.clone(),
            };
            let features = installed.features();
            features.is_ok_and(|features| features.recursive_read_only())
        });
        Self {
            found: found.map_err(|why| Arc::from(why.to_string())),
            root,
            recursive_read_only,
            driver: match rootfs::driver(data_dir) {
                Driver::Overlay => OVERLAY,
                Driver::Copy => COPIES,
            },
        }
    }

    /// How file systems of containers are made: `overlay` or `copy`.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// The program.
    ///
    /// # Errors
    /// There is none: what to install.
    pub fn program(&self) -> Result<&RuntimeProgram, &str> {
        match &self.found {
            Ok(program) => Ok(program),
            Err(why) => Err(why),
        }
    }

    /// Its name, as managers place tasks by it; nothing where there is none.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.found
            .iter()
            .map(|program| program.name.clone())
            .collect()
    }

    /// Whether it can make a bind read-only with all that is mounted below it.
    pub(super) fn recursive_read_only(&self) -> bool {
        self.recursive_read_only
    }

    /// Where it keeps what it knows of its containers.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

/// A program that can be process 1 of a container.
pub(super) fn init() -> Option<PathBuf> {
    let named = |name: &&str| {
        let folders = INIT_FOLDERS.iter();
        let mut paths = folders.map(|folder| Path::new(folder).join(name));
        paths.find(|path| path.is_file())
    };
    INITS.iter().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_runtime_says_so() {
        let none = Path::new("/no/such/runtime");
        let dir = tempfile::tempdir().expect("dir");
        let engine = ContainerEngine::find(Some(none), Path::new("/run/weft"), dir.path());
        assert!(engine.names().is_empty());
        let why = engine.program().expect_err("it is not there");
        assert!(why.contains("/no/such/runtime"), "{why}");
        assert_eq!(engine.root(), Path::new("/run/weft/runtime"));
        assert!([OVERLAY, COPIES].contains(&engine.driver()));
    }
}
