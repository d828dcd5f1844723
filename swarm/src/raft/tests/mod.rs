//! Logs on disks that fail and over networks that are cut.

mod cluster;
mod disk;
mod failover;
mod faults;
mod harm;
mod history;
mod load;
mod members;
mod network;
mod platter;
mod power;
mod proof;
mod registers;
mod restart;
mod restored;
mod suite;
mod witness;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use weft_cluster::{Change, ClusterState, ProposeError};
use weft_model::id::{NetworkId, NodeId};
use weft_model::objects::{Meta, Network, NetworkSpec};

use super::medium::Medium;
use super::store::{RaftStore, Setup, Start};
use super::types::{Member, config};
use super::*;
use crate::desired_store::DesiredStore;
use crate::disk_thread::DiskThread;
use crate::sealing::{DataKeys, SecretKey};

use self::network::Nobody;

/// A network whose label is so long.
fn network(name: &str, len: usize) -> Change {
    let network = Network {
        id: NetworkId(name.to_owned()),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            labels: [("l".to_owned(), "x".repeat(len))].into(),
            ..NetworkSpec::default()
        },
        vni: 4096,
        ending: false,
    };
    Change::Put(network.into())
}

/// Plans on the newest state until nobody was faster.
async fn put(store: &RaftStore, change: Change) -> Result<(), ProposeError> {
    loop {
        let head = store.head();
        match store.propose(&head, vec![change.clone()]).await {
            Err(ProposeError::Stale(_)) => {}
            done => return done,
        }
    }
}

fn names_in(state: &ClusterState) -> Vec<String> {
    state.networks.keys().map(|id| id.0.clone()).collect()
}

fn names(store: &RaftStore) -> Vec<String> {
    names_in(&store.read())
}

fn member(number: u8) -> Member {
    Member {
        node: NodeId(format!("node{number}")),
        addr: SocketAddr::from((Ipv4Addr::new(192, 0, 2, number), 2377)),
    }
}

/// Of all disks here.
fn key() -> DataKeys {
    SecretKey::from_bytes([7; 32]).into()
}

/// What a manager that is alone runs on.
fn setup(medium: impl Medium) -> Setup {
    Setup {
        medium: Box::new(medium),
        keys: key(),
        disk: DiskThread::inline(),
        links: Arc::default(),
        config: config(),
    }
}

async fn found(medium: impl Medium) -> Result<RaftStore, StoreError> {
    RaftStore::open(setup(medium), Start::Found(member(1)), Nobody).await
}

async fn again(medium: impl Medium) -> Result<RaftStore, StoreError> {
    RaftStore::open(setup(medium), Start::Again, Nobody).await
}
