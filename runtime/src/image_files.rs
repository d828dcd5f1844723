//! Files of an image, which may say anything: read within the image, whatever their links say.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// Bytes of `/etc/passwd` or `/etc/group` of an image at most.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the file at `path` as who is in `root` sees it; nothing where there is none.
///
/// # Errors
/// It is no regular file, or longer than 8 MiB.
pub(crate) fn read(root: &Path, path: &str) -> io::Result<Vec<u8>> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, folder, Mode::empty())?;
    // Only its place at first: to open a device or a pipe does something.
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = match openat2(&root, path, place, Mode::empty(), resolve) {
        Ok(found) => File::from(found),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    if !found.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is longer than 8 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn links_of_an_image_stay_inside_it() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).expect("made");
        std::fs::write(dir.path().join("outside"), "outside").expect("written");
        std::fs::write(root.join("outside"), "inside").expect("written");
        let at = |name: &str| root.join("etc").join(name);
        symlink("../../../outside", at("up")).expect("link");
        symlink(dir.path().join("outside"), at("absolute")).expect("link");
        symlink("/outside", at("from-root")).expect("link");
        symlink("loop", at("loop")).expect("link");
        symlink("/proc/self/root/etc/passwd", at("magic")).expect("link");
        assert_eq!(read(&root, "etc/up").expect("read"), b"inside");
        assert_eq!(read(&root, "etc/from-root").expect("read"), b"inside");
        assert_eq!(read(&root, "/etc/absolute").expect("read"), b"");
        assert_eq!(read(&root, "etc/magic").expect("read"), b"");
        assert_eq!(read(&root, "etc/none").expect("read"), b"");
        assert_eq!(read(&root, "outside/x").expect("read"), b"");
        read(&root, "etc/loop").expect_err("a loop");
    }

    #[test]
    fn nothing_but_files_is_opened() {
        let dir = tempfile::tempdir().expect("dir");
        // To open a pipe for reading waits for a writer.
        mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("made");
        let error = read(dir.path(), "pipe").expect_err("no file").to_string();
        assert_eq!(error, "it is no regular file");
        read(dir.path(), ".").expect_err("a folder");
        let long = File::create(dir.path().join("long")).expect("made");
        long.set_len(MAX_BYTES + 1).expect("longer");
        let error = read(dir.path(), "long").expect_err("too long").to_string();
        assert!(error.contains("8 MiB"), "{error}");
    }
}
