//! A stack that is being deployed while the leader of the managers ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use weft_netns_tests::{Cluster, Settings, eventually, figure, within};

use super::super::{NODES, cluster, in_a_box, load, processes, text};
use super::{boxed, counts, ids, nothing_is_left, written};

const STACK: &str = "turn";

/// In the order of the file.
const SERVICES: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

/// Tasks of each.
const REPLICAS: usize = 2;

/// What runs in each task.
const FOREVER: &str = "/bin/sh /bin/forever";

/// For one deploy, and for those after it, until one is carried out: another leader is to be found.
const DEPLOY_LIMIT: Duration = Duration::from_secs(120);

#[test]
#[ignore = "second tier: three managers of its own, the leader of which is killed"]
fn a_deploy_across_a_change_of_the_leader_makes_everything_once() {
    let settings = Settings {
        managers: NODES.len(),
        ..Settings::default()
    };
    let cluster = cluster(&settings);
    load(&cluster, "node1", &in_a_box());
    written(&cluster, "turn.key", "hunter2");
    written(&cluster, "turn.conf", "color = blue\n");
    let path = written(&cluster, "turn.yml", &file());
    let leader = cluster.wait_leader(&NODES);
    let asked = NODES.into_iter().find(|node| *node != leader);
    let asked = asked.expect("another manager");
    cluster.ask(asked);

    let mut first = Deploying::begin(&cluster, asked, &path);
    // Half of it is done, or under way.
    first.comes_to("Creating service turn_three");
    let killed = cluster.lab().kill_agent(&leader);
    killed.expect("its agent ran");
    let (code, err) = first.end();
    if code != 0 {
        for words in ["done: ", "; not done: ", "run the same command again"] {
            assert!(err.contains(words), "{words:?} is missing: {err}");
        }
    }
    let next = cluster.wait_leader(&NODES);
    figure(&format!(
        "{leader} led when it was killed, {next} does now; the deploy on {asked} ended with {code}"
    ));
    let path = path.display().to_string();
    let deploy = ["stack", "deploy", "-c", &path, STACK];
    within(DEPLOY_LIMIT, "a deploy is carried out", || {
        let said = cluster.weft(asked, &deploy);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    everything_is_there_once(&cluster, asked);

    // What is there is as the file says: nothing is sent, and no task is another one.
    let before = SERVICES.map(|name| ids(&cluster, &full(name)));
    let said = cluster.weft(asked, &deploy);
    assert_eq!(said.code, 0, "{said:?}");
    for word in ["Creating", "Updating"] {
        assert!(!said.out.contains(word), "{said:?}");
    }
    assert_eq!(SERVICES.map(|name| ids(&cluster, &full(name))), before);

    cluster.weft(asked, &["stack", "rm", STACK]).done();
    nothing_is_left(&cluster, STACK);
    programs_are(&cluster, 0);
}

/// The deploy waits in the middle, so that there is one.
fn file() -> String {
    let mut file = "services:\n".to_owned();
    for name in SERVICES {
        let after = match name {
            "four" => "    depends_on: [three]\n",
            _ => "",
        };
        file.push_str(&format!(
            "  {name}:\n    image: {}\n    stop_grace_period: 2s\n{after}    secrets: [key]\n    \
             configs:\n      - source: app\n        target: /etc/app.conf\n    deploy:\n      \
             replicas: {REPLICAS}\n      update_config:\n        monitor: 0s\n",
            boxed()
        ));
    }
    file.push_str(
        "secrets:\n  key:\n    file: ./turn.key\nconfigs:\n  app:\n    file: ./turn.conf\n",
    );
    file
}

/// A service by its name in the swarm.
fn full(name: &str) -> String {
    format!("{STACK}_{name}")
}

/// Waits until each service has its tasks, and asserts that nothing was made twice.
fn everything_is_there_once(cluster: &Cluster, asked: &str) {
    let count = format!("{REPLICAS}/{REPLICAS}");
    counts(cluster, STACK, &SERVICES.map(|name| (name, count.as_str())));
    for (kind, name) in [("network", "default"), ("secret", "key"), ("config", "app")] {
        let rows = cluster.rows(&[kind, "ls"]);
        let name = full(name);
        let of_name = rows.iter().filter(|row| text(row, "Name") == name);
        assert_eq!(of_name.count(), 1, "{kind} {name}: {rows:?}");
    }
    for name in SERVICES {
        let service = full(name);
        assert_eq!(ids(cluster, &service).len(), REPLICAS, "{service}");
        for slot in 1..=REPLICAS {
            let task = format!("{service}.{slot}");
            let read = ["cat", "/run/secrets/key", "/etc/app.conf"];
            let words = [&["exec", &task][..], &read].concat();
            // The agent beside it may have been the one that was killed.
            eventually(&format!("{task} reads what it was given"), || {
                let said = cluster.weft(asked, &words);
                if said.code == 0 && said.out == "hunter2color = blue\n" {
                    Ok(())
                } else {
                    Err(said)
                }
            });
        }
    }
    programs_are(cluster, SERVICES.len() * REPLICAS);
}

/// Waits until so many programs of the stack run on all nodes.
fn programs_are(cluster: &Cluster, count: usize) {
    eventually(&format!("{count} programs run"), || {
        let running = NODES.map(|node| processes(cluster, node, FOREVER));
        if running.iter().map(Vec::len).sum::<usize>() == count {
            Ok(())
        } else {
            Err(running)
        }
    });
}

/// A `weft stack deploy` beside the test.
struct Deploying {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Deploying {
    fn begin(cluster: &Cluster, node: &str, file: &Path) -> Self {
        let socket = cluster.lab().socket(node).expect("the node has an agent");
        let mut child = Command::new(cluster.program())
            .args(["-H", &format!("unix://{}", socket.display())])
            .args(["stack", "deploy", "-c"])
            .arg(file)
            .arg(STACK)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("weft can be run");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out }
    }

    /// Reads what it prints up to this line.
    fn comes_to(&mut self, line: &str) {
        let mut read = String::new();
        while !read.lines().any(|printed| printed == line) {
            let more = self.out.read_line(&mut read).expect("a line");
            assert!(more > 0, "it ended before {line:?}: {read}");
        }
    }

    /// Its exit status and what it complained of. The rest that it prints is short.
    fn end(mut self) -> (i32, String) {
        let (status, _) = within(DEPLOY_LIMIT, "the deploy ends", || {
            self.child.try_wait().expect("a child").ok_or("it runs")
        });
        let mut err = String::new();
        let mut pipe = self.child.stderr.take().expect("a pipe");
        pipe.read_to_string(&mut err).expect("text");
        (status.code().expect("no signal ended it"), err)
    }
}

impl Drop for Deploying {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
