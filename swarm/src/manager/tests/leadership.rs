//! What a manager does while it leads, and does not do while another one leads.

use std::sync::atomic::{AtomicUsize, Ordering};

use weft_cluster::{Change, Entropy, Leadership, ProposeError, create_service};
use weft_model::api::NodeRow;

use super::managers::until;
use super::*;
use crate::desired_store::{BoxFuture, Head};

/// A store with a leader that the test chooses.
#[derive(Debug)]
struct Led {
    file: Arc<RaftStore>,
    leadership: watch::Sender<Leadership>,
    /// Entries that this manager proposed while it did not lead.
    refused: AtomicUsize,
}

impl Led {
    fn turn(&self, leadership: Leadership) {
        self.leadership.send_replace(leadership);
    }

    /// A service that this manager hears of from the leader.
    async fn replicated(&self, spec: ServiceSpec) {
        // Another one for each: the same would make the same id.
        let mut entropy = Entropy::from_seed([spec.name.as_bytes()[0]; 32]);
        loop {
            let head = self.file.head();
            let spec = spec.clone();
            let planned = create_service(&head.state, unix_ms(), &mut entropy, spec).unwrap();
            match self.file.propose(&head, planned.changes).await {
                // Something of the last term was still on its way to the disk.
                Err(ProposeError::Stale(_)) => {}
                stored => {
                    stored.unwrap();
                    return;
                }
            }
        }
    }
}

impl DesiredStore for Led {
    fn read(&self) -> Arc<ClusterState> {
        self.file.read()
    }

    fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.file.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.file.trouble()
    }

    fn head(&self) -> Head {
        self.file.head()
    }

    fn settled(&self, on: &Head) -> BoxFuture<'_, Result<(), ProposeError>> {
        self.file.settled(on)
    }

    fn propose(&self, on: &Head, changes: Vec<Change>) -> BoxFuture<'_, Result<(), ProposeError>> {
        if let Leadership::Follower { leader } = &*self.leadership.borrow() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            let leader = leader.clone();
            return Box::pin(async move { Err(ProposeError::NotLeader { leader }) });
        }
        self.file.propose(on, changes)
    }

    fn confirm_lead(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        if let Leadership::Follower { leader } = &*self.leadership.borrow() {
            let leader = leader.clone();
            return Box::pin(async move { Err(ProposeError::NotLeader { leader }) });
        }
        self.file.confirm_lead()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.file.close()
    }
}

/// A manager on such a store, with its own node; it leads.
async fn led() -> (Manager, Arc<Led>, Node) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), any_port());
    let (listener, local, advertise) = bind(&config).await.unwrap();
    let params = params("m1");
    let node = NodeDescription {
        manager_addr: Some(advertise),
        ..params.node.clone()
    };
    let made = Manager::make(&config, params, node).await.unwrap();
    let (file, own, membership) = made;
    let identity = Identity::clone(&own.borrow());
    let store = Arc::new(Led {
        file: Arc::clone(&file),
        leadership: watch::Sender::new(leader(1)),
        refused: AtomicUsize::new(0),
    });
    let desired = Arc::clone(&store) as Arc<dyn DesiredStore>;
    let listener = (listener, local, advertise);
    let manager = Manager::serve(desired, file, config, listener, own).unwrap();
    let node = Node::start(dir, identity, membership);
    node.connected().await;
    (manager, store, node)
}

fn leads(row: &NodeRow) -> bool {
    row.node.manager_status.as_ref().is_some_and(|m| m.leader)
}

fn leader(term: u64) -> Leadership {
    Leadership::Leader { term }
}

fn follower(leader: Option<NodeId>) -> Leadership {
    Leadership::Follower { leader }
}

async fn not_connected(node: &Node) {
    timeout(LIMIT, async {
        while node.session.connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the session goes on");
}

/// That nothing happens has no sign: these are ten looks of the health loop, and as many passes as
/// there are changes.
async fn never(manager: &Manager, wanted: impl Fn(&ClusterState) -> bool) {
    never_in(manager, quick().tick * 10, wanted).await;
}

/// What the leader shows of a node: what it knows itself counts before the state.
fn judged(manager: &Manager, name: &str) -> NodeState {
    manager.node(name).unwrap().node.status.state
}

async fn never_in(manager: &Manager, time: Duration, wanted: impl Fn(&ClusterState) -> bool) {
    let mut states = manager.core.store.subscribe();
    let found = timeout(time, states.wait_for(|s| wanted(s))).await;
    assert!(found.is_err(), "a follower decided: {:?}", manager.state());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_plans_and_a_new_one_catches_up() {
    let (manager, store, node) = led().await;
    manager.create_service(service("a", 2)).await.unwrap();
    state(&manager, |s| s.tasks.len() == 2).await;
    assert!(leads(&manager.node("m1").unwrap()));

    store.turn(follower(None));
    // What was begun as a leader is over when its sessions are.
    not_connected(&node).await;
    store.replicated(service("b", 1)).await;
    never(&manager, |s| s.tasks.len() > 2).await;
    let tried = store.refused.load(Ordering::SeqCst);
    store.replicated(service("c", 1)).await;
    never(&manager, |s| s.tasks.len() > 2).await;
    assert_eq!(store.refused.load(Ordering::SeqCst), tried, "it tries");
    let row = manager.node("m1").unwrap();
    assert!(row.is_self && !leads(&row));

    store.turn(leader(2));
    state(&manager, |s| s.tasks.len() == 4).await;
    manager.create_service(service("d", 1)).await.unwrap();
    state(&manager, |s| s.tasks.len() == 5).await;
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_refuses_changes_and_says_who_leads() {
    let (manager, store, node) = led().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    let other = worker.session.identity().node_id().clone();
    store.turn(follower(Some(other)));
    let error = manager.create_service(service("a", 1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotLed);
    let named = "this manager does not lead the swarm: node w1 does, ask there";
    assert_eq!(error.message, named);

    // Nodes look for another one, and joining machines are told; the root is no secret of a leader.
    not_connected(&node).await;
    not_connected(&worker).await;
    let dir = tempfile::tempdir().unwrap();
    let token = manager.join_token(Role::Worker).unwrap();
    let params = join_params(dir.path(), "w2", &token.token, &token.manager_addr);
    let error = join(params.clone()).await.unwrap_err();
    assert_eq!(error.message, named);

    store.turn(follower(Some(NodeId::from("elsewhere"))));
    let error = manager.create_service(service("a", 1)).await.unwrap_err();
    assert!(error.message.contains("node elsewhere does"), "{error}");
    store.turn(follower(None));
    let error = manager.create_service(service("a", 1)).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("The swarm does not have a leader."),
        "{error}"
    );

    store.turn(leader(2));
    worker.connected().await;
    join(params).await.unwrap();
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_counts_from_the_beginning_of_the_term() {
    let (manager, store, _node) = led().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    state(&manager, |s| health(s, "w1") == NodeState::Ready).await;

    // It goes on with another leader, for longer than it may be silent here.
    store.turn(follower(None));
    drop(worker);
    never_in(&manager, quick().grace * 2, |s| {
        health(s, "w1") != NodeState::Ready
    })
    .await;

    let version = manager.state().version;
    store.turn(leader(2));
    until("nobody was silent in this term", || {
        judged(&manager, "w1") == NodeState::Unknown
    })
    .await;
    let log = manager.state();
    assert_eq!(
        log.version, version,
        "a term begins without a word of nodes"
    );
    assert_eq!(health(&log, "w1"), NodeState::Ready);
    manager.stop().await;
}

/// Another manager may have led between two terms of this one, however short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_that_follows_its_own_begins_anew() {
    let (manager, store, _node) = led().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    state(&manager, |s| health(s, "w1") == NodeState::Ready).await;
    let id = worker.session.identity().node_id().clone();
    let Node { dir, session } = worker;
    drop(session);
    timeout(LIMIT, async {
        while manager.core.sessions.contains(&id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("its session is over");

    store.turn(leader(2));
    until("nobody was silent in this term", || {
        judged(&manager, "w1") == NodeState::Unknown
    })
    .await;
    assert_eq!(health(&manager.state(), "w1"), NodeState::Ready);
    // It gets nothing new until it calls.
    let global = ServiceSpec {
        mode: ServiceMode::Global,
        ..service("g", 1)
    };
    manager.create_service(global).await.unwrap();
    let tasks = state(&manager, |s| s.tasks.len() == 1).await;
    assert_ne!(tasks.tasks.values().next().unwrap().node, Some(id.clone()));
    let (membership, identity) = Membership::load(dir.path()).unwrap().unwrap();
    let worker = Node::start(dir, identity, membership);
    worker.connected().await;
    state(&manager, |s| {
        s.tasks_on(&id).count() == 1 && s.tasks.len() == 2
    })
    .await;
    assert_eq!(judged(&manager, "w1"), NodeState::Ready);
    manager.stop().await;
}
