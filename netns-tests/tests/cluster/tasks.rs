//! What a task can see and do on its node, and what becomes of it when the agent does not look.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::Value;
use weft_netns_tests::{Cluster, eventually, figure};

use crate::{PROGRAM, swarm};

/// `CapBnd` of root in a container of Docker.
const DOCKER: u64 = 0xa804_25fb;

/// Starts one task of a shell script on the first node and returns the folder of its files.
fn shell(cluster: &Cluster, name: &str, flags: &[&str], script: &str) -> PathBuf {
    let mut words = vec!["service", "create", "-d", "--name", name];
    words.extend(["--restart-condition", "none", "--network", "front"]);
    words.extend(flags);
    words.extend(["host", "/bin/sh", "-c", script]);
    cluster.weft("node1", &words).done();
    let task = eventually(&format!("{name} has a task"), || {
        let rows = cluster.rows(&["service", "ps", name]);
        rows.first().cloned().ok_or(())
    });
    let id = task["ID"].as_str().expect("an id");
    cluster.lab().dir().join("node1/data/tasks").join(id)
}

/// What `service ps` says of the only task of a service.
fn row(cluster: &Cluster, name: &str) -> Value {
    let rows = cluster.rows(&["service", "ps", "--no-trunc", name]);
    rows.first().cloned().expect("a task")
}

fn ended(cluster: &Cluster, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), || {
        let row = row(cluster, name);
        if row["State"] == state {
            Ok(row)
        } else {
            Err(row)
        }
    })
}

/// Runs a script to its end and returns what it printed.
fn printed(cluster: &Cluster, name: &str, flags: &[&str], script: &str) -> String {
    let dir = shell(cluster, name, flags, script);
    ended(cluster, name, "Complete");
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert_eq!(text("stderr.log"), "", "{name}");
    text("stdout.log")
}

fn here(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    u64::from_str_radix(line.expect("a line").trim(), 16).expect("hex")
}

#[test]
fn a_task_is_not_its_node() {
    // Left open, without the mark that closes it, by whoever starts the agents.
    let secret = tempfile::NamedTempFile::new().expect("file");
    let inherited = File::open(secret.path()).expect("open");
    fcntl_setfd(&inherited, FdFlags::empty()).expect("as a shell leaves it");
    let cluster = swarm(1);
    drop(inherited);
    cluster.network("front");

    let data = cluster.lab().dir().join("node1/data");
    let socket = cluster.lab().socket("node1").expect("an agent").to_owned();
    assert!(
        data.join("certs/node.pem").exists(),
        "there is something to read"
    );
    let env = |name: &str, value: &std::path::Path| format!("{name}={}", value.display());
    let (data_is, socket_is) = (env("DATA", &data), env("SOCKET", &socket));
    let program_is = format!("WEFT={PROGRAM}");

    let keys = printed(
        &cluster,
        "keys",
        &["-e", &data_is, "-e", &socket_is, "-e", &program_is],
        "ls -A $DATA /run/weft | grep -c .; cat $DATA/certs/node.pem 2>/dev/null || echo no key; \
         $WEFT -H unix://$SOCKET swarm join-token -q manager 2>/dev/null || echo no token; \
         umount $DATA 2>/dev/null || echo stays",
    );
    // The two names of the folders and a blank between them, no more.
    assert_eq!(keys, "2\nno key\nno token\nstays\n");

    let processes = printed(
        &cluster,
        "processes",
        &[],
        "cat /proc/[0-9]*/comm | sort -u; cat /proc/1/cmdline | tr '\\0' ' ' | cut -d' ' -f1",
    );
    let mut names: Vec<&str> = processes.lines().collect();
    assert_eq!(names.pop(), Some("weft-shim"), "{processes}");
    names.retain(|name| !["cat", "sh", "sort"].contains(name));
    assert_eq!(names.len(), 1, "process 1 alone: {processes}");

    let walls = printed(
        &cluster,
        "walls",
        &[],
        "grep -E '^Cap(Bnd|Eff)' /proc/self/status; \
         for fd in /proc/$$/fd/*; do readlink $fd; done | cut -d: -f1; \
         (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo read-only; \
         find /dev -type b | wc -l",
    );
    let has = DOCKER & here("CapBnd:");
    let capabilities = format!("CapEff:\t{has:016x}\nCapBnd:\t{has:016x}\n");
    assert_eq!(
        walls,
        format!("{capabilities}/dev/null\npipe\npipe\nread-only\n0\n")
    );

    let usual = printed(
        &cluster,
        "usual",
        &[],
        "cat /etc/passwd > /dev/null && echo x > /dev/null && head -c 3 /dev/urandom | wc -c; \
         f=$(mktemp) && echo y > $f && cat $f && rm $f; head -1 /etc/resolv.conf; \
         cat /proc/uptime > /dev/null && ls /sys/class/net | tr '\\n' ' '",
    );
    assert_eq!(usual, "3\ny\nnameserver 127.0.0.11\neth0 eth1 lo ");

    // The second one's name and number are longer than a host name may be.
    for name in ["named", "a-service-whose-name-leaves-no-room-for-more"] {
        let own = printed(
            &cluster,
            name,
            &[],
            "[ \"$HOSTNAME\" = \"$(hostname)\" ] && echo same; \
             getent hosts \"$(hostname)\" | while read ip names; do echo $ip; done",
        );
        let own: Vec<&str> = own.lines().collect();
        assert_eq!(own.first(), Some(&"same"), "{name}: {own:?}");
        let ip = own.get(1).and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let ip = ip.unwrap_or_else(|| panic!("{name}: {own:?}"));
        assert!(ip.octets().starts_with(&[10, 0, 1]), "{name}: {ip}");
    }

    let flags = [
        "-u",
        "nobody",
        "--cap-add",
        "net_admin",
        "--cap-drop",
        "KILL",
    ];
    let more = ["--security-opt", "no-new-privileges"];
    let less = printed(
        &cluster,
        "less",
        &[&flags[..], &more[..]].concat(),
        "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status",
    );
    let bound = (DOCKER | 1 << 12) & !(1 << 5) & here("CapBnd:");
    let expected = format!(
        "65534\nCapEff:\t{:016x}\nCapBnd:\t{bound:016x}\nNoNewPrivs:\t1\n",
        0
    );
    assert_eq!(less, expected);
    let shown = cluster.inspect("service", "less");
    let shown = &shown["Spec"]["TaskTemplate"]["ContainerSpec"];
    assert_eq!(shown["CapabilityAdd"][0], "CAP_NET_ADMIN", "{shown}");
    assert_eq!(shown["CapabilityDrop"][0], "CAP_KILL", "{shown}");

    shell(&cluster, "who", &["-u", "no-such-user"], "true");
    let row = ended(&cluster, "who", "Rejected");
    let error = row["Error"].as_str().expect("a text");
    assert!(
        error.contains("\"no-such-user\" is not in /etc/passwd"),
        "{error}"
    );
}

#[test]
fn what_a_task_prints_and_how_it_ends_are_kept_within_bounds_and_without_an_agent() {
    let cluster = swarm(1);
    cluster.network("front");

    // A burst, and then a stop that is asked for.
    let loud = shell(
        &cluster,
        "loud",
        &[],
        "trap 'echo asked; exit 0' TERM; yes 'as much as it can' | head -c 60000000; echo done; \
         while :; do sleep 0.05; done",
    );
    let size = |name: &str| std::fs::metadata(loud.join(name)).map_or(0, |m| m.len());
    let both = || size("stdout.log") + size("stdout.log.1");
    let tail = || std::fs::read_to_string(loud.join("stdout.log")).unwrap_or_default();
    let mut most = 0;
    eventually("the burst is over", || {
        most = most.max(both());
        if tail().ends_with("done\n") {
            Ok(())
        } else {
            Err(most)
        }
    });
    assert!(
        (5 << 20..=(10 << 20) + (64 << 10)).contains(&most),
        "{most}"
    );
    cluster.weft("node1", &["service", "rm", "loud"]).done();
    eventually("the task was asked and ended", || {
        let text = tail();
        if text.ends_with("done\nasked\n") {
            Ok(())
        } else {
            Err(text.len())
        }
    });

    // One that outlives the agent, and asks the next one, whose socket is a new file.
    let ask = cluster.dir().join("ask");
    let socket = cluster.lab().socket("node1").expect("an agent");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; \
         {PROGRAM} -H unix://{} swarm join-token -q manager 2>&1; echo over; sleep 1000",
        ask.display(),
        socket.display()
    );
    let spy = shell(&cluster, "spy", &[], &script);

    // The agent is killed; the task ends before it is back.
    let seen = cluster.dir().join("go");
    let wait = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exit 9",
        seen.display()
    );
    let dir = shell(&cluster, "away", &[], &wait);
    ended(&cluster, "away", "Running");
    cluster.lab().freeze_agent("node1", true).expect("an agent");
    std::fs::write(&seen, "").expect("write");
    eventually("the shim has written down the end", || {
        std::fs::read_to_string(dir.join("exit.json"))
    });
    cluster.restart_agent("node1");
    eventually("its API answers", || {
        let said = cluster.weft("node1", &["info"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    std::fs::write(&ask, "").expect("write");
    let said = eventually("the socket was asked", || {
        let text = std::fs::read_to_string(spy.join("stdout.log")).unwrap_or_default();
        if text.ends_with("over\n") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(
        said.contains("tasks and containers may not use this socket"),
        "{said}"
    );
    let row = ended(&cluster, "away", "Failed");
    assert_eq!(row["Error"], "\"task: non-zero exit (9)\"", "{row}");

    // Whatever runs beside the program ends with it.
    let mark = format!("sleep 98765.{}", std::process::id());
    let dir = shell(
        &cluster,
        "family",
        &[],
        &format!("setsid {mark} & echo up; sleep 1000"),
    );
    eventually("it runs", || {
        let text = std::fs::read_to_string(dir.join("stdout.log"));
        text.ok().filter(|text| text == "up\n").ok_or(())
    });
    let left = || Command::new("pgrep").args(["-fx", &mark]).output();
    assert!(!left().expect("pgrep").stdout.is_empty());
    cluster.weft("node1", &["service", "rm", "family"]).done();
    eventually("nothing is left", || {
        let left = left().expect("pgrep").stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    restarts_without_a_pause_are_in_nobodys_way(&cluster);
}

/// Programs that end at once, and are started again at once.
fn restarts_without_a_pause_are_in_nobodys_way(cluster: &Cluster) {
    const SLOTS: usize = 4;
    let weft = |words: &[&str]| cluster.weft("node1", words);
    let words = ["service", "create", "-d", "--name", "restless"];
    let more = ["--replicas", "4", "--restart-delay", "0s", "host", "false"];
    weft(&[&words[..], &more].concat()).done();
    let ids = || -> BTreeSet<String> {
        let rows = cluster.rows(&["service", "ps", "restless"]);
        rows.iter().map(|row| row["ID"].to_string()).collect()
    };
    let first = eventually("they are started", || {
        let ids = ids();
        if ids.len() >= SLOTS {
            Ok(ids)
        } else {
            Err(ids)
        }
    });
    let later = eventually("each was started often", || {
        let later = ids();
        if later.is_disjoint(&first) {
            Ok(later)
        } else {
            Err(later)
        }
    });
    // Those that run, and the last five of each.
    assert!((SLOTS..=SLOTS * 6).contains(&later.len()), "{later:?}");
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let started = Instant::now();
            weft(&["service", "ls"]).done();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    figure(&format!("a command beside restarts takes {:?}", times[4]));
    assert!(times[4] < Duration::from_secs(1), "{times:?}");
    weft(&["service", "rm", "restless"]).done();
    eventually("it is gone", || {
        let rows = cluster.rows(&["service", "ls"]);
        let named = rows.iter().any(|row| row["Name"] == "restless");
        if named { Err(rows) } else { Ok(()) }
    });
}
