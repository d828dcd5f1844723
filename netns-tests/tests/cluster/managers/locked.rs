//! A swarm whose managers wait for a key after a restart, and whose log is unreadable without it.

use std::path::Path;

use weft_netns_tests::{eventually, get};

use super::{comes_to_do, comes_to_refuse};
use crate::swarm;

const LEAVES_LOCKED: &str = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";

const LOCKED: &str = "needs to be unlocked before it can be used";

/// What a secret holds: in the state of the swarm, and in nothing that a node keeps for itself.
const SECRET: &str = "hunter2-of-the-lock";

#[test]
fn a_locked_manager_waits_for_its_key_and_traffic_goes_on() {
    let cluster = swarm(2);
    let tasks = cluster.web(2);
    let weft = |words: &[&str]| cluster.weft("node1", words);
    let client = cluster.outside();
    let data = cluster.lab().dir().join("node1/data");

    let said = weft(&["swarm", "update", "--autolock=true"]).ok();
    assert!(said.starts_with("Swarm updated.\n"), "{said}");
    let key = key_in(&said);
    assert_eq!(weft(&["swarm", "unlock-key", "-q"]).ok().trim(), key);
    weft(&["network", "create", "back"]).done();
    let words = ["secret", "create", "kept", "-"];
    cluster.weft_reading("node1", &words, SECRET).done();
    assert!(!holds(&data, SECRET), "the log can be read without the key");

    cluster.restart_agent("node1");
    comes_to_refuse(&cluster, "node1", &["node", "ls"], LOCKED);
    weft(&["network", "create", "late"]).refused(&[LOCKED]);
    weft(&["swarm", "leave"]).refused(&[LEAVES_LOCKED]);
    for node in ["node1", "node2"] {
        eventually("the port answers", || get(&client, cluster.at(node, 8000)));
    }
    let unlock =
        |key: &str| cluster.weft_reading("node1", &["swarm", "unlock"], &format!("{key}\n"));
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    for wrong in ["nonsense", wrong.as_str()] {
        let said = unlock(wrong);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("key"), "{said:?}");
    }
    unlock(&key).done();
    comes_to_do(&cluster, "node1", &["network", "inspect", "back"]);
    cluster.wait_ready(2);
    assert_eq!(cluster.tasks("web"), tasks);

    let said = weft(&["swarm", "unlock-key", "--rotate"]).ok();
    let next = key_in(&said);
    assert_ne!(next, key);
    cluster.restart_agent("node1");
    comes_to_refuse(&cluster, "node1", &["node", "ls"], LOCKED);
    let said = unlock(&key);
    assert_eq!(said.code, 1, "the key before: {said:?}");
    unlock(&next).done();
    comes_to_do(&cluster, "node1", &["network", "create", "late"]);

    // Without the lock it needs no key any more.
    weft(&["swarm", "update", "--autolock=false"]).done();
    cluster.restart_agent("node1");
    comes_to_do(&cluster, "node1", &["network", "inspect", "late"]);
    cluster.wait_ready(2);
    assert_eq!(cluster.tasks("web"), tasks);

    // Who has lost the key is rid of it.
    weft(&["swarm", "update", "--autolock=true"]).done();
    cluster.restart_agent("node1");
    comes_to_refuse(&cluster, "node1", &["node", "ls"], LOCKED);
    weft(&["swarm", "leave"]).refused(&[LEAVES_LOCKED]);
    weft(&["swarm", "leave", "--force"]).done();
    weft(&["node", "ls"]).refused(&["\"weft swarm init\""]);
    for file in ["certs/data.key", "certs/node.pem", "raft.redb"] {
        assert!(!data.join(file).exists(), "{file} is left");
    }
}

/// The key that a command has printed on a line of its own.
#[track_caller]
fn key_in(text: &str) -> String {
    let mut lines = text.lines().map(str::trim);
    let key = lines.find(|line| line.starts_with("SWMKEY-1-"));
    key.expect("a key in what was printed").to_owned()
}

/// Whether a file below a folder holds these bytes.
fn holds(folder: &Path, word: &str) -> bool {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, word);
        }
        // One that has gone meanwhile holds nothing.
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(word.len()).any(|w| w == word.as_bytes())
    })
}
