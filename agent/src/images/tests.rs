//! Two nodes with a store each, and real TLS between them on the loopback.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use weft_cluster::NodeDescription;
use weft_images::{Blob, Digest, ImageName, Ingest, Platform, Store};
use weft_model::id::NodeId;
use weft_model::objects::{Availability, Resources, Role};
use weft_swarm::{
    ApiReply, ApiServer, Identity, InitParams, JoinParams, Manager, ManagerConfig, Timing, join,
};
use zeroize::Zeroizing;

use super::line::Found;
use super::lines::Lines;
use super::peers::rank;
use super::resolve::nobody;
use super::words::{blob_path, turn_path};
use super::{Circle, Images, Occasion, Peer};
use crate::images::turn::{Rank, Said, Stage};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn describe(name: &str, addr: IpAddr) -> NodeDescription {
    NodeDescription {
        hostname: name.to_owned(),
        engine_version: "0".to_owned(),
        addr,
        data_path_addr: addr,
        gossip_port: 7946,
        manager_addr: None,
        platform: weft_model::objects::Platform::default(),
        resources: Resources::default(),
        runtimes: Vec::new(),
    }
}

/// A swarm of two: its manager, and the identities of both.
async fn swarm(dir: &TempDir) -> (Manager, [Arc<Identity>; 2]) {
    let free = std::net::TcpListener::bind((LOCALHOST, 0)).expect("a port");
    let listen = free.local_addr().expect("an address");
    drop(free);
    let settings = ManagerConfig {
        data_dir: dir.path().join("manager"),
        listen,
        advertise: listen,
        timing: Timing::default(),
        routes: Arc::new(Vec::new),
        holder_of: |_| String::new(),
        api: ApiServer::new(|_, _| async {
            ApiReply {
                status: 503,
                content_type: String::new(),
                body: bytes::Bytes::new(),
                not_led: true,
            }
        }),
    };
    let init = InitParams {
        node: describe("one", LOCALHOST),
        default_address_pools: Vec::new(),
        subnet_prefix_len: None,
        data_path_port: None,
        autolock: false,
        availability: Availability::Active,
    };
    let (manager, first, _) = Manager::init(settings, init).await.expect("a manager");
    let token = manager.join_token(Role::Worker).expect("a token");
    let worker = dir.path().join("worker");
    std::fs::create_dir(&worker).expect("a folder");
    let joined = join(JoinParams {
        token: token.token,
        remote: token.manager_addr,
        node: describe("two", IpAddr::from([127, 0, 0, 2])),
        availability: Availability::Active,
        listen,
        data_dir: worker,
    });
    let second = joined.await.expect("a member");
    (manager, [Arc::new(first), Arc::new(second)])
}

/// What a node knows of the others. No two of its locks are held at once.
struct Known {
    identity: Arc<Identity>,
    peers: Mutex<Vec<Peer>>,
    members: Mutex<BTreeSet<NodeId>>,
}

impl Known {
    fn new(identity: &Arc<Identity>, members: &[Arc<Identity>]) -> Arc<Self> {
        let ids = members.iter().map(|member| member.node_id().clone());
        Arc::new(Self {
            identity: Arc::clone(identity),
            peers: Mutex::default(),
            members: Mutex::new(ids.collect()),
        })
    }

    fn hears_of(&self, node: &NodeId, addr: SocketAddr) {
        let node = node.clone();
        self.peers.lock().expect("whole").push(Peer { node, addr });
    }
}

impl Circle for Known {
    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    fn node(&self) -> NodeId {
        self.identity.node_id().clone()
    }

    fn source(&self) -> IpAddr {
        LOCALHOST
    }

    fn peers(&self) -> Vec<Peer> {
        self.peers.lock().expect("whole").clone()
    }

    fn is_member(&self, node: &NodeId) -> bool {
        self.members.lock().expect("whole").contains(node)
    }
}

fn images(dir: &TempDir, name: &str) -> Images {
    let (shared, own) = (
        dir.path().join(name),
        dir.path().join(format!("{name}-own")),
    );
    Images::at(&shared, &own, nobody()).expect("a store")
}

/// Opens the exchange of a node, and tells where it is.
fn opened(images: &Images, circle: &Arc<Known>) -> SocketAddr {
    let known: Arc<dyn Circle> = Arc::<Known>::clone(circle);
    let listen = SocketAddr::new(LOCALHOST, 0);
    images.join(known, Some(listen)).expect("a port");
    let membership = images.0.membership();
    let exchange = membership.as_ref().and_then(|m| m.exchange.as_ref());
    exchange.expect("open").addr()
}

fn ingest(store: &Store, bytes: &[u8]) -> Blob {
    let blob = Blob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    if let Ingest::Writer(mut writer) = store.ingest(&blob).expect("room") {
        writer.write(bytes).expect("written");
        writer.commit().expect("whole");
    }
    blob
}

/// An image of one empty layer for this machine; its manifest and its layer.
fn image(store: &Store) -> (Digest, Blob) {
    // An archive without members: two blocks of zeros.
    let layer = vec![0; 1024];
    let diff = Digest::of(&layer);
    let layer = ingest(store, &layer);
    let machine = Platform::of_machine();
    let config = json!({
        "architecture": machine.architecture, "os": machine.os,
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    let config = serde_json::to_vec(&config).expect("json");
    let id = store.put(&config).expect("room");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": id, "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.digest, "size": layer.size,
        }],
    });
    let manifest = serde_json::to_vec(&manifest).expect("json");
    (store.put(&manifest).expect("room"), layer)
}

fn name(text: &str) -> ImageName {
    text.parse().expect("a name")
}

async fn pulled(images: &Images, name: &ImageName) -> anyhow::Result<Digest> {
    pulled_for(images, name, Occasion::Command).await
}

async fn pulled_for(
    images: &Images,
    name: &ImageName,
    occasion: Occasion,
) -> anyhow::Result<Digest> {
    let asker = Zeroizing::default();
    images.pull(name, asker, occasion, &|_, _| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_what_is_here_counts_and_it_is_asked_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let one = images(&dir, "one");
    let (manifest, _) = image(one.store());
    let loaded = name("registry.invalid/app:1");
    one.store().set_name(&loaded, &manifest).expect("a name");
    let mut whys = Vec::new();
    for _ in 0..2 {
        let meaning = one.resolve(&loaded, String::new()).await;
        let meaning = meaning.expect("it is here");
        assert_eq!(meaning.resolved.digest, manifest);
        assert_eq!(meaning.resolved.platforms.len(), 1);
        let why = meaning.registry_error.expect("no registry says so");
        whys.push(why.to_string());
    }
    assert!(whys[0].contains("registry.invalid"), "{whys:?}");
    assert!(!whys[0].contains("remembered"), "{whys:?}");
    assert!(whys[1].starts_with(&whys[0]), "{whys:?}");
    assert!(whys[1].contains("(remembered: asked "), "{whys:?}");
    // So it is for a task that starts; who says "pull" has it asked.
    for (occasion, is_remembered) in [(Occasion::Task, true), (Occasion::Command, false)] {
        let error = pulled_for(&one, &loaded, occasion).await;
        let error = format!("{:#}", error.expect_err("no registry"));
        assert_eq!(error.contains("remembered"), is_remembered, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_an_image_from_another_one_without_any_registry() {
    let dir = tempfile::tempdir().expect("a folder");
    let (manager, both) = swarm(&dir).await;
    let (one, two) = (images(&dir, "one"), images(&dir, "two"));
    let knows = both.each_ref().map(|identity| Known::new(identity, &both));
    let addr = opened(&one, &knows[0]);
    opened(&two, &knows[1]);
    knows[1].hears_of(both[0].node_id(), addr);

    let (manifest, layer) = image(one.store());
    let loaded = name("registry.invalid/app:1");
    one.store().set_name(&loaded, &manifest).expect("a name");
    one.changed();
    let pinned = loaded.with_digest(manifest.clone());
    assert_eq!(pulled(&two, &pinned).await.expect("an image"), manifest);
    let there = two.store().image(&manifest).expect("all of it");
    assert_eq!(there.layers, std::slice::from_ref(&layer));
    assert!(two.store().has(&layer.digest) && two.store().has(&there.id));
    // A layer that was found damaged, and is gone, comes again.
    let blob = dir.path().join("two/blobs/sha256").join(layer.digest.hex());
    std::fs::remove_file(&blob).expect("it was there");
    assert_eq!(pulled(&two, &pinned).await.expect("again"), manifest);
    assert!(two.store().has(&layer.digest));
    // It is here: nobody is asked.
    one.part();
    assert_eq!(pulled(&two, &pinned).await.expect("still here"), manifest);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_out_is_what_images_are_made_of_and_to_members_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let (manager, both) = swarm(&dir).await;
    let other_dir = tempfile::tempdir().expect("a folder");
    let (other_manager, strangers) = swarm(&other_dir).await;
    let one = images(&dir, "one");
    let knows = Known::new(&both[0], &both);
    let addr = opened(&one, &knows);
    let (manifest, layer) = image(one.store());
    let secret = one
        .store()
        .put(b"of another node of this machine")
        .expect("room");
    let lines = Lines::default();
    let asks = Known::new(&both[1], &both);
    let peer = Peer {
        node: both[0].node_id().clone(),
        addr,
    };

    // It has the contents, and no image.
    let path = blob_path(&layer.digest);
    let look = lines.look(&*asks, &peer, &path).await.expect("an answer");
    assert_eq!(look, Found::Absent);
    let loaded = name("registry.invalid/app:1");
    one.store().set_name(&loaded, &manifest).expect("a name");
    one.changed();
    let look = lines.look(&*asks, &peer, &path).await.expect("an answer");
    assert_eq!(look, Found::Here(layer.size));
    let of_secret = lines.look(&*asks, &peer, &blob_path(&secret)).await;
    assert_eq!(of_secret.expect("an answer"), Found::Absent);

    // What was cut is not handed out.
    let blob = dir.path().join("one/blobs/sha256").join(layer.digest.hex());
    let whole = std::fs::read(&blob).expect("there");
    std::fs::write(&blob, &whole[..1000]).expect("cut");
    let look = lines.look(&*asks, &peer, &path).await.expect("an answer");
    assert_eq!(look, Found::Absent);
    std::fs::write(&blob, &whole).expect("mended");

    // From a byte on.
    let transfer = lines.take(&*asks, &peer, &path, 1000).await;
    let mut transfer = transfer.expect("an answer").expect("it has it");
    assert_eq!(transfer.content.starts_at, 1000);
    let mut rest = 0;
    while let Some(piece) = transfer.content.piece().await.expect("whole") {
        rest += piece.len();
    }
    assert_eq!(rest, 24);

    // What it does about an image that it does not have.
    let wanted = Digest::of(b"wanted");
    let path = turn_path(&wanted);
    let rank = Rank("7".to_owned());
    let said = lines.turn(&*asks, &peer, &path, rank.clone()).await;
    assert_eq!(said.expect("an answer"), Said::HasNot);
    let joined = one.0.fetches().join(
        &name("registry.invalid/new"),
        Zeroizing::default(),
        Occasion::Task,
    );
    let super::Joined::Own(carried) = joined else {
        unreachable!("nobody is at it")
    };
    carried.fetch().tell(&wanted, Stage::Claims);
    let said = lines.turn(&*asks, &peer, &path, rank.clone()).await;
    let stage = Stage::Claims;
    assert_eq!(said.expect("an answer"), Said::At { stage, rank });

    // Whoever is no member, by a certificate of another cluster or in spite of one of this.
    let stranger = Known::new(&strangers[1], &strangers);
    let asked = Lines::default().look(&*stranger, &peer, "/blobs/x").await;
    asked.expect_err("nobody of this cluster");
    let path = blob_path(&layer.digest);
    let before = lines.look(&*asks, &peer, &path).await;
    before.expect("it is a member");
    knows
        .members
        .lock()
        .expect("whole")
        .remove(both[1].node_id());
    // Also by a connection of before.
    let asked = lines.look(&*asks, &peer, &path).await;
    asked.expect_err("removed");
    let asked = Lines::default().look(&*asks, &peer, "/blobs/x").await;
    asked.expect_err("removed");
    // And who asks takes no other node for the one that it wants.
    let wrong = Peer {
        node: both[1].node_id().clone(),
        addr,
    };
    let asked = Lines::default().look(&*asks, &wrong, "/blobs/x").await;
    asked.expect_err("another node");
    for manager in [manager, other_manager] {
        manager.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_the_first_ones_is_asked_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let (manager, both) = swarm(&dir).await;
    let (one, two) = (images(&dir, "one"), images(&dir, "two"));
    let knows = both.each_ref().map(|identity| Known::new(identity, &both));
    let addr = opened(&one, &knows[0]);
    opened(&two, &knows[1]);
    let (manifest, layer) = image(one.store());
    let loaded = name("registry.invalid/app:1");
    one.store().set_name(&loaded, &manifest).expect("a name");
    one.changed();
    // Those before it do not answer.
    let own = rank(&manifest, both[0].node_id());
    let ids = (0..).map(|n| NodeId(format!("away{n}")));
    let before = ids.filter(|id| rank(&manifest, id) < own);
    for id in before.take(40) {
        knows[1].hears_of(&id, SocketAddr::new(LOCALHOST, 1));
    }
    knows[1].hears_of(both[0].node_id(), addr);
    let pinned = loaded.with_digest(manifest.clone());
    assert_eq!(pulled(&two, &pinned).await.expect("an image"), manifest);
    assert!(two.store().has(&layer.digest));
    manager.stop().await;
}

#[tokio::test]
async fn what_was_unpacked_is_known_to_be_on_the_disk_soon() {
    let dir = tempfile::tempdir().expect("a folder");
    let one = images(&dir, "one");
    let (manifest, _) = image(one.store());
    let layers = one.store().unpack(&manifest, &|_| {}).expect("unpacked");
    let boot = || {
        let record = std::fs::read(layers[0].with_extension("json")).expect("a record");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("json");
        record["boot"].clone()
    };
    assert!(!boot().is_null(), "it is not known yet");
    one.0.unpacked.notify_one();
    let settled = async {
        while !boot().is_null() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = one.settle_after(Duration::ZERO) => unreachable!("it goes on"),
        settled = tokio::time::timeout(Duration::from_secs(30), settled) => settled.expect("in time"),
    }
}
