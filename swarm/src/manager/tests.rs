//! Managers and nodes over real sockets on the loopback, with short periods.

mod autolock;
mod backups;
mod certificates;
mod credentials;
mod door;
mod figures;
mod leadership;
mod managers;
mod members;
mod payloads;
mod roles;
mod rotation;
mod scale;
mod talks;
mod versions;
mod watching;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_cluster::{Attach, ErrorKind, HostRoute, UnlockKey};
use weft_model::api::SwarmUpdate;
use weft_model::assignment::Assignment;
use weft_model::objects::{
    CaConfig, ContainerSpec, Ipam, NetworkAttachmentSpec, NetworkSpec, NodeState, Platform,
    PortSpec, Resources, Service, ServiceMode, ServiceSpec, TaskSpec, TaskState, TaskStatus,
};

use super::own::is_fresh;
use super::*;
use crate::join::{JoinParams, join};
use crate::membership::EARLIER_STORE_FILE;
use crate::raft::{Dialer, Links, Setup, StoreError};
use crate::session::{Farewell, Session, SessionConfig};

const LIMIT: Duration = Duration::from_secs(20);
/// Life of a node certificate, where nobody has set another one.
const NODE_LIFE: Duration = CaConfig::EXPIRY;

fn quick() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        grace: Duration::from_millis(800),
        hinted_grace: Duration::from_millis(300),
        first_grace: Duration::from_secs(20),
        debounce: Duration::from_millis(5),
        tick: Duration::from_millis(20),
        handshake: Duration::from_secs(1),
        stranger_life: Duration::from_secs(2),
    }
}

/// Each name has an address of its own.
fn description(name: &str) -> NodeDescription {
    let number = name
        .bytes()
        .fold(0, |sum: u16, b| sum.wrapping_mul(31) ^ u16::from(b));
    let [high, low] = number.to_be_bytes();
    let addr = IpAddr::V4(Ipv4Addr::new(127, 1, high, low));
    NodeDescription {
        hostname: name.to_owned(),
        engine_version: "0.1.0".to_owned(),
        addr,
        data_path_addr: addr,
        gossip_port: 7946,
        manager_addr: None,
        platform: Platform::default(),
        resources: Resources::default(),
        runtimes: vec!["crun".to_owned()],
    }
}

fn config(dir: &Path, listen: SocketAddr) -> ManagerConfig {
    ManagerConfig {
        data_dir: dir.to_owned(),
        listen,
        advertise: listen,
        timing: quick(),
        routes: Arc::new(|| {
            let dest = "10.200.0.0/16".parse().unwrap();
            vec![HostRoute::connected(dest, "dev eth9")]
        }),
        holder_of: |port| format!("the holder of {port}"),
        api: answering(format!("{}", dir.display())),
    }
}

/// Says who it is, what it was asked and by whom.
fn answering(name: String) -> ApiServer {
    ApiServer::new(move |node, call: ApiCall| {
        let (method, path, size) = (call.method, call.path, call.body.len());
        let text = format!("{name} {method} {path} {size} {node}");
        async move {
            ApiReply {
                status: 418,
                content_type: "text/plain".to_owned(),
                body: text.into(),
                not_led: path == "/not-led",
            }
        }
    })
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// An address that was free a moment ago.
/// Managers of which nobody hears anything else.
fn known(managers: Vec<String>) -> KnownManagers {
    Arc::new(move || managers.clone())
}

fn free() -> SocketAddr {
    let free = std::net::TcpListener::bind(any_port()).unwrap();
    free.local_addr().unwrap()
}

fn params(name: &str) -> InitParams {
    InitParams {
        node: description(name),
        default_address_pools: Vec::new(),
        subnet_prefix_len: None,
        data_path_port: None,
        autolock: false,
        availability: Availability::Active,
    }
}

fn service(name: &str, replicas: u32) -> ServiceSpec {
    let task = TaskSpec {
        container: ContainerSpec {
            image: "host".to_owned(),
            args: vec!["/bin/true".to_owned()],
            ..ContainerSpec::default()
        },
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: name.to_owned(),
        mode: ServiceMode::Replicated { replicas },
        task: Arc::new(task),
        ..ServiceSpec::default()
    }
}

struct Node {
    dir: TempDir,
    session: Session,
}

impl Node {
    fn start(dir: TempDir, identity: Identity, membership: Membership) -> Self {
        let config = SessionConfig {
            data_dir: dir.path().to_owned(),
            managers: membership.managers,
            node: membership.node,
        };
        let session = Session::start(identity, config);
        Self { dir, session }
    }

    async fn join(manager: &Manager, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = manager.join_token(Role::Worker).unwrap();
        let identity = join(join_params(
            dir.path(),
            name,
            &token.token,
            &token.manager_addr,
        ))
        .await
        .unwrap();
        let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
        Self::start(dir, identity, membership)
    }

    /// Waits for orders that satisfy `wanted`.
    async fn orders(&self, wanted: impl Fn(&Assignment) -> bool) -> Arc<Assignment> {
        let mut orders = self.session.assignments();
        let found = orders.wait_for(|o| o.as_ref().is_some_and(|o| wanted(o)));
        let found = timeout(LIMIT, found)
            .await
            .expect("no such orders")
            .unwrap();
        Arc::clone(found.as_ref().unwrap())
    }

    async fn connected(&self) {
        timeout(LIMIT, async {
            while !self.session.connected() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("never connected");
    }
}

fn join_params(dir: &Path, name: &str, token: &str, remote: &str) -> JoinParams {
    JoinParams {
        token: token.to_owned(),
        remote: remote.to_owned(),
        node: description(name),
        availability: Availability::Active,
        listen: any_port(),
        data_dir: dir.to_owned(),
    }
}

/// A manager with its own node.
async fn cluster() -> (Manager, Node) {
    let dir = tempfile::tempdir().unwrap();
    let (manager, identity, membership) =
        Manager::init(config(dir.path(), any_port()), params("m1"))
            .await
            .unwrap();
    let node = Node::start(dir, identity, membership);
    node.connected().await;
    (manager, node)
}

async fn set_autolock(manager: &Manager, on: bool) {
    let update = SwarmUpdate {
        autolock: Some(on),
        ..SwarmUpdate::default()
    };
    manager.update_swarm(None, &update).await.unwrap();
}

async fn state(manager: &Manager, wanted: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
    let mut states = manager.core.store.subscribe();
    let found = timeout(LIMIT, states.wait_for(|s| wanted(s))).await;
    let found = found.map(|f| Arc::clone(&f.unwrap()));
    found.unwrap_or_else(|_| panic!("no such state: {:#?}", manager.core.store.read().tasks))
}

fn health(state: &ClusterState, name: &str) -> NodeState {
    state.find_node(name).unwrap().status.state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_and_gets_orders() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    assert_eq!(worker.session.identity().role(), Role::Worker);
    state(&manager, |s| {
        s.nodes.len() == 2 && s.nodes.values().all(|n| n.status.state == NodeState::Ready)
    })
    .await;
    let names: Vec<String> = manager
        .nodes()
        .into_iter()
        .map(|r| r.node.description.hostname)
        .collect();
    assert_eq!(names, ["m1", "w1"]);

    let network = NetworkSpec {
        name: "back".into(),
        ..NetworkSpec::default()
    };
    let network = manager.create_network(network).await.unwrap();
    let mut web = service("web", 2);
    Arc::make_mut(&mut web.task).networks = vec![NetworkAttachmentSpec {
        target: "back".into(),
        aliases: Vec::new(),
        stack_aliases: Vec::new(),
    }];
    web.endpoint.ports = vec![PortSpec {
        published: 8000,
        target: 80,
        ..PortSpec::default()
    }];
    manager.create_service(web).await.unwrap();
    let orders = worker.orders(|o| o.own.tasks.len() == 1).await;
    assert_eq!(orders.own.tasks[0].attachments[0].network, network.id);
    assert_eq!(orders.own.tasks[0].attachments.len(), 2, "back and ingress");
    assert!(!orders.shared.gossip_keys.is_empty());
    first.orders(|o| o.own.tasks.len() == 1).await;

    let task = orders.own.tasks[0].id.clone();
    let status = TaskStatus {
        state: TaskState::Running,
        ..TaskStatus::default()
    };
    worker.session.report(task.clone(), status);
    state(&manager, |s| {
        s.tasks[&task].status.state == TaskState::Running
    })
    .await;
    let detail = manager.service("web").unwrap();
    assert_eq!((detail.status.running, detail.status.desired), (1, 2));
    assert_eq!(manager.tasks("web").unwrap().len(), 2);
    let on_worker = manager.node_tasks("w1").unwrap();
    assert_eq!(on_worker.len(), 1);
    assert_eq!(on_worker[0].task.id, task);
    assert_eq!(on_worker[0].node_name, "w1");
    let unknown = manager.node_tasks("w2").unwrap_err();
    assert_eq!(unknown.message, "no such node: w2");

    // A report about somebody else's task changes nothing, and does not stop the others.
    let foreign = first.orders(|o| !o.own.tasks.is_empty()).await.own.tasks[0]
        .id
        .clone();
    let failed = TaskStatus {
        state: TaskState::Failed,
        ..TaskStatus::default()
    };
    worker.session.report(foreign.clone(), failed.clone());
    worker.session.report(task.clone(), failed);
    state(&manager, |s| {
        s.tasks[&task].status.state == TaskState::Failed
    })
    .await;
    assert!(manager.state().tasks[&foreign].status.state < TaskState::Failed);
    manager.stop().await;
}

/// Asks for all of these services at once; those that were made, and why the others were not.
async fn at_once(
    manager: &Arc<Manager>,
    specs: Vec<ServiceSpec>,
) -> (Vec<Service>, Vec<CommandError>) {
    let mut asked = JoinSet::new();
    for spec in specs {
        let manager = Arc::clone(manager);
        asked.spawn(async move { manager.create_service(spec).await });
    }
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    for result in asked.join_all().await {
        match result {
            Ok(service) => made.push(service),
            Err(error) => refused.push(error),
        }
    }
    (made, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_services_at_once_one_gets_a_name_and_one_a_port() {
    let (manager, _first) = cluster().await;
    let manager = Arc::new(manager);
    let on = |name: String, published: u16| {
        let mut spec = service(&name, 0);
        spec.endpoint.ports.push(PortSpec {
            published,
            target: 80,
            ..PortSpec::default()
        });
        spec
    };

    let same_name = (0..24).map(|_| service("web", 0)).collect();
    let (made, refused) = at_once(&manager, same_name).await;
    assert_eq!((made.len(), refused.len()), (1, 23));
    for error in refused {
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        let text = "name conflicts with an existing object: service web already exists";
        assert_eq!(error.message, text);
    }

    let same_port = (0..24).map(|n| on(format!("fixed{n}"), 8000)).collect();
    let (made, refused) = at_once(&manager, same_port).await;
    assert_eq!((made.len(), refused.len()), (1, 23));
    let text = format!(
        "port '8000' is already in use by service '{}'",
        made[0].spec.name
    );
    for error in refused {
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        assert!(error.message.starts_with(&text), "{error}");
    }

    let any_port = (0..16).map(|n| on(format!("any{n}"), 0)).collect();
    let (made, refused) = at_once(&manager, any_port).await;
    assert!(refused.is_empty(), "{refused:?}");
    let ports = made.iter().map(|s| s.endpoint.ports[0].published);
    let ports: BTreeSet<u16> = ports.collect();
    assert_eq!((made.len(), ports.len()), (16, 16), "{ports:?}");
    assert!(!ports.contains(&0) && !ports.contains(&8000), "{ports:?}");
    assert_eq!(manager.state().services.len(), 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_rotated_tokens_are_refused() {
    let (manager, _first) = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let good = manager.join_token(Role::Worker).unwrap();
    let attempt = |token: String| join(join_params(dir.path(), "w", &token, &good.manager_addr));
    let error = attempt("rubbish".into()).await.unwrap_err();
    assert!(error.message.starts_with("invalid join token"), "{error}");

    let (prefix, _) = good.token.rsplit_once('-').unwrap();
    let error = attempt(format!("{prefix}-{}", "0".repeat(25)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
    assert!(
        error
            .message
            .starts_with("A valid join token is necessary to join this cluster"),
        "{error}"
    );

    // A token of another cluster pins another root: the secret is never sent.
    let digest = prefix.strip_prefix("SWMTKN-1-").unwrap();
    let first = if digest.starts_with('0') { "1" } else { "0" };
    let pinned = format!("{first}{}", &digest[1..]);
    let error = attempt(good.token.replacen(digest, &pinned, 1))
        .await
        .unwrap_err();
    let expected = format!("remote CA does not match fingerprint. Expected: {first}");
    assert!(error.message.starts_with(&expected), "{error}");
    assert!(
        error.message.contains(&format!(", got: {digest}.")),
        "{error}"
    );

    let rotated = manager.rotate_join_token(Role::Worker).await.unwrap();
    let error = attempt(good.token.clone()).await.unwrap_err();
    assert!(
        error.message.contains("run `weft swarm join-token worker`"),
        "{error}"
    );
    let leader = manager.join_token(Role::Manager).unwrap();
    let error = attempt(leader.token).await.unwrap_err();
    assert!(
        error
            .message
            .contains("does not say where the other managers reach it"),
        "{error}"
    );
    assert_eq!(manager.nodes().len(), 1, "no node is left behind");
    assert!(Membership::load(dir.path()).unwrap().is_none());

    attempt(rotated.token.clone()).await.unwrap();
    let error = attempt(rotated.token).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("This node is already part of a swarm"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_manager_is_named() {
    let (manager, _first) = cluster().await;
    let token = manager.join_token(Role::Worker).unwrap();
    // A port that was free a moment ago and that nobody listens on.
    let closed = std::net::TcpListener::bind(any_port()).unwrap();
    let remote = closed.local_addr().unwrap().to_string();
    drop(closed);
    let dir = tempfile::tempdir().unwrap();
    let error = join(join_params(dir.path(), "w", &token.token, &remote))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(
        error.message.starts_with(&format!(
            "cannot reach the manager at {remote}: Connection refused"
        )),
        "{error}"
    );
    let remote = "nosuchhost.invalid:2377";
    let error = join(join_params(dir.path(), "w", &token.token, remote))
        .await
        .unwrap_err();
    let says = error.message.contains("the name cannot be resolved")
        || error.message.contains("the name was not resolved");
    assert!(says, "{error}");
    // A listener that never answers: the time limit speaks.
    let mute = std::net::TcpListener::bind(any_port()).unwrap();
    let remote = mute.local_addr().unwrap().to_string();
    let error = timeout(
        LIMIT,
        join(join_params(dir.path(), "w", &token.token, &remote)),
    )
    .await
    .unwrap()
    .unwrap_err();
    assert!(
        error.message.contains("no answer within 5 seconds"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_nodes_go_down_and_their_tasks_move() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    manager.create_service(service("web", 2)).await.unwrap();
    worker.orders(|o| o.own.tasks.len() == 1).await;
    let Node { dir, session } = worker;
    let identity = Identity::clone(&session.identity());
    drop(session);
    state(&manager, |s| health(s, "w1") == NodeState::Down).await;
    first
        .orders(|o| {
            let wanted = o
                .own
                .tasks
                .iter()
                .filter(|t| t.desired == TaskState::Running);
            wanted.count() == 2
        })
        .await;
    let row = manager.node("w1").unwrap();
    assert_eq!(row.node.status.message, "heartbeat failure");

    // It comes back with what it remembers, and is told to stop the moved task.
    let (membership, _) = Membership::load(dir.path()).unwrap().unwrap();
    let worker = Node::start(dir, identity, membership);
    assert!(
        worker.session.assignments().borrow().is_some(),
        "the last orders are kept"
    );
    worker
        .orders(|o| o.own.tasks.len() == 1 && o.own.tasks[0].desired == TaskState::Shutdown)
        .await;
    state(&manager, |s| health(s, "w1") == NodeState::Ready).await;

    // A node that says goodbye is down at once, and may be removed.
    worker.session.leave(Farewell::Left).await.unwrap();
    assert_eq!(health(&manager.state(), "w1"), NodeState::Down);
    manager.remove_node("w1", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_hastens_the_end() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    // Gossip alone is not believed while heartbeats arrive.
    let id = worker.session.identity().node_id().clone();
    manager.report_node_down(&id).await;
    assert_eq!(health(&manager.state(), "w1"), NodeState::Ready);
    drop(worker.session);
    let died = Instant::now();
    // The hint may come before the heartbeat is overdue.
    manager.report_node_down(&id).await;
    timeout(LIMIT, async {
        while health(&manager.state(), "w1") != NodeState::Down {
            // A heartbeat that was under way takes the hint back; gossip repeats it.
            manager.report_node_down(&id).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let row = manager.node("w1").unwrap();
    assert!(
        row.node.status.message.starts_with("gossip lost the node"),
        "{} after {:?}",
        row.node.status.message,
        died.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_manager_remembers() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    manager.create_service(service("web", 2)).await.unwrap();
    let orders = worker.orders(|o| o.own.tasks.len() == 1).await;
    let task = orders.own.tasks[0].id.clone();
    let token = manager.join_token(Role::Worker).unwrap();
    let listen = manager.local_addr();
    manager.stop().await;

    // Without a manager, orders stay and reports wait.
    timeout(LIMIT, async {
        while worker.session.connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(worker.session.assignments().borrow().is_some());
    let status = TaskStatus {
        state: TaskState::Running,
        ..TaskStatus::default()
    };
    worker.session.report(task.clone(), status);
    let attach = Attach {
        network: "x".into(),
        ..Attach::default()
    };
    let error = worker.session.attach(&attach).await.unwrap_err();
    assert!(
        error.message.starts_with("no manager is reachable"),
        "{error}"
    );

    let (_, identity) = Membership::load(first.dir.path()).unwrap().unwrap();
    let manager = Manager::open(config(first.dir.path(), listen), &identity)
        .await
        .unwrap();
    assert_eq!(manager.join_token(Role::Worker).unwrap(), token);
    worker.connected().await;
    let after = state(&manager, |s| {
        s.tasks[&task].status.state == TaskState::Running
            && s.nodes.values().all(|n| n.status.state == NodeState::Ready)
    })
    .await;
    assert_eq!(after.tasks.len(), 2, "nothing was moved");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_attach_endpoints() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let network = NetworkSpec {
        name: "n".into(),
        ..NetworkSpec::default()
    };
    manager.create_network(network).await.unwrap();
    let attach = |name: &str, ip: Option<&str>| Attach {
        network: "n".into(),
        name: Some(name.into()),
        ip: ip.map(|ip| ip.parse().unwrap()),
        ..Attach::default()
    };
    let endpoint = worker.session.attach(&attach("box", None)).await.unwrap();
    assert_eq!(endpoint.attachment.addresses[0].to_string(), "10.0.1.2/24");
    worker.orders(|o| o.own.endpoints.len() == 1).await;
    let error = first
        .session
        .attach(&attach("other", Some("10.0.1.2")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(
        error.message.contains("already in use by endpoint box"),
        "{error}"
    );
    let error = first.session.detach("n", "box", false).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);

    // A replica, and the name of a service, are the word of a manager and its user.
    let mut web = service("web", 0);
    Arc::make_mut(&mut web.task).networks = vec![NetworkAttachmentSpec {
        target: "n".into(),
        aliases: Vec::new(),
        stack_aliases: Vec::new(),
    }];
    manager.create_service(web).await.unwrap();
    let replica = |name: &str| Attach {
        service: Some("web".to_owned()),
        aliases: vec!["web".to_owned()],
        ..attach(name, None)
    };
    let error = worker.session.attach(&replica("evil")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
    let made = first.session.attach(&replica("good")).await.unwrap();
    let insisted = worker.session.detach("n", &made.name, true).await;
    let error = insisted.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden, "that is for managers");
    first.session.detach("n", &made.name, false).await.unwrap();
    worker.session.attach(&attach("more", None)).await.unwrap();
    first.session.detach("n", "more", true).await.unwrap();
    worker.session.detach("n", "box", false).await.unwrap();
    worker.orders(|o| o.own.endpoints.is_empty()).await;

    let overlap = NetworkSpec {
        name: "o".into(),
        ipam: Ipam::from_iter(["10.200.3.0/24".parse().unwrap()]),
        ..NetworkSpec::default()
    };
    let error = manager.create_network(overlap).await.unwrap_err();
    assert!(
        error
            .message
            .contains("host route 10.200.0.0/16 (dev eth9)"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_failed_leaves_no_node_behind() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    worker.session.leave(Farewell::NeverStarted).await.unwrap();
    let left = state(&manager, |s| s.nodes.len() == 1).await;
    assert!(left.find_node("w1").is_err());
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_nodes_are_refused() {
    let (manager, _first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    manager.remove_node("w1", true).await.unwrap();
    timeout(LIMIT, async {
        loop {
            let refused = |e: CommandError| e.message.contains("was removed from swarm");
            if worker.session.last_error().is_some_and(refused) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(!worker.session.connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_starts_leave_nothing_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let busy = std::net::TcpListener::bind(any_port()).unwrap();
    let listen = busy.local_addr().unwrap();
    let error = Manager::init(config(dir.path(), listen), params("m"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(
        error
            .message
            .starts_with(&format!("cannot listen on {listen}")),
        "{error}"
    );
    let holder = format!("by the holder of {}; stop that", listen.port());
    assert!(error.message.contains(&holder), "{error}");
    let wrong = InitParams {
        data_path_port: Some(80),
        ..params("m")
    };
    let error = Manager::init(config(dir.path(), any_port()), wrong)
        .await
        .unwrap_err();
    assert!(error.message.contains("1024-49151"), "{error}");
    assert!(Membership::load(dir.path()).unwrap().is_none());
    assert!(!dir.path().join(STORE_FILE).exists());

    // A foreign and a cut-off state file are refused, and left as they are.
    let (manager, identity, _) = Manager::init(config(dir.path(), any_port()), params("m"))
        .await
        .unwrap();
    manager.stop().await;
    let path = dir.path().join(STORE_FILE);
    let good = std::fs::read(&path).unwrap();
    let mut damaged = good.clone();
    for byte in damaged.iter_mut().skip(4096) {
        *byte ^= 0x5a;
    }
    for bytes in [b"not a database at all".repeat(300), damaged] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Manager::open(config(dir.path(), any_port()), &identity)
            .await
            .unwrap_err();
        assert!(
            error.message.contains("damaged or not a state file"),
            "{error}"
        );
    }
    std::fs::write(&path, &good).unwrap();
    let manager = Manager::open(config(dir.path(), any_port()), &identity)
        .await
        .unwrap();
    let links = Arc::new(Links::default());
    let dialer = Dialer::new(manager.identities(), Arc::clone(&links));
    let setup = Setup::on_disk(path.clone(), KeyRing::draw().into(), links);
    let second = RaftStore::open(setup, Start::Again, dialer).await;
    let second = second.unwrap_err();
    assert!(matches!(second, StoreError::Busy { .. }), "{second}");
    manager.stop().await;

    // The state of a version without a log is not taken for a missing one.
    std::fs::rename(&path, dir.path().join(EARLIER_STORE_FILE)).unwrap();
    let error = Manager::open(config(dir.path(), any_port()), &identity)
        .await
        .unwrap_err();
    let text = &error.message;
    assert!(
        text.contains("manager.redb is the state of a version of weftd without a log")
            && text.contains("nothing in it was changed")
            && text.contains("leave the swarm with --force"),
        "{text}"
    );
    assert!(dir.path().join(EARLIER_STORE_FILE).exists(), "as it was");
    Membership::forget(dir.path()).unwrap();
    assert!(Membership::load(dir.path()).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_membership_is_made_anew_from_the_orders_or_refused() {
    let (manager, node) = cluster().await;
    node.orders(|_| true).await;
    let dir = node.dir.path();
    let path = dir.join("swarm.json");
    let (whole, _) = Membership::load(dir).unwrap().unwrap();
    for text in [Some(""), Some("{\"node\""), None] {
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let (again, _) = Membership::load(dir).unwrap().unwrap();
        assert_eq!(
            (&again.node, &again.managers),
            (&whole.node, &whole.managers)
        );
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, manager.local_addr().port()));
        assert_eq!(again.listen, Some(listen));
        assert!(path.exists(), "written again");
    }
    manager.stop().await;
    node.session.leave(Farewell::Left).await.unwrap_err();
    std::fs::remove_file(dir.join("assignment.json")).unwrap();
    std::fs::write(&path, "{").unwrap();
    let error = Membership::load(dir).unwrap_err().to_string();
    assert!(error.contains("swarm.json is damaged"), "{error}");
    assert!(error.contains("restore it from a backup"), "{error}");
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "{",
        "left as it is"
    );
}
