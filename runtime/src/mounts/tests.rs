//! Order and options of mounts, as the runtime program gets them.

use super::*;
use crate::node::tests::node;

fn bind(source: &str, target: &str) -> TaskMount {
    TaskMount::Bind {
        source: source.into(),
        target: target.into(),
        read_only: false,
        recursive_read_only: false,
        recursive: true,
        propagation: Propagation::Rprivate,
    }
}

fn places(mounts: &Mounts) -> Vec<String> {
    let places = mounts.mounts.iter().map(Mount::destination);
    places.map(|place| place.display().to_string()).collect()
}

fn options<'a>(mounts: &'a Mounts, place: &str) -> &'a [String] {
    let mut mounts = mounts.mounts.iter();
    let mount = mounts.find(|mount| mount.destination() == Path::new(place));
    mount.expect(place).options().as_deref().expect("options")
}

#[test]
fn dockers_mounts_come_first_and_the_tasks_by_depth() {
    let of_task = [
        bind("/srv/deep", "/data/a/b/"),
        TaskMount::Tmpfs {
            target: "/tmp".into(),
            size_bytes: 10 << 20,
            mode: 0o1770,
        },
        bind("/srv/data", "/data"),
    ];
    let files = [File {
        source: Path::new("/tasks/t/hosts"),
        target: "/etc/hosts",
        read_only: false,
    }];
    let mounts = all(&node(), &of_task, &files).expect("mounts");
    let expected = "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm \
        /tmp /data /etc/hosts /data/a/b";
    assert_eq!(places(&mounts), words(expected));
    assert_eq!(mounts.propagation, None);
    assert_eq!(options(&mounts, "/data"), ["rbind", "rw", "rprivate"]);
    assert_eq!(options(&mounts, "/etc/hosts"), ["bind", "rw", "rprivate"]);
    let tmpfs = "noexec nosuid nodev rprivate size=10485760 mode=1770";
    assert_eq!(options(&mounts, "/tmp"), words(tmpfs));
    assert!(options(&mounts, "/dev/pts").contains(&"gid=5".to_owned()));
    assert!(options(&mounts, "/sys").contains(&"ro".to_owned()));
}

#[test]
fn what_the_task_mounts_stands_in_for_what_is_there() {
    let files = [File {
        source: Path::new("/tasks/t/hosts"),
        target: "/etc/hosts",
        read_only: false,
    }];
    let of_task = [bind("/mine", "/etc/hosts"), bind("/dev", "/dev")];
    let mounts = all(&node(), &of_task, &files).expect("mounts");
    let expected = words("/proc /sys /sys/fs/cgroup /dev /etc/hosts");
    assert_eq!(places(&mounts), expected);
    let shm = [bind("/big", "/dev/shm")];
    let mounts = all(&node(), &shm, &[]).expect("mounts");
    let of_shm = places(&mounts).iter().filter(|p| *p == "/dev/shm").count();
    assert_eq!(of_shm, 1);
}

#[test]
fn read_only_is_said_as_it_is_meant() {
    for (read_only, recursive_read_only, recursive, says) in [
        (true, true, true, "rbind ro rro rprivate"),
        (true, false, true, "rbind ro rprivate"),
        (true, false, false, "bind ro rprivate"),
        (false, true, true, "rbind rw rprivate"),
    ] {
        let of_task = [TaskMount::Bind {
            source: "/srv".into(),
            target: "/x".into(),
            read_only,
            recursive_read_only,
            recursive,
            propagation: Propagation::Rprivate,
        }];
        let mounts = all(&node(), &of_task, &[]).expect("mounts");
        assert_eq!(options(&mounts, "/x"), words(says));
    }
}

/// As Docker mounts secrets: each for itself, over what is mounted above it.
#[test]
fn files_of_memory_are_read_only_and_come_after_what_is_above_them() {
    let file = |target: &str| TaskMount::File {
        source: "/run/weft/tasks/t/0".into(),
        target: target.into(),
    };
    let of_task = [
        file("/run/secrets/key"),
        file("/etc/hosts"),
        TaskMount::Tmpfs {
            target: "/run".into(),
            size_bytes: 0,
            mode: 0,
        },
    ];
    let hosts = [File {
        source: Path::new("/tasks/t/hosts"),
        target: "/etc/hosts",
        read_only: false,
    }];
    let mounts = all(&node(), &of_task, &hosts).expect("mounts");
    let places = places(&mounts);
    let own = &places[places.len() - 3..];
    assert_eq!(own, ["/run", "/etc/hosts", "/run/secrets/key"]);
    let says = words("bind ro nosuid nodev noexec rprivate");
    assert_eq!(options(&mounts, "/run/secrets/key"), says);
    assert_eq!(options(&mounts, "/etc/hosts"), says);
    let twice = [file("/run/secrets/key"), bind("/a", "/run/secrets//key")];
    let error = all(&node(), &twice, &[]).expect_err("twice").to_string();
    assert_eq!(error, "duplicate mount point: /run/secrets/key");
}

#[test]
fn no_mount_hides_the_root_or_another_one() {
    for odd in ["x", "", "/", "/a/..", "./x"] {
        let error = all(&node(), &[bind("/srv", odd)], &[]).expect_err(odd);
        assert!(
            error.to_string().starts_with("invalid mount target"),
            "{error}"
        );
    }
    let twice = [bind("/a", "/x/./y"), bind("/b", "/x/y/")];
    let error = all(&node(), &twice, &[]).expect_err("twice").to_string();
    assert_eq!(error, "duplicate mount point: /x/y");
}

#[test]
fn mounts_travel_only_from_where_they_may() {
    let dir = tempfile::tempdir().expect("dir");
    let real = dir.path().canonicalize().expect("there");
    let with = |how: &str| {
        let line = format!("30 22 0:26 / {} rw{how} - tmpfs tmpfs rw\n", real.display());
        let mut node = node();
        node.mounts = mountinfo::parse(line.as_bytes());
        node
    };
    let asked = |propagation| {
        [TaskMount::Bind {
            source: dir.path().to_owned(),
            target: "/x".into(),
            read_only: false,
            recursive_read_only: false,
            recursive: true,
            propagation,
        }]
    };
    let of = |how, propagation| all(&with(how), &asked(propagation), &[]);
    let mounts = of(" shared:1", Propagation::Rshared).expect("shared");
    assert_eq!(mounts.propagation, Some("shared"));
    assert_eq!(options(&mounts, "/x")[2], "rshared");
    let mounts = of(" master:1", Propagation::Slave).expect("slave");
    assert_eq!(mounts.propagation, Some("rslave"));
    for (how, propagation) in [
        ("", Propagation::Shared),
        (" master:1", Propagation::Rshared),
        ("", Propagation::Rslave),
    ] {
        let error = of(how, propagation).expect_err("private").to_string();
        assert!(error.contains("is not a shared mount"), "{error}");
    }
}

#[test]
fn who_is_not_root_of_the_machine_gets_no_groups() {
    let mut node = node();
    (node.uids, node.gids) = (crate::node::tests::one(), crate::node::tests::one());
    let mounts = all(&node, &[], &[]).expect("mounts");
    assert!(!places(&mounts).contains(&"/sys/fs/cgroup".to_owned()));
    assert!(!options(&mounts, "/dev/pts").contains(&"gid=5".to_owned()));
}
