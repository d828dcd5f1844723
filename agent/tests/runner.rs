//! Tasks with their shims, without a node around them: programs of the node, and containers of busybox
//! with a real runtime program.
//!
//! The runner starts its own program as the shim, so this test has no harness: called by that name
//! it is one.

#![expect(
    clippy::print_stdout,
    reason = "there is no harness to say what is tested"
)]

mod containers;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustix::process::{Pid, Signal, kill_process};
use weft_agent::testing::{RunError, Runner, Sandbox, hidden};
use weft_model::assignment::{PayloadContent, Payloads};
use weft_model::id::{EndpointId, NetworkId, NodeId, PayloadId, ServiceId, TaskId};
use weft_model::objects::{
    Attachment, ContainerSpec, Mac, Meta, PayloadBytes, PayloadFile, SecretReference, Task,
    TaskSpec, TaskState, TaskStatus, Version,
};
use weft_model::stop_signal::{self, DEFAULT as TERM};
use weft_sys::process::Exit;

const TESTS: &[(&str, fn())] = &[
    (
        "a_task_runs_in_its_sandbox_with_its_files_and_names",
        a_task_runs_in_its_sandbox_with_its_files_and_names,
    ),
    (
        "arguments_and_environment_arrive_byte_for_byte",
        arguments_and_environment_arrive_byte_for_byte,
    ),
    (
        "a_task_is_asked_to_end_and_killed_when_it_does_not",
        a_task_is_asked_to_end_and_killed_when_it_does_not,
    ),
    (
        "a_running_task_is_adopted_by_the_next_agent",
        a_running_task_is_adopted_by_the_next_agent,
    ),
    (
        "a_task_without_a_last_word_is_known_to_have_run",
        a_task_without_a_last_word_is_known_to_have_run,
    ),
    (
        "a_task_of_the_node_has_its_secrets_for_as_long_as_it_is_there",
        a_task_of_the_node_has_its_secrets_for_as_long_as_it_is_there,
    ),
    (
        "what_cannot_run_is_rejected_before_anything_is_made",
        what_cannot_run_is_rejected_before_anything_is_made,
    ),
    (
        "a_container_has_its_image_its_files_and_its_volumes",
        containers::a_container_has_its_image_its_files_and_its_volumes,
    ),
    (
        "a_running_container_is_adopted_with_its_stop_signal",
        containers::a_running_container_is_adopted_with_its_stop_signal,
    ),
    (
        "a_container_has_its_secrets_where_nothing_can_be_written",
        containers::a_container_has_its_secrets_where_nothing_can_be_written,
    ),
    (
        "a_container_does_not_outlive_its_shim",
        containers::a_container_does_not_outlive_its_shim,
    ),
    (
        "a_container_that_cannot_start_says_why",
        containers::a_container_that_cannot_start_says_why,
    ),
];

fn main() -> ExitCode {
    if weft_shim::is_called() {
        return weft_shim::main();
    }
    let filters: Vec<String> = std::env::args().skip(1).collect();
    if filters.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let words = filters.iter().filter(|word| !word.starts_with('-'));
    let words: Vec<&String> = words.collect();
    for (name, test) in TESTS {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The namespace of a task, removed with this value.
struct Netns(tempfile::TempDir, Sandbox);

impl Netns {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let sandbox = Sandbox::create(dir.path().join("ns")).expect("sandbox");
        Self(dir, sandbox)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ns")
    }
}

impl std::ops::Deref for Netns {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.1
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = Sandbox::remove(self.0.path().join("ns")) {
            println!("left behind: {error}");
        }
    }
}

fn task(id: &str, command: &[&str]) -> Task {
    let container = ContainerSpec {
        image: "host".to_owned(),
        args: command.iter().map(|&c| c.to_owned()).collect(),
        env: vec![
            "COLOUR=blue=green".to_owned(),
            "WEFT_TASK_ID=forged".to_owned(),
            "WHO={{.Service.Name}}-{{.Task.Slot}}".to_owned(),
        ],
        ..ContainerSpec::default()
    };
    Task {
        id: TaskId::from(id),
        meta: Meta::default(),
        service: ServiceId::from("s1"),
        service_name: "web".to_owned(),
        slot: 1,
        node: Some(NodeId::from("n1")),
        spec_version: Version { index: 1 },
        job_iteration: None,
        spec: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        attachments: vec![Attachment {
            endpoint: EndpointId::from("e1"),
            network: NetworkId::from("w1"),
            addresses: vec![IpNet::new(ip("10.0.1.5"), 24).expect("a prefix length")],
            mac: Mac::for_ip(ip("10.0.1.5")),
            aliases: Vec::new(),
        }],
        desired: TaskState::Running,
        status: TaskStatus::default(),
        restarts: Vec::new(),
    }
}

fn runner(dir: &tempfile::TempDir) -> Runner {
    Runner::new(dir.path().join("tasks"), "node-1", NodeId::from("n1")).hiding(hidden(
        dir.path(),
        Path::new("/run/none"),
        Path::new("none.sock"),
    ))
}

fn a_task_runs_in_its_sandbox_with_its_files_and_names() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let runner = runner(&dir);
    let script = "cat /etc/resolv.conf /etc/hosts; echo $COLOUR $WEFT_TASK_ID $WEFT_TASK_NAME \
                  $WEFT_TASK_SLOT $WEFT_SERVICE_NAME $WEFT_NODE_NAME $WEFT_NODE_ID $WHO; \
                  readlink /proc/self/ns/net; echo oops >&2; exit 3";
    let task = task("t1", &["sh", "-c", script]);
    let running = runner.start(&task, &sandbox).expect("start");
    assert_eq!(running.wait().expect("wait"), Exit::Code(3));
    let files = runner.task_dir(&task.id).expect("dir");
    let out = std::fs::read_to_string(files.join("stdout.log")).expect("stdout");
    assert!(out.starts_with("nameserver 127.0.0.11\n"), "{out}");
    assert!(out.contains("\n10.0.1.5 web.1.t1\n"), "{out}");
    assert!(
        out.contains("\nblue=green t1 web.1.t1 1 web node-1 n1 web-1\n"),
        "{out}"
    );
    let inode = sandbox.netns().inode().expect("inode");
    assert!(out.ends_with(&format!("net:[{inode}]\n")), "{out}");
    assert_eq!(
        std::fs::read_to_string(files.join("stderr.log")).expect("stderr"),
        "oops\n"
    );

    // A second attempt appends.
    runner
        .start(&task, &sandbox)
        .expect("start")
        .wait()
        .expect("wait");
    assert_eq!(
        std::fs::read_to_string(files.join("stderr.log")).expect("stderr"),
        "oops\noops\n"
    );
    assert_eq!(runner.known().expect("known"), [TaskId::from("t1")]);
    assert!(
        runner.adopt(&task.id).expect("adopt").is_none(),
        "it has ended"
    );
    runner.remove(&task.id).expect("remove");
    runner.remove(&task.id).expect("twice");
    assert!(runner.known().expect("known").is_empty());
}

fn arguments_and_environment_arrive_byte_for_byte() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let runner = runner(&dir);
    // Nearly what the kernel takes: 128 KiB for each.
    let long = "x".repeat(130_000);
    let odd = [
        "",
        "-x",
        "--",
        "a b",
        " ",
        "two\nlines\n",
        "it's \"quoted\" \\ $HOME `id` * ~",
        "\u{fc}ber \u{1f980}",
        "\u{1b}[2J\r\u{7f}",
        &long,
    ];
    // What comes last is not run in the place of the shell, whose own arguments these are.
    let script = "cat /proc/$$/cmdline; cat /proc/$$/environ >&2; exit 0";
    let command = [&["sh", "-c", script][..], &odd].concat();
    let mut task = task("odd", &command);
    let long_pair = format!("LONG={long}");
    let pairs = [
        "EQUALS=a=b==",
        "LINES=one\ntwo\n",
        "EMPTY=",
        "QUOTES='\"$HOME",
        "odd.key=\u{fc}",
        &long_pair,
    ];
    Arc::make_mut(&mut task.spec).container.env = pairs.map(str::to_owned).into();
    let running = runner.start(&task, &sandbox).expect("start");
    assert_eq!(running.wait().expect("wait"), Exit::Code(0));
    let files = runner.task_dir(&task.id).expect("dir");
    let out = std::fs::read(files.join("stdout.log")).expect("stdout");
    let arrived: Vec<&[u8]> = out.split(|byte| *byte == 0).collect();
    // The program, `-c` and the script before them, and nothing behind the last NUL.
    assert_eq!(arrived.len(), 3 + odd.len() + 1);
    for (arrived, given) in arrived[3..].iter().zip(odd) {
        assert!(*arrived == given.as_bytes(), "{given:?}");
    }
    let environment = std::fs::read(files.join("stderr.log")).expect("stderr");
    let environment: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for pair in pairs.iter().chain([&path]) {
        assert!(environment.contains(&pair.as_bytes()), "{pair:?}");
    }
    runner.remove(&task.id).expect("remove");
}

/// Waits until the task has printed a line.
fn wait_for_line(path: &Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n')) {
        assert!(
            std::time::Instant::now() < deadline,
            "no line in {}",
            path.display()
        );
        std::thread::yield_now();
    }
}

fn a_task_is_asked_to_end_and_killed_when_it_does_not() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let runner = runner(&dir);
    let polite = task(
        "polite",
        &[
            "sh",
            "-c",
            "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait; done",
        ],
    );
    let running = runner.start(&polite, &sandbox).expect("start");
    wait_for_line(&runner.task_dir(&polite.id).expect("dir").join("stdout.log"));
    assert_eq!(
        running.stop(TERM, Duration::from_secs(10)).expect("stop"),
        Exit::Code(0)
    );

    let stubborn = task(
        "stubborn",
        &[
            "sh",
            "-c",
            "trap '' TERM; echo up; while :; do sleep 1000; done",
        ],
    );
    let running = runner.start(&stubborn, &sandbox).expect("start");
    wait_for_line(
        &runner
            .task_dir(&stubborn.id)
            .expect("dir")
            .join("stdout.log"),
    );
    let waiting = running.clone();
    let waiter = std::thread::spawn(move || waiting.wait());
    assert_eq!(
        running.stop(TERM, Duration::from_millis(50)).expect("stop"),
        Exit::Signal(9)
    );
    assert_eq!(
        waiter.join().expect("thread").expect("wait"),
        Exit::Signal(9)
    );
    assert_eq!(
        running.stop(TERM, Duration::ZERO).expect("stopping twice"),
        Exit::Signal(9)
    );
    let particular = task(
        "particular",
        &[
            "sh",
            "-c",
            "trap '' TERM; trap 'exit 7' QUIT; echo up; while :; do sleep 1000 & wait; done",
        ],
    );
    let running = runner.start(&particular, &sandbox).expect("start");
    wait_for_line(
        &runner
            .task_dir(&particular.id)
            .expect("dir")
            .join("stdout.log"),
    );
    let quit = stop_signal::number("SIGQUIT").expect("a signal");
    assert_eq!(
        running.stop(quit, Duration::from_secs(10)).expect("stop"),
        Exit::Code(7)
    );
    for task in [&polite.id, &stubborn.id, &particular.id] {
        runner.remove(task).expect("remove");
    }
}

fn a_running_task_is_adopted_by_the_next_agent() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let task = task("t2", &["sleep", "1000"]);
    let first = runner(&dir).start(&task, &sandbox).expect("start");
    let adopted = runner(&dir)
        .adopt(&task.id)
        .expect("adopt")
        .expect("it runs");
    assert_eq!(adopted.pid(), first.pid());
    // It is no child of this agent, and yet its end is known.
    assert_eq!(
        adopted.stop(TERM, Duration::from_secs(10)).expect("stop"),
        Exit::Signal(15)
    );
    assert_eq!(first.wait().expect("wait"), Exit::Signal(15));
    let end = runner(&dir).end_of(&task.id).expect("readable");
    assert_eq!(end.expect("written down").exit(), Exit::Signal(15));
    let folder = runner(&dir).task_dir(&task.id).expect("dir");
    runner(&dir)
        .finish(&task.id, &TaskStatus::default())
        .expect("finish");
    let left = std::fs::read_dir(folder).expect("list");
    let mut left: Vec<_> = left.map(|e| e.expect("entry").file_name()).collect();
    left.sort();
    let kept = [
        "ended.json",
        "stderr.log",
        "stderr.log.times",
        "stdout.log",
        "stdout.log.times",
    ];
    assert_eq!(left, kept);
}

/// As where its machine lost its power: whatever the orders that are left say of it, it must not run twice.
fn a_task_without_a_last_word_is_known_to_have_run() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let task = task("t5", &["sleep", "1000"]);
    assert!(!runner(&dir).has_begun(&task.id).expect("a task"));
    let running = runner(&dir).start(&task, &sandbox).expect("start");
    let shim = i32::try_from(running.pid()).ok().and_then(Pid::from_raw);
    kill_process(shim.expect("a process"), Signal::KILL).expect("killed");
    assert_eq!(running.wait().expect("wait"), Exit::Unknown);
    let next = runner(&dir);
    assert!(next.adopt(&task.id).expect("adopt").is_none());
    assert!(next.end_of(&task.id).expect("readable").is_none());
    assert!(next.has_begun(&task.id).expect("a task"));
    next.finish(&task.id, &TaskStatus::default())
        .expect("finish");
    assert!(!next.has_begun(&task.id).expect("a task"));
    next.remove(&task.id).expect("remove");
}

/// A secret of this name, with its bytes.
fn secret(name: &str, bytes: &str) -> (SecretReference, Payloads) {
    let id = PayloadId::from(name);
    let content = PayloadContent {
        id: id.clone(),
        data: PayloadBytes::from(bytes.as_bytes().to_vec()),
        template: false,
    };
    let reference = SecretReference {
        file: PayloadFile::default(),
        id: id.clone(),
        name: name.to_owned(),
    };
    (reference, Payloads::from([(id, Arc::new(content))]))
}

fn a_task_of_the_node_has_its_secrets_for_as_long_as_it_is_there() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let name = format!("key-of-{}", std::process::id());
    let (reference, payloads) = secret(&name, "hunter2\n");
    let script = format!("cat /run/secrets/{name}; sleep 1000");
    let mut task = task("t4", &["sh", "-c", &script]);
    Arc::make_mut(&mut task.spec).container.secrets = vec![reference];
    // Where nobody has kept them, nothing starts without.
    let error = runner(&dir).start(&task, &sandbox).expect_err("no bytes");
    assert!(matches!(error, RunError::Launch(_)), "{error}");
    runner(&dir).keep_payloads(&task, &payloads).expect("kept");
    let running = runner(&dir).start(&task, &sandbox).expect("start");
    let files = runner(&dir).task_dir(&task.id).expect("dir");
    wait_for_line(&files.join("stdout.log"));
    let out = std::fs::read_to_string(files.join("stdout.log")).expect("stdout");
    assert_eq!(out, "hunter2\n");
    assert!(!Path::new("/run/secrets").join(&name).exists());
    // The next agent finds the task as it is, and takes what it had away when it has ended.
    let memory = dir.path().join("tasks/.memory/t4");
    let next = runner(&dir);
    let adopted = next.adopt(&task.id).expect("adopt").expect("it runs");
    assert!(memory.join("0").exists());
    adopted.stop(TERM, Duration::from_secs(10)).expect("stop");
    running.wait().expect("wait");
    next.finish(&task.id, &TaskStatus::default())
        .expect("finish");
    assert!(!memory.exists());
    let mut written = std::fs::read_dir(&files).expect("list");
    let holds = written.any(|entry| {
        let path = entry.expect("entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        path.file_name() != Some("stdout.log".as_ref())
            && bytes.windows(7).any(|window| window == b"hunter2")
    });
    assert!(!holds, "it is on the disk");
    next.remove(&task.id).expect("remove");
}

fn what_cannot_run_is_rejected_before_anything_is_made() {
    let (dir, sandbox) = (tempfile::tempdir().expect("dir"), Netns::new());
    let runner = runner(&dir);
    let cases = [
        (task("t3", &[]), "no command"),
        (
            task("t3", &["no-such-program"]),
            "program \"no-such-program\" was not found on node node-1",
        ),
        (
            task("t3", &["/etc/passwd"]),
            "\"/etc/passwd\" on node node-1 is not an executable file",
        ),
        (task("../t3", &["sh"]), "task id \"../t3\""),
    ];
    for (task, text) in cases {
        let error = runner.start(&task, &sandbox).expect_err("rejected");
        assert!(error.to_string().starts_with(text), "{error}");
        assert!(!matches!(error, RunError::Launch(_)));
    }
    assert!(!dir.path().join("tasks").exists());
}
