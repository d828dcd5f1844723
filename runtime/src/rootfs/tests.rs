//! Layers on this machine's own file system, by overlay and by copies. To mount takes root, or a user
//! namespace.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Uid, XattrFlags, chownat, lgetxattr, lsetxattr, makedev,
    mknodat,
};

use super::*;

struct Layers {
    dir: tempfile::TempDir,
}

impl Layers {
    /// Three, the upper ones with all that a layer can say of those below it.
    fn new() -> Self {
        let layers = Self {
            dir: tempfile::tempdir().expect("dir"),
        };
        let [bottom, middle, top] = layers.paths();
        for folder in ["etc/old", "opaque/below", "gone", "file-then-folder/x"] {
            fs::create_dir_all(bottom.join(folder)).expect("made");
        }
        for file in [
            "etc/passwd",
            "etc/old/a",
            "opaque/below/b",
            "gone/c",
            "removed",
        ] {
            fs::write(bottom.join(file), "bottom").expect("written");
        }
        symlink("etc", bottom.join("link")).expect("link");
        for folder in ["etc", "opaque", "link"] {
            fs::create_dir_all(middle.join(folder)).expect("made");
        }
        for whiteout in ["gone", "removed", "etc/old", "never-there"] {
            let whiteout = middle.join(whiteout);
            mknodat(
                CWD,
                whiteout,
                FileType::CharacterDevice,
                Mode::empty(),
                makedev(0, 0),
            )
            .expect("root may");
        }
        lsetxattr(
            middle.join("opaque"),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )
        .expect("root may");
        fs::write(middle.join("opaque/new"), "middle").expect("written");
        // In place of a link: what is below the link's target is not touched.
        fs::write(middle.join("link/inside"), "middle").expect("written");
        fs::write(middle.join("file-then-folder"), "now a file").expect("written");
        fs::create_dir_all(&top).expect("made");
        let tool = top.join("tool");
        fs::write(&tool, "top").expect("written");
        let (uid, gid) = (Some(Uid::from_raw(33)), Some(Gid::from_raw(34)));
        chownat(CWD, &tool, uid, gid, AtFlags::empty()).expect("root may");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).expect("mode");
        lsetxattr(&tool, "user.kept", b"1", XattrFlags::empty()).expect("set");
        fs::hard_link(&tool, top.join("same-tool")).expect("linked");
        layers
    }

    /// Bottom first.
    fn paths(&self) -> [PathBuf; 3] {
        ["bottom", "middle", "top"].map(|name| self.dir.path().join(name))
    }
}

/// What is the same by either way.
fn assert_shown(rootfs: &Path) {
    let read = |name: &str| fs::read_to_string(rootfs.join(name)).expect(name);
    assert_eq!(read("etc/passwd"), "bottom");
    assert_eq!(read("opaque/new"), "middle");
    assert_eq!(read("link/inside"), "middle");
    assert_eq!(read("file-then-folder"), "now a file");
    for gone in [
        "gone",
        "removed",
        "etc/old",
        "never-there",
        "opaque/below",
        "etc/inside",
    ] {
        let found = rootfs.join(gone).symlink_metadata();
        assert!(found.is_err(), "{gone}: {found:?}");
    }
    assert!(
        rootfs
            .join("link")
            .symlink_metadata()
            .expect("there")
            .is_dir()
    );
    let tool = fs::metadata(rootfs.join("tool")).expect("there");
    assert_eq!(
        (tool.uid(), tool.gid(), tool.mode() & 0o7777),
        (33, 34, 0o4755)
    );
    let mut value = [0_u8; 8];
    let length = lgetxattr(rootfs.join("tool"), "user.kept", &mut value).expect("kept");
    assert_eq!(value[..length], *b"1");
    let same = fs::metadata(rootfs.join("same-tool")).expect("there");
    assert_eq!((tool.ino(), tool.nlink()), (same.ino(), 2));
}

#[test]
fn layers_are_one_root_and_stay_as_they_are() {
    let layers = Layers::new();
    let task = tempfile::tempdir().expect("dir");
    let rootfs = task.path().join("rootfs");
    assert_eq!(
        mount(&layers.paths(), task.path()).expect("mounted"),
        Kind::Overlay
    );
    assert_shown(&rootfs);
    fs::write(rootfs.join("etc/passwd"), "changed").expect("written");
    // Once more, as after a restart: what was written is there.
    assert_eq!(
        mount(&layers.paths(), task.path()).expect("mounted"),
        Kind::Overlay
    );
    let changed = fs::read_to_string(rootfs.join("etc/passwd")).expect("read");
    assert_eq!(changed, "changed");
    let [bottom, ..] = layers.paths();
    let below = fs::read_to_string(bottom.join("etc/passwd")).expect("read");
    assert_eq!(below, "bottom");

    unmount(task.path()).expect("unmounted");
    assert_eq!(fs::read_dir(task.path()).expect("read").count(), 0);
    unmount(task.path()).expect("nothing is success");
    unmount(&task.path().join("never")).expect("nothing is success");
}

#[test]
fn where_overlay_is_refused_layers_are_copied() {
    let layers = Layers::new();
    // An overlay takes no folder of another overlay to write to.
    let outer = tempfile::tempdir().expect("dir");
    mount(&layers.paths(), outer.path()).expect("mounted");
    let task = outer.path().join("rootfs/task");
    fs::create_dir(&task).expect("made");
    assert_eq!(driver(&task), Driver::Copy);
    assert_eq!(driver(outer.path()), Driver::Overlay);
    assert_eq!(
        fs::read_dir(&task).expect("read").count(),
        0,
        "no trial stays"
    );

    assert_eq!(mount(&layers.paths(), &task).expect("copied"), Kind::Copied);
    assert_shown(&task.join("rootfs"));
    fs::write(task.join("rootfs/etc/passwd"), "changed").expect("written");
    assert_eq!(mount(&layers.paths(), &task).expect("there"), Kind::Copied);
    let changed = fs::read_to_string(task.join("rootfs/etc/passwd")).expect("read");
    assert_eq!(changed, "changed");
    unmount(&task).expect("removed");
    assert_eq!(fs::read_dir(&task).expect("read").count(), 0);
    unmount(outer.path()).expect("unmounted");
}

#[test]
fn nothing_is_removed_through_a_mount() {
    let layers = Layers::new();
    let task = tempfile::tempdir().expect("dir");
    mount(&layers.paths(), task.path()).expect("mounted");
    let host = tempfile::tempdir().expect("dir");
    fs::write(host.path().join("precious"), "").expect("written");
    let inside = task.path().join("rootfs/etc");
    rustix::mount::mount_bind(host.path(), &inside).expect("root may");
    unmount(task.path()).expect("unmounted");
    assert!(host.path().join("precious").exists());
}

#[test]
fn many_layers_are_mounted() {
    let dir = tempfile::tempdir().expect("dir");
    let layer = |at: usize| {
        let path = dir.path().join(format!("{at:0>100}"));
        fs::create_dir_all(path.join("layers")).expect("made");
        fs::write(path.join("layers").join(at.to_string()), "").expect("written");
        path
    };
    // Their names are longer than a page.
    let layers: Vec<PathBuf> = (0..100).map(layer).collect();
    let task = tempfile::tempdir().expect("dir");
    assert_eq!(mount(&layers, task.path()).expect("mounted"), Kind::Overlay);
    let seen = fs::read_dir(task.path().join("rootfs/layers"))
        .expect("read")
        .count();
    assert_eq!(seen, 100);
    unmount(task.path()).expect("unmounted");
    assert!(matches!(
        mount(&[], task.path()),
        Err(RootfsError::NoLayers)
    ));
}
