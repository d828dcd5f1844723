//! Managers that are locked: after a restart nothing secret is readable without the key, and all of it
//! with it.

use super::managers::beside;
use super::*;
use crate::identity::{LOCKED, certificate_dir};
use crate::sealing::{KEY_FILE, KeyFile};

fn loaded(dir: &Path) -> Identity {
    Membership::load(dir).unwrap().unwrap().1
}

fn key_file(dir: &Path) -> KeyFile {
    let file = KeyFile::read(&certificate_dir(dir).join(KEY_FILE)).unwrap();
    file.expect("a manager has one")
}

fn is_clear(dir: &Path) -> bool {
    key_file(dir).clear().is_some()
}

/// Waits until the files of a manager say so.
async fn until_locked(dir: &Path, by: Option<&UnlockKey>) {
    let is_so = || match by {
        Some(key) => key_file(dir).unlock(key).is_ok(),
        None => is_clear(dir),
    };
    let waited = timeout(LIMIT, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the key file follows the swarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_needs_its_key_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let params = InitParams {
        autolock: true,
        ..params("m1")
    };
    let made = Manager::init(config(dir.path(), any_port()), params).await;
    let (manager, identity, _) = made.unwrap();
    let key = manager.unlock_key().expect("a key");
    let token = manager.join_token(Role::Worker).unwrap();
    manager.stop().await;
    drop(manager);

    assert!(!is_clear(dir.path()));
    let locked = loaded(dir.path());
    assert!(locked.is_locked());
    assert_eq!(
        locked.node_id(),
        identity.node_id(),
        "who it is, is no secret"
    );
    assert_eq!(locked.key().unwrap_err().to_string(), LOCKED);
    // The root's key is in the log.
    for name in ["raft.redb", "certs/node.pem", "certs/data.key"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        let is_there = bytes.windows(11).any(|part| part == b"PRIVATE KEY");
        assert!(!is_there, "a key is readable in {name}");
    }
    let refused = Manager::open(config(dir.path(), any_port()), &locked).await;
    assert_eq!(refused.unwrap_err().message, LOCKED);

    let wrong = UnlockKey::from_bytes([3; 32]);
    let error = CommandError::from(Identity::unlock(dir.path(), &wrong).unwrap_err());
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert!(error.message.contains("invalid key"), "{error}");
    assert!(loaded(dir.path()).is_locked(), "as it was");

    let unlocked = Identity::unlock(dir.path(), &key).unwrap();
    assert!(!unlocked.is_locked());
    let again = Manager::open(config(dir.path(), any_port()), &unlocked).await;
    let again = again.unwrap();
    let same = again.join_token(Role::Worker).unwrap();
    assert_eq!(same.token, token.token);
    assert_eq!(again.unlock_key(), Some(key));
    again.stop().await;
    assert!(loaded(dir.path()).is_locked(), "it is locked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_managers_follow_the_key_of_the_swarm() {
    let (first, node) = cluster().await;
    assert!(is_clear(node.dir.path()));
    assert_eq!(first.unlock_key(), None);
    set_autolock(&first, true).await;
    let key = first.unlock_key().expect("a key");
    assert!(!is_clear(node.dir.path()), "before the command is answered");

    // One that comes later never has its key in clear.
    let (second, second_dir) = beside(&first, "m2").await;
    assert!(!is_clear(second_dir.path()));
    until_locked(second_dir.path(), Some(&key)).await;

    first.rotate_unlock_key().await.unwrap();
    let newer = first.unlock_key().expect("a key");
    assert_ne!(newer, key);
    for dir in [node.dir.path(), second_dir.path()] {
        until_locked(dir, Some(&newer)).await;
        let old = key_file(dir).unlock(&key);
        assert!(old.is_err(), "the old one is no good");
    }
    set_autolock(&first, false).await;
    for dir in [node.dir.path(), second_dir.path()] {
        until_locked(dir, None).await;
        let error = key_file(dir).unlock(&newer).unwrap_err();
        assert_eq!(error.to_string(), "swarm is not locked");
    }
    let error = first.rotate_unlock_key().await.unwrap_err();
    assert!(
        error.message.contains("autolock is not turned on"),
        "{error}"
    );
    second.stop().await;
}
