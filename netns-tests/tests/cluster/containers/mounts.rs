//! Memory, folders of the node, and volumes.

use weft_netns_tests::{Cluster, eventually};

use super::{becomes, create, remove, rows, text};

/// Names of volumes that a node has.
fn volumes(cluster: &Cluster, node: &str) -> Vec<String> {
    let said = cluster.weft(node, &["volume", "ls", "-q"]).ok();
    said.lines().map(str::to_owned).collect()
}

pub(super) fn are_seen_inside(cluster: &Cluster) {
    let dir = cluster.dir().join("shared");
    std::fs::create_dir(&dir).expect("a folder");
    std::fs::write(dir.join("from"), "the node\n").expect("write");
    let bind = format!("type=bind,source={},target=/shared", dir.display());
    let fixed = format!("type=bind,src={},dst=/fixed,readonly", dir.display());
    let mut flags = vec!["--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m"];
    flags.extend(["--mount", &bind, "--mount", &fixed]);
    create(cluster, "mounts", &flags, "box:1", &[]);
    becomes(cluster, "mounts", "Running");
    let run = |script: &str| {
        let words = ["exec", "mounts.1", "sh", "-c", script];
        cluster.weft("node1", &words)
    };
    assert_eq!(
        run("cat /shared/from /fixed/from").ok(),
        "the node\nthe node\n"
    );
    run("echo back > /shared/back").done();
    let back = std::fs::read_to_string(dir.join("back")).expect("written");
    assert_eq!(back, "back\n");
    let said = run("echo x > /fixed/x");
    assert!(said.err.contains("Read-only file system"), "{said:?}");
    let said = run("head -c 500000 /dev/zero > /scratch/half && echo fits");
    assert_eq!(said.ok(), "fits\n");
    let said = run("dd if=/dev/zero of=/scratch/more bs=64k count=32");
    assert!(said.err.contains("No space left on device"), "{said:?}");
    // The image's own, which nobody named, is empty and can be written to.
    run("ls -A /srv/anonymous; echo x > /srv/anonymous/x").done();
    remove(cluster, "mounts");
}

pub(super) fn that_miss_their_source_are_told(cluster: &Cluster) {
    let missing = cluster.dir().join("missing");
    let bind = format!("type=bind,source={},target=/x", missing.display());
    let flags = ["--mount", &bind, "--restart-condition", "none"];
    create(cluster, "misses", &flags, "box:1", &[]);
    let row = becomes(cluster, "misses", "Rejected");
    let why = format!(
        "invalid bind mount source, source path not found: {}",
        missing.display()
    );
    assert!(text(&row, "Error").contains(&why), "{row}");
    assert!(!missing.exists());
    remove(cluster, "misses");
}

pub(super) fn are_all_that_can_be_written_to_where_the_root_is_read_only(cluster: &Cluster) {
    let mut flags = vec!["--read-only", "-u", "app"];
    flags.extend(["--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m"]);
    flags.extend(["--mount", "type=volume,target=/state,volume-nocopy=true"]);
    create(cluster, "fixed-root", &flags, "box:1", &[]);
    becomes(cluster, "fixed-root", "Running");
    let run = |user: &str, script: &str| {
        let words = ["exec", "-u", user, "fixed-root.1", "sh", "-c", script];
        cluster.weft("node1", &words)
    };
    // The image has no such folders: they are made all the same.
    let said = run("app", "echo x > /scratch/x && cat /scratch/x");
    assert_eq!(said.ok(), "x\n");
    let said = run("root", "echo y > /state/y && cat /state/y");
    assert_eq!(said.ok(), "y\n");
    for path in ["/new", "/tmp/new", "/etc/passwd"] {
        let said = run("root", &format!("echo z >> {path}"));
        assert_ne!(said.code, 0, "{path}: {said:?}");
        assert!(said.err.contains("Read-only file system"), "{said:?}");
    }
    remove(cluster, "fixed-root");
}

/// What is mounted later on the node is seen inside where that was asked for, and nowhere else.
pub(super) fn travel_where_they_are_asked_to(cluster: &Cluster) {
    let dir = cluster.dir().join("travels");
    std::fs::create_dir(&dir).expect("a folder");
    let place = dir.display().to_string();
    let late = format!("{place}/late");
    let run = |words: &[&str]| cluster.run("node2", None, words).done();
    run(&["mount", "-t", "tmpfs", "none", &place]);
    run(&["mount", "--make-shared", &place]);
    run(&["mkdir", &late]);
    let of = [("follows", "rslave"), ("stays-behind", "rprivate")];
    for (name, how) in of {
        let bind = format!("type=bind,source={place},target=/x,bind-propagation={how}");
        let flags = ["--mount", &bind, "--constraint", "node.hostname==node2"];
        create(cluster, name, &flags, "box:1", &[]);
        becomes(cluster, name, "Running");
    }
    run(&["mount", "-t", "tmpfs", "none", &late]);
    run(&["touch", &format!("{late}/there")]);
    let seen = of.map(|(name, _)| {
        let task = format!("{name}.1");
        let words = ["exec", task.as_str(), "ls", "/x/late"];
        cluster.weft("node1", &words).ok()
    });
    assert_eq!(seen, ["there\n", ""]);
    for (name, _) in of {
        remove(cluster, name);
    }
    run(&["umount", "--lazy", &late]);
    run(&["umount", "--lazy", &place]);
}

pub(super) fn volumes_outlive_their_tasks(cluster: &Cluster) {
    let there = ["--constraint", "node.hostname==node2"];
    let mount = ["--mount", "type=volume,source=kept,target=/srv/filled"];
    let flags = [&there[..], &mount].concat();
    create(cluster, "keeps", &flags, "box:1", &[]);
    let first = becomes(cluster, "keeps", "Running");
    let run = |script: &str| {
        let words = ["exec", "keeps.1", "sh", "-c", script];
        cluster.weft("node1", &words)
    };
    // It was filled with what the image has at its place.
    let said = run("cat /srv/filled/greeting").ok();
    assert_eq!(said, "from the image\n");
    run("echo changed > /srv/filled/greeting").done();
    // Those of tasks that end there go with them.
    eventually("it is there, and the image's own", || {
        let found = volumes(cluster, "node2");
        if found.len() == 2 && found.iter().any(|name| name == "kept") {
            Ok(())
        } else {
            Err(found)
        }
    });

    let again = ["service", "update", "-d", "--force", "keeps"];
    cluster.weft("node1", &again).done();
    eventually("another task runs", || {
        let rows = rows(cluster, "keeps");
        let runs = rows
            .first()
            .is_some_and(|row| row["State"] == "Running" && row["ID"] != first["ID"]);
        if runs { Ok(()) } else { Err(rows) }
    });
    // It is not filled again.
    assert_eq!(run("cat /srv/filled/greeting").ok(), "changed\n");

    let said = cluster.weft("node2", &["volume", "rm", "kept"]);
    said.refused(&["kept", "in use"]);
    remove(cluster, "keeps");
    eventually("what had no name is gone", || {
        match volumes(cluster, "node2") {
            left if left == ["kept"] => Ok(()),
            other => Err(other),
        }
    });
    cluster.weft("node2", &["volume", "rm", "kept"]).done();
    assert_eq!(volumes(cluster, "node2"), [""; 0]);
}
