//! Disks that are full, files that are damaged, names that somebody else has: what each may cost.

use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_netns_tests::{Cluster, Said, Settings, ask, eventually};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

const PROBE: Duration = Duration::from_secs(1);

/// Kills the agent of a node and waits for the next one.
pub(crate) fn restart(cluster: &Cluster, node: &str) {
    cluster.restart_agent(node);
    eventually("it answers", || {
        let said = cluster.weft(node, &["info"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
}

/// Waits until packets pass between a client and an address of another sandbox.
fn reaches(client: &Netns, ip: &str) {
    let to: SocketAddr = format!("{ip}:9").parse().expect("an address");
    eventually("the other end is reached", || {
        let probe = client.run_in(|| TcpStream::connect_timeout(&to, PROBE));
        // Nobody listens there: the refusal shows that packets pass in both directions.
        match probe.expect("a thread") {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Waits until `weft info` of a node holds these words, or does not.
fn info(cluster: &Cluster, node: &str, words: &str, there: bool) {
    eventually("the node says what is the matter", || {
        let said = cluster.weft(node, &["info"]);
        if said.code == 0 && said.out.contains(words) == there {
            Ok(())
        } else {
            Err((words.to_owned(), said))
        }
    });
}

fn data(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.lab().dir().join(node).join("data")
}

/// Files of a folder whose names hold `part`.
fn named(folder: &Path, part: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().contains(part))
        })
        .collect()
}

fn mode(path: &Path) -> u32 {
    let found = std::fs::metadata(path).expect("there").permissions();
    found.mode() & 0o777
}

/// Files below a folder that others may read, were they to come there, apart from what tasks read, and
/// the program that containers have for process 1.
fn readable(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let for_tasks = ["hosts", "resolv.conf", "hostname"];
        if path.is_dir() {
            found.extend(readable(&path));
        } else if mode(&path) & 0o077 != 0
            && !for_tasks.contains(&name)
            && !(name.starts_with("weft-shim-") && mode(&path) == 0o755)
        {
            found.push(path);
        }
    }
    found
}

/// Takes all the room in a folder of a machine.
fn fill(cluster: &Cluster, node: &str, folder: &str) {
    let script = format!("head -c 64M /dev/zero > {folder}/filler");
    let said = cluster.run(node, None, &["sh", "-c", &script]);
    assert!(said.err.contains("No space left"), "{said:?}");
}

fn make_room(cluster: &Cluster, node: &str, folder: &str) {
    let filler = format!("{folder}/filler");
    cluster.run(node, None, &["rm", &filler]).done();
}

#[test]
fn a_node_finds_again_what_its_disk_has_lost() {
    let cluster = swarm(2);
    cluster.network("front");
    let (client, printed) = cluster.guest("node1", "client", "front");
    let back = printed["IP"].as_str().expect("an address").to_owned();
    let (first, printed) = cluster.guest("node2", "first", "front");
    let ip = printed["IP"].as_str().expect("an address").to_owned();
    let (_second, printed) = cluster.guest("node2", "second", "front");
    let other = printed["IP"].as_str().expect("an address").to_owned();
    reaches(&client, &ip);
    let data = data(&cluster, "node2");
    let places = data.join("endpoints.json");
    let whole = std::fs::read_to_string(&places).expect("a list of places");
    // A folder that was there already, and that everybody may enter.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&data, open).expect("a mode");

    // The power failed while it was written; somebody followed advice and removed it.
    for text in [Some(""), Some(&whole[..whole.len() / 2]), None] {
        match text {
            Some(text) => std::fs::write(&places, text).expect("damaged"),
            None => std::fs::remove_file(&places).expect("removed"),
        }
        restart(&cluster, "node2");
        reaches(&client, &ip);
        reaches(&client, &other);
        reaches(&first, &back);
        let now = std::fs::read_to_string(&places).expect("a list of places");
        assert_eq!(now, whole, "the same places");
        info(&cluster, "node2", "endpoint", false);
    }
    assert_eq!(named(&data, "endpoints.json.damaged-").len(), 2);
    assert_eq!(mode(&data), 0o700);

    // One sandbox is gone, and nothing says any more where it was.
    let gone = ["ip", "netns", "del", "second"];
    cluster.run("node2", None, &gone).done();
    drop(_second);
    std::fs::write(&places, "").expect("damaged");
    restart(&cluster, "node2");
    reaches(&client, &ip);
    info(&cluster, "node2", "endpoint second is not attached", true);
    cluster
        .weft("node2", &["network", "disconnect", "front", "second"])
        .done();
    info(&cluster, "node2", "endpoint second", false);

    // The rest of its files, at once.
    for name in ["swarm.json", "assignment.json", "heard.json"] {
        let path = data.join(name);
        let text = std::fs::read(&path).expect("a file of the node");
        // The orders are needed to make the membership anew: that is their own case below.
        if name != "assignment.json" {
            std::fs::write(&path, &text[..text.len() / 2]).expect("damaged");
        }
    }
    restart(&cluster, "node2");
    reaches(&client, &ip);
    assert_eq!(named(&data, "swarm.json.damaged-").len(), 1);
    std::fs::write(data.join("assignment.json"), "").expect("damaged");
    restart(&cluster, "node2");
    reaches(&client, &ip);
    assert_eq!(named(&data, "assignment.json.damaged-").len(), 1);
    assert_eq!(named(&data, ".unfinished"), Vec::<PathBuf>::new());

    // Anybody may take an abstract name in the node's namespace.
    let taken = cluster.netns("node2", None).run_in(|| {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(nobody).expect("another user");
        let name = UnixAddr::from_abstract_name("weftd").expect("a name");
        UnixListener::bind_addr(&name).expect("the name is free")
    });
    let taken = taken.expect("a thread");
    restart(&cluster, "node2");
    reaches(&client, &ip);
    drop(taken);
    // The lock that took its place is nobody else's to take.
    let said = cluster
        .run("node2", None, &["ls", "-ldn", "/run/weft/locks"])
        .ok();
    assert!(said.starts_with("drwx------"), "{said}");
    assert!(said.contains(" 0 0 "), "{said}");
}

fn published(cluster: &Cluster, node: &str) -> Result<String, String> {
    ask(&cluster.outside(), cluster.at(node, 8000), PROBE).map_err(|e| e.to_string())
}

#[test]
fn a_broken_manager_store_and_a_full_run_leave_traffic_up() {
    let cluster = swarm(2);
    cluster.web(2);
    let (client, _) = cluster.guest("node1", "client", "front");
    let (_server, printed) = cluster.guest("node2", "server", "front");
    let ip = printed["IP"].as_str().expect("an address").to_owned();
    let traffic = || {
        reaches(&client, &ip);
        for node in ["node1", "node2"] {
            eventually("the published port answers", || published(&cluster, node));
        }
    };
    traffic();
    for node in ["node1", "node2"] {
        assert_eq!(readable(&data(&cluster, node)), Vec::<PathBuf>::new());
    }
    let store = data(&cluster, "node1").join("raft.redb");
    let good = std::fs::read(&store).expect("a state");
    let mut bad = good.clone();
    for byte in bad.iter_mut().skip(4096) {
        *byte ^= 0x5a;
    }
    std::fs::write(&store, &bad).expect("damaged");
    restart(&cluster, "node1");
    traffic();
    info(&cluster, "node1", "the manager of this node is off", true);
    let why = |said: Said| {
        let words = ["the manager of this node is off", "raft.redb is damaged"];
        said.refused(&[words.as_slice(), &["restore it from a backup"]].concat());
    };
    for command in [
        ["node", "ls"].as_slice(),
        &["network", "create", "more"],
        &["service", "ls"],
        &["network", "disconnect", "front", "client"],
        &["network", "connect", "front", "/run/netns/client"],
    ] {
        why(cluster.weft("node1", command));
    }
    cluster
        .weft("node1", &["swarm", "leave"])
        .refused(&["participating as a manager", "--force"]);
    std::fs::write(&store, &good).expect("restored");
    cluster.wait_ready(2);
    info(&cluster, "node1", "the manager of this node is off", false);
    cluster.network("more");
    traffic();

    // `/run` is shared with everything; flows are written down there.
    let remount = ["mount", "-o", "remount,size=2m", "/run"];
    cluster.run("node2", None, &remount).done();
    // What was written down keeps its room, and is not there for the next agent.
    let flows = ["mv", "/run/weft/flows", "/run/weft/earlier"];
    cluster.run("node2", None, &flows).done();
    fill(&cluster, "node2", "/run");
    restart(&cluster, "node2");
    let pid = cluster.lab().agent_pid("node2").expect("a node");
    info(&cluster, "node2", "will not all outlive this agent", true);
    traffic();
    for _ in 0..200 {
        published(&cluster, "node2").expect("an answer");
    }
    traffic();
    assert_eq!(cluster.lab().agent_pid("node2").expect("a node"), pid);
    make_room(&cluster, "node2", "/run");
    restart(&cluster, "node2");
    info(&cluster, "node2", "will not all outlive this agent", false);
    traffic();

    // Full while they are written: flows that there is room for, then ones that there is none for.
    let pid = cluster.lab().agent_pid("node2").expect("a node");
    fill(&cluster, "node2", "/run");
    for _ in 0..200 {
        published(&cluster, "node2").expect("an answer");
    }
    assert_eq!(cluster.lab().agent_pid("node2").expect("a node"), pid);
    make_room(&cluster, "node2", "/run");
}

#[test]
fn a_disk_that_was_full_once_is_no_matter_later() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let cluster = Cluster::bare(PROGRAM, &settings);
    let data = data(&cluster, "node1");
    let data = data.to_str().expect("a path");
    // Too small for the room that the manager would hold for itself.
    let mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", data];
    cluster.run("node1", None, &mount).done();
    cluster.init("node1");
    cluster.network("before");
    let mut made = 0;
    let refused = eventually("a change that does not fit, and the node says so", || {
        fill(&cluster, "node1", data);
        made += 1;
        let said = cluster.weft("node1", &["network", "create", &format!("n{made}")]);
        if said.code == 0 {
            return Err(said);
        }
        // The log has what it gave up for it: a smaller change may be stored a moment later.
        let told = cluster.weft("node1", &["info"]);
        if told.out.contains("the manager cannot store changes") {
            Ok(said)
        } else {
            Err(told)
        }
    });
    refused.refused(&[
        "raft.redb has no room for it",
        "nothing was changed",
        "try again",
    ]);
    let names = || {
        let said = cluster.weft("node1", &["network", "ls", "--format", "{{.Name}}"]);
        said.ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!names().contains(&format!("n{made}")), "{:?}", names());
    make_room(&cluster, "node1", data);
    // At once, without a restart.
    cluster.network("after");
    info(&cluster, "node1", "the manager cannot store changes", false);
    let before = names();
    restart(&cluster, "node1");
    cluster.wait_ready(1);
    assert_eq!(names(), before);
    assert!(before.contains(&"before".to_owned()) && before.contains(&"after".to_owned()));
}
