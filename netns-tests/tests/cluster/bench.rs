//! `weft bench overlay`, `containers` and `stacks`, shortly: every kind of test runs and reports what it should.

use std::process::{Command, Output};

use serde_json::Value;
use weft_netns_tests::beside_others;

use crate::PROGRAM;

/// A figure that was measured is above zero.
fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|figure| figure > 0.0)
}

fn bench(words: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(["bench", "overlay"])
        .args(words)
        .output()
        .expect("weft can be run")
}

#[test]
#[ignore = "second tier: it measures for most of a minute"]
fn a_short_bench_reports_every_run_and_draws_a_picture() {
    let _turn = beside_others();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let picture = dir.path().join("bench.svg");
    let only = "tcp8,half,udp,rr,rr64,tcp-rr,tasks,local,vip,published";
    let output = bench(&[
        "--name",
        &format!("benchtest{}", std::process::id()),
        "--only",
        only,
        "--pairs",
        "1",
        "--seconds",
        "1",
        "--cc",
        "cubic",
        "--format",
        "json",
        "--svg",
        &picture.display().to_string(),
    ]);
    let mut tests = tests_of(&output);
    // Every machine has nftables; these two are compared with where they are there.
    tests.retain(|row| row["Against"] != "IPVS" && row["Against"] != "haproxy");
    let names: Vec<&str> = tests
        .iter()
        .filter_map(|row| row["Test"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "TCP, 8 streams, cubic",
            "TCP at half load, cubic",
            "UDP 64 B, delivered",
            "UDP 512 B, delivered",
            "UDP 1400 B, delivered",
            "UDP 64 B there and back",
            "UDP 64 B there and back, 64 at once",
            "TCP 64 B there and back",
            "TCP, tasks of 1 ms",
            "TCP on one node, cubic",
            "TCP through a VIP, one stream, cubic",
            "TCP through a VIP, 8 streams, cubic",
            "TCP through a VIP, cubic",
            "TCP through a published port, one stream, cubic",
            "TCP through a published port, 8 streams, cubic",
        ]
    );
    let services = tests.iter().skip(10).map(|row| &row["Against"]);
    let expected = ["nftables", "nftables", "direct", "nftables", "nftables"];
    assert_eq!(services.collect::<Vec<_>>(), expected);
    for row in &tests {
        let (weft, other) = (&row["Runs"]["Weft"][0], &row["Runs"]["Other"][0]);
        assert!(positive(&weft["Rate"]) && positive(&other["Rate"]), "{row}");
        assert!(positive(&weft["MachineCPUSeconds"]), "{row}");
        assert!(positive(&weft["AgentContextSwitches"]), "{row}");
        assert!(positive(&weft["AgentResidentBytes"]), "{row}");
        let direct = row["Against"] == "direct";
        assert_eq!(positive(&other["AgentResidentBytes"]), direct, "{row}");
        assert_eq!(row["Bed"], "veth", "{row}");
    }
    // No task answers sooner than after its millisecond.
    let tasks = &tests[8]["Runs"]["Weft"][0]["Latency"];
    assert!(tasks["P50"].as_f64().is_some_and(|time| time > 1000.0));
    let svg = std::fs::read_to_string(&picture).expect("the picture was drawn");
    assert!(svg.contains("TCP, 8 streams, cubic"), "{svg}");
    assert!(svg.contains("<polyline"), "{svg}");
    assert!(
        svg.contains("medians of 1 alternating pairs of 1 s"),
        "{svg}"
    );
}

/// Rows of JSON that have runs, out of a bench that went well.
fn tests_of(output: &Output) -> Vec<Value> {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    let out = String::from_utf8_lossy(&output.stdout);
    let rows = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("each row is JSON"));
    rows.filter(|row| row.get("Runs").is_some()).collect()
}

/// The shortest bench there is, so that it runs with every change: labs find out themselves whether
/// their cables are what the bed says.
#[test]
fn both_sides_are_measured_on_links_like_those_of_clouds_beside_busy_loops() {
    let _turn = beside_others();
    let output = bench(&[
        "--name",
        &format!("benchnic{}", std::process::id()),
        "--only",
        "half,tcp-rr",
        "--bed",
        "nic",
        "--beside",
        "1",
        "--pairs",
        "1",
        "--seconds",
        "1",
        "--congestion",
        "cubic",
        "--format",
        "json",
    ]);
    let tests = tests_of(&output);
    let names: Vec<&str> = tests
        .iter()
        .filter_map(|row| row["Test"].as_str())
        .collect();
    assert_eq!(
        names,
        ["TCP at half load, cubic", "TCP 64 B there and back"]
    );
    for row in &tests {
        assert_eq!(row["Bed"], "nic", "{row}");
        assert_eq!(row["FastPath"], "off", "{row}");
        assert_eq!(row["BusyLoops"], 1, "{row}");
        for side in ["Weft", "Other"] {
            let run = &row["Runs"][side][0];
            assert!(positive(&run["Rate"]), "{row}");
            assert!(positive(&run["Latency"]["P50"]), "{row}");
            assert!(positive(&run["Latency"]["P99"]), "{row}");
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let conditions = "Bed nic; congestion control cubic; beside 1 busy loop; fast path off";
    assert!(said.contains(conditions), "{said}");
}

#[test]
fn what_the_kernel_cannot_do_is_refused_before_anything_is_made() {
    let output = bench(&["--cc", "nosuch"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("no congestion control \"nosuch\""), "{said}");
    assert!(output.stdout.is_empty());
}

/// Whether a debug build is quick enough is another question.
#[test]
#[ignore = "second tier: it makes four labs"]
fn a_short_bench_of_containers_reports_what_was_required() {
    let _turn = beside_others();
    let name = format!("benchbox{}", std::process::id());
    let output = Command::new(PROGRAM)
        .args(["bench", "containers", "--name", &name, "--created", "2"])
        .args(["--runs", "1", "--containers", "3", "--format", "json"])
        .output()
        .expect("weft can be run");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("each row is JSON"))
        .collect();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(rows.len(), 5, "{out}{err}");
    for row in &rows {
        let runs = row["Runs"].as_array().expect("a list");
        assert!(!runs.is_empty() && runs.iter().all(positive), "{row}");
    }
    let asked = &rows[4]["Runs"][0];
    let asked = asked.as_f64().expect("a number");
    assert!((0.9..=1.05).contains(&asked), "{}", rows[4]);
}

/// The same: figures, and not whether they are good ones.
#[test]
#[ignore = "second tier: it makes two labs"]
fn a_short_bench_of_stacks_reports_what_was_required() {
    let _turn = beside_others();
    let name = format!("benchstack{}", std::process::id());
    let output = Command::new(PROGRAM)
        .args(["bench", "stacks", "--name", &name, "--rounds", "2"])
        .args(["--services", "20", "--format", "json"])
        .output()
        .expect("weft can be run");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("each row is JSON"))
        .collect();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(rows.len(), 3, "{out}{err}");
    for row in &rows {
        let runs = row["Runs"].as_array().expect("a list");
        assert!(runs.len() == 2 && runs.iter().all(positive), "{row}");
    }
}
