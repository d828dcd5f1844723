//! The whole day in one walk, as people run it.

use std::process::Command;

use weft_netns_tests::beside_others;

use crate::PROGRAM;

#[test]
#[ignore = "second tier: it takes minutes, and the tests beside it check the same"]
fn every_claim_of_the_day_holds() {
    let _turn = beside_others();
    let name = format!("daytest{}", std::process::id());
    let output = Command::new(PROGRAM)
        .args(["demo", "--day", "--name", &name])
        .output()
        .expect("weft can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\u{2717}'), "{text}");
    assert!(text.contains(" checks held, in "), "{text}");
}
