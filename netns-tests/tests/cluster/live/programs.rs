//! `weft exec`: who it is, what it has, how it ends, and who may ask for it.

use weft_netns_tests::Cluster;

use super::{MANAGERS, NOT_A_MANAGER, WORKER, becomes, create, remove};

pub(super) fn run_in_the_walls_of_a_task(cluster: &Cluster) {
    let flags = ["--constraint", "node.hostname==node3", "-u", "nobody"];
    let flags = [&flags[..], &["-e", "COLOUR=blue"]].concat();
    create(cluster, "box", &flags, &["sleep", "1000"]);
    becomes(cluster, "box", "Running");
    for manager in MANAGERS {
        let script = "echo out; echo err >&2; exit 3";
        let said = cluster.weft(manager, &["exec", "box.1", "sh", "-c", script]);
        assert_eq!(said.code, 3, "{said:?}");
        assert_eq!([&*said.out, &*said.err], ["out\n", "err\n"], "{said:?}");
    }
    let words = ["exec", "-i", "box.1", "cat"];
    let said = cluster.weft_reading("node2", &words, "a\nb\n").ok();
    assert_eq!(said, "a\nb\n");
    // Without -i it has no input, whatever there is.
    let said = cluster.weft_reading("node2", &["exec", "box.1", "cat"], "a\n");
    assert_eq!(said.ok(), "");

    let mine =
        "id -u; echo $COLOUR $WEFT_TASK_SLOT; tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1";
    let said = cluster.weft("node1", &["exec", "box.1", "sh", "-c", mine]);
    assert_eq!(said.ok(), "65534\nblue 1\nweft-shim\n");
    let other = [
        "exec",
        "-u",
        "12345:54321",
        "-w",
        "/tmp",
        "-e",
        "SIZE=large",
    ];
    let script = "id -u; id -g; pwd; echo $COLOUR $SIZE";
    let words = [&other[..], &["box.1", "sh", "-c", script]].concat();
    let said = cluster.weft("node1", &words).ok();
    assert_eq!(said, "12345\n54321\n/tmp\nblue large\n");

    // A terminal as wide as the one before it, with lines that end as terminals want it.
    let script = "test -t 0 && test -t 1 && stty size && echo two";
    let words = ["exec", "-t", "box.1", "sh", "-c", script];
    let lines = cluster.typed_on("node2", &words, (100, 30));
    assert_eq!(lines, ["30 100", "two"]);
    cluster
        .weft_reading("node2", &["exec", "-it", "box.1", "sh"], "exit\n")
        .refused(&["the input device is not a TTY"]);

    let said = cluster.weft("node1", &["exec", "box.1", "no-such-program"]);
    assert_eq!(said.code, 127, "{said:?}");
    assert!(said.err.contains("no-such-program"), "{said:?}");
    let said = cluster.weft("node1", &["exec", "box.2", "true"]);
    assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
    cluster
        .weft(WORKER, &["exec", "box.1", "true"])
        .refused(&[NOT_A_MANAGER]);
    remove(cluster, "box");
}
