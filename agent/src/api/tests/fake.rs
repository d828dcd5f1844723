//! A service that records what it was asked, and the API in front of it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use weft_model::api::{
    CaRotate, CaptureQuery, Check, Connect, Connected, ConnsQuery, Disconnect, Drops, DropsQuery,
    EventsQuery, ImageDetail, ImagePruneQuery, ImageRemoveQuery, ImageRemoved, ImageSummary,
    ImagesPruned, Info, JoinToken, LogsQuery, MeshConns, MeshPort, NetworkDetail, NodeRemove,
    NodeRow, NodeUpdate, NodeUpdated, PeerAdd, PingQuery, Pong, PullQuery, Rebalance, Rebalanced,
    ResolveQuery, ResolvedImage, RestoreQuery, SaveQuery, Scale, ServiceDetail, ServiceUpdate,
    SwarmDetail, SwarmInit, SwarmInitReply, SwarmJoin, SwarmJoinReply, SwarmLeave, SwarmLeft,
    SwarmRestoreReply, SwarmState, SwarmUnlock, SwarmUpdate, TaskRow, UnlockKeyReply, UpdatePlan,
    VersionQuery, VolumeAsk, Volumes, VolumesQuery, Why,
};
use weft_model::objects::{
    Meta, Network, NetworkSpec, Payload, PayloadKind, PayloadSpec, Role, Service, ServiceSpec,
    StaticPeer,
};
use weft_swarm::{ApiCall, ApiReply};

use crate::api::{
    Answer, ApiError, ApiSocket, ImageCalls, NodeService, PayloadCalls, SwarmCalls, answer,
};

/// Notes each call; creations echo their argument, the rest fails with 503. No two of its locks are held
/// at once.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) calls: Mutex<Vec<String>>,
    /// Removing the network "slow" waits for this.
    pub(super) go_on: Notify,
    /// Told when it is removed.
    pub(super) done: Notify,
    /// Told when its removal begins.
    pub(super) begun: Notify,
    /// The leader that calls about the swarm are passed on to; nothing while this node is it.
    pub(super) leader: Mutex<Option<Arc<Self>>>,
    /// So often it does not lead although it was taken for the leader.
    pub(super) refusals: Mutex<u32>,
    /// It cannot tell whether it leads.
    pub(super) unsure: AtomicBool,
}

impl Fake {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn absent<T>(&self, call: impl Into<String>) -> Answer<T> {
        self.note(call);
        Err(ApiError::unavailable("This node is not part of a swarm."))
    }
}

impl SwarmCalls for Fake {
    async fn pass_on(&self, call: &ApiCall) -> Answer<Option<ApiReply>> {
        let leader = self.leader.lock().unwrap().clone();
        let Some(leader) = leader else {
            return Ok(None);
        };
        self.note(format!("passed on {} {}", call.method, call.path));
        Ok(Some(answer(leader, "n2".into(), call.clone()).await))
    }
    async fn confirm(&self) -> Answer<()> {
        if self.unsure.load(Ordering::SeqCst) {
            return Err(ApiError::unavailable("The swarm does not have a leader."));
        }
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err(ApiError::not_led("another one leads"));
        }
        Ok(())
    }
    async fn catch_up(&self) -> Answer<()> {
        if self.unsure.load(Ordering::SeqCst) {
            return Err(ApiError::unavailable("The swarm does not have a leader."));
        }
        self.note("caught up");
        Ok(())
    }
}

impl NodeService for Fake {
    async fn info(&self) -> Answer<Info> {
        self.note("info");
        Ok(Info {
            version: "0".into(),
            name: "n1".into(),
            pid: 7,
            containers: weft_model::api::ContainersInfo::default(),
            swarm: SwarmState::Inactive,
            warnings: vec![],
        })
    }
    async fn swarm_init(&self, body: SwarmInit) -> Answer<SwarmInitReply> {
        self.note(format!("init {:?}", body.advertise_addr));
        Ok(SwarmInitReply {
            node_id: "n".into(),
            worker_token: "SWMTKN-1-a-b".into(),
            manager_addr: "192.0.2.1:2377".into(),
            unlock_key: None,
        })
    }
    async fn swarm_join(&self, body: SwarmJoin) -> Answer<SwarmJoinReply> {
        self.note(format!("join {}", body.remote_addr));
        Err(ApiError::conflict("This node is already part of a swarm."))
    }
    async fn swarm_leave(&self, body: SwarmLeave) -> Answer<SwarmLeft> {
        self.note(format!("leave {}", body.force));
        Ok(SwarmLeft::default())
    }
    async fn join_token(&self, role: Role) -> Answer<JoinToken> {
        self.absent(format!("token {role:?}"))
    }
    async fn rotate_join_token(&self, role: Role) -> Answer<JoinToken> {
        self.absent(format!("rotate {role:?}"))
    }
    async fn swarm(&self) -> Answer<SwarmDetail> {
        self.absent("swarm")
    }
    async fn swarm_update(&self, query: VersionQuery, body: SwarmUpdate) -> Answer<SwarmDetail> {
        self.absent(format!(
            "swarm update {:?} {:?} {:?} {:?}",
            query.version, body.autolock, body.task_history_retention_limit, body.heartbeat_period
        ))
    }
    async fn rotate_ca(&self, body: CaRotate) -> Answer<SwarmDetail> {
        self.absent(format!("rotate {:?}", body.signing_ca_cert))
    }
    async fn swarm_unlock(&self, body: SwarmUnlock) -> Answer<()> {
        self.note(format!("unlock {}", body.unlock_key));
        Ok(())
    }
    async fn unlock_key(&self) -> Answer<UnlockKeyReply> {
        self.note("unlock key");
        Ok(UnlockKeyReply::default())
    }
    async fn rotate_unlock_key(&self) -> Answer<UnlockKeyReply> {
        self.absent("rotate unlock key")
    }
    async fn swarm_backup(&self) -> Answer<Bytes> {
        self.note("backup");
        Ok(Bytes::from_static(b"a backup"))
    }
    async fn swarm_restore(
        &self,
        query: RestoreQuery,
        backup: Vec<u8>,
        unlock_key: Option<String>,
    ) -> Answer<SwarmRestoreReply> {
        let (addr, key) = (query.advertise_addr, unlock_key);
        self.note(format!("restore {addr:?} {} {key:?}", backup.len()));
        Err(ApiError::bad_request("the backup is damaged"))
    }
    async fn nodes(&self) -> Answer<Vec<NodeRow>> {
        self.note("nodes");
        Ok(vec![])
    }
    async fn node(&self, reference: String) -> Answer<NodeRow> {
        self.absent(format!("node {reference}"))
    }
    async fn node_update(
        &self,
        reference: String,
        query: VersionQuery,
        body: NodeUpdate,
    ) -> Answer<NodeUpdated> {
        let (version, availability) = (query.version, body.availability);
        self.absent(format!("update {reference} {version:?} {availability:?}"))
    }

    async fn node_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        self.absent(format!("tasks of {reference}"))
    }

    async fn node_remove(&self, reference: String, body: NodeRemove) -> Answer<()> {
        self.note(format!("node rm {reference} {}", body.force));
        Ok(())
    }
    async fn networks(&self) -> Answer<Vec<Network>> {
        self.absent("networks")
    }
    async fn network_create(&self, spec: NetworkSpec) -> Answer<Network> {
        self.note(format!("network create {}", spec.name));
        Ok(Network {
            id: "x".into(),
            meta: Meta::default(),
            spec,
            vni: 4096,
            ending: false,
        })
    }
    async fn network(&self, reference: String) -> Answer<NetworkDetail> {
        self.note(format!("network {reference}"));
        Err(ApiError::not_found(format!("no network {reference:?}")))
    }
    async fn network_remove(&self, reference: String) -> Answer<()> {
        self.note(format!("network rm {reference}"));
        assert_ne!(reference, "cursed", "a defect");
        if reference == "slow" {
            self.begun.notify_one();
            self.go_on.notified().await;
            self.done.notify_one();
        }
        Ok(())
    }
    async fn connect(&self, network: String, body: Connect) -> Answer<Connected> {
        self.absent(format!("connect {network} {}", body.netns))
    }
    async fn disconnect(&self, network: String, body: Disconnect) -> Answer<()> {
        self.note(format!("disconnect {network} {}", body.endpoint));
        Ok(())
    }
    async fn peers(&self, network: String) -> Answer<Vec<StaticPeer>> {
        self.absent(format!("peers {network}"))
    }
    async fn peer_add(&self, network: String, body: PeerAdd) -> Answer<StaticPeer> {
        self.note(format!("peer add {network} {}", body.ip));
        Ok(StaticPeer {
            id: "p".into(),
            network: "x".into(),
            ip: body.ip,
            mac: body.mac,
            vtep: body.vtep,
        })
    }
    async fn peer_remove(&self, network: String, ip: IpAddr) -> Answer<()> {
        self.note(format!("peer rm {network} {ip}"));
        Ok(())
    }
    async fn services(&self) -> Answer<Vec<ServiceDetail>> {
        self.absent("services")
    }
    async fn service_create(&self, spec: ServiceSpec) -> Answer<Service> {
        self.absent(format!("service create {}", spec.name))
    }
    async fn service(&self, reference: String) -> Answer<ServiceDetail> {
        self.absent(format!("service {reference}"))
    }
    async fn service_remove(&self, reference: String) -> Answer<()> {
        self.note(format!("service rm {reference}"));
        Ok(())
    }
    async fn service_scale(
        &self,
        reference: String,
        query: VersionQuery,
        body: Scale,
    ) -> Answer<Service> {
        let (version, replicas) = (query.version, body.replicas);
        self.absent(format!("scale {reference} {version:?} {replicas}"))
    }
    async fn service_rebalance(&self, reference: String, body: Rebalance) -> Answer<Rebalanced> {
        let (dry, most) = (body.dry_run, body.max_moves);
        self.absent(format!("rebalance {reference} {dry} {most}"))
    }
    async fn service_update(
        &self,
        reference: String,
        query: VersionQuery,
        body: ServiceUpdate,
    ) -> Answer<Service> {
        let (version, ports) = (query.version, body.publish_add.len());
        self.absent(format!("update {reference} {version:?} {ports}"))
    }
    async fn service_plan(
        &self,
        reference: String,
        query: VersionQuery,
        body: ServiceUpdate,
    ) -> Answer<UpdatePlan> {
        let (version, rollback) = (query.version, body.rollback);
        self.absent(format!("plan {reference} {version:?} {rollback}"))
    }
    async fn service_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        self.absent(format!("tasks {reference}"))
    }
    async fn service_logs(
        &self,
        reference: String,
        query: LogsQuery,
    ) -> Answer<mpsc::Receiver<Bytes>> {
        let LogsQuery {
            follow,
            since,
            tail,
        } = query;
        self.note(format!("logs {reference} {follow} {since:?} {tail:?}"));
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send("\"CaughtUp\"\n".into()).expect("room");
        Ok(receiver)
    }
    async fn task(&self, reference: String) -> Answer<TaskRow> {
        self.absent(format!("task {reference}"))
    }
    async fn task_exec(
        &self,
        reference: String,
        mut said: mpsc::Receiver<Bytes>,
    ) -> Answer<mpsc::Receiver<Bytes>> {
        let first = said.recv().await.unwrap_or_default();
        self.note(format!("exec {reference} {first:?}"));
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send("frames".into()).expect("room");
        Ok(receiver)
    }
    async fn mesh_conns(&self, query: ConnsQuery) -> Answer<MeshConns> {
        self.note(format!("mesh conns {:?} {:?}", query.service, query.limit));
        Ok(MeshConns::default())
    }
    async fn mesh_ports(&self) -> Answer<Vec<MeshPort>> {
        self.note("mesh ports");
        Ok(Vec::new())
    }
    async fn volumes(&self, query: VolumesQuery, asked: VolumeAsk) -> Answer<Volumes> {
        self.note(format!("volumes {:?} {} {asked:?}", query.node, query.all));
        Ok(Volumes::default())
    }
    async fn why(&self, asked: String) -> Answer<Why> {
        self.absent(format!("why {asked}"))
    }
    async fn ping(&self, node: String, query: PingQuery) -> Answer<Pong> {
        self.absent(format!(
            "ping {node} {:?} {:?}",
            query.size, query.timeout_ms
        ))
    }
    async fn drops(&self, query: DropsQuery) -> Answer<Drops> {
        self.note(format!("drops {}", query.port.unwrap_or_default()).trim());
        Ok(Drops::default())
    }
    async fn doctor(&self) -> Answer<Vec<Check>> {
        self.note("doctor");
        Ok(Vec::new())
    }
    async fn capture(&self, query: CaptureQuery) -> Answer<mpsc::Receiver<Bytes>> {
        self.note(format!("capture {:?} {:?}", query.port, query.dir));
        let (sender, receiver) = mpsc::channel(2);
        for piece in ["one ", "two"] {
            sender.try_send(piece.into()).expect("room");
        }
        Ok(receiver)
    }
    async fn events(&self, query: EventsQuery) -> Answer<mpsc::Receiver<Bytes>> {
        self.note(format!("events {:?} {:?}", query.since, query.until));
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send("{}\n".into()).expect("room");
        Ok(receiver)
    }
    async fn metrics(&self) -> Answer<String> {
        self.note("metrics");
        Ok("# EOF\n".to_owned())
    }
}

impl PayloadCalls for Fake {
    async fn payloads(&self, kind: PayloadKind) -> Answer<Vec<Payload>> {
        self.note(format!("{kind} ls"));
        Ok(Vec::new())
    }
    async fn payload_create(&self, kind: PayloadKind, spec: PayloadSpec) -> Answer<Payload> {
        self.note(format!("{kind} create {} {}", spec.name, spec.data.len()));
        let made = Payload {
            id: "p".into(),
            kind,
            meta: Meta::default(),
            spec,
        };
        Ok(made.shown())
    }
    async fn payload(&self, kind: PayloadKind, reference: String) -> Answer<Payload> {
        self.note(format!("{kind} {reference}"));
        Err(ApiError::not_found(format!(
            "{kind} not found: {reference}"
        )))
    }
    async fn payload_update(
        &self,
        kind: PayloadKind,
        reference: String,
        query: VersionQuery,
        spec: PayloadSpec,
    ) -> Answer<Payload> {
        let (version, labels) = (query.version, spec.labels);
        self.absent(format!("{kind} update {reference} {version:?} {labels:?}"))
    }
    async fn payload_remove(&self, kind: PayloadKind, reference: String) -> Answer<()> {
        self.note(format!("{kind} rm {reference}"));
        Ok(())
    }
}

impl ImageCalls for Fake {
    async fn images(&self) -> Answer<Vec<ImageSummary>> {
        self.note("images");
        Ok(Vec::new())
    }
    async fn image(&self, reference: String) -> Answer<ImageDetail> {
        self.note(format!("image {reference}"));
        Err(ApiError::not_found(format!("No such image: {reference}")))
    }
    async fn image_remove(
        &self,
        reference: String,
        query: ImageRemoveQuery,
    ) -> Answer<Vec<ImageRemoved>> {
        self.note(format!("image rm {reference} {}", query.force));
        Ok(Vec::new())
    }
    async fn image_pull(&self, query: PullQuery, asker: String) -> Answer<mpsc::Receiver<Bytes>> {
        let PullQuery { from_image, tag } = query;
        self.note(format!("pull {from_image} {tag:?} {}", asker.len()));
        let (sender, receiver) = mpsc::channel(1);
        sender
            .try_send("{\"status\":\"x\"}\n".into())
            .expect("room");
        Ok(receiver)
    }
    async fn images_load(
        &self,
        mut archive: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Answer<mpsc::Receiver<Bytes>> {
        let mut bytes = 0;
        while let Some(piece) = archive.recv().await {
            bytes += piece.map_or(0, |piece| piece.len());
        }
        self.note(format!("load {bytes}"));
        let (sender, receiver) = mpsc::channel(1);
        sender
            .try_send("{\"stream\":\"x\"}\n".into())
            .expect("room");
        Ok(receiver)
    }
    async fn images_save(
        &self,
        query: SaveQuery,
    ) -> Answer<mpsc::Receiver<std::io::Result<Bytes>>> {
        self.note(format!("save {}", query.names));
        let (sender, receiver) = mpsc::channel(2);
        sender.try_send(Ok("half ".into())).expect("room");
        if query.names == "broken" {
            let error = std::io::Error::other("the disk");
            sender.try_send(Err(error)).expect("room");
        }
        Ok(receiver)
    }
    async fn images_prune(&self, query: ImagePruneQuery) -> Answer<ImagesPruned> {
        self.note(format!("prune {}", query.all));
        Ok(ImagesPruned::default())
    }
    async fn image_resolve(&self, query: ResolveQuery, asker: String) -> Answer<ResolvedImage> {
        self.absent(format!("resolve {} {}", query.name, asker.len()))
    }
}

/// Whether the leader has to answer a call: said once more here, for a route that is in the wrong list.
fn is_about_the_swarm(path: &str) -> bool {
    let about = [
        "/v1/nodes",
        "/v1/networks",
        "/v1/services",
        "/v1/tasks",
        "/v1/secrets",
        "/v1/configs",
        "/v1/swarm/token/",
        "/v1/swarm/update",
        "/v1/swarm/ca/",
        "/v1/swarm/unlock-key",
    ];
    let is_here = path.ends_with("/connect") || path.ends_with("/disconnect");
    let is_here = is_here || path.contains("/logs") || path.ends_with("/exec");
    path == "/v1/swarm" || (!is_here && about.iter().any(|about| path.starts_with(about)))
}

pub(super) struct Server {
    dir: tempfile::TempDir,
    pub(super) fake: Arc<Fake>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = watch::channel(false);
        let socket = ApiSocket::bind(&dir.path().join("run/weft/weft.sock")).unwrap();
        let task = tokio::spawn(socket.serve(Arc::clone(&fake), stopped));
        Self {
            dir,
            fake,
            stop,
            task,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("run/weft/weft.sock")
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    pub(super) async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.call(method, path, &body.to_string()).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// A manager that does not lead gives the answer of the one that does to what is about the swarm,
    /// and its own to the rest.
    pub(super) async fn answers_as(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        wanted: (u16, Value),
    ) {
        assert_eq!(self.json(method, path, body).await, wanted);
        let calls = self.fake.calls.lock().unwrap();
        let was_passed_on = *calls.last().unwrap() == format!("passed on {method} {path}");
        assert_eq!(was_passed_on, is_about_the_swarm(path), "{method} {path}");
    }

    pub(super) async fn message(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, text) = self.call(method, path, body).await;
        let value: Value = serde_json::from_str(&text).unwrap();
        (status, value["message"].as_str().unwrap().to_owned())
    }
}
