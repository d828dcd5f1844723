//! What a thousand nodes cost the manager that leads, how many changes three managers take, and how
//! soon a thousand tasks have a node.
//!
//! `cargo test --release -p weft-swarm --lib figures -- --ignored --nocapture --test-threads=1`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use weft_cluster::{Quorum, join as add_node};
use weft_model::id::NodeId;

use super::managers::{beside, until};
use super::*;

const NODES: u16 = 1000;

/// All nodes of this test come from one address, whose connections are counted: it takes a minute.
const GATHERED: Duration = Duration::from_secs(300);

/// How long they do nothing but say that they are there.
const REST: Duration = Duration::from_secs(20);

/// Names the folder of the nodes to the process that plays them, which is this test again.
const FOLDER: &str = "WEFT_TEST_NODES";
const NAME: &str = "manager::tests::figures::a_thousand_sessions_at_rest_cost_the_leader_little";

/// Nodes that tasks are placed on, and how many tasks.
const FEW: u16 = 50;
const TASKS: u32 = 1000;
const PLACED: &str =
    "manager::tests::figures::a_thousand_tasks_on_fifty_nodes_are_assigned_at_once";

/// How soon all are to have a node, and what that may cost the leader, orders among it.
const ASSIGNED_WITHIN: Duration = Duration::from_secs(2);

/// What is left of an assignment: nodes hear of it.
const TOLD: Duration = Duration::from_secs(1);

/// Clients that change something at once, and for how long.
const WRITERS: usize = 64;
const WRITING: Duration = Duration::from_secs(5);

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().unwrap()
}

/// CPU time of this process.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

/// Bytes of memory that this process has in RAM (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().parse::<u64>().unwrap() * 1024
}

fn node_description(n: u16) -> NodeDescription {
    let [high, low] = n.to_be_bytes();
    let addr = IpAddr::V4(Ipv4Addr::new(192, 168, high, low));
    NodeDescription {
        hostname: format!("node{n}"),
        addr,
        data_path_addr: addr,
        ..description("any")
    }
}

/// Makes the data directories of nodes that joined a moment ago.
async fn joined(manager: &Manager, folder: &Path, count: u16) {
    let core = &manager.core;
    for n in 1..=count {
        let id = NodeId::from_entropy(entropy().next_u128());
        let node = node_description(n);
        core.run(|s, now, e| add_node(s, now, e, id.clone(), Role::Worker, &node))
            .await
            .unwrap();
        let identity = core
            .authority()
            .unwrap()
            .issue(&id, Role::Worker, &core.cluster, SystemTime::now())
            .unwrap();
        let membership = Membership {
            node,
            managers: vec![manager.local_addr().to_string()],
            listen: None,
        };
        let dir = folder.join(format!("node{n}"));
        std::fs::create_dir(&dir).unwrap();
        membership.save(&dir, &identity).unwrap();
    }
}

/// Is all the nodes of a folder until its input ends.
fn be_nodes(folder: PathBuf, count: u16) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut sessions = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let data_dir = entry.unwrap().path();
        let (membership, identity) = Membership::load(&data_dir).unwrap().unwrap();
        let config = SessionConfig {
            data_dir,
            managers: membership.managers,
            node: membership.node,
        };
        sessions.push(Session::start(identity, config));
    }
    assert_eq!(sessions.len(), usize::from(count));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// The process that plays the nodes of a folder for a test, by its name; it ends with this one.
fn nodes(folder: &Path, test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A manager of a cluster with room for all nodes on the ingress network.
fn large(runtime: &Runtime, dir: &Path) -> Manager {
    let config = ManagerConfig {
        timing: Timing::default(),
        ..config(dir, any_port())
    };
    let params = InitParams {
        subnet_prefix_len: Some(16),
        ..params("m1")
    };
    let made = runtime.block_on(Manager::init(config, params));
    let (manager, ..) = made.unwrap();
    manager
}

/// Waits until so many nodes have a session.
fn gather(runtime: &Runtime, manager: &Manager, count: u16) {
    runtime.block_on(async {
        let mut states = manager.core.store.subscribe();
        let all_ready = states.wait_for(|state| {
            let ready = state.nodes.values();
            let ready = ready.filter(|node| node.status.state == NodeState::Ready);
            ready.count() >= usize::from(count)
        });
        let found = timeout(GATHERED, all_ready)
            .await
            .map(|found| found.is_ok());
        assert_eq!(found, Ok(true), "not all nodes have a session");
    });
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn a_thousand_sessions_at_rest_cost_the_leader_little() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return be_nodes(folder.into(), NODES);
    }
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let manager = large(&runtime, dir.path());
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(joined(&manager, folder.path(), NODES));
    let before = resident();
    let mut nodes = nodes(folder.path(), NAME);
    gather(&runtime, &manager, NODES);
    // What their orders have changed is told.
    std::thread::sleep(REST / 4);
    let begun = (Instant::now(), cpu());
    std::thread::sleep(REST);
    let share = (cpu() - begun.1).as_secs_f64() / begun.0.elapsed().as_secs_f64();
    let now = resident();
    println!(
        "{NODES} sessions at rest: {:.1} % of a core, {:.0} MB, {:.0} of them for the sessions",
        share * 100.0,
        now as f64 / 1e6,
        now.saturating_sub(before) as f64 / 1e6
    );
    drop(nodes.stdin.take());
    nodes.wait().unwrap();
    runtime.block_on(manager.stop());
    assert!(now <= 300_000_000, "{now}");
    // It is this whole process that is measured, others of its tests as well: alone, in a release build.
    if !cfg!(debug_assertions) {
        assert!(share <= 0.2, "{share}");
    }
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn a_thousand_tasks_on_fifty_nodes_are_assigned_at_once() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return be_nodes(folder.into(), FEW);
    }
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let manager = large(&runtime, dir.path());
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(joined(&manager, folder.path(), FEW));
    let mut nodes = nodes(folder.path(), PLACED);
    gather(&runtime, &manager, FEW);
    let mut spec = service("web", TASKS);
    Arc::make_mut(&mut spec.task)
        .networks
        .push(NetworkAttachmentSpec {
            target: "back".to_owned(),
            aliases: Vec::new(),
            stack_aliases: Vec::new(),
        });
    let (took, spent, begun) = runtime.block_on(async {
        let back = NetworkSpec {
            name: "back".to_owned(),
            ..NetworkSpec::default()
        };
        manager.create_network(back).await.unwrap();
        let mut states = manager.core.store.subscribe();
        let begun = (Instant::now(), cpu());
        manager.create_service(spec).await.unwrap();
        let all_assigned = states.wait_for(|state| {
            let tasks = state.tasks.values();
            let assigned = tasks.filter(|task| task.status.state >= TaskState::Assigned);
            assigned.count() >= TASKS as usize
        });
        let found = timeout(LIMIT, all_assigned)
            .await
            .map(|found| found.is_ok());
        assert_eq!(found, Ok(true), "not all tasks have a node");
        (begun.0.elapsed(), cpu() - begun.1, begun.1)
    });
    std::thread::sleep(TOLD);
    let all = cpu() - begun;
    println!(
        "{TASKS} tasks on {FEW} nodes: assigned after {took:?}, {spent:?} of CPU, {all:?} until nodes knew"
    );
    let state = manager.core.store.read();
    let mut of_nodes: BTreeMap<&NodeId, u32> = BTreeMap::new();
    for task in state.tasks.values() {
        *of_nodes.entry(task.node.as_ref().unwrap()).or_default() += 1;
    }
    drop(nodes.stdin.take());
    nodes.wait().unwrap();
    runtime.block_on(manager.stop());
    let even = TASKS / u32::from(FEW);
    // The manager is a node as well.
    assert!(
        of_nodes.values().all(|n| n.abs_diff(even) <= 1),
        "{of_nodes:?}"
    );
    assert!(took <= ASSIGNED_WITHIN, "{took:?}");
    assert!(all <= ASSIGNED_WITHIN, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "second tier: a measurement, which needs a release build"]
async fn three_managers_take_many_changes_in_a_second() {
    let (first, _node) = cluster().await;
    let (second, _second_dir) = beside(&first, "m2").await;
    let (third, _third_dir) = beside(&first, "m3").await;
    let all = Quorum {
        managers: 3,
        reachable: 3,
    };
    until("three managers answer", || first.quorum() == all).await;
    let first = Arc::new(first);
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let first = Arc::clone(&first);
        writers.spawn(async move {
            let spec = NetworkSpec {
                name: format!("n{writer}"),
                ..NetworkSpec::default()
            };
            let mut taken = 0_u32;
            while begun.elapsed() < WRITING {
                first.create_network(spec.clone()).await.unwrap();
                first.remove_network(&spec.name).await.unwrap();
                taken += 2;
            }
            taken
        });
    }
    let taken: u32 = writers.join_all().await.into_iter().sum();
    let rate = f64::from(taken) / begun.elapsed().as_secs_f64();
    println!("{WRITERS} clients of 3 managers: {rate:.0} changes in a second");
    for manager in [&*first, &second, &third] {
        manager.stop().await;
    }
    assert!(rate >= 300.0, "{rate}");
}
