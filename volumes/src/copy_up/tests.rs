//! Real files, real links, real attributes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, CWD, FileType, Timespec, Timestamps, XattrFlags, getxattr, mknodat, setxattr,
    utimensat,
};
use rustix::process::geteuid;

use super::*;

struct Dirs {
    _dir: tempfile::TempDir,
    rootfs: PathBuf,
    data: PathBuf,
}

/// An image with a folder `/srv`, and an empty volume.
fn dirs() -> Dirs {
    let dir = tempfile::tempdir().expect("a folder");
    let (rootfs, data) = (dir.path().join("rootfs"), dir.path().join("data"));
    fs::create_dir_all(rootfs.join("srv")).expect("made");
    fs::create_dir(&data).expect("made");
    Dirs {
        _dir: dir,
        rootfs,
        data,
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 7,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
}

#[test]
fn everything_is_as_in_the_image() {
    let Dirs { _dir, rootfs, data } = dirs();
    let srv = rootfs.join("srv");
    fs::create_dir(srv.join("below")).expect("made");
    fs::write(srv.join("below/file"), "text").expect("written");
    fs::set_permissions(srv.join("below/file"), Permissions::from_mode(0o4751)).expect("a mode");
    let has_attributes = setxattr(
        srv.join("below/file"),
        "user.note",
        b"kept",
        XattrFlags::empty(),
    )
    .is_ok();
    fs::hard_link(srv.join("below/file"), srv.join("same")).expect("a link");
    symlink("/etc/passwd", srv.join("link")).expect("a link");
    mknodat(CWD, srv.join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    fs::set_permissions(srv.join("below"), Permissions::from_mode(0o1777)).expect("a mode");
    fs::set_permissions(&srv, Permissions::from_mode(0o750)).expect("a mode");
    for (path, time) in [
        ("below/file", 1000),
        ("below", 2000),
        ("link", 3000),
        ("", 4000),
    ] {
        set_time(&srv.join(path), time);
    }
    let root = geteuid().is_root();
    if root {
        std::os::unix::fs::chown(srv.join("below"), Some(33), Some(44)).expect("an owner");
        std::os::unix::fs::chown(&srv, Some(999), Some(999)).expect("an owner");
    }
    let filled = fill(&rootfs, Path::new("/srv"), &data).expect("filled");
    assert_eq!((filled.found, filled.entries), (true, 5));
    let (file, same) = (data.join("below/file"), data.join("same"));
    let meta = fs::metadata(&file).expect("there");
    assert_eq!(fs::read(&file).expect("read"), b"text");
    assert_eq!(meta.mode() & 0o7777, 0o4751);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1000, 7));
    assert_eq!(meta.nlink(), 2);
    assert_eq!(meta.ino(), fs::metadata(&same).expect("there").ino());
    if has_attributes {
        let mut value = [0_u8; 16];
        let length = getxattr(&file, "user.note", &mut value[..]).expect("an attribute");
        assert_eq!(&value[..length], b"kept");
    }
    let below = fs::metadata(data.join("below")).expect("there");
    assert_eq!((below.mode() & 0o7777, below.mtime()), (0o1777, 2000));
    let link = data.join("link");
    assert_eq!(
        fs::read_link(&link).expect("a link"),
        Path::new("/etc/passwd")
    );
    assert_eq!(fs::symlink_metadata(&link).expect("there").mtime(), 3000);
    let pipe = fs::metadata(data.join("pipe")).expect("there");
    assert!(pipe.file_type().is_fifo());
    let meta = fs::metadata(&data).expect("there");
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o750, 4000));
    if root {
        assert_eq!((below.uid(), below.gid()), (33, 44));
        assert_eq!((meta.uid(), meta.gid()), (999, 999));
    }
}

#[test]
fn links_of_an_image_do_not_lead_to_the_node() {
    let Dirs { _dir, rootfs, data } = dirs();
    let secret = rootfs.parent().expect("a folder").join("secret");
    fs::create_dir(&secret).expect("made");
    fs::write(secret.join("key"), "x").expect("written");
    for (name, to) in [
        ("absolute", secret.display().to_string()),
        ("relative", "../secret".to_owned()),
        ("far", "../../../../../../../../../../etc".to_owned()),
        ("magic", "/proc/self/root/etc".to_owned()),
        ("circle", "circle".to_owned()),
    ] {
        symlink(&to, rootfs.join(name)).expect("a link");
        let filled = fill(&rootfs, Path::new("/").join(name).as_path(), &data).expect(name);
        assert_eq!(filled, Filled::default(), "{name}");
        assert!(fs::read_dir(&data).expect("a folder").next().is_none());
    }
    let filled = fill(&rootfs, Path::new("/../../secret"), &data).expect("looked up");
    assert!(!filled.found);
    // The same links inside of the image lead to the image.
    fs::create_dir_all(rootfs.join("etc")).expect("made");
    fs::write(rootfs.join("etc/own"), "").expect("written");
    let filled = fill(&rootfs, Path::new("/far"), &data).expect("filled");
    assert_eq!((filled.found, filled.entries), (true, 1));
    assert!(data.join("own").exists());
}

#[test]
fn what_is_no_folder_is_not_copied() {
    let Dirs { _dir, rootfs, data } = dirs();
    fs::write(rootfs.join("file"), "x").expect("written");
    for target in ["/file", "/none", "/none/below", "/file/below"] {
        let filled = fill(&rootfs, Path::new(target), &data).expect(target);
        assert_eq!(filled, Filled::default(), "{target}");
    }
    // An empty folder gives its mode.
    fs::set_permissions(rootfs.join("srv"), Permissions::from_mode(0o2770)).expect("a mode");
    let filled = fill(&rootfs, Path::new("/srv/"), &data).expect("filled");
    assert_eq!((filled.found, filled.entries), (true, 0));
    assert_eq!(fs::metadata(&data).expect("there").mode() & 0o7777, 0o2770);
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let Dirs { _dir, rootfs, data } = dirs();
    let mut path = rootfs.join("srv");
    for _ in 0..300 {
        path.push("d");
    }
    fs::create_dir_all(&path).expect("made");
    let error = fill(&rootfs, Path::new("/srv"), &data).expect_err("too deep");
    assert!(
        error.to_string().contains("more than 128 folders"),
        "{error}"
    );
}
