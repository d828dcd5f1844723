use super::*;

#[test]
fn trees_are_found_among_other_mounts() {
    let mounts = "\
        22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        30 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
        34 30 0:30 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n\
        nonsense\n";
    let found: Vec<(String, bool, Vec<String>)> = used(trees_in(mounts))
        .into_iter()
        .map(|tree| {
            let path = tree.path.display().to_string();
            (path, tree.unified, tree.controllers)
        })
        .collect();
    let tree = |name: &str, unified: bool, controllers: &[&str]| {
        let controllers = controllers.iter().map(|c| (*c).to_owned());
        let path = format!("/sys/fs/cgroup/{name}");
        (path, unified, controllers.collect::<Vec<String>>())
    };
    assert_eq!(
        found,
        [
            tree("cpu,cpuacct", false, &["cpu"]),
            tree("pids", false, &["pids"]),
            tree("unified", true, &[])
        ]
    );
}

#[test]
fn the_groups_of_another_process_are_found_in_every_tree() {
    let mounts = "\
        31 30 0:27 / /cg/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 /outer /cg/devices rw,relatime - cgroup cgroup rw,devices\n\
        33 30 0:29 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        34 30 0:30 / /cg/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
    let own = "4:cpu,cpuacct:/\n3:devices:/outer\n2:name=systemd:/same\n0::/\n";
    let theirs = "5:freezer:/weft/t\n4:cpu,cpuacct:/weft/t\n3:devices:/outer/weft/t\n\
        2:name=systemd:/same\n0::/weft/t/init.scope\n";
    let found = moves(&trees_in(mounts), own, theirs).expect("all of them");
    let expected = [
        "/cg/cpu,cpuacct/weft/t",
        "/cg/devices/weft/t",
        "/cg/unified/weft/t/init.scope",
    ];
    assert_eq!(found, expected.map(PathBuf::from));
    for outside in ["3:devices:/elsewhere", "0::/../../other", "nonsense"] {
        let error = moves(&trees_in(mounts), own, outside).expect_err("not held to it");
        assert!(error.to_string().contains("group"), "{error}");
    }
    assert!(
        moves(&trees_in(mounts), own, own)
            .expect("the same")
            .is_empty()
    );
}

#[test]
fn no_group_is_outside_of_the_trees_or_their_root() {
    assert_eq!(
        below_root(Path::new("/weft/n/t")),
        Some(Path::new("weft/n/t"))
    );
    assert_eq!(below_root(Path::new("weft/n")), Some(Path::new("weft/n")));
    for odd in ["", "/", "..", "/weft/../..", "weft/.."] {
        assert_eq!(below_root(Path::new(odd)), None, "{odd}");
        assert!(folders(Path::new(odd)).is_empty());
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    std::fs::write(dir.path().join("cgroup.procs"), "").unwrap();
    assert_eq!(
        below(dir.path()),
        [
            dir.path().to_owned(),
            dir.path().join("a"),
            dir.path().join("a/b")
        ]
    );
    remove_below(dir.path());
    assert!(!dir.path().join("a").exists());
}

#[test]
fn limits_are_written_in_both_versions() {
    let limits = |nano_cpus, memory_bytes, pids| Limits {
        nano_cpus,
        memory_bytes,
        pids,
    };
    assert_eq!(settings(&limits(0, 0, 0)), []);
    let all = settings(&limits(500_000_000, 64 << 20, 10));
    let v2: Vec<_> = all.iter().flat_map(|s| &s.v2).cloned().collect();
    let expected = [
        ("cpu.max", "50000 100000"),
        ("memory.max", "67108864"),
        ("pids.max", "12"),
    ];
    assert_eq!(v2, expected.map(|(name, text)| (name, text.to_owned())));
    assert_eq!(
        all[0].v1,
        [
            ("cpu.cfs_period_us", "100000".to_owned()),
            ("cpu.cfs_quota_us", "50000".to_owned())
        ]
    );
    let least = settings(&limits(1_000_000, 0, 0));
    assert_eq!(least[0].v2[0].1, "1000 1000000");
}

/// A tree of version 2 in a plain folder: each group above hands the controllers down.
#[test]
fn controllers_are_handed_down_to_the_group_of_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let group = Path::new("weft/n1/t1");
    std::fs::create_dir_all(dir.path().join(group)).unwrap();
    for part in ["", "weft", "weft/n1"] {
        let file = dir.path().join(part).join("cgroup.subtree_control");
        std::fs::write(file, "cpuset\n").unwrap();
    }
    let tree = Tree {
        path: dir.path().to_owned(),
        root: "/".into(),
        unified: true,
        controllers: Vec::new(),
    };
    let limits = Limits {
        memory_bytes: 8 << 20,
        ..Limits::default()
    };
    assert_eq!(tree.limit(group, &settings(&limits)), ["memory"]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("cgroup.subtree_control"), "+memory");
    assert_eq!(read("weft/n1/cgroup.subtree_control"), "+memory");
    assert_eq!(read("weft/n1/t1/memory.max"), "8388608");
    assert_eq!(read("weft/n1/t1/memory.swap.max"), "8388608");
    // One that hands nothing down limits nothing, and that is said.
    std::fs::remove_file(dir.path().join("weft/cgroup.subtree_control")).unwrap();
    assert_eq!(tree.limit(group, &settings(&limits)), [""; 0]);
    let lost = settings(&limits)[0].lost();
    assert!(lost.starts_with("--limit-memory does not hold"), "{lost}");
}
