//! What a thousand nodes cost the manager that leads, and how many changes three managers take.
//!
//! `cargo test --release -p weft-swarm --lib figures -- --ignored --nocapture --test-threads=1`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

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
async fn joined(manager: &Manager, folder: &Path) {
    let core = &manager.core;
    for n in 1..=NODES {
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
fn be_nodes(folder: PathBuf) {
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
    assert_eq!(sessions.len(), usize::from(NODES));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// The process that plays the nodes of a folder; it ends with this one.
fn nodes(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn a_thousand_sessions_at_rest_cost_the_leader_little() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return be_nodes(folder.into());
    }
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let config = ManagerConfig {
        timing: Timing::default(),
        ..config(dir.path(), any_port())
    };
    let params = InitParams {
        // Room for all nodes on the ingress network.
        subnet_prefix_len: Some(16),
        ..params("m1")
    };
    let made = runtime.block_on(Manager::init(config, params));
    let (manager, ..) = made.unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(joined(&manager, folder.path()));
    let before = resident();
    let mut nodes = nodes(folder.path());
    runtime.block_on(async {
        let mut states = manager.core.store.subscribe();
        let all_ready = states.wait_for(|state| {
            let ready = state.nodes.values();
            let ready = ready.filter(|node| node.status.state == NodeState::Ready);
            ready.count() >= usize::from(NODES)
        });
        let found = timeout(GATHERED, all_ready)
            .await
            .map(|found| found.is_ok());
        assert_eq!(found, Ok(true), "not all nodes have a session");
    });
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
    assert!(share <= 0.2, "{share}");
    assert!(now <= 300_000_000, "{now}");
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
