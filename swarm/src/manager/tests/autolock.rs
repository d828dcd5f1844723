//! Managers that are locked: after a restart nothing secret is readable without the key, and all of it
//! with it.

use super::managers::{beside, until};
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

/// Who has an old copy of the key file, and what opened that, opens nothing of what is there later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_unlock_key_brings_another_data_key() {
    let (manager, node) = cluster().await;
    let dir = node.dir.path();
    let path = certificate_dir(dir).join(KEY_FILE);
    let in_clear = std::fs::read(&path).unwrap();
    set_autolock(&manager, true).await;
    let key = manager.unlock_key().expect("a key");
    let first = key_file(dir).unlock(&key).unwrap();
    assert!(first.is_settled(), "before the command is answered");
    let locked = std::fs::read(&path).unwrap();
    manager.rotate_unlock_key().await.unwrap();
    let newer = manager.unlock_key().expect("a key");
    let second = key_file(dir).unlock(&newer).unwrap();
    assert!(second.is_settled() && second != first);
    let token = manager.join_token(Role::Worker).unwrap();
    manager.stop().await;
    drop(manager);

    let newest = std::fs::read(&path).unwrap();
    std::fs::write(&path, in_clear).unwrap();
    let by_the_first = Membership::load(dir).map(drop).unwrap_err().to_string();
    std::fs::write(&path, locked).unwrap();
    let by_the_second = Identity::unlock(dir, &key).map(drop);
    let by_the_second = by_the_second.unwrap_err().to_string();
    for text in [by_the_first, by_the_second] {
        assert!(text.contains("sealed with another key"), "{text}");
    }
    std::fs::write(&path, newest).unwrap();
    let unlocked = Identity::unlock(dir, &newer).unwrap();
    let own = watch::Sender::new(Arc::new(unlocked.clone()));
    let stolen = open_store(dir, first.into(), Start::Again, &own).await;
    let text = stolen.unwrap_err().to_string();
    assert!(text.contains("sealed with another key"), "{text}");
    let again = Manager::open(config(dir, any_port()), &unlocked).await;
    let again = again.unwrap();
    assert_eq!(again.join_token(Role::Worker).unwrap().token, token.token);
    again.stop().await;
}

/// A change of the key that ended after one of its steps: it opens, and goes on to the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_key_that_was_cut_off_goes_on() {
    let (manager, node) = cluster().await;
    let dir = node.dir.path();
    let path = certificate_dir(dir).join(KEY_FILE);
    set_autolock(&manager, true).await;
    let unlock = manager.unlock_key().expect("a key");
    let token = manager.join_token(Role::Worker).unwrap();
    manager.stop().await;
    drop(manager);
    for steps in 1..=3 {
        let file = key_file(dir);
        let changing = file.unlock(&unlock).unwrap().renewed();
        KeyFile::write(&path, file.follows, &changing, Some(&unlock)).unwrap();
        let keys = DataKeys::from(changing.clone());
        if steps > 1 {
            let identity = Identity::unlock(dir, &unlock).unwrap();
            let own = watch::Sender::new(Arc::new(identity));
            let store = open_store(dir, keys.clone(), Start::Again, &own).await;
            let store = store.unwrap();
            store.seal_anew().await.unwrap();
            store.close().await;
        }
        if steps > 2 {
            Identity::seal_anew(dir, &keys).unwrap();
        }
        let identity = Identity::unlock(dir, &unlock).unwrap();
        let manager = Manager::open(config(dir, any_port()), &identity).await;
        let manager = manager.unwrap();
        let kept = manager.join_token(Role::Worker).unwrap();
        assert_eq!(kept.token, token.token, "after {steps} steps");
        until("the key of before is dropped", || {
            let ring = key_file(dir).unlock(&unlock).unwrap();
            ring == changing.settled()
        })
        .await;
        manager.stop().await;
        // What is there is sealed by the key that is left.
        let unlocked = Identity::unlock(dir, &unlock).unwrap();
        assert!(unlocked.key().is_ok());
    }
}

/// A manager that was away while the key of the swarm became another one draws a new key when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_draws_a_new_key_when_it_is_back() {
    let (first, node) = cluster().await;
    let dir = node.dir.path();
    let keys_before = key_file(dir).clear().cloned().expect("in clear");
    set_autolock(&first, true).await;
    let key = first.unlock_key().expect("a key");
    first.stop().await;
    drop(first);
    // As it was when the manager went away.
    let ring = key_file(dir).unlock(&key).unwrap();
    KeyFile::write(&certificate_dir(dir).join(KEY_FILE), 0, &ring, None).unwrap();
    let again = Manager::open(config(dir, any_port()), &loaded(dir)).await;
    let again = again.unwrap();
    until_locked(dir, Some(&key)).await;
    until("what was in clear is dropped", || {
        let now = key_file(dir).unlock(&key).unwrap();
        now.is_settled() && now != ring && now != keys_before
    })
    .await;
    again.stop().await;
}
