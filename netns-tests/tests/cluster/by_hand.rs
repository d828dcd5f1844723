//! The commands of docs/by-hand.md, run as they stand there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use weft_netns_tests::beside_others;

use crate::PROGRAM;

/// What is marked as a shell's, from the first line to the last.
fn blocks(page: &str) -> String {
    let blocks = page.split("\n```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n```").next().unwrap_or_default());
    blocks.collect::<Vec<_>>().join("\n")
}

/// A user follows the page in a shell of his own; the first command that fails ends the test. What
/// differs: the lab has a name of its own, and the program is the one under test.
#[test]
fn by_hand_runs_as_it_stands_in_the_docs() {
    let _share = beside_others();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/by-hand.md")).expect("docs/by-hand.md");
    let script = blocks(&page);
    assert!(
        script.lines().count() > 30,
        "the page's commands are not found: {script}"
    );
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["weft", "weftd"] {
        symlink(PROGRAM, dir.path().join(name)).expect("a link");
    }
    let lab = format!("by-hand-{}", std::process::id());
    let mut whole = "trap 'code=$?; weft lab down >/dev/null 2>&1 || true; exit $code' EXIT\nset -ex -o pipefail\n".to_owned();
    for line in script
        .lines()
        .filter(|line| !line.starts_with("cargo ") && !line.contains("export PATH"))
    {
        whole += line;
        whole.push('\n');
    }
    for verb in ["up", "exec", "status", "down", "stop", "start"] {
        whole = whole.replace(
            &format!("weft lab {verb}"),
            &format!("weft lab {verb} --name {lab}"),
        );
    }
    let whole = whole.replace("/run/weft-lab/lab/", &format!("/run/weft-lab/{lab}/"));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-c", &whole])
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env_remove("WEFT_HOST")
        .output()
        .expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "a command of docs/by-hand.md fails, the last one below:\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let still_there = Path::new("/run/weft-lab").join(&lab);
    assert!(!still_there.exists(), "the lab is still there");
}
