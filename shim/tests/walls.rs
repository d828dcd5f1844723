//! A task behind its walls, with the real shim and the real kernel.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_shim::cgroup;
use weft_shim::launch::{Launch, LaunchError, Launched};
use weft_shim::spec::{Bind, Ended, Limits, ProcessId, Spec, read_init};
use weft_sys::process::{Exit, Process, Signal};

/// Docker's fourteen (moby, `oci/caps/defaults.go`).
const DOCKER: u64 = 0xa804_25fb;
const LIMIT: Duration = Duration::from_secs(20);

struct Task {
    dir: TempDir,
    spec: Spec,
}

impl Task {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let spec = Spec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            user: None,
            groups: Vec::new(),
            cwd: None,
            capabilities: DOCKER,
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
        Self { dir, spec }
    }

    fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn launch(&self) -> Result<Launched, LaunchError> {
        Launch {
            program: Path::new(env!("CARGO_BIN_EXE_weft-shim")),
            dir: self.dir.path(),
            spec: &self.spec,
            netns: None,
        }
        .start(|_| Ok(()))
    }

    fn started(&self) -> Launched {
        let launched = self.launch().expect("it starts");
        assert_eq!(launched.warnings, Vec::<String>::new());
        launched
    }

    /// Runs it to its end and returns what it printed.
    fn output(&self) -> (Exit, String) {
        let exit = end_of(&self.started());
        assert_eq!(exit, self.ended().exit(), "status of the shim");
        let err = self.read("stderr.log");
        assert!(err.is_empty(), "{err}");
        (exit, self.read("stdout.log"))
    }

    fn ended(&self) -> Ended {
        let ended = Ended::read(self.dir.path()).expect("readable");
        ended.expect("the end was written down")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn wait_for(&self, what: &str, name: &str) {
        eventually(&format!("{name} holds {what:?}"), || {
            self.read(name).contains(what)
        });
    }
}

/// The end of a shim, as its exit status has it: that of a shell.
fn end_of(launched: &Launched) -> Exit {
    let exit = launched.shim.wait_timeout(LIMIT).expect("wait");
    match exit.expect("it ends in time") {
        Exit::Code(code) if code > 128 => Exit::Signal(code - 128),
        other => other,
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn process(id: ProcessId) -> Option<Process> {
    Process::adopt(id.pid, id.start_time).expect("adopt")
}

fn here(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    u64::from_str_radix(line.expect("a line").trim(), 16).expect("hex")
}

#[test]
fn root_has_dockers_capabilities_and_no_way_to_more() {
    let task = Task::new("grep -E '^(Cap|NoNewPrivs)' /proc/self/status; id -u");
    let (exit, out) = task.output();
    assert_eq!(exit, Exit::Code(0));
    let has = DOCKER & here("CapBnd:");
    let expected = format!(
        "CapInh:\t{0:016x}\nCapPrm:\t{has:016x}\nCapEff:\t{has:016x}\nCapBnd:\t{has:016x}\n\
         CapAmb:\t{0:016x}\nNoNewPrivs:\t0\n0\n",
        0
    );
    assert_eq!(out, expected);
}

#[test]
fn another_user_has_none_and_may_be_kept_from_gaining_any() {
    let script = "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/self/status; id; echo $HOME; \
                  echo again > /dev/stdout";
    let task = Task::new(script).with(|spec| {
        spec.user = Some("nobody".into());
        spec.no_new_privileges = true;
    });
    let (exit, out) = task.output();
    assert_eq!(exit, Exit::Code(0));
    let lines: Vec<&str> = out.lines().collect();
    let bound = format!("CapBnd:\t{:016x}", DOCKER & here("CapBnd:"));
    let none = "0000000000000000";
    assert_eq!(lines[0], format!("CapPrm:\t{none}"));
    assert_eq!(lines[1], format!("CapEff:\t{none}"));
    assert_eq!(lines[2], bound);
    assert_eq!(lines[3], "NoNewPrivs:\t1");
    assert!(lines[4].starts_with("uid=65534(nobody) gid=65534"), "{out}");
    assert_eq!(lines[5..], ["/nonexistent", "again"]);
    let missing = Task::new("true").with(|spec| spec.user = Some("no-such-user".into()));
    let error = missing.launch().expect_err("no such user").to_string();
    assert!(
        error.contains("\"no-such-user\" is not in /etc/passwd"),
        "{error}"
    );
}

#[test]
fn processes_of_the_node_cannot_be_seen_or_signalled() {
    let script = "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l; \
                  kill -0 $OUTSIDE 2>/dev/null || echo none; \
                  ipcs -m | grep -c 0x0000beef; readlink /proc/self/cgroup; \
                  cut -d: -f3 /proc/self/cgroup | sort -u";
    let outside = std::process::id();
    let task = Task::new(script).with(|spec| {
        spec.env
            .push(("OUTSIDE".into(), outside.to_string().into()));
        spec.args[1] = OsString::from(script.replace("readlink /proc/self/cgroup; ", ""));
    });
    let (_, out) = task.output();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "weft-shim");
    // Process 1, the shell, and the two of the pipe.
    let seen: usize = lines[1].parse().expect("a number");
    assert!(seen <= 5, "{out}");
    assert_eq!(lines[2..], ["none", "0", "/"], "{out}");
}

#[test]
fn weft_is_hidden_and_its_files_are_shown_elsewhere() {
    let weft = tempfile::tempdir().expect("dir");
    std::fs::create_dir(weft.path().join("certs")).expect("dir");
    std::fs::write(weft.path().join("certs/ca.key"), "key").expect("write");
    let socket = weft.path().with_extension("sock");
    std::fs::write(&socket, "a socket").expect("write");
    std::fs::write(weft.path().join("hosts"), "10.0.0.1 me\n").expect("write");
    let script = "ls -A $WEFT | wc -l; cat $WEFT/certs/ca.key 2>/dev/null || echo none; \
                  cat $SOCKET; tail -1 /etc/hosts; umount $WEFT 2>/dev/null || echo stays; \
                  touch $WEFT/x 2>/dev/null || echo full";
    let task = Task::new(script).with(|spec| {
        let path = weft.path().as_os_str().to_owned();
        spec.env.push(("WEFT".into(), path));
        spec.env.push(("SOCKET".into(), socket.clone().into()));
        spec.hidden = vec![
            weft.path().to_owned(),
            socket.clone(),
            weft.path().join("certs"),
            "/no/such/folder".into(),
        ];
        spec.binds = vec![Bind {
            source: weft.path().join("hosts"),
            target: "/etc/hosts".into(),
        }];
    });
    let (_, out) = task.output();
    assert_eq!(out, "0\nnone\n10.0.0.1 me\nstays\nfull\n");
    std::fs::read(weft.path().join("certs/ca.key")).expect("nothing leaks out");
    std::fs::remove_file(&socket).expect("remove");
}

/// No installer wrote `/etc/hosts` on a system that is as bare as can be.
#[test]
fn a_file_is_shown_where_the_node_has_none() {
    use std::os::unix::fs::PermissionsExt;

    let node = tempfile::tempdir().expect("dir");
    let (ours, place) = (node.path().join("ours"), node.path().join("hosts"));
    std::fs::write(&ours, "10.0.0.1 me\n").expect("write");
    let shown = |target: PathBuf| {
        Task::new("cat $PLACE").with(|spec| {
            spec.env.push(("PLACE".into(), target.clone().into()));
            spec.binds = vec![Bind {
                source: ours.clone(),
                target,
            }];
        })
    };
    assert_eq!(shown(place.clone()).output().1, "10.0.0.1 me\n");
    let left = std::fs::metadata(&place).expect("a file on the node");
    assert_eq!((left.len(), left.permissions().mode() & 0o777), (0, 0o644));

    let nowhere = shown(node.path().join("no/folder"));
    let error = nowhere.launch().expect_err("no such folder").to_string();
    assert!(error.contains("create an empty file there"), "{error}");
}

/// What a secret is, root of the task reads and nobody changes, and the node has none of it.
#[test]
fn secrets_are_seen_by_the_task_alone_and_nothing_is_made_for_them() {
    let node = tempfile::tempdir().expect("dir");
    let (secret, config, place) = (
        node.path().join("0"),
        node.path().join("1"),
        node.path().join("app.conf"),
    );
    std::fs::write(&secret, "hunter2\n").expect("write");
    std::fs::write(&config, "listen 80\n").expect("write");
    std::fs::write(&place, "").expect("write");
    let name = format!("of-{}", std::process::id());
    let inside = Path::new("/run/secrets").join(&name);
    let shown = |script: &str, targets: [&Path; 2]| {
        let [of_secret, of_config] = targets.map(Path::to_owned);
        Task::new(script).with(|spec| {
            spec.env.push(("SECRET".into(), of_secret.clone().into()));
            spec.env.push(("CONFIG".into(), of_config.clone().into()));
            let bind = |source: &Path, target| Bind {
                source: source.to_owned(),
                target,
            };
            spec.payloads = vec![bind(&secret, of_secret), bind(&config, of_config)];
        })
    };
    let script = "cat $SECRET $CONFIG; ls -A /run/secrets | wc -l; \
                  for f in $SECRET $CONFIG /run/secrets/new; do \
                  (echo x > $f) 2>/dev/null || echo refused; done; \
                  umount $SECRET 2>/dev/null || echo stays";
    let (exit, out) = shown(script, [&inside.join("key"), &place]).output();
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(
        out,
        "hunter2\nlisten 80\n1\nrefused\nrefused\nrefused\nstays\n"
    );
    assert!(!inside.exists(), "the node sees it");
    assert_eq!(std::fs::read(&place).expect("read"), b"");

    // Any user may go there.
    let anybody = shown("cat $SECRET", [&inside.join("a/b"), &place]);
    let anybody = anybody.with(|spec| spec.user = Some("nobody".into()));
    assert_eq!(anybody.output().1, "hunter2\n");

    let both = shown("true", [&inside.join("a/b"), &inside]).launch();
    let error = both.expect_err("a file and a folder").to_string();
    assert!(error.contains("cannot make a /run/secrets"), "{error}");

    let missing = node.path().join("missing");
    let error = shown("true", [&inside, &missing]).launch();
    let error = error.expect_err("nothing there").to_string();
    assert!(
        error.contains("create an empty file there, or give it a place below /run/secrets"),
        "{error}"
    );
    assert!(!missing.exists());
    // An empty one is not made in the place of one that is not there.
    std::fs::remove_file(&secret).expect("remove");
    let error = shown("true", [&inside, &place]).launch();
    let error = error.expect_err("no source").to_string();
    assert!(error.contains("cannot show a secret or config"), "{error}");
}

/// Root reads any file, and `CAP_MKNOD` is among Docker's capabilities: neither leads to the node's
/// disks.
#[test]
fn devices_that_ordinary_users_see_work_and_no_others() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    let made = tempfile::tempdir().expect("dir");
    let zero = made.path().join("zero");
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    mknodat(CWD, &zero, kind, mode, makedev(1, 5)).expect("root may, outside");
    let script = "echo x > /dev/null; head -c 4 /dev/urandom | wc -c; head -c 2 /dev/zero | wc -c; \
                  test -c /dev/tty && test -w /dev/shm && test -e /dev/pts/ptmx && echo usual; \
                  find /dev -type b | wc -l; head -c 1 $MADE/zero 2>/dev/null | wc -c; \
                  for p in $MADE /dev; do mknod $p/new c 1 5 2>/dev/null || echo refused; done; \
                  mkfifo $MADE/fifo && echo fifo; \
                  cat /etc/passwd > /dev/null && touch /tmp/$NAME.x && rm /tmp/$NAME.x && echo files";
    let name = made.path().file_name().expect("a name").to_owned();
    let task = Task::new(script).with(|spec| {
        spec.env.push(("MADE".into(), made.path().into()));
        spec.env.push(("NAME".into(), name));
    });
    let (_, out) = task.output();
    assert_eq!(out, "4\n2\nusual\n0\n0\nrefused\nrefused\nfifo\nfiles\n");
}

#[test]
fn settings_of_the_kernel_are_read_only() {
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/mm/ksm/run; \
                  do (echo 0 > $f) 2>/dev/null && echo wrote $f; done; \
                  head -c 1 /proc/interrupts | wc -c; cat /proc/sys/kernel/ostype";
    let (_, out) = Task::new(script).output();
    assert_eq!(out, "0\nLinux\n");
}

#[test]
fn nothing_that_the_agent_inherited_arrives() {
    use rustix::io::{FdFlags, fcntl_setfd};

    let secret = tempfile::NamedTempFile::new().expect("file");
    let inherited = std::fs::File::open(secret.path()).expect("open");
    fcntl_setfd(&inherited, FdFlags::empty()).expect("as if inherited");
    let task = Task::new("for fd in /proc/$$/fd/*; do readlink $fd || true; done");
    let (_, out) = task.output();
    let shown: Vec<&str> = out.lines().collect();
    assert_eq!(shown.len(), 3, "{out}");
    assert_eq!(shown[0], "/dev/null");
    assert!(shown[1..].iter().all(|fd| fd.starts_with("pipe:")), "{out}");
}

#[test]
fn output_stays_within_its_bound_at_any_rate() {
    let task = Task::new(
        "yes 'a line of some length' | head -c 30000000; echo the end; yes >&2 & sleep 0.3",
    );
    let launched = task.started();
    let size = |name: &str| std::fs::metadata(task.path(name)).map_or(0, |m| m.len());
    let mut most = 0;
    while launched.shim.try_wait().expect("wait").is_none() {
        let now = size("stdout.log") + size("stdout.log.1");
        most = most.max(now);
        std::thread::sleep(Duration::from_millis(2));
    }
    let bound = (1 << 20) + (64 << 10);
    assert!(most <= bound, "{most}");
    assert!(most > 1 << 19, "{most}");
    for name in ["stdout.log", "stderr.log"] {
        let both = size(name) + size(&format!("{name}.1"));
        assert!((1 << 18..=bound).contains(&both), "{name}: {both}");
    }
    assert!(task.read("stdout.log").ends_with("the end\n"));
}

#[test]
fn a_full_disk_costs_output_and_not_the_end() {
    let task = Task::new("head -c 3000000 /dev/zero; exit 7");
    // A disk of a few pages that others fill up once the task was started.
    let disk = tempfile::tempdir().expect("dir");
    weft_sys::mounts::mount_new(
        "tmpfs",
        disk.path(),
        weft_sys::mounts::NewFlags::default(),
        "size=256k",
    )
    .expect("a small disk");
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            drop(weft_sys::mounts::take_away(&self.0));
        }
    }
    let _unmount = Unmount(disk.path().to_owned());
    let launched = Launch {
        program: Path::new(env!("CARGO_BIN_EXE_weft-shim")),
        dir: disk.path(),
        spec: &task.spec,
        netns: None,
    }
    .start(|_| Ok(()))
    .expect("it starts");
    assert_eq!(end_of(&launched), Exit::Code(7));
    let ended = Ended::read(disk.path()).expect("readable").expect("there");
    assert_eq!(ended.exit(), Exit::Code(7));
}

/// What programs look for first: git wants a home, Java and Erlang their own name.
#[test]
fn a_program_finds_what_it_expects_around_it() {
    let script = "echo $HOME; hostname; umask; cat /proc/self/oom_score_adj; \
        grep Cpus_allowed: /proc/self/status";
    // As a unit with CPUAffinity= and UMask= would start the agent.
    let before = weft_sys::affinity::allowed().expect("CPUs");
    weft_sys::affinity::pin(before[0]).expect("pinned");
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    let pinned = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed:"));
    let (exit, out) = Task::new(script).output();
    assert_eq!(exit, Exit::Code(0));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..4], ["/root", "web.1.x", "0022", "0"], "{out}");
    assert!(
        before.len() == 1 || pinned != lines.last().copied(),
        "{out}"
    );
    // Who is not in /etc/passwd lives at the root, and what is given counts.
    let nobody = Task::new("echo $HOME").with(|spec| spec.user = Some("54321".to_owned()));
    assert_eq!(nobody.output().1, "/\n");
    let given = Task::new("echo $HOME").with(|spec| {
        spec.env.push(("HOME".into(), "/srv".into()));
    });
    assert_eq!(given.output().1, "/srv\n");
}

/// An agent ignores SIGPIPE, as every program of Rust does, and may open more files than `select(2)`
/// knows.
#[test]
fn signals_limits_and_standard_input_are_those_of_a_new_program() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    const SIGPIPE: u64 = 1 << 12;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = Rlimit {
        current: Some(maximum.map_or(1024, |n| n.min(1024))),
        maximum,
    };
    setrlimit(Resource::Nofile, before).expect("lower");
    weft_sys::open_files::raise().expect("raise");
    assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    let ignored = here("SigIgn:");
    assert_ne!(ignored & SIGPIPE, 0, "{ignored:x}");
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ulimit -S -n; ulimit -H -n; \
                  readlink /proc/self/fd/0";
    let (exit, out) = Task::new(script).output();
    assert_eq!(exit, Exit::Code(0));
    let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    let expected = format!(
        "SigBlk:\t{:016x}\nSigIgn:\t{:016x}\n{}\n{}\n/dev/null\n",
        0,
        0,
        text(before.current),
        text(maximum)
    );
    assert_eq!(out, expected);
}

/// Postgres, nginx, gunicorn: whoever ends the workers as well breaks their orderly end.
#[test]
fn a_supervisor_is_asked_to_end_and_its_workers_are_not() {
    // The worker is the last to be ready for its signal.
    let script = "trap 'kill -USR1 $!; wait $!; wait $!; echo supervisor; exit 0' TERM; \
        sh -c 'trap \"echo worker killed\" TERM; trap \"echo worker saved; exit\" USR1; \
            echo ready; while :; do sleep 0.05; done' & \
        while :; do sleep 0.05; done";
    let task = Task::new(script);
    let launched = task.started();
    eventually("it has begun", || task.read("stdout.log").contains("ready"));
    process(launched.init)
        .expect("process 1 runs")
        .signal(Signal::TERM)
        .expect("may");
    assert_eq!(end_of(&launched), Exit::Code(0));
    assert_eq!(task.read("stdout.log"), "ready\nworker saved\nsupervisor\n");
}

#[test]
fn signals_reach_the_program_and_orphans_are_reaped() {
    let task = Task::new(
        "trap 'echo asked; exit 9' TERM; echo ready; (sleep 0.05 & echo $! >&2); \
         while [ -d /proc/$(cat $ORPHAN 2>/dev/null) ]; do sleep 0.01; done; \
         echo reaped; while :; do sleep 0.01; done",
    );
    let orphan = task.path("stderr.log");
    let task = task.with(|spec| spec.env.push(("ORPHAN".into(), orphan.into())));
    let launched = task.started();
    task.wait_for("reaped", "stdout.log");
    process(launched.init)
        .expect("it runs")
        .signal(Signal::TERM)
        .expect("signal");
    assert_eq!(end_of(&launched), Exit::Code(9));
    assert_eq!(task.ended().exit(), Exit::Code(9));
    assert_eq!(task.read("stdout.log"), "ready\nreaped\nasked\n");
    // One without a handler ends as it would outside.
    let plain = Task::new("echo ready; exec sleep 1000");
    let launched = plain.started();
    plain.wait_for("ready", "stdout.log");
    process(launched.init)
        .expect("it runs")
        .signal(Signal::TERM)
        .expect("signal");
    assert_eq!(end_of(&launched), Exit::Signal(15));
    assert_eq!(plain.ended().exit(), Exit::Signal(15));
}

/// Process 1 or the shim: whatever of them is killed, nothing of the task stays.
#[test]
fn nothing_of_a_task_outlives_its_keepers() {
    for kill_init in [true, false] {
        let task = Task::new("(setsid sleep 1000 &); echo ready; sleep 1000");
        let launched = task.started();
        task.wait_for("ready", "stdout.log");
        let init = process(launched.init).expect("it runs");
        let pids = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid()));
        assert!(pids.expect("children").split_ascii_whitespace().count() >= 1);
        if kill_init {
            init.signal(Signal::KILL).expect("kill");
            assert_eq!(end_of(&launched), Exit::Signal(9));
            assert_eq!(task.ended().exit(), Exit::Signal(9));
        } else {
            launched.shim.signal(Signal::KILL).expect("kill");
            launched.shim.wait().expect("wait");
            assert_eq!(Ended::read(task.dir.path()).expect("readable"), None);
        }
        // The end of process 1 is the end of all in its namespace.
        eventually("process 1 is gone", || process(launched.init).is_none());
    }
}

/// A program that goes into the background in a session of its own, and ends.
#[test]
fn what_left_the_group_ends_with_the_program() {
    // Nobody else sleeps this long.
    let long = format!("600.{}", std::process::id());
    let script = format!(
        "setsid sleep {long} & \
         until [ \"$(cut -d ' ' -f 2,6 /proc/$!/stat)\" = \"(sleep) $!\" ]; do sleep 0.01; done; \
         echo away; until [ -e $END ]; do sleep 0.01; done; exit 0"
    );
    let there = || {
        let entries = std::fs::read_dir("/proc").expect("processes");
        let lines = entries.flatten().filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline"));
            line.ok()
        });
        let sleeper = format!("sleep\0{long}\0");
        lines.filter(|line| line == sleeper.as_bytes()).count()
    };
    let task = Task::new(&script);
    let end = task.path("end");
    let task = task.with(|spec| spec.env.push(("END".into(), end.clone().into())));
    let launched = task.started();
    task.wait_for("away", "stdout.log");
    eventually("it sleeps", || there() == 1);
    std::fs::write(&end, "").expect("told to end");
    assert_eq!(end_of(&launched), Exit::Code(0));
    eventually("the sleeper is gone", || there() == 0);
}

#[test]
fn what_cannot_start_is_said_and_written_down() {
    let task = Task::new("true").with(|spec| spec.program = "/no/such/program".into());
    let Err(LaunchError::Failed(failure)) = task.launch() else {
        panic!("it started")
    };
    assert!(failure.permanent);
    assert!(
        failure
            .message
            .contains("\"/no/such/program\" is not where"),
        "{failure}"
    );
    assert_eq!(task.ended().failure, Some(failure));
    assert!(!task.path("spec.json").exists(), "it holds the environment");

    // An agent that cannot write down the shim has not started a task.
    let unseen = Task::new("touch $MARK");
    let error = Launch {
        program: Path::new(env!("CARGO_BIN_EXE_weft-shim")),
        dir: unseen.dir.path(),
        spec: &unseen.spec,
        netns: None,
    }
    .start(|_| Err(io::Error::other("the disk is full")))
    .expect_err("not recorded");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(read_init(unseen.dir.path()).expect("readable"), None);
}

#[test]
fn a_task_has_a_control_group_of_its_own_where_there_are_any() {
    let name = format!("weft-test-{}", std::process::id());
    let group = Path::new(&name).join("node/task");
    let task = Task::new("echo ready; read x < /proc/self/mounts; sleep 1000")
        .with(|spec| spec.cgroup = Some(group.clone()));
    let launched = task.started();
    task.wait_for("ready", "stdout.log");
    let of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    let trees = of(launched.shim.pid()).matches(&name).count();
    assert_eq!(trees, of(launched.init.pid).matches(&name).count());
    process(launched.init)
        .expect("it runs")
        .signal(Signal::KILL)
        .expect("kill");
    end_of(&launched);
    cgroup::remove(&group);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    for place in mounts.lines().filter_map(|l| l.split(' ').nth(4)) {
        assert!(!Path::new(place).join(&name).exists(), "{place}");
    }
}

#[test]
fn a_task_has_no_more_processes_than_it_may_where_its_machine_can_limit_them() {
    let name = format!("weft-limit-{}", std::process::id());
    let group = Path::new(&name).join("node/task");
    // Each `sleep` is one; beside them there is the shell.
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo ready; wait";
    let task = Task::new(script).with(|spec| {
        spec.cgroup = Some(group.clone());
        spec.limits.pids = 4;
    });
    let launched = task.launch().expect("it starts");
    let places = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let places = places.lines().filter_map(|l| l.split(' ').nth(4));
    let limits: Vec<String> = places
        .filter_map(|place| {
            let file = Path::new(place).join(&group).join("pids.max");
            std::fs::read_to_string(file).ok()
        })
        .filter(|limit| limit.trim() != "max")
        .collect();
    match launched.warnings.as_slice() {
        // The task's four, the shim and process 1. A shell that may not fork ends.
        [] => assert!(
            !limits.is_empty() && limits.iter().all(|l| l == "6\n"),
            "{limits:?}"
        ),
        [warning] => assert!(
            warning.starts_with("--limit-pids does not hold"),
            "{warning}"
        ),
        more => assert_eq!(more.len(), 1, "{more:?}"),
    }
    // It may have ended by itself.
    if let Some(init) = process(launched.init) {
        drop(init.signal(Signal::KILL));
    }
    end_of(&launched);
    cgroup::remove(&group);
}
