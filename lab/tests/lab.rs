//! Labs with a stand-in for the agent. This file is the multi-call program of its own labs, so
//! it has no test harness: the arguments decide what it is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::panic, reason = "a test that found something has failed")]
#![expect(clippy::print_stderr, reason = "the names of the tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use weft_lab::{Bed, Lab, LabConfig, OUTSIDE, SWITCH};
use weft_sys::offload::has_feature;

const LIMIT: Duration = Duration::from_secs(20);

type Test = (&'static str, fn());

const TESTS: [Test; 11] = [
    (
        "machines_reach_each_other_and_nobody_else",
        machines_reach_each_other_and_nobody_else,
    ),
    (
        "a_port_is_closed_for_others_alone",
        a_port_is_closed_for_others_alone,
    ),
    (
        "a_killed_agent_is_started_again",
        a_killed_agent_is_started_again,
    ),
    (
        "a_killed_node_is_gone_at_once",
        a_killed_node_is_gone_at_once,
    ),
    (
        "a_node_is_stopped_and_started_again",
        a_node_is_stopped_and_started_again,
    ),
    (
        "control_groups_are_seen_on_machines_and_images_shared",
        control_groups_are_seen_on_machines_and_images_shared,
    ),
    ("cables_are_those_of_the_bed", cables_are_those_of_the_bed),
    (
        "busy_loops_use_cpus_and_end_with_their_input",
        busy_loops_use_cpus_and_end_with_their_input,
    ),
    ("a_lab_dies_with_its_maker", a_lab_dies_with_its_maker),
    (
        "a_lab_of_another_user_is_not_entered",
        a_lab_of_another_user_is_not_entered,
    ),
    (
        "a_failed_start_leaves_nothing",
        a_failed_start_leaves_nothing,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["weftd", rest @ ..] => return agent(rest),
        _ if weft_lab::is_called() => return weft_lab::main(),
        [_, "maker", dir] => maker(Path::new(dir)),
        [_, "--list", ..] => {
            for (name, _) in TESTS {
                std::io::stdout()
                    .write_all(format!("{name}: test\n").as_bytes())
                    .unwrap();
            }
        }
        [_, filters @ ..] => {
            let names: Vec<_> = filters.iter().filter(|f| !f.starts_with('-')).collect();
            for (name, test) in TESTS {
                if names.is_empty() || names.iter().any(|f| name.contains(**f)) {
                    eprintln!("test {name} ...");
                    test();
                }
            }
        }
        [] => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Stands in for weftd: answers its own process id on the socket. With `--refuse` it is an agent
/// that cannot run.
fn agent(args: &[&str]) -> ExitCode {
    let socket = args[1].strip_prefix("unix://").unwrap();
    drop(std::fs::remove_file(socket));
    if args.contains(&"--refuse") {
        eprintln!("weftd: malformed config");
        return ExitCode::from(78);
    }
    let listener = UnixListener::bind(socket).unwrap();
    for stream in listener.incoming() {
        // Whoever only looks whether the socket is there has gone again.
        drop(
            stream
                .unwrap()
                .write_all(std::process::id().to_string().as_bytes()),
        );
    }
    ExitCode::SUCCESS
}

fn ask(socket: &Path) -> Option<String> {
    let mut text = String::new();
    UnixStream::connect(socket)
        .ok()?
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn config(dir: &tempfile::TempDir, nodes: u8) -> LabConfig {
    LabConfig {
        nodes,
        dir: dir.path().join("lab"),
        ..LabConfig::new("test").unwrap()
    }
}

fn says(lab: &Lab, node: &str, command: &[&str]) -> String {
    let output = lab.exec(node, command).unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?} on {node}: {text}");
    text
}

fn host_links() -> Vec<std::ffi::OsString> {
    let mut links: Vec<_> = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    links.sort();
    links
}

fn a_port_is_closed_for_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::create(&config(&dir, 2)).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let to = SocketAddr::new(lab.node_addr("node2").unwrap(), 2377);
    let netns = |node: &str| lab.netns(node, None).unwrap();
    let listener = netns("node2").run_in(|| TcpListener::bind(to)).unwrap();
    let _listener = listener.unwrap();
    let reaches = |node: &str| {
        let limit = Duration::from_millis(500);
        let connected = netns(node).run_in(|| TcpStream::connect_timeout(&to, limit));
        connected.unwrap().is_ok()
    };
    assert!(reaches("node1") && reaches("node2"));
    // At either end.
    for cut in ["node1", "node2"] {
        lab.close_port(cut, 2377).unwrap();
        assert!(!reaches("node1") && reaches("node2"), "closed at {cut}");
        let twice = lab.close_port(cut, 2377).unwrap_err().to_string();
        assert!(twice.contains(&format!("nft on {cut}")), "{twice}");
        lab.open_port(cut, 2377).unwrap();
        assert!(reaches("node1"), "open at {cut}");
    }
    lab.down().unwrap();
}

fn machines_reach_each_other_and_nobody_else() {
    let before = host_links();
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::create(&config(&dir, 2)).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    assert_eq!(host_links(), before, "a lab made a link in this namespace");
    assert_eq!(lab.nodes().collect::<Vec<_>>(), ["node1", "node2"]);

    let ping = |node: &str, target: &str| says(&lab, node, &["ping", "-c1", "-W2", target]);
    ping("node1", "10.77.0.2");
    ping("node2", "10.77.0.254");
    ping("outside", "10.77.0.1");
    // Through the default route.
    ping("node1", "198.51.100.1");
    // Full frames of the underlay's MTU, and not one byte more.
    says(
        &lab,
        "node1",
        &["ping", "-c1", "-W2", "-M", "do", "-s", "1472", "10.77.0.2"],
    );
    let too_big = lab
        .exec(
            "node1",
            &["ping", "-c1", "-W2", "-M", "do", "-s", "1473", "10.77.0.2"],
        )
        .unwrap();
    assert!(!too_big.status.success());

    // Process 1 is the machine's own, and /run too.
    assert_eq!(
        says(
            &lab,
            "node1",
            &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f2"]
        )
        .trim(),
        "lab-init"
    );
    says(&lab, "node1", &["touch", "/run/mark"]);
    assert!(!Path::new("/run/mark").exists());
    assert!(
        !lab.exec("node2", &["test", "-e", "/run/mark"])
            .unwrap()
            .status
            .success()
    );

    // A sandbox on the node, entered by name and from here.
    let path = lab.add_netns("node1", "box").unwrap();
    let mut inside = lab
        .command_in("node1", &path, &["ip", "-o", "link"])
        .unwrap();
    let inside = String::from_utf8(inside.output().unwrap().stdout).unwrap();
    assert!(
        inside.contains("lo:") && !inside.contains("eth0"),
        "{inside}"
    );
    let held = lab.netns("node1", Some(&path)).unwrap();
    assert!(!held.same_as(&lab.netns("node1", None).unwrap()).unwrap());
    assert!(
        lab.add_netns("node1", "box")
            .unwrap_err()
            .to_string()
            .contains("it exists")
    );
    drop(held);

    // Exit statuses are the command's.
    assert_eq!(
        lab.exec("node1", &["sh", "-c", "exit 7"])
            .unwrap()
            .status
            .code(),
        Some(7)
    );
    let error = lab.exec("node1", &["/no/such"]).unwrap();
    assert!(String::from_utf8_lossy(&error.stderr).contains("/no/such: no such program"));
    assert!(
        lab.exec("node9", &["true"])
            .unwrap_err()
            .to_string()
            .contains("it has switch, outside, node1, node2")
    );

    // A second lab of the same folder is refused while this one runs.
    let again = Lab::create(&config(&dir, 2)).unwrap_err().to_string();
    assert!(again.contains("runs already"), "{again}");

    // Another process can find it, and take it down.
    let found = Lab::open(lab.dir()).unwrap();
    assert!(found.status().iter().all(|m| m.up));
    let statuses = found.status();
    found.down().unwrap();
    for machine in statuses {
        assert!(
            machine
                .agent_pid
                .is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        );
    }
    assert!(!dir.path().join("lab").exists());
}

fn a_killed_agent_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::create(&config(&dir, 1)).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let socket = lab.socket("node1").unwrap().to_owned();
    let inside_before = ask(&socket).unwrap();
    let before = lab.kill_agent("node1").unwrap();
    until("the agent is back", || {
        ask(&socket).is_some_and(|pid| pid != inside_before)
    });
    let after = lab.agent_pid("node1").unwrap().unwrap();
    assert_ne!(before, after);
    lab.down().unwrap();
}

fn a_node_is_stopped_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::create(&config(&dir, 2)).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let told = |lab: &mut Lab, start: bool, node: &str| {
        let result = if start {
            lab.start_node(node)
        } else {
            lab.stop_node(node)
        };
        result.map_err(|e| format!("{e:#}"))
    };
    assert!(told(&mut lab, true, "node2").unwrap_err().contains("is on"));
    assert!(
        told(&mut lab, false, "switch")
            .unwrap_err()
            .contains("no node")
    );
    told(&mut lab, false, "node2").unwrap();
    let ups = |dir: &Path| {
        let labs = weft_lab::list(dir);
        labs.iter()
            .map(|l| (l.name.clone(), l.up, l.nodes))
            .collect::<Vec<_>>()
    };
    assert_eq!(ups(dir.path()), [("test".to_owned(), 1, 2)]);
    assert!(
        told(&mut lab, false, "node2")
            .unwrap_err()
            .contains("is off")
    );
    // By another process, as `weft lab start` does.
    let mut found = Lab::open(lab.dir()).unwrap();
    told(&mut found, true, "node2").unwrap();
    found.wait_ready_of("node2", LIMIT).unwrap();
    assert_eq!(ups(dir.path()), [("test".to_owned(), 2, 2)]);
    let names: Vec<&str> = found.nodes().collect();
    assert_eq!(names, ["node1", "node2"]);
    let ping = ["ping", "-n", "-c", "1", "-W", "3", "10.77.0.2"];
    assert!(found.exec("node1", &ping).unwrap().status.success());
    found.down().unwrap();
    lab.keep();
}

fn a_killed_node_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::create(&config(&dir, 2)).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let mut task = lab
        .command("node2", &["sleep", "600"])
        .unwrap()
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("the task runs", || {
        lab.exec("node2", &["pgrep", "-x", "sleep"])
            .unwrap()
            .status
            .success()
    });
    lab.kill_node("node2").unwrap();
    // The command that entered the node sees its child die.
    assert_eq!(task.wait().unwrap().code(), Some(128 + 9));
    let status = lab.status();
    let node2 = status.iter().find(|m| m.name == "node2").unwrap();
    assert!(!node2.up && node2.agent_pid.is_none());
    until("the cable is gone", || {
        !says(&lab, "switch", &["ip", "-o", "link"]).contains("node2@")
    });
    assert!(ask(lab.socket("node1").unwrap()).is_some());
    let gone = lab.exec("node2", &["true"]).unwrap_err().to_string();
    assert_eq!(gone, "node2 is down");
    drop(lab);
    assert!(!dir.path().join("lab").exists());
}

fn control_groups_are_seen_on_machines_and_images_shared() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::create(&config(&dir, 2)).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let entries = |path: &str| {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    for machine in ["node1", "node2", "outside"] {
        let seen = says(&lab, machine, &["ls", "/sys/fs/cgroup"]);
        let mut seen: Vec<&str> = seen.lines().collect();
        seen.sort_unstable();
        assert_eq!(seen, entries("/sys/fs/cgroup"), "{machine}");
        // Its links are still the machine's own.
        let links = says(&lab, machine, &["ls", "/sys/class/net"]);
        assert!(links.contains("eth0"), "{links}");
    }
    for node in ["node1", "node2"] {
        let agents = says(&lab, node, &["pgrep", "-a", "-f", "image-store"]);
        let flag = "--image-store ";
        let store = agents.lines().find_map(|line| line.split_once(flag));
        let store = store.unwrap_or_else(|| panic!("{node}: {agents}")).1;
        let store = store.split(' ').next().unwrap();
        assert!(Path::new(store).ends_with("images"), "{store}");
        assert!(Path::new(store).is_dir(), "{store}");
    }
    drop(lab);
    assert!(!dir.path().join("lab").exists());
}

fn cables_are_those_of_the_bed() {
    let dir = tempfile::tempdir().unwrap();
    let config = LabConfig {
        bed: Bed::Nic,
        ..config(&dir, 1)
    };
    let mut lab = Lab::create(&config).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let check = |lab: &Lab, when: &str| {
        for (machine, device, merges) in [
            ("node1", "eth0", true),
            (OUTSIDE, "eth0", true),
            (SWITCH, "node1", false),
        ] {
            let netns = lab.netns(machine, None).unwrap();
            let has = |feature: &str| {
                let asked = netns.run_in(|| has_feature(device, feature));
                asked.unwrap().unwrap()
            };
            let what = format!("{device} of {machine} {when}");
            assert!(!has("tx-tcp-segmentation"), "{what}");
            assert!(!has("tx-udp_tnl-segmentation"), "{what}");
            assert!(has("tx-udp-segmentation"), "{what}");
            assert_eq!(has("rx-gro"), merges, "{what}");
        }
    };
    check(&lab, "as it was made");
    lab.stop_node("node1").unwrap();
    lab.start_node("node1").unwrap();
    check(&lab, "after it was off");
    lab.down().unwrap();
}

fn busy_loops_use_cpus_and_end_with_their_input() {
    let mut spinning = Command::new(std::env::current_exe().unwrap())
        .args(["bench-spin", "2"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stat = format!("/proc/{}/stat", spinning.id());
    until("the loops used a tenth of a second", || {
        let text = std::fs::read_to_string(&stat).unwrap();
        let (_, fields) = text.rsplit_once(") ").unwrap();
        // User time in hundredths of a second: field 14 of proc_pid_stat(5).
        let user = fields.split(' ').nth(11).unwrap();
        user.parse::<u64>().unwrap() >= 10
    });
    drop(spinning.stdin.take());
    assert!(spinning.wait().unwrap().success());
}

/// Makes a lab and waits to be killed.
fn maker(dir: &Path) {
    let config = LabConfig {
        nodes: 1,
        dir: dir.to_owned(),
        ..LabConfig::new("test").unwrap()
    };
    let lab = Lab::create(&config).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    std::io::stdout().write_all(b"ready\n").unwrap();
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
}

fn a_lab_dies_with_its_maker() {
    let dir = tempfile::tempdir().unwrap();
    let lab_dir = dir.path().join("lab");
    let mut maker = Command::new(std::env::current_exe().unwrap())
        .arg("maker")
        .arg(&lab_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0u8; 6];
    maker
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    let lab = Lab::open(&lab_dir).unwrap();
    assert!(lab.status().iter().all(|m| m.up));
    maker.kill().unwrap();
    maker.wait().unwrap();
    until("every machine is gone", || {
        lab.status().iter().all(|m| !m.up)
    });
    // What is left is a folder; the next lab takes its place.
    let next = Lab::create(&LabConfig {
        nodes: 1,
        dir: lab_dir.clone(),
        ..LabConfig::new("test").unwrap()
    })
    .unwrap();
    next.wait_ready(LIMIT).unwrap();
    next.down().unwrap();
}

/// Who makes the folder of a lab beforehand, and names a program there, has nothing of it.
fn a_lab_of_another_user_is_not_entered() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1);
    let mut lab = Lab::create(&config).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    let mode = std::fs::metadata(lab.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // What a lab says of itself names no program, and one that is named is not run.
    let mark = dir.path().join("mark");
    let program = dir.path().join("program");
    let script = format!("#!/bin/sh\ntouch {}\n", mark.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = lab.dir().join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("\"program\""), "{text}");
    let named = format!("{{\"program\": {:?},", program.display().to_string());
    std::fs::write(&path, text.replacen('{', &named, 1)).unwrap();
    let found = Lab::open(lab.dir()).unwrap();
    assert_eq!(says(&found, "node1", &["echo", "inside"]).trim(), "inside");
    assert!(!mark.exists(), "a file named the program");

    for foreign in [path.clone(), lab.dir().to_owned()] {
        chown(&foreign, Some(60001), None).unwrap();
        let opened = Lab::open(lab.dir()).unwrap_err().to_string();
        assert!(opened.contains("belongs to user 60001"), "{opened}");
        let made = Lab::create(&config).unwrap_err().to_string();
        assert!(made.contains("belongs to user 60001"), "{made}");
        chown(&foreign, Some(0), None).unwrap();
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let opened = Lab::open(lab.dir()).unwrap_err().to_string();
    assert!(opened.contains("others may write"), "{opened}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    lab.kill_node("node1").unwrap();
    lab.down().unwrap();

    // A folder that waits for its lab, empty.
    let prepared = dir.path().join("lab");
    std::fs::create_dir(&prepared).unwrap();
    chown(&prepared, Some(60001), None).unwrap();
    let made = Lab::create(&config).unwrap_err().to_string();
    assert!(made.contains("belongs to user 60001"), "{made}");
}

fn a_failed_start_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = LabConfig {
        agent_args: vec!["--refuse".to_owned()],
        ..config(&dir, 1)
    };
    let lab = Lab::create(&config).unwrap();
    let error = lab.wait_ready(LIMIT).unwrap_err().to_string();
    assert!(
        error.contains("node1 ended") && error.contains("malformed config"),
        "{error}"
    );
    drop(lab);
    assert!(!dir.path().join("lab").exists());

    let not_a_lab = LabConfig {
        dir: dir.path().to_owned(),
        ..config
    };
    std::fs::write(dir.path().join("precious"), b"x").unwrap();
    let error = Lab::create(&not_a_lab).unwrap_err().to_string();
    assert!(error.contains("holds no lab"), "{error}");
    assert!(dir.path().join("precious").exists());
    let dead = LabConfig {
        program: PathBuf::from("/bin/false"),
        ..self::config(&dir, 1)
    };
    let Err(error) = Lab::create(&dead) else {
        panic!("a lab was made of nothing");
    };
    assert!(
        format!("{error:#}").contains("cannot start switch"),
        "{error:#}"
    );
    assert!(!dir.path().join("lab").exists());
}
