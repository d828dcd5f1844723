//! What programs in a container see, who they are, and how `weft exec` ends.

use weft_netns_tests::Cluster;

use super::{becomes, create, remove, text};

/// Output of a shell script in the task `inside.1`.
#[track_caller]
fn says(cluster: &Cluster, script: &str) -> String {
    let words = ["exec", "inside.1", "sh", "-c", script];
    cluster.weft("node1", &words).ok()
}

pub(super) fn programs_have_what_was_asked_for(cluster: &Cluster) {
    let mut flags = vec!["-u", "app", "--group", "extra", "-w", "/srv/made/here"];
    flags.extend(["--read-only", "-e", "COLOUR=blue", "--cap-drop", "NET_RAW"]);
    flags.extend(["-e", "WHERE={{.Node.Hostname}}", "--hostname", "inside"]);
    flags.extend([
        "--host",
        "elsewhere:192.0.2.7",
        "--ulimit",
        "nofile=100:200",
    ]);
    create(cluster, "inside", &flags, "box:1", &[]);
    let row = becomes(cluster, "inside", "Running");

    let said = says(cluster, "id -u; id -g; id -G; pwd; hostname");
    assert_eq!(said, "1000\n1000\n1000 2000\n/srv/made/here\ninside\n");
    let where_to = text(&row, "Node");
    let said = says(cluster, "echo $COLOUR $WHERE; echo $PATH");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(said, format!("blue {where_to}\n{path}\n"));
    // Not the node's: neither its processes nor its files.
    let program = cluster.program();
    let script = format!("tr '\\0' ' ' < /proc/1/cmdline; test -e {program} || echo no");
    assert_eq!(says(cluster, &script), "/bin/sh /bin/forever no\n");
    let said = says(cluster, "grep 192.0.2.7 /etc/hosts");
    assert!(said.contains("elsewhere"), "{said}");
    let said = says(cluster, "grep 'Max open files' /proc/1/limits");
    let limits: Vec<&str> = said.split_whitespace().skip(3).take(2).collect();
    assert_eq!(limits, ["100", "200"], "{said}");

    let words = ["exec", "-u", "root", "inside.1", "touch", "/new"];
    let said = cluster.weft("node1", &words);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("Read-only file system"), "{said:?}");
    // What runtimes hide from everybody.
    let words = ["exec", "-u", "root", "inside.1", "sh", "-c"];
    let script = "head -c 1 /proc/keys | wc -c; echo 1 > /proc/sys/vm/overcommit_memory";
    let said = cluster.weft("node1", &[&words[..], &[script]].concat());
    assert!(said.out.starts_with("0\n"), "{said:?}");
    assert!(said.err.contains("Read-only file system"), "{said:?}");
    // The bounding set: docker's without CAP_NET_RAW (bit 13), also of what enters.
    let script = "grep -h CapBnd /proc/1/status /proc/self/status";
    let bounds = "CapBnd:\t00000000a80405fb\n";
    assert_eq!(says(cluster, script), bounds.repeat(2));
}

pub(super) fn exec_ends_as_its_program_does(cluster: &Cluster) {
    let ends = |command: &[&str]| {
        let words = [&["exec", "inside.1"][..], command].concat();
        cluster.weft("node1", &words)
    };
    assert_eq!(ends(&["sh", "-c", "exit 3"]).code, 3);
    assert_eq!(ends(&["sh", "-c", "kill -KILL $$"]).code, 137);
    let said = ends(&["/etc/passwd"]);
    assert_eq!(said.code, 126, "{said:?}");
    let said = ends(&["no-such-program"]);
    assert_eq!(said.code, 127, "{said:?}");
    assert!(said.err.contains("no-such-program"), "{said:?}");

    let words = ["exec", "-i", "inside.1", "cat"];
    let said = cluster.weft_reading("node1", &words, "a\nb\n").ok();
    assert_eq!(said, "a\nb\n");
    let mut words = vec!["exec", "-u", "0:2000", "-w", "/tmp", "-e", "SIZE=large"];
    words.extend([
        "inside.1",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $COLOUR $SIZE",
    ]);
    let said = cluster.weft("node1", &words).ok();
    assert_eq!(said, "0\n2000\n/tmp\nblue large\n");
    let script = "test -t 0 && test -t 1 && echo a terminal";
    let words = ["exec", "-t", "inside.1", "sh", "-c", script];
    assert_eq!(cluster.typed("node1", &words), ["a terminal"]);
    remove(cluster, "inside");
}
