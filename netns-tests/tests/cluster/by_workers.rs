//! The whole suite once more, with every packet carried by the workers: it is what nodes without the
//! fast path have, and what the fast path must not differ from.

use std::process::Command;

use weft_netns_tests::{FAST_PATH, machine_alone};

#[test]
#[ignore = "second tier: the whole suite once more takes nine minutes"]
fn the_suite_passes_with_every_packet_carried_by_workers() {
    let program = std::env::current_exe().expect("the path of this program");
    // Nothing of this run at the same time: some tests of both measure times.
    let _alone = machine_alone();
    let suite = Command::new(program)
        .args(["--skip", "fast_path::"])
        .env(FAST_PATH, "off")
        .status();
    let status = suite.expect("the program runs");
    assert!(status.success(), "see above: {status}");
}
