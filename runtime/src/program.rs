//! The runtime program of this node: `runc` or `crun`, as the distribution has it.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cgroups::CgroupKind;

mod run;

use run::{Ran, run};

/// Docker's `PATH` for its own programs.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
const CRUN: &str = "crun";
const RUNC: &str = "runc";
/// A program that takes longer to say its name is none.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// To kill and remove what a container has waits for the kernel.
const LIMIT: Duration = Duration::from_secs(30);

/// A runtime program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeProgram {
    /// What it calls itself: `runc`, `crun`.
    pub name: String,
    /// Full path.
    pub path: PathBuf,
    /// Its version, as it says it.
    pub version: String,
}

impl fmt::Display for RuntimeProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Why this node runs no containers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoRuntime {
    /// Local: nothing is installed.
    #[error(
        "there is no container runtime: install the package {packages} (as with `apt-get install runc`), or name a program with --runtime; looked in {looked_in}"
    )]
    Missing {
        /// Any of them will do.
        packages: &'static str,
        /// Folders.
        looked_in: String,
    },
    /// Local: what is installed does not work with this machine's control groups.
    #[error(
        "{path} cannot be used, as control groups of versions 1 and 2 are mounted beside each other: install the package runc"
    )]
    Hybrid {
        /// Of crun.
        path: PathBuf,
    },
    /// Config: the program that was named.
    #[error("the container runtime {path} cannot be used: {why}")]
    Given {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Finds the runtime program of this node, or looks at the one that is `given`. With one tree of
/// control groups `crun` is taken before `runc`, as it starts quicker; it works with no hybrid.
///
/// # Errors
/// There is none, with the name of the package; or the one that was named is none.
pub fn find(given: Option<&Path>) -> Result<RuntimeProgram, NoRuntime> {
    let folders = FOLDERS.map(Path::new);
    match given {
        Some(path) => asked(path).map_err(|why| NoRuntime::Given {
            path: path.to_owned(),
            why,
        }),
        None => find_in(&folders, CgroupKind::of_node()),
    }
}

fn find_in(folders: &[&Path], cgroups: CgroupKind) -> Result<RuntimeProgram, NoRuntime> {
    let names: &[&str] = match cgroups {
        CgroupKind::V2 => &[CRUN, RUNC],
        CgroupKind::V1 | CgroupKind::None => &[RUNC, CRUN],
        CgroupKind::Hybrid => &[RUNC],
    };
    let in_folders = |name: &str| {
        let paths = folders.iter().map(|folder| folder.join(name));
        paths.filter(|path| is_program(path)).collect::<Vec<_>>()
    };
    for path in names.iter().flat_map(|name| in_folders(name)) {
        match asked(&path) {
            Ok(program) => return Ok(program),
            Err(why) => tracing::warn!(path = %path.display(), %why, "no container runtime"),
        }
    }
    if cgroups == CgroupKind::Hybrid
        && let Some(path) = in_folders(CRUN).into_iter().next()
    {
        return Err(NoRuntime::Hybrid { path });
    }
    let packages = match cgroups {
        CgroupKind::V2 => "crun or runc",
        CgroupKind::V1 | CgroupKind::None => "runc or crun",
        CgroupKind::Hybrid => RUNC,
    };
    let looked_in: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
    Err(NoRuntime::Missing {
        packages,
        looked_in: looked_in.join(", "),
    })
}

fn is_program(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Asks a program what it is: `NAME version VERSION` on its first line.
fn asked(path: &Path) -> Result<RuntimeProgram, String> {
    if !path.is_absolute() {
        return Err("write its full path".to_owned());
    }
    if !is_program(path) {
        return Err("there is no such program".to_owned());
    }
    let ran = run(path, &[OsStr::new("--version")], VERSION_LIMIT).map_err(|e| e.to_string())?;
    let first = ran.stdout.lines().next().unwrap_or_default();
    let (name, version) = first
        .split_once(" version ")
        .filter(|(name, version)| ran.success && !name.is_empty() && !version.is_empty())
        .ok_or_else(|| {
            format!("it does not answer --version as runc and crun do, but {first:?}")
        })?;
    Ok(RuntimeProgram {
        name: name.to_owned(),
        path: path.to_owned(),
        version: version.trim().to_owned(),
    })
}

/// Why a runtime program did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Local: it cannot be started.
    #[error("cannot run {path}: {source}")]
    Start {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: it was killed.
    #[error("{path} {command} did not end within {} s", .limit.as_secs())]
    Slow {
        /// Which one.
        path: PathBuf,
        /// What was asked.
        command: String,
        /// So long.
        limit: Duration,
    },
    /// Local: what it says.
    #[error("{path} {command} failed: {said}")]
    Failed {
        /// Which one.
        path: PathBuf,
        /// What was asked.
        command: String,
        /// The last of its words.
        said: String,
    },
    /// Local: an answer that cannot be read.
    #[error("{path} {command} answered what cannot be read: {source}")]
    Answer {
        /// Which one.
        path: PathBuf,
        /// What was asked.
        command: String,
        /// Where.
        source: serde_json::Error,
    },
}

/// How a container is, as its runtime program says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ContainerState {
    /// `creating`, `created`, `running`, `stopped`; runc also has `paused`.
    pub status: String,
    /// Process 1 of the container, in the caller's PID namespace; 0 where there is none.
    #[serde(default)]
    pub pid: u32,
}

/// What a runtime program can do, as it says (`features`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Features {
    /// Options of mounts that it knows, such as `rro`.
    pub mount_options: Vec<String>,
}

impl Features {
    /// Whether a bind can be read-only with all that is mounted below it.
    #[must_use]
    pub fn recursive_read_only(&self) -> bool {
        self.mount_options.iter().any(|option| option == "rro")
    }
}

/// What is asked of a runtime, but for starting: that is the shim's.
pub trait OciRuntime: fmt::Debug + Send + Sync {
    /// How a container is; nothing where there is none.
    ///
    /// # Errors
    /// The runtime cannot be asked.
    fn state(&self, id: &str) -> Result<Option<ContainerState>, ProgramError>;

    /// Sends a signal to process 1 of a container, or to all of its processes.
    ///
    /// # Errors
    /// There is no such container, or it runs no more.
    fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), ProgramError>;

    /// Kills what is left of a container, and removes what the runtime has of it; none is success.
    ///
    /// # Errors
    /// Something stays.
    fn delete(&self, id: &str) -> Result<(), ProgramError>;

    /// What it can do; nothing of one that is too old to say.
    ///
    /// # Errors
    /// It cannot be asked.
    fn features(&self) -> Result<Features, ProgramError>;
}

/// A runtime program, and where it keeps what it knows of its containers.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The program.
    pub program: RuntimeProgram,
    /// `--root`.
    pub root: PathBuf,
}

impl Installed {
    fn ask(&self, words: &[&str]) -> Result<Ran, ProgramError> {
        let mut args = vec![OsStr::new("--root"), self.root.as_os_str()];
        args.extend(words.iter().map(OsStr::new));
        let path = || self.program.path.clone();
        run(&self.program.path, &args, LIMIT).map_err(|source| {
            if source.kind() == io::ErrorKind::TimedOut {
                ProgramError::Slow {
                    path: path(),
                    command: words.join(" "),
                    limit: LIMIT,
                }
            } else {
                ProgramError::Start {
                    path: path(),
                    source,
                }
            }
        })
    }

    fn failed(&self, words: &[&str], ran: &Ran) -> ProgramError {
        ProgramError::Failed {
            path: self.program.path.clone(),
            command: words.join(" "),
            said: ran.last_words(),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        words: &[&str],
        ran: &Ran,
    ) -> Result<T, ProgramError> {
        serde_json::from_str(&ran.stdout).map_err(|source| ProgramError::Answer {
            path: self.program.path.clone(),
            command: words.join(" "),
            source,
        })
    }
}

impl OciRuntime for Installed {
    fn state(&self, id: &str) -> Result<Option<ContainerState>, ProgramError> {
        let words = ["state", id];
        let ran = self.ask(&words)?;
        if ran.success {
            self.read(&words, &ran).map(Some)
        } else if ran.says_none_such() {
            Ok(None)
        } else {
            Err(self.failed(&words, &ran))
        }
    }

    fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), ProgramError> {
        let signal = signal.to_string();
        let mut words = vec!["kill"];
        if all {
            words.push("--all");
        }
        words.extend([id, signal.as_str()]);
        let ran = self.ask(&words)?;
        if ran.success {
            Ok(())
        } else {
            Err(self.failed(&words, &ran))
        }
    }

    fn delete(&self, id: &str) -> Result<(), ProgramError> {
        let words = ["delete", "--force", id];
        let ran = self.ask(&words)?;
        if ran.success || ran.says_none_such() {
            Ok(())
        } else {
            Err(self.failed(&words, &ran))
        }
    }

    fn features(&self) -> Result<Features, ProgramError> {
        let words = ["features"];
        let ran = self.ask(&words)?;
        if ran.success {
            self.read(&words, &ran)
        } else {
            Ok(Features::default())
        }
    }
}

#[cfg(test)]
mod tests;
