//! How containers end, and what is left of them.

use weft_lab::image::base;
use weft_netns_tests::{Cluster, eventually};

use super::{becomes, create, load, made, named, remove, rows, text};

/// Of tasks whose end is looked at.
const ONCE: [&str; 2] = ["--restart-condition", "none"];

pub(super) fn exit_codes_and_output_are_kept(cluster: &Cluster) {
    let script = "echo one; echo oops >&2; exit 42";
    create(cluster, "ends", &ONCE, "box:1", &["sh", "-c", script]);
    let row = becomes(cluster, "ends", "Failed");
    assert!(
        text(&row, "Error").contains("task: non-zero exit (42)"),
        "{row}"
    );
    let task = cluster.inspect("task", text(&row, "ID"));
    assert_eq!(task["Status"]["ContainerStatus"]["ExitCode"], 42, "{task}");
    let said = cluster.weft("node1", &["service", "logs", "--raw", "ends"]);
    assert_eq!(
        (said.code, &*said.out, &*said.err),
        (0, "one\n", "oops\n"),
        "{said:?}"
    );
    let said = cluster.weft("node1", &["service", "logs", "ends"]).ok();
    let node = text(&row, "Node");
    let (head, line) = said.trim_end().split_once('|').expect("a prefix");
    assert!(
        head.starts_with("ends.1.") && head.trim_end().ends_with(&format!("@{node}")),
        "{said}"
    );
    assert_eq!(line, " one");
    remove(cluster, "ends");
}

pub(super) fn what_cannot_start_says_why(cluster: &Cluster) {
    create(cluster, "typo", &ONCE, "box:1", &["no-such-program"]);
    let row = eventually("it has not started", || {
        let rows = rows(cluster, "typo");
        let ended = |row: &&serde_json::Value| ["Rejected", "Failed"].contains(&text(row, "State"));
        rows.iter().find(ended).cloned().ok_or(rows.clone())
    });
    assert!(text(&row, "Error").contains("no-such-program"), "{row}");
    remove(cluster, "typo");

    // Nobody has it, and there is no registry: docker's warning, and a task that says what is missing.
    let mut words = vec!["service", "create", "-d", "--name", "nowhere"];
    let image = named("nosuch:1");
    words.extend(ONCE);
    words.push(&image);
    let said = cluster.weft("node1", &words);
    assert_eq!(said.code, 0, "{said:?}");
    let warning = format!("image {image} could not be accessed on a registry to record\n");
    assert!(said.err.contains(&warning), "{said:?}");
    let row = becomes(cluster, "nowhere", "Rejected");
    assert!(text(&row, "Error").contains("nosuch:1"), "{row}");
    remove(cluster, "nowhere");
}

pub(super) fn memory_has_an_end(cluster: &Cluster) {
    let flags = [&ONCE[..], &["--limit-memory", "32M"]].concat();
    let script = "BEGIN { x = \"x\"; while (1) x = x x }";
    create(cluster, "greedy", &flags, "box:1", &["awk", script]);
    let row = becomes(cluster, "greedy", "Failed");
    let error = text(&row, "Error");
    assert!(error.contains("OOM killed (limit 32MiB)"), "{row}");
    remove(cluster, "greedy");
}

pub(super) fn the_image_says_how_to_stop(cluster: &Cluster) {
    let image = made(base("stops:1").and_then(|image| {
        let mut layer = weft_lab::image::Layer::new();
        let (path, script) = super::SCRIPTS[2];
        layer.file(path, 0o755, script.as_bytes())?;
        image.with(layer)
    }));
    let image = image
        .set("StopSignal", serde_json::json!("SIGUSR1"))
        .runs(&["/bin/usr1"]);
    load(cluster, "node1", &image);
    create(cluster, "stops", &[], "stops:1", &[]);
    becomes(cluster, "stops", "Running");
    cluster
        .weft("node1", &["service", "scale", "-d", "stops=0"])
        .done();
    let said = eventually("it was asked by the image's signal", || {
        let said = cluster.weft("node1", &["service", "logs", "--raw", "stops"]);
        if said.out == "got USR1\n" {
            Ok(said)
        } else {
            Err(said)
        }
    });
    assert_eq!(said.code, 0);
    remove(cluster, "stops");
}

/// The check is the image's, its pace the service's.
pub(super) fn the_image_says_how_to_ask_for_health(cluster: &Cluster) {
    const SECOND: u64 = 1_000_000_000;
    let image = super::in_a_box().named("late:1").runs(&["/bin/late"]);
    let check = serde_json::json!({
        "Test": ["CMD-SHELL", "test -e /tmp/good || { echo not good; exit 1; }"],
        "Interval": 3600 * SECOND,
        "Timeout": 5 * SECOND,
        "Retries": 2,
    });
    load(cluster, "node1", &image.set("Healthcheck", check));
    let pace = ["--health-interval", "300ms", "--health-start-period", "1m"];
    let flags = [&pace[..], &["--health-start-interval", "200ms"]].concat();
    create(cluster, "late", &flags, "late:1", &[]);
    becomes(cluster, "late", "Starting");
    let first = becomes(cluster, "late", "Running");

    let words = ["exec", "late.1", "rm", "/tmp/good"];
    cluster.weft("node1", &words).done();
    let failed = eventually("it is replaced", || {
        let rows = rows(cluster, "late");
        let old = rows.iter().find(|row| row["ID"] == first["ID"]);
        let old = old.filter(|row| row["State"] == "Failed");
        old.cloned().ok_or(rows.clone())
    });
    let error = text(&failed, "Error");
    assert!(
        error.contains("dockerexec: unhealthy container"),
        "{failed}"
    );
    remove(cluster, "late");
}
