//! The shim of tasks as a program of its own: a small static one, which `weft` carries and which is
//! written to the data directory. It serves three: beside each task, as what enters one (`weft exec`), and
//! as process 1 of a container (`--init`).

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use weft_shim::SELF_TEST;
use weft_sys::replace_file::{Outlives, replace_file};

/// Below the data directory.
const FOLDER: &str = "bin";
/// Mode of the program: users of containers execute it.
const MODE: u32 = 0o755;
/// Hexadecimal digits of its digest that are in its name.
const DIGITS: usize = 16;
/// How often it is tried to execute what somebody still has open to write, and with which pause.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Writes the program where there is none like it yet, and removes those of other versions: whoever
/// executes one keeps it. Nothing, where `program` is empty or cannot be executed from there (a file system
/// with `noexec`): weftd itself is the shim then, which costs more memory, and a warning says why.
pub(crate) fn place(data_dir: &Path, program: &[u8]) -> Option<PathBuf> {
    if program.is_empty() {
        tracing::info!(
            "this weftd was built without a static shim: it is the shim of tasks itself"
        );
        return None;
    }
    match try_place(data_dir, program) {
        Ok(path) => Some(path),
        Err(error) => {
            tracing::warn!(
                %error,
                data_dir = %data_dir.display(),
                "the shim of tasks cannot be executed from the data directory, and weftd is it itself: a \
                 data directory on a file system without noexec mends it"
            );
            None
        }
    }
}

fn try_place(data_dir: &Path, program: &[u8]) -> io::Result<PathBuf> {
    let folder = data_dir.join(FOLDER);
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(&folder)?;
    let hash = digest(&SHA256, program);
    let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let name = format!("{}-{}", weft_shim::NAME, &hash[..DIGITS]);
    let path = folder.join(&name);
    if std::fs::read(&path).is_ok_and(|there| there == program) {
        std::fs::set_permissions(&path, Permissions::from_mode(MODE))?;
    } else {
        replace_file(&path, program, MODE, Outlives::Process)?;
    }
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.file_name() != *name {
            std::fs::remove_file(entry.path())?;
        }
    }
    let tested = self_test(&path)?;
    if tested.success() {
        Ok(std::path::absolute(path)?)
    } else {
        Err(io::Error::other(format!("{} {tested}", path.display())))
    }
}

fn self_test(program: &Path) -> io::Result<ExitStatus> {
    for _ in 0..BUSY_TRIES {
        let mut tested = Command::new(program);
        match tested.arg(SELF_TEST).stdin(Stdio::null()).status() {
            // Another thread forks just now: its child has open what this one has written, until it
            // executes something.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(BUSY_PAUSE);
            }
            tested => return tested,
        }
    }
    Err(io::ErrorKind::ExecutableFileBusy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &[u8] = b"#!/bin/sh\n[ \"$1\" = --self-test ]\n";

    #[test]
    fn the_program_is_there_once_and_can_be_executed() {
        let dir = tempfile::tempdir().expect("dir");
        let older = place(dir.path(), b"#!/bin/sh\nexit 0\n").expect("placed");
        let path = place(dir.path(), SCRIPT).expect("placed");
        assert!(!older.exists(), "it is of another version");
        assert_eq!(std::fs::read(&path).expect("there"), SCRIPT);
        // Somebody has cut it.
        std::fs::write(&path, "#!").expect("written");
        assert_eq!(place(dir.path(), SCRIPT), Some(path.clone()));
        assert_eq!(std::fs::read(&path).expect("there"), SCRIPT);
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn what_cannot_be_executed_is_no_shim() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(place(dir.path(), b""), None);
        assert_eq!(place(dir.path(), b"no program of this machine"), None);
        assert_eq!(place(dir.path(), b"#!/bin/sh\nexit 3\n"), None);
    }
}
