//! Autolock: docker's texts.

use super::*;

const KEY: &str = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const FRAME: &str = "To unlock a swarm manager after it restarts, run the `weft swarm unlock`\n\
                     command and provide the following key:\n\n    \
                     SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\n\
                     Remember to store this key in a password manager, since without it you\n\
                     will not be able to restart the manager.\n";

fn key(text: &str) -> Value {
    json!({ "UnlockKey": text })
}

#[test]
fn turning_autolock_on_prints_the_key_once() {
    let on = json!({ "AutoLockManagers": true });
    let off = json!({ "AutoLockManagers": false });
    let node = FakeNode::start(vec![
        get("GET /v1/swarm/unlock-key", key("")),
        exchange("POST /v1/swarm/update", on.clone(), 200, json!({})),
        get("GET /v1/swarm/unlock-key", key(KEY)),
        get("GET /v1/swarm/unlock-key", key(KEY)),
        exchange("POST /v1/swarm/update", on, 200, json!({})),
        exchange("POST /v1/swarm/update", off, 200, json!({})),
    ]);
    let (result, text) = node.run("swarm update --autolock");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, format!("Swarm updated.\n{FRAME}"));
    assert_eq!(
        node.run("swarm update --autolock=true").1,
        "Swarm updated.\n"
    );
    assert_eq!(
        node.run("swarm update --autolock=false").1,
        "Swarm updated.\n"
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn the_unlock_key_is_shown_and_rotated() {
    let node = FakeNode::start(vec![
        get("GET /v1/swarm/unlock-key", key(KEY)),
        get("GET /v1/swarm/unlock-key", key(KEY)),
        get("GET /v1/swarm/unlock-key", key("")),
        exchange(
            "POST /v1/swarm/unlock-key/rotate",
            Value::Null,
            200,
            key(KEY),
        ),
    ]);
    assert_eq!(node.run("swarm unlock-key").1, FRAME);
    assert_eq!(node.run("swarm unlock-key -q").1, format!("{KEY}\n"));
    let error = node.run("swarm unlock-key").0.unwrap_err();
    assert_eq!(error.to_string(), "no unlock key is set");
    let text = node.run("swarm unlock-key --rotate").1;
    assert_eq!(
        text,
        format!("Successfully rotated manager unlock key.\n\n{FRAME}")
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn only_a_locked_node_asks_for_the_key() {
    let node = FakeNode::start(vec![get("GET /v1/info", nodes::info_of_a_manager())]);
    let error = node.run("swarm unlock").0.unwrap_err();
    assert_eq!(error.to_string(), "swarm is not locked");
    assert_eq!(node.surprises(), NO_SURPRISES);
}
