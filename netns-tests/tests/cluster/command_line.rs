//! The command line where something around it is odd: an output that cannot be written, a variable
//! that is empty, a signal while it waits.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use weft_netns_tests::{Cluster, Said, eventually, within};

use crate::{PROGRAM, swarm};

/// Generous: the machine may be busy. What is waited for otherwise never comes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Runs a line of a shell on the node, where `$WEFT` is the program and the variable names the node.
fn typed(cluster: &Cluster, line: &str) -> Said {
    let socket = cluster.lab().socket("node1").expect("an agent");
    let script = format!(
        "WEFT={PROGRAM}; export WEFT_HOST=unix://{}; {line}",
        socket.display()
    );
    cluster.run("node1", None, &["sh", "-c", &script])
}

/// `service create` of a service that no node may run: it waits until it is ended, or the node is
/// gone.
struct Waiting {
    id: String,
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Waiting {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let socket = cluster.lab().socket("node1").expect("an agent");
        let mut child = Command::new(PROGRAM)
            .args(["-H", &format!("unix://{}", socket.display())])
            .args(["service", "create", "--name", name, "host", "sleep", "1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("weft starts");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).expect("a line");
            line
        };
        let id = line().trim().to_owned();
        assert_eq!(line(), "overall progress: 0 out of 1 tasks\n");
        Self { id, child, output }
    }

    /// Its exit status as a shell has it, and what it printed to the end.
    fn ended_by(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        let (status, _) = within(AT_ONCE, "the command ends", || {
            let ended = self.child.try_wait().expect("it can be asked");
            ended.ok_or("it waits")
        });
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output");
        let by_signal = || status.signal().map(|signal| 128 + signal);
        (status.code().or_else(by_signal), rest)
    }
}

#[test]
fn odd_outputs_an_empty_variable_and_signals_while_it_waits() {
    let cluster = swarm(1);
    let be = |availability: &str| {
        let words = ["node", "update", "--availability", availability, "node1"];
        cluster.weft("node1", &words).done();
    };
    be("drain");

    // Ctrl-C ends the waiting alone, also while the node is deaf.
    let waits = Waiting::new(&cluster, "first");
    let frozen = Waiting::new(&cluster, "second");
    let ids = [waits.id.clone(), frozen.id.clone()];
    let mut said = vec![waits.ended_by(Signal::INT)];
    cluster.lab().freeze_agent("node1", true).expect("an agent");
    said.push(frozen.ended_by(Signal::INT));
    cluster
        .lab()
        .freeze_agent("node1", false)
        .expect("an agent");
    for (id, (code, text)) in ids.iter().zip(&said) {
        let says = format!(
            "Operation continuing in background.\nUse `weft service ps {id}` to check progress.\n"
        );
        assert!(*code == Some(0) && text.ends_with(&says), "{said:?}");
    }
    // SIGTERM ends a program, as the shell tells.
    let waits = Waiting::new(&cluster, "third");
    let (code, text) = waits.ended_by(Signal::TERM);
    assert_eq!(code, Some(128 + 15), "{text}");

    // A disk that is full, or an output that is closed, which is as good as /dev/null.
    for words in [
        "service ls",
        "service ls -q",
        "service inspect first",
        "node ls --format {{.ID}}",
        "service create --help",
        "--version",
    ] {
        let said = typed(&cluster, &format!("$WEFT {words} > /dev/full"));
        said.refused(&["cannot write the output: ", "No space left on device"]);
    }
    let said = typed(&cluster, "$WEFT service ls --format {{.Name}} >&-");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");

    // An empty variable is none.
    let named = typed(&cluster, "$WEFT service ls --format {{.Name}}").ok();
    let mut named: Vec<&str> = named.lines().collect();
    named.sort_unstable();
    assert_eq!(named, ["first", "second", "third"]);
    for nothing in ["WEFT_HOST= $WEFT", "env -u WEFT_HOST $WEFT"] {
        let said = typed(&cluster, &format!("{nothing} info"));
        said.refused(&["cannot connect to weftd at unix:///run/weft/weft.sock"]);
    }

    // What was waited for goes on.
    be("active");
    let service = "$WEFT service ls --format '{{.Name}} {{.Replicas}}'";
    eventually("the services run", || {
        let said = typed(&cluster, service).ok();
        let mut lines = said.lines();
        lines
            .all(|line| line.ends_with(" 1/1"))
            .then_some(())
            .ok_or(said)
    });
}
