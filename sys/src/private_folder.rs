//! Folders that nobody else may enter, and files in them that nobody else has written: whoever could
//! would have a part in what is kept there.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a folder or file is not used. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// Local: it is another user's.
    #[error(
        "{path} belongs to user {owner} and not to this one ({own}): whoever owns it has a part in what is kept there; remove it, give it to this user (`chown {own} {path}`), or choose another place"
    )]
    Foreign {
        /// Which one.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// This process's user.
        own: u32,
    },
    /// Local: others may write it.
    #[error("others may write {path} (mode {mode:o}): `chmod go-w {path}`, if nobody has")]
    Open {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Local: the kernel refused.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PrivateError + '_ {
    |source| PrivateError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Makes a folder and its parents for this user alone, or shuts all others out of one that is this
/// user's already; true when that had to be done. A symbolic link to a folder is followed: only who
/// may write its parent has made it.
///
/// # Errors
/// [`PrivateError::Foreign`], [`PrivateError::Io`].
pub fn make_private(folder: &Path) -> Result<bool, PrivateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed(folder))?;
    let found = std::fs::metadata(folder).map_err(failed(folder))?;
    check_owner(folder, &found)?;
    if found.mode() & 0o077 == 0 {
        return Ok(false);
    }
    let mode = Permissions::from_mode(0o700);
    std::fs::set_permissions(folder, mode).map_err(failed(folder))?;
    Ok(true)
}

/// Checks that a folder is this user's and that nobody else may write it.
///
/// # Errors
/// See [`PrivateError`].
pub fn check_folder(folder: &Path) -> Result<(), PrivateError> {
    let found = std::fs::metadata(folder).map_err(failed(folder))?;
    check(folder, &found)
}

/// Opens a file for reading that is this user's and that nobody else may write; a link is refused.
///
/// # Errors
/// See [`PrivateError`].
pub fn open_own(path: &Path) -> Result<File, PrivateError> {
    let file = OpenOptions::new()
        .read(true)
        // NONBLOCK: it may be a pipe, whose opening would wait for a writer.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed(path))?;
    let found = file.metadata().map_err(failed(path))?;
    if !found.is_file() {
        return Err(failed(path)(io::Error::other("it is no regular file")));
    }
    check(path, &found)?;
    Ok(file)
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), PrivateError> {
    let own = rustix::process::geteuid().as_raw();
    if found.uid() == own {
        return Ok(());
    }
    Err(PrivateError::Foreign {
        path: path.to_owned(),
        owner: found.uid(),
        own,
    })
}

fn check(path: &Path, found: &Metadata) -> Result<(), PrivateError> {
    check_owner(path, found)?;
    if found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(PrivateError::Open {
        path: path.to_owned(),
        mode: found.mode() & 0o7777,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn a_folder_of_ours_is_shut_and_one_of_others_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("a/b");
        assert!(!make_private(&folder).expect("made"));
        assert_eq!(mode(&folder), 0o700);
        set_mode(&folder, 0o755);
        check_folder(&folder).expect("others may read it");
        assert!(make_private(&folder).expect("ours"));
        assert_eq!(mode(&folder), 0o700);
        set_mode(&folder, 0o770);
        let error = check_folder(&folder).expect_err("a group may write it");
        assert!(error.to_string().contains("mode 770"), "{error}");
        chown(&folder, Some(65534), None).expect("given away");
        for refused in [make_private(&folder).map(drop), check_folder(&folder)] {
            let error = refused.expect_err("somebody else's").to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
        assert_eq!(mode(&folder), 0o770, "it is as it was");
        std::fs::write(dir.path().join("file"), "").expect("written");
        make_private(&dir.path().join("file")).expect_err("no folder");
    }

    #[test]
    fn a_file_that_others_may_have_written_is_not_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state.json");
        std::fs::write(&path, "x").expect("written");
        set_mode(&path, 0o644);
        open_own(&path).expect("ours");
        let link = dir.path().join("link");
        symlink(&path, &link).expect("a link");
        open_own(&link).expect_err("a link");
        set_mode(&path, 0o666);
        assert!(matches!(open_own(&path), Err(PrivateError::Open { .. })));
        set_mode(&path, 0o600);
        chown(&path, Some(65534), None).expect("given away");
        assert!(matches!(open_own(&path), Err(PrivateError::Foreign { .. })));
        open_own(dir.path()).expect_err("a folder");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .expect("a pipe");
        open_own(&dir.path().join("pipe")).expect_err("a pipe");
    }
}
