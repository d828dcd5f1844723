//! The demo of stacks in one walk, as people run it.

use std::process::Command;

use weft_netns_tests::beside_others;

use super::super::needs_runtime;
use crate::PROGRAM;

#[test]
#[ignore = "second tier: it takes half a minute, and the tests beside it check the same"]
fn every_claim_about_stacks_holds() {
    needs_runtime();
    let _turn = beside_others();
    let name = format!("stacktest{}", std::process::id());
    let output = Command::new(PROGRAM)
        .args(["demo", "--stack", "--name", &name])
        .output()
        .expect("weft can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\u{2717}'), "{text}");
    assert!(text.contains(" checks held, in "), "{text}");
}
