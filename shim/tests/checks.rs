//! Commands inside a task that runs, with the real shim and the real kernel.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_shim::cgroup;
use weft_shim::check::{Check, Checked, Outcome};
use weft_shim::launch::{Launch, LaunchError, Launched};
use weft_shim::spec::{Bind, Limits, Spec, read_init};
use weft_sys::process::{Process, Signal};

const SHIM: &str = env!("CARGO_BIN_EXE_weft-shim");
const LIMIT: Duration = Duration::from_secs(20);

struct Task {
    dir: TempDir,
    spec: Spec,
    launched: Launched,
}

impl Task {
    /// Runs a script of the shell.
    fn new(script: &str, change: impl FnOnce(&mut Spec)) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let mut spec = Spec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("COLOUR".into(), "blue".into()),
            ],
            user: None,
            groups: Vec::new(),
            cwd: None,
            capabilities: 0xa804_25fb,
            no_new_privileges: false,
            binds: Vec::new(),
            payloads: Vec::new(),
            hostname: "web.1.x".to_owned(),
            hidden: Vec::new(),
            cgroup: None,
            limits: Limits::default(),
            log_limit_bytes: 1 << 20,
            container: None,
        };
        change(&mut spec);
        let launch = Launch {
            program: Path::new(SHIM),
            dir: dir.path(),
            spec: &spec,
            netns: None,
        };
        let launched = launch.start(|_| Ok(())).expect("it starts");
        Self {
            dir,
            spec,
            launched,
        }
    }

    fn printed(&self, lines: usize) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let text = std::fs::read_to_string(self.dir.path().join("stdout.log"));
            let text = text.unwrap_or_default();
            if text.lines().count() >= lines {
                return text;
            }
            assert!(Instant::now() < deadline, "not in time: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn begin(&self, script: &str, limit: Duration) -> Result<Checked, LaunchError> {
        let spec = Spec {
            args: vec!["-c".into(), script.into()],
            ..self.spec.clone()
        };
        let checking = Check {
            program: Path::new(SHIM),
            dir: self.dir.path(),
            spec: &spec,
            limit,
        }
        .start()?;
        let mut answer = Vec::new();
        let mut pipe = std::fs::File::from(checking.answer);
        pipe.read_to_end(&mut answer).expect("an answer");
        checking.helper.wait().expect("it ends");
        Ok(Checked::read(&answer).expect("a whole answer"))
    }

    fn check(&self, script: &str) -> Checked {
        self.begin(script, LIMIT).expect("it is carried out")
    }

    fn end(self) -> TempDir {
        self.launched.shim.signal(Signal::KILL).expect("kill");
        self.launched.shim.wait().expect("wait");
        let init = read_init(self.dir.path()).expect("readable");
        let init = init.expect("its process was written down");
        let deadline = Instant::now() + LIMIT;
        while Process::adopt(init.pid, init.start_time)
            .expect("adopt")
            .is_some()
        {
            assert!(Instant::now() < deadline, "it ends with its shim");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.dir
    }
}

fn ended(code: i32, output: &str) -> Checked {
    Checked {
        outcome: Outcome::Ended(code),
        output: output.to_owned(),
    }
}

#[test]
fn a_check_sees_the_secrets_of_the_task() {
    let node = tempfile::tempdir().expect("dir");
    let source = node.path().join("0");
    std::fs::write(&source, "hunter2\n").expect("write");
    let task = Task::new("echo up; exec sleep 1000", |spec| {
        spec.payloads = vec![Bind {
            source,
            target: "/run/secrets/key".into(),
        }];
    });
    task.printed(1);
    assert_eq!(task.check("cat /run/secrets/key"), ended(0, "hunter2\n"));
    task.end();
}

#[test]
fn a_check_is_where_the_task_is_and_may_what_it_may() {
    let look = "cat /proc/sys/kernel/hostname; echo $COLOUR; id -u; \
                readlink /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/ipc; \
                grep -E '^Cap(Prm|Bnd)' /proc/self/status; pwd";
    let script = format!("{look}; echo pid $$; exec sleep 1000");
    let task = Task::new(&script, |spec| spec.user = Some("nobody".into()));
    let own = task.printed(10);
    let (own, pid) = own.rsplit_once("pid ").expect("its process");
    assert_eq!(task.check(look), ended(0, own));
    // It sees the task's processes by their numbers, and may speak to them.
    let alive = task.check(&format!("kill -0 {pid}"));
    assert_eq!(alive, ended(0, ""));
    assert_eq!(task.check("exit 3"), ended(3, ""));
    assert_eq!(task.check("echo no >&2; exit 1"), ended(1, "no\n"));
    assert_eq!(task.check("kill -9 $$"), ended(137, ""));
    task.end();
}

#[test]
fn what_hangs_or_floods_is_ended_and_cut() {
    let task = Task::new("exec sleep 1000", |_| {});
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let hung = task.begin("echo waits; sleep 1000 & sleep 1000", limit);
    let hung = hung.expect("it is carried out");
    assert_eq!(hung.outcome, Outcome::TimedOut);
    assert_eq!(hung.output, "waits\n");
    assert!(begun.elapsed() < LIMIT);
    let flood = task.check("head -c 50000000 /dev/zero | tr '\\0' x");
    assert_eq!(flood.outcome, Outcome::Ended(0));
    assert_eq!(flood.output.len(), 4096 + 3);
    assert!(flood.output.ends_with("xxx..."));
    // One that leaves somebody behind with its output is over when it ends.
    let begun = Instant::now();
    assert_eq!(task.check("sleep 1000 & echo gone"), ended(0, "gone\n"));
    assert!(begun.elapsed() < LIMIT);
    task.end();
}

#[test]
fn who_leaves_its_session_ends_with_the_check_where_there_are_control_groups() {
    let group = format!("weft-checks-{}", std::process::id());
    let task = Task::new(
        "cat /proc/self/cgroup; echo over; exec sleep 1000",
        |spec| {
            spec.cgroup = Some(group.clone().into());
        },
    );
    let mut groups = String::new();
    while !groups.ends_with("over\n") {
        groups = task.printed(1);
    }
    // In its own view it is at the root of a tree that has the group.
    let has_group = Path::new("/sys/fs/cgroup").join(&group).is_dir()
        || Path::new("/sys/fs/cgroup/pids").join(&group).is_dir()
        || Path::new("/sys/fs/cgroup/unified").join(&group).is_dir();
    let mark = format!("98765.{}", std::process::id());
    let left = task.check(&format!("setsid sleep {mark} >/dev/null 2>&1 & echo begun"));
    assert_eq!(left, ended(0, "begun\n"));
    let found = task.check(&format!(
        "grep -lsz '^{mark}$' /proc/[0-9]*/cmdline || true"
    ));
    if has_group {
        assert_eq!(found, ended(0, ""), "{groups}");
    } else {
        assert_eq!(found.outcome, Outcome::Ended(0));
    }
    task.end();
    cgroup::remove(Path::new(&group));
}

#[test]
fn what_cannot_be_run_is_told() {
    let mut task = Task::new("exec sleep 1000", |_| {});
    task.spec.program = "/no/such".into();
    let missing = task.check("");
    assert_eq!(missing.outcome, Outcome::Ended(127));
    assert!(missing.output.contains("/no/such"), "{missing:?}");
    let spec = task.spec.clone();
    let dir = task.end();
    let check = || Check {
        program: Path::new(SHIM),
        dir: dir.path(),
        spec: &spec,
        limit: LIMIT,
    };
    let checking = check().start().expect("its file is there still");
    let mut answer = Vec::new();
    let mut pipe = std::fs::File::from(checking.answer);
    pipe.read_to_end(&mut answer).expect("an answer");
    checking.helper.wait().expect("it ends");
    let checked = Checked::read(&answer).expect("a whole answer");
    let why = Outcome::NotRun("the task does not run any more".to_owned());
    assert_eq!(checked.outcome, why);
    std::fs::remove_file(dir.path().join("init.json")).expect("its process");
    let error = check().start().expect_err("no process");
    assert_eq!(error.to_string(), "the task does not run");
}
