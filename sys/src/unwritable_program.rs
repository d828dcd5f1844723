//! A program of this machine to be executed where somebody hostile may get hold of its file.
//!
//! What a process executes can be opened by way of `/proc/PID/exe`, past every mount that would hide it.
//! Root of a container that looks at a process of the node which has come into the container could so open
//! the node's own program, wait until nobody executes it, and overwrite it (as CVE-2019-5736 did with
//! `runc`).
//!
//! So that program is executed by way of a mount of its own: read-only, of that one file, and at no place
//! of any tree. What is opened by way of it is on that mount too, and cannot be opened for writing. It
//! costs no memory. Where the kernel does not make one (before Linux 5.12, without `CAP_SYS_ADMIN`, of what
//! was executed before its process changed mount namespaces) a sealed copy in memory does the same.
//!
//! Who has `CAP_SYS_ADMIN` in the first user namespace needs no such way.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mounts::{self, Attributes, Reach};

/// A program that nobody can write to by way of a process that executes it.
#[derive(Debug)]
pub struct UnwritableProgram {
    /// Keeps the path: close-on-exec, which is after the kernel has found the program by it.
    _file: OwnedFd,
    path: PathBuf,
}

impl UnwritableProgram {
    /// Of the program at `path`, which may be `/proc/self/exe`.
    ///
    /// # Errors
    /// There is no such program; the kernel gives neither mounts nor files in memory to execute.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::mounted(path).or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "a program is copied to memory");
            Self::copied(path)
        })
    }

    /// A mount of the file itself. A later file of that name is another one.
    fn mounted(path: &Path) -> io::Result<Self> {
        // First the file: a link of `/proc` leads to one that may have no name any more.
        let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let this = Self::open(open_tree(&file, c"", clone)?);
        mounts::set(&this.path, Attributes::READ_ONLY, Reach::One)?;
        Ok(this)
    }

    /// A copy in memory, for good as it is.
    fn copied(path: &Path) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Linux 6.3 wants to be told, and those before do not know the flag.
        let copy = match memfd_create(c"weft", flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => memfd_create(c"weft", flags),
            other => other,
        }?;
        let mut copy = File::from(copy);
        io::copy(&mut File::open(path)?, &mut copy)?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&copy, seals)?;
        Ok(Self::open(copy.into()))
    }

    fn open(file: OwnedFd) -> Self {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Self { _file: file, path }
    }

    /// What to execute, for this process and what it has forked.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use super::*;
    use crate::process::{Signal, Spawn};

    /// A program that nobody else executes: the kernel lets nobody write to one meanwhile.
    fn program(dir: &Path) -> PathBuf {
        let path = dir.join("sleep");
        // By another process: what this one has open to write, a child of another test may have too.
        let copied = Command::new("cp")
            .args(["-L", "/bin/sleep"])
            .arg(&path)
            .status();
        assert!(copied.expect("cp").success());
        path
    }

    /// The file of a process that has ended, as somebody has it who looked at the process.
    fn seen(program: &Path) -> (File, PathBuf) {
        let args: [OsString; 1] = ["1000".into()];
        let process = Spawn {
            program,
            arg0: Some("sleep"),
            args: &args,
            env: &[],
            netns: None,
            cwd: None,
            stdin: None,
            stdout: None,
            stderr: None,
            parent_death_signal: None,
        }
        .start()
        .expect("it starts");
        let exe = format!("/proc/{}/exe", process.pid());
        let file = File::open(&exe).expect("anybody may read it");
        process.signal(Signal::KILL).expect("kill");
        process.wait().expect("wait");
        let again = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        (file, again)
    }

    #[test]
    fn what_is_seen_of_a_process_writes_to_no_program() {
        let dir = tempfile::tempdir().expect("dir");
        let path = program(dir.path());
        let before = std::fs::read(&path).expect("there");
        let mounted = UnwritableProgram::mounted(&path).expect("root of Linux 5.12");
        let (file, again) = seen(mounted.path());
        drop(mounted);
        let error = OpenOptions::new().write(true).open(&again);
        let error = error.expect_err("read-only");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
        let error = rustix::fs::chmod(&again, Mode::from_raw_mode(0o777));
        assert_eq!(error, Err(Errno::ROFS));
        assert_eq!(std::fs::read(&path).expect("there"), before);
        drop(file);
        // By its own name it could be.
        let (_file, again) = seen(&path);
        let mut open = OpenOptions::new().write(true).open(&again).expect("root");
        open.write_all(b"#!").expect("written");
        assert_ne!(std::fs::read(&path).expect("there"), before);
    }

    #[test]
    fn a_copy_in_memory_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("dir");
        let path = program(dir.path());
        let copied = UnwritableProgram::copied(&path).expect("a copy");
        let (_file, again) = seen(copied.path());
        let open = OpenOptions::new().write(true).open(&again);
        let error = open.and_then(|file| file.write_at(b"#!", 0));
        let error = error.expect_err("sealed");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        // The file itself is no part of it.
        std::fs::write(&path, "else").expect("nobody executes it");
        let (mut first, mut second) = (seen(copied.path()).0, Vec::new());
        io::copy(&mut first, &mut second).expect("read");
        assert!(second.len() > 4, "{}", second.len());
    }

    #[test]
    fn a_program_that_is_not_there_is_none() {
        let error = UnwritableProgram::of(Path::new("/no/such/program"));
        let error = error.expect_err("none").kind();
        assert_eq!(error, io::ErrorKind::NotFound);
    }
}
