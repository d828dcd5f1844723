//! With scripts in place of the runtime program.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use weft_sys::process::Spawn;

use super::*;

/// Long enough for a shell, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(20);

struct Fake {
    dir: TempDir,
    container: OciContainer,
}

impl Fake {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let runtime = dir.path().join("fake-runc");
        // By another process: what this one forks meanwhile would hold the file open for writing, and
        // then nobody can execute it.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(&runtime)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut input = writer.stdin.take().expect("its input");
        writeln!(input, "#!/bin/sh\n{script}").expect("write");
        drop(input);
        assert!(writer.wait().expect("wait").success());
        let container = OciContainer {
            runtime,
            root: dir.path().join("state"),
            bundle: dir.path().join("bundle"),
            id: "c1".to_owned(),
            terminal: false,
        };
        Self { dir, container }
    }

    fn begin(&self, limit: Duration) -> Result<Begun, NotStarted> {
        let mut logs = Log::of_task(self.dir.path(), 1 << 20);
        begin(self.dir.path(), &self.container, limit, &mut logs)
    }

    /// Its message, whether that is for good, and the code.
    fn fails(&self, limit: Duration) -> (String, bool, Option<i32>) {
        let NotStarted { failure, code } = self.begin(limit).expect_err("nothing runs");
        (failure.message, failure.permanent, code)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

#[test]
fn the_runtime_program_is_asked_as_it_expects() {
    let fake = Fake::new(
        "printf '%s\\n' \"$@\" >\"$(dirname \"$0\")/args\"; env >\"$(dirname \"$0\")/env\"; \
         ls -l /proc/$$/fd >\"$(dirname \"$0\")/fds\"; exit 1",
    );
    fake.fails(LIMIT);
    let dir = fake.dir.path().display();
    let expected = format!(
        "--root\n{dir}/state\nrun\n--detach\n--bundle\n{dir}/bundle\n\
         --pid-file\n{dir}/container.pid\nc1\n"
    );
    assert_eq!(fake.read("args"), expected);
    // What the shell itself adds is no concern.
    let env = fake.read("env");
    assert!(env.contains("PATH=/usr/local/sbin:"), "{env}");
    let own = ["PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
    for line in env.lines() {
        assert!(own.iter().any(|key| line.starts_with(key)), "{line}");
    }
    let fds = fake.read("fds");
    assert!(fds.contains("0 -> /dev/null"), "{fds}");
    let pipes = fds.lines().filter(|line| line.contains("pipe:")).count();
    assert_eq!(pipes, 2, "{fds}");
}

#[test]
fn what_it_says_is_the_reason() {
    let fake = Fake::new(
        r#"echo 'time="x" level=error msg="runc run failed: exec: \"nope\": executable file not found in $PATH"' >&2; exit 1"#,
    );
    let message = "starting container failed: OCI runtime create failed: runc run failed: \
                   exec: \"nope\": executable file not found in $PATH";
    assert_eq!(fake.fails(LIMIT), (message.to_owned(), true, Some(127)));
    // It is no output of the task.
    assert_eq!(fake.read("stderr.log"), "");

    let silent = Fake::new("exit 3").fails(LIMIT);
    assert!(
        silent.0.contains("says nothing (exit code 3)"),
        "{silent:?}"
    );
    let killed = Fake::new("echo dying >&2; kill -9 $$").fails(LIMIT);
    assert!(killed.0.ends_with("create failed: dying"), "{killed:?}");
    assert_eq!((killed.1, killed.2), (false, Some(128)));
}

#[test]
fn a_flood_of_garbage_blocks_nothing_and_is_cut() {
    let fake = Fake::new(
        "head -c 3000000 /dev/urandom >&2; head -c 300000 /dev/zero; \
         echo >&2; echo 'the last word' >&2; exit 1",
    );
    let (message, permanent, _) = fake.fails(LIMIT);
    assert!(
        message.ends_with("create failed: the last word"),
        "{message}"
    );
    assert!(!permanent);
}

#[test]
fn one_that_hangs_is_ended_with_what_it_started() {
    let mark = format!("86399.{}", std::process::id());
    let fake = Fake::new(&format!("sleep {mark} & sleep {mark}"));
    let begun = Instant::now();
    let (message, permanent, code) = fake.fails(Duration::from_millis(400));
    assert!(begun.elapsed() < LIMIT);
    assert!(
        message.contains("did not start it within 0.4 seconds"),
        "{message}"
    );
    assert_eq!((permanent, code), (false, None));
    let deadline = Instant::now() + LIMIT;
    while running(&mark) {
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process has this argument.
fn running(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| {
            line.split(|byte| *byte == 0)
                .any(|word| word == argument.as_bytes())
        })
}

#[test]
fn success_without_a_process_is_a_failure() {
    let fake = Fake::new("exit 0");
    let (message, permanent, code) = fake.fails(LIMIT);
    assert!(message.contains("tells no process"), "{message}");
    assert_eq!((permanent, code), (false, None));
    // An old file tells nothing of this start.
    std::fs::write(fake.dir.path().join(files::PID), "1").expect("write");
    assert!(fake.fails(LIMIT).0.contains("tells no process"));

    let pid_file = "while [ \"$1\" != --pid-file ]; do shift; done";
    let odd = Fake::new(&format!("{pid_file}; echo x1 >\"$2\""));
    assert!(odd.fails(LIMIT).0.contains("holds no number"));
    // Somebody else's process is not touched.
    let foreign = Fake::new(&format!("{pid_file}; echo 1 >\"$2\""));
    let (message, ..) = foreign.fails(LIMIT);
    assert!(message.contains("was not left to the shim"), "{message}");
    assert_eq!(foreign.read("init.json"), "");
}

#[test]
fn a_terminal_that_never_comes_is_a_failure() {
    let args: [OsString; 1] = ["1000".into()];
    let child = Spawn {
        program: Path::new("/bin/sleep"),
        arg0: None,
        args: &args,
        env: &[],
        netns: None,
        cwd: None,
        stdin: None,
        stdout: None,
        stderr: None,
        parent_death_signal: None,
    };
    let child = child.start().expect("a process");
    let pid = child.pid();
    let mut fake = Fake::new(&format!(
        "while [ \"$1\" != --pid-file ]; do shift; done; echo {pid} >\"$2\"; \
         shift 2; echo \"$1 $2\" >\"$(dirname \"$0\")/console\""
    ));
    fake.container.terminal = true;
    let (message, ..) = fake.fails(LIMIT);
    assert!(message.contains("its terminal: none was sent"), "{message}");
    let console = fake.read("console");
    assert!(console.starts_with("--console-socket /proc/"), "{console}");
    child.signal(Signal::KILL).expect("kill");
    child.wait().expect("wait");
}

#[test]
fn one_that_is_missing_is_named() {
    let mut fake = Fake::new("exit 0");
    fake.container.runtime = "/no/such/runc".into();
    let (message, permanent, _) = fake.fails(LIMIT);
    assert!(
        message.starts_with("starting container failed: "),
        "{message}"
    );
    assert!(message.contains("/no/such/runc"), "{message}");
    assert!(permanent);
}

#[test]
fn what_it_does_not_forget_is_told_with_its_words() {
    Fake::new("exit 0").container.delete().expect("forgotten");
    let fake = Fake::new("echo \"$3 $4 $5: no space\" >&2; exit 1");
    let error = fake.container.delete().expect_err("still there");
    let text = error.to_string();
    assert!(
        text.contains("does not delete container c1: exit code 1"),
        "{text}"
    );
    assert!(text.ends_with("delete --force c1: no space"), "{text}");
    // Everything else is tried all the same, and nothing to kill is fine.
    std::fs::write(fake.dir.path().join(files::PID), "1").expect("write");
    let left = leftovers::end_container(fake.dir.path(), &fake.container, Path::new(""));
    assert_eq!(left.expect_err("told").to_string(), text);
    assert!(!fake.dir.path().join(files::PID).exists());
}

#[test]
fn what_is_held_is_told_in_order_and_bounded() {
    let dir = tempfile::tempdir().expect("dir");
    let [_, mut log] = Log::of_task(dir.path(), 1 << 20);
    let mut held = Held::default();
    for i in 0..9_u8 {
        let piece = [b'0' + i; 10_000];
        held.push(i.into(), &piece, &mut log);
        assert!(held.len <= HELD_BYTES);
        assert_eq!(held.bytes().len(), held.len);
    }
    held.tell(&mut log);
    let told = std::fs::read_to_string(dir.path().join("stderr.log")).expect("read");
    let expected: String = (0..9).map(|i: u8| i.to_string().repeat(10_000)).collect();
    assert_eq!(told, expected);
}
