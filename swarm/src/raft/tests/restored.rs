//! A log that begins with the state of a backup, and rows that are not those that were written.

use std::net::IpAddr;

use redb::{ReadableTable as _, TableDefinition};
use weft_cluster::{Entropy, InitCluster, NodeDescription, RootPair, init_cluster};
use weft_model::objects::{Platform, Resources};

use super::platter::Platter;
use super::*;
use crate::raft::medium::OnDisk;

const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft.raft.notes");

fn backed_up() -> ClusterState {
    let mut state = ClusterState::default();
    for name in ["a", "b"] {
        state.apply(&[network(name, 10)]);
    }
    state
}

async fn alone(platter: Platter) -> RaftStore {
    let start = Start::Alone(member(4));
    RaftStore::open(setup(platter), start, Nobody)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_log_begins_with_the_state_of_a_backup() {
    let platter = Platter::default();
    let state = backed_up();
    lay_down(&platter, key(), member(4), state.clone()).unwrap();
    let second = lay_down(&platter, key(), member(4), state.clone()).unwrap_err();
    assert!(matches!(second, StoreError::Damaged { .. }), "{second}");
    let store = alone(platter.clone()).await;
    assert_eq!(*store.read(), state);
    assert!(store.leadership().borrow().leads());
    let members = store.members();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].node, member(4).node);
    put(&store, network("c", 10)).await.unwrap();
    drop(store);
    platter.crash();
    let store = again(platter).await.unwrap();
    assert_eq!(names(&store), ["a", "b", "c"]);
    assert_eq!(store.read().version, state.version + 1);
}

/// The machine loses its power at each sync: what is there then is nothing, or all of it.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_laid_down_is_there_or_not() {
    let state = backed_up();
    for (sync, seed) in (1..).flat_map(|sync| [(sync, None), (sync, Some(sync))]) {
        let platter = Platter::default();
        platter.fail_at(sync);
        let laid = lay_down(&platter, key(), member(4), state.clone());
        let has_failed = platter.has_failed();
        platter.cut_power(seed);
        let again = lay_down(&platter, key(), member(4), state.clone());
        let is_there = again.is_err_and(|error| error.to_string().contains("there already"));
        assert!(
            is_there || laid.is_err(),
            "sync {sync}: it was said to be there"
        );
        if is_there {
            let store = alone(platter).await;
            assert_eq!(*store.read(), state, "sync {sync}");
        }
        if !has_failed {
            return;
        }
    }
}

/// The machine loses its power at each sync on the way: its name and its list of members agree.
#[tokio::test(start_paused = true)]
async fn who_goes_on_alone_has_one_name_whatever_happens() {
    for sync in 1.. {
        let platter = Platter::default();
        let store = found(platter.clone()).await.unwrap();
        put(&store, network("a", 10)).await.unwrap();
        let before = store.member();
        drop(store);
        platter.crash();
        platter.fail_at(sync);
        let start = Start::Alone(member(4));
        let went = RaftStore::open(setup(platter.clone()), start, Nobody).await;
        let told = went.as_ref().ok().map(RaftStore::member);
        drop(went);
        let has_failed = platter.has_failed();
        platter.crash();
        let store = again(platter).await.unwrap();
        assert!(
            store.leadership().borrow().leads(),
            "sync {sync}: it is not on its own list"
        );
        assert_eq!(names(&store), ["a"], "sync {sync}");
        let name = store.member();
        assert!(told.is_none_or(|told| told == name), "sync {sync}");
        if !has_failed {
            assert_ne!(name, before);
            return;
        }
    }
}

#[tokio::test]
async fn a_row_at_the_place_of_another_or_of_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let store = found(OnDisk(path.clone())).await.unwrap();
    put(&store, network("secret-name", 10)).await.unwrap();
    store.close().await;
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    let is_there = bytes.windows(11).any(|part| part == b"secret-name");
    assert!(!is_there, "nothing of the state is readable in the file");

    let mut other = setup(OnDisk(path.clone()));
    other.keys = SecretKey::from_bytes([8; 32]).into();
    let refused = RaftStore::open(other, Start::Again, Nobody).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("sealed with another key"), "{text}");

    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut notes = transaction.open_table(NOTES).unwrap();
        let vote = notes.get("vote").unwrap().unwrap().value().to_vec();
        notes.insert("committed", vote.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let text = again(OnDisk(path)).await.unwrap_err().to_string();
    assert!(text.contains("committed: it was changed"), "{text}");
}

/// The state of a swarm, with two networks of one VXLAN network identifier.
fn with_one_identifier_twice() -> ClusterState {
    let of = member(4);
    let addr = IpAddr::from([192, 0, 2, 4]);
    let init = InitCluster {
        cluster_id: "cluster".to_owned(),
        node_id: of.node.clone(),
        node: NodeDescription {
            hostname: "n4".to_owned(),
            engine_version: "0.1.0".to_owned(),
            addr,
            data_path_addr: addr,
            gossip_port: 7946,
            manager_addr: None,
            platform: Platform::default(),
            resources: Resources::default(),
            runtimes: Vec::new(),
        },
        default_address_pools: Vec::new(),
        subnet_prefix_len: None,
        data_path_port: None,
        reserved: Vec::new(),
        autolock: false,
        availability: weft_model::objects::Availability::Active,
        root: RootPair::default(),
    };
    let (mut state, mut entropy) = (ClusterState::default(), Entropy::from_seed([7; 32]));
    let planned = init_cluster(&state, 0, &mut entropy, init).unwrap();
    state.apply(&planned.changes);
    // The first one is `ingress`.
    state.apply(&[network("a", 1)]);
    state
}

#[tokio::test(start_paused = true)]
async fn a_state_that_gives_something_out_twice_is_not_loaded() {
    let platter = Platter::default();
    lay_down(&platter, key(), member(4), with_one_identifier_twice()).unwrap();
    let start = Start::Alone(member(4));
    let opened = RaftStore::open(setup(platter), start, Nobody).await;
    let text = opened.unwrap_err().to_string();
    let said = "have the VXLAN network identifier 4096; restore it from a backup";
    assert!(text.contains(said), "{text}");
}
