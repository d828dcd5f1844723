//! What people are shown of several managers, as they run it.

use std::process::{Command, Output};

use serde_json::Value;
use weft_netns_tests::beside_others;

use crate::PROGRAM;

fn weft(words: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(words)
        .output()
        .expect("weft can be run")
}

#[test]
#[ignore = "second tier: the tests beside it check the same"]
fn every_claim_of_the_demo_holds() {
    let _turn = beside_others();
    let name = format!("demotest{}", std::process::id());
    let output = weft(&["demo", "--managers", "--name", &name]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\u{2717}'), "{text}");
    assert!(text.contains(" checks held, in "), "{text}");
}

#[test]
#[ignore = "second tier: it measures for a minute"]
fn a_short_bench_of_managers_reports_every_run() {
    let _turn = beside_others();
    let name = format!("managerstest{}", std::process::id());
    let words = [
        "bench",
        "managers",
        "--runs",
        "2",
        "--seconds",
        "2",
        "--tasks",
        "500",
    ];
    let output = weft(&[&words[..], &["--format", "json", "--name", name.as_str()]].concat());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("each row is JSON"))
        .collect();
    assert_eq!(rows.len(), 4, "{text}{err}");
    for row in &rows {
        let runs = row["Runs"].as_array().expect("figures of runs");
        assert!(runs.len() >= 2, "{row}");
        assert!(runs.iter().all(|run| run.as_f64() > Some(0.0)), "{row}");
    }
}
