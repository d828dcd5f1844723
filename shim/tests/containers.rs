//! Containers behind the real shim, by the real `runc`, with busybox for all that is in the image.
//!
//! Needs root, and the packages `runc` and `busybox-static`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use weft_shim::check::{Check, Checked, Outcome};
use weft_shim::guest::{Descriptors, Guest};
use weft_shim::launch::{Launch, LaunchError, Launched};
use weft_shim::leftovers::end_container;
use weft_shim::spec::{Ended, Failure, Limits, OciContainer, Spec, read_init};
use weft_sys::process::{Exit, Process, Signal};
use weft_sys::unwritable_program::UnwritableProgram;

const SHIM: &str = env!("CARGO_BIN_EXE_weft-shim");
const LIMIT: Duration = Duration::from_secs(30);
/// Docker's fourteen (moby, `oci/caps/defaults.go`).
const DOCKER: u64 = 0xa804_25fb;
const MEMORY_LIMIT: u64 = 24 << 20;

/// Tells the containers of this process apart.
static MADE: AtomicU32 = AtomicU32::new(0);

fn runc() -> PathBuf {
    let found = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/bin/runc"];
    let found = found
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    found.expect("this test needs the program runc: install the package runc")
}

/// Applets that the tests call by their own names.
const APPLETS: [&str; 14] = [
    "sh", "sleep", "cat", "echo", "id", "true", "pwd", "tty", "stty", "kill", "readlink", "grep",
    "hostname", "dd",
];

fn fill_rootfs(rootfs: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = busybox.into_iter().find(|path| Path::new(path).exists());
    let busybox =
        busybox.expect("this test needs /bin/busybox: install the package busybox-static");
    for folder in ["bin", "dev", "etc", "home/user", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(rootfs.join(folder)).expect("folder");
    }
    std::fs::copy(busybox, rootfs.join("bin/busybox")).expect("busybox");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1234:1235:u:/home/user:/bin/sh\n";
    std::fs::write(rootfs.join("etc/passwd"), passwd).expect("passwd");
    let group = "root:x:0:\nuser:x:1235:\nmore:x:77:user\nextra:x:88:\n";
    std::fs::write(rootfs.join("etc/group"), group).expect("group");
    std::fs::write(rootfs.join("etc/plain"), "no program").expect("file");
}

/// `config.json`, without what the tests do not look at.
fn config(args: &[&str], terminal: bool, group: &str) -> serde_json::Value {
    let names = [
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_MKNOD",
    ];
    let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": names, "effective": names, "permitted": names },
        },
        "root": { "path": "rootfs" },
        "hostname": "web.1.x",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["mode=755"]),
            mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/{group}"),
            "resources": { "memory": { "limit": MEMORY_LIMIT, "swap": MEMORY_LIMIT } },
        },
    })
}

struct Task {
    dir: TempDir,
    spec: Spec,
}

impl Task {
    fn new(args: &[&str]) -> Self {
        Self::with_terminal(args, false)
    }

    fn shell(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    fn with_terminal(args: &[&str], terminal: bool) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes containers: run it as root"
        );
        let dir = tempfile::tempdir().expect("dir");
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let id = format!("weft-shim-{}-{number}", std::process::id());
        let group = format!("weft-shim-tests/{id}/t");
        let bundle = dir.path().join("bundle");
        fill_rootfs(&bundle.join("rootfs"));
        let config = config(args, terminal, &group);
        std::fs::write(bundle.join("config.json"), config.to_string()).expect("config");
        let spec = Spec {
            program: "sh".into(),
            args: Vec::new(),
            env: vec![
                ("PATH".into(), "/bin".into()),
                ("COLOUR".into(), "blue".into()),
            ],
            user: None,
            groups: Vec::new(),
            cwd: None,
            capabilities: DOCKER,
            no_new_privileges: false,
            hostname: "web.1.x".to_owned(),
            binds: Vec::new(),
            payloads: Vec::new(),
            hidden: Vec::new(),
            cgroup: Some(group.into()),
            limits: Limits::default(),
            log_limit_bytes: 1 << 20,
            container: Some(OciContainer {
                runtime: runc(),
                root: dir.path().join("state"),
                bundle,
                id,
                terminal,
            }),
        };
        Self { dir, spec }
    }

    fn change_bundle(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.container().bundle.join("config.json");
        let text = std::fs::read_to_string(&path).expect("config");
        let mut config = serde_json::from_str(&text).expect("JSON");
        change(&mut config);
        std::fs::write(path, config.to_string()).expect("config");
    }

    fn launch(&self) -> Result<Launched, LaunchError> {
        Launch {
            program: Path::new(SHIM),
            dir: self.dir.path(),
            spec: &self.spec,
            netns: None,
        }
        .start(|_| Ok(()))
    }

    fn started(&self) -> Launched {
        self.launch().expect("it starts")
    }

    fn failed(&self) -> Failure {
        let error = self.launch().expect_err("nothing runs");
        let failure = self.ended().failure.expect("why not");
        assert_eq!(error.to_string(), failure.message);
        failure
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    fn printed(&self, lines: usize) -> String {
        let mut text = String::new();
        until(|| {
            text = self.read("stdout.log");
            text.lines().count() >= lines
        });
        text
    }

    fn ended(&self) -> Ended {
        let ended = Ended::read(self.dir.path()).expect("readable");
        ended.expect("the end was written down")
    }

    fn init(&self) -> Option<Process> {
        let init = read_init(self.dir.path())
            .expect("readable")
            .expect("there");
        Process::adopt(init.pid, init.start_time).expect("adopt")
    }

    fn container(&self) -> &OciContainer {
        self.spec.container.as_ref().expect("one")
    }

    fn group(&self) -> &Path {
        self.spec.cgroup.as_deref().expect("one")
    }

    /// Nothing of the container is left on this machine but its files.
    fn is_gone(&self) {
        let container = self.container();
        assert!(!container.root.join(&container.id).exists(), "runc's state");
        for tree in trees() {
            // The first folder is that of all tests.
            let node = self.group().parent().expect("a parent");
            assert!(!tree.join(node).exists(), "{tree:?}");
        }
        for name in ["container.pid", "console.sock"] {
            assert!(!self.dir.path().join(name).exists(), "{name}");
        }
    }

    fn check(&self, script: &str, change: impl FnOnce(&mut Spec)) -> Checked {
        let mut spec = Spec {
            args: vec!["-c".into(), script.into()],
            ..self.spec.clone()
        };
        change(&mut spec);
        let shim = entering(Path::new(SHIM));
        let checking = Check {
            program: shim.path(),
            dir: self.dir.path(),
            spec: &spec,
            limit: LIMIT,
        }
        .start()
        .expect("it is carried out");
        let mut answer = Vec::new();
        let mut pipe = File::from(checking.answer);
        pipe.read_to_end(&mut answer).expect("an answer");
        checking.helper.wait().expect("it ends");
        Checked::read(&answer).expect("a whole answer")
    }

    /// What a guest prints, and how it ends.
    fn guest(&self, program: &str, args: &[&str]) -> (String, Exit) {
        let guest = self.start_guest(&entering(Path::new(SHIM)), program, args);
        let exit = guest.wait().expect("wait");
        let output = std::fs::read_to_string(self.guest_output());
        (output.expect("output"), exit)
    }

    fn guest_output(&self) -> PathBuf {
        self.dir.path().join("guest.out")
    }

    fn start_guest(&self, shim: &UnwritableProgram, program: &str, args: &[&str]) -> Process {
        let spec = Spec {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            ..self.spec.clone()
        };
        let file = File::create(self.guest_output()).expect("file");
        let descriptors = Descriptors {
            stdin: None,
            stdout: file.try_clone().expect("clone"),
            stderr: file,
        };
        let guest = Guest {
            program: shim.path(),
            dir: self.dir.path(),
            name: "1",
            spec: &spec,
            cwd: Path::new(""),
        };
        guest.start(descriptors).expect("it starts")
    }

    /// What a guest shows on a terminal of 100 columns and 30 rows, and how it ends.
    fn guest_on_terminal(&self, user: &str, program: &str, args: &[&str]) -> (String, Exit) {
        let spec = Spec {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            user: Some(user.to_owned()),
            ..self.spec.clone()
        };
        let shim = entering(Path::new(SHIM));
        let guest = Guest {
            program: shim.path(),
            dir: self.dir.path(),
            name: "1",
            spec: &spec,
            cwd: Path::new(""),
        };
        let (guest, terminal) = guest.start_on_terminal((100, 30)).expect("it starts");
        let exit = guest.wait().expect("wait");
        let (mut screen, mut shown) = (File::from(terminal), Vec::new());
        let mut buffer = [0; 4096];
        // Linux says EIO once nobody has the other side any more (pts(4)).
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..count]);
        }
        let shown = String::from_utf8(shown).expect("text");
        (shown.replace("\r\n", "\n"), exit)
    }

    fn kill(&self, launched: &Launched) {
        let init = self.init().expect("it runs");
        init.signal(Signal::KILL).expect("kill");
        launched.shim.wait().expect("wait");
    }
}

/// As agents start what enters containers.
fn entering(shim: &Path) -> UnwritableProgram {
    UnwritableProgram::of(shim).expect("root may")
}

fn trees() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let of_groups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let path = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    of_groups.filter_map(path).collect()
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ended(code: i32, output: &str) -> Checked {
    Checked {
        outcome: Outcome::Ended(code),
        output: output.to_owned(),
    }
}

#[test]
fn a_container_runs_and_its_end_is_written_down() {
    let task = Task::shell("echo out; echo err >&2; hostname; echo $$; exit 9");
    let launched = task.started();
    assert_eq!(launched.shim.wait().expect("wait"), Exit::Code(9));
    assert_eq!(task.read("stdout.log"), "out\nweb.1.x\n1\n");
    assert_eq!(task.read("stderr.log"), "err\n");
    let end = task.ended();
    assert_eq!(
        (end.exit(), end.oom, end.failure),
        (Exit::Code(9), false, None)
    );
    assert_eq!(task.read("shim.log"), "");
    task.is_gone();
}

/// It may be over before anybody has looked.
#[test]
fn one_that_ends_at_once_is_no_failure() {
    let task = Task::new(&["true"]);
    assert_eq!(task.started().shim.wait().expect("wait"), Exit::Code(0));
    assert_eq!(task.ended().exit(), Exit::Code(0));
    task.is_gone();
}

#[test]
fn signals_reach_process_1_and_all_ends_with_it() {
    let task = Task::shell("trap 'echo asked; exit 4' TERM; sleep 1000 & echo ready; wait");
    let launched = task.started();
    task.printed(1);
    let init = task.init().expect("it runs");
    assert_eq!(init.pid(), launched.init.pid);
    init.signal(Signal::TERM).expect("signal");
    assert_eq!(launched.shim.wait().expect("wait"), Exit::Code(4));
    assert_eq!(task.read("stdout.log"), "ready\nasked\n");
    task.is_gone();

    let task = Task::shell("echo ready; exec sleep 1000");
    let launched = task.started();
    task.printed(1);
    task.kill(&launched);
    assert_eq!(task.ended().exit(), Exit::Signal(9));
    task.is_gone();
}

#[test]
fn what_cannot_be_started_is_told_in_dockers_words() {
    let task = Task::new(&["nope"]);
    let failure = task.failed();
    let text = &failure.message;
    assert!(
        text.starts_with("starting container failed: OCI runtime create failed: "),
        "{text}"
    );
    assert!(
        text.contains("exec: \"nope\": executable file not found in $PATH"),
        "{text}"
    );
    assert!(failure.permanent);
    let end = task.ended();
    assert_eq!(
        (end.failure.as_ref(), end.code),
        (Some(&failure), Some(127))
    );
    task.is_gone();

    let task = Task::new(&["/etc/plain"]);
    let failure = task.failed();
    assert!(failure.message.ends_with("permission denied"), "{failure}");
    assert_eq!((failure.permanent, task.ended().code), (true, Some(126)));

    let task = Task::new(&["true"]);
    std::fs::write(task.container().bundle.join("config.json"), "{").expect("write");
    let failure = task.failed();
    assert!(!failure.permanent, "{failure}");
    assert_eq!(task.ended().code, Some(128));
    task.is_gone();
}

#[test]
fn memory_that_runs_out_is_noted_also_of_a_child() {
    // dd fills a buffer of this size.
    let task = Task::shell("dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?; exit 0");
    let launched = task.started();
    assert_eq!(launched.shim.wait().expect("wait"), Exit::Code(0));
    assert_eq!(task.printed(1), "137\n", "{}", task.read("stderr.log"));
    assert!(task.ended().oom);
    task.is_gone();
}

#[test]
fn a_terminal_is_the_one_output() {
    let script = "sleep 1; tty; stty size; echo err >&2; exit 5";
    let task = Task::with_terminal(&["sh", "-c", script], true);
    let launched = task.started();
    assert_eq!(launched.shim.wait().expect("wait"), Exit::Code(5));
    assert_eq!(task.read("stdout.log"), "/dev/pts/0\r\n24 80\r\nerr\r\n");
    assert_eq!(task.read("stderr.log"), "");
    task.is_gone();
}

#[test]
fn a_check_is_inside_with_the_images_users_and_groups() {
    let task = Task::shell("cat /proc/self/cgroup; echo ready; exec sleep 1000");
    let launched = task.started();
    until(|| task.read("stdout.log").ends_with("ready\n"));
    let look = "id -u; id -g; id -G; pwd; hostname; echo $COLOUR $HOME; echo /etc/*";
    let own = task.check(look, |_| {});
    assert_eq!(
        own,
        ended(
            0,
            "0\n0\n0\n/\nweb.1.x\nblue /root\n/etc/group /etc/passwd /etc/plain\n"
        )
    );
    let other = task.check("id -u; id -g; id -G; pwd; echo $HOME", |spec| {
        spec.user = Some("user".to_owned());
        spec.groups = vec!["extra".to_owned(), "99".to_owned()];
        spec.cwd = Some("/tmp".into());
    });
    assert_eq!(
        other,
        ended(0, "1234\n1235\n1235 77 88 99\n/tmp\n/home/user\n")
    );
    let none = task.check("true", |spec| spec.user = Some("nobody-here".to_owned()));
    assert_eq!(none.outcome, Outcome::Ended(126));
    assert!(
        none.output.contains("unable to find user \"nobody-here\""),
        "{none:?}"
    );
    let missing = task.check("", |spec| spec.program = "nope".into());
    assert_eq!(missing.outcome, Outcome::Ended(127));
    let why = "exec: \"nope\": executable file not found in $PATH";
    assert!(missing.output.contains(why), "{missing:?}");
    // Its root and its processes are the container's, and so are its control groups.
    let inside = task.check("cat /proc/1/cgroup; readlink /proc/1/root", |_| {});
    assert!(inside.output.ends_with("\n/\n"), "{inside:?}");
    let groups = task.check("cat /proc/self/cgroup", |_| {});
    let own = task.group().to_str().expect("text");
    for line in groups.output.lines() {
        assert!(line.contains(own), "{line}");
    }
    task.kill(&launched);
    task.is_gone();
}

#[test]
fn guests_are_inside_with_dockers_exit_codes() {
    let task = Task::shell("busybox mknod /tmp/disk b 259 0; echo ready; exec sleep 1000");
    let launched = task.started();
    task.printed(1);
    let (printed, exit) = task.guest("sh", &["-c", "hostname; pwd; cat /proc/1/comm; exit 3"]);
    assert_eq!(
        (printed.as_str(), exit),
        ("web.1.x\n/\nsleep\n", Exit::Code(3))
    );
    let (printed, exit) = task.guest("nope", &[]);
    let says = |what: &str| {
        let begins = "OCI runtime exec failed: exec failed: unable to start container process";
        format!("{begins}: exec: {what}: unknown\n")
    };
    let missing = says("\"nope\": executable file not found in $PATH");
    assert_eq!((printed, exit), (missing, Exit::Code(127)));
    let missing = says("\"/bin/nope\": stat /bin/nope: no such file or directory");
    assert_eq!(task.guest("/bin/nope", &[]), (missing, Exit::Code(127)));
    let denied = says("\"/etc/plain\": permission denied");
    assert_eq!(task.guest("/etc/plain", &[]), (denied, Exit::Code(126)));
    // The devices that a container may open are those of its control group.
    let (printed, exit) = task.guest("cat", &["/tmp/disk"]);
    assert_eq!(exit, Exit::Code(1), "{printed}");
    assert!(printed.contains("not permitted"), "{printed}");
    task.kill(&launched);
    task.is_gone();
}

#[test]
fn the_terminal_of_a_guest_is_one_of_the_containers_own() {
    let task = Task::shell("echo ready; exec sleep 1000");
    let launched = task.started();
    task.printed(1);
    let look = "tty; stty size; busybox ls -ln $(tty); id -u >/dev/tty; test -t 2; exit 6";
    let (shown, exit) = task.guest_on_terminal("user", "sh", &["-c", look]);
    assert_eq!(exit, Exit::Code(6), "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert_eq!(lines[..2], ["/dev/pts/0", "30 100"]);
    let fields: Vec<&str> = lines[2].split_whitespace().collect();
    // Its group is that of who made it, as this container's terminals have no other one.
    assert_eq!(
        (fields[0], fields[2], fields[3]),
        ("crw--w----", "1234", "0")
    );
    assert_eq!(lines[3], "1234");
    // What keeps it from running is told there, in the words of Docker's client and no others.
    let (shown, exit) = task.guest_on_terminal("0", "nope", &[]);
    assert_eq!(exit, Exit::Code(127));
    assert_eq!(
        shown,
        "OCI runtime exec failed: exec failed: unable to start container process: \
         exec: \"nope\": executable file not found in $PATH: unknown\n"
    );
    // Before there is one, too.
    let (shown, exit) = task.guest_on_terminal("nobody-here", "sh", &[]);
    assert_eq!(exit, Exit::Code(126));
    assert!(
        shown.contains("unable to find user \"nobody-here\""),
        "{shown}"
    );
    task.kill(&launched);
    task.is_gone();
}

#[test]
fn a_container_without_a_place_for_terminals_has_one_of_the_nodes() {
    let task = Task::shell("echo ready; exec sleep 1000");
    task.change_bundle(|config| {
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/dev/pts");
    });
    let launched = task.started();
    task.printed(1);
    let look = "stty size; test -t 0 && test -t 1 && test -t 2 && id -u >/dev/tty; exit 6";
    let (shown, exit) = task.guest_on_terminal("user", "sh", &["-c", look]);
    assert_eq!((shown.as_str(), exit), ("30 100\n1234\n", Exit::Code(6)));
    task.kill(&launched);
    task.is_gone();
}

#[test]
fn what_is_run_inside_has_the_containers_filter_of_system_calls_and_ulimits() {
    let look = "ulimit -Sn; ulimit -Hn; busybox unshare -U true 2>&1; echo $?; id -u";
    let task = Task::shell(&format!("{look}; echo ready; exec sleep 1000"));
    task.change_bundle(|config| {
        let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 123, "hard": 456 });
        config["process"]["rlimits"] = json!([limit]);
        let user = 0x1000_0000;
        let flag =
            json!({ "index": 0, "value": user, "valueTwo": user, "op": "SCMP_CMP_MASKED_EQ" });
        // An answer that the kernel itself does not give.
        let unshare = json!({ "names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 });
        let clone = json!({ "names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [flag] });
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [unshare, clone],
        });
    });
    let launched = task.started();
    until(|| task.read("stdout.log").ends_with("ready\n"));
    let own = task.read("stdout.log");
    let own = own.trim_end_matches("ready\n");
    assert!(own.starts_with("123\n456\n"), "{own}");
    assert!(own.ends_with("Function not implemented\n1\n0\n"), "{own}");
    assert_eq!(task.check(look, |_| {}), ended(0, own));
    let guest = task.guest("sh", &["-c", look]);
    assert_eq!(guest, (own.to_owned(), Exit::Code(0)));
    // Of another user too, who could not set them any more.
    let other = task.check("ulimit -Hn; busybox unshare -U true 2>&1", |spec| {
        spec.user = Some("user".to_owned());
    });
    assert_eq!(other.outcome, Outcome::Ended(1));
    assert!(other.output.starts_with("456\n"), "{other:?}");
    assert!(other.output.ends_with("not implemented\n"), "{other:?}");
    // What cannot be had is not left out.
    for odd in ["SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"] {
        task.change_bundle(|config| config["linux"]["seccomp"]["defaultAction"] = odd.into());
        let refused = task.check("true", |_| {});
        assert_eq!(refused.outcome, Outcome::Ended(126), "{refused:?}");
        assert!(refused.output.contains("config.json"), "{refused:?}");
    }
    task.kill(&launched);
    task.is_gone();
}

/// Root of a container can open the file that a process executes which has come in, and keep it until nobody
/// executes it any more (CVE-2019-5736).
#[test]
fn the_program_that_enters_a_container_cannot_be_overwritten() {
    let task = Task::shell("echo ready; exec sleep 1000");
    let launched = task.started();
    task.printed(1);
    // One that nobody else executes, and that no child of another test has open.
    let own = task.dir.path().join("own-shim");
    let copied = Command::new("cp").arg(SHIM).arg(&own).status();
    assert!(copied.expect("cp").success());
    let before = std::fs::read(&own).expect("there");
    let shim = entering(&own);
    let guest = task.start_guest(&shim, "sh", &["-c", "echo inside; exec sleep 1000"]);
    until(|| std::fs::read_to_string(task.guest_output()).is_ok_and(|text| text == "inside\n"));
    let kept = File::open(format!("/proc/{}/exe", guest.pid())).expect("it can be read");
    guest.signal(Signal::KILL).expect("kill");
    guest.wait().expect("wait");
    drop(shim);
    let again = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let error = OpenOptions::new().write(true).open(again);
    let kind = error.expect_err("nobody may").kind();
    assert_eq!(kind, ErrorKind::ReadOnlyFilesystem);
    assert_eq!(std::fs::read(&own).expect("there"), before);
    task.kill(&launched);
    task.is_gone();
}

#[test]
fn a_container_whose_shim_was_killed_lives_on_until_somebody_ends_it() {
    let task = Task::shell("sleep 1000 & echo ready; wait");
    let launched = task.started();
    task.printed(1);
    launched.shim.signal(Signal::KILL).expect("kill");
    launched.shim.wait().expect("wait");
    assert_eq!(Ended::read(task.dir.path()).expect("readable"), None);
    assert!(task.init().is_some(), "it lives on");
    for _ in 0..2 {
        end_container(task.dir.path(), task.container(), task.group()).expect("ended");
        assert!(task.init().is_none());
    }
    task.is_gone();
    // Nobody else is at risk where nothing was written down.
    std::fs::remove_file(task.dir.path().join("init.json")).expect("remove");
    end_container(task.dir.path(), task.container(), Path::new("")).expect("nothing to end");
}
