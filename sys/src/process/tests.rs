use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::netns::Netns;

fn shell<'a>(script: &'a [OsString; 2]) -> Spawn<'a> {
    Spawn {
        program: Path::new("/bin/sh"),
        arg0: None,
        args: script,
        env: &[],
        netns: None,
        cwd: None,
        stdin: None,
        stdout: None,
        stderr: None,
        parent_death_signal: None,
    }
}

fn script(text: &str) -> [OsString; 2] {
    ["-c".into(), text.into()]
}

#[test]
fn a_program_sees_its_namespace_and_its_environment() {
    let netns = Netns::create_anonymous().expect("netns");
    let dir = tempfile::tempdir().expect("dir");
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::write(&input, "given\n").expect("write");
    let env = [("WHO".into(), "me".into())];
    let args = script(
        r#"cat; echo "$WHO"; readlink /proc/self/ns/net; pwd; cut -d' ' -f5,6 /proc/self/stat; echo $$; tr '\0' ' ' < /proc/$$/cmdline | cut -d' ' -f1"#,
    );
    let process = Spawn {
        arg0: Some("called-so"),
        netns: Some(&netns),
        env: &env,
        stdin: Some(File::open(&input).expect("in")),
        stdout: Some(File::create(&out).expect("out")),
        ..shell(&args)
    }
    .start()
    .expect("start");
    assert_eq!(process.wait().expect("wait"), Exit::Code(0));
    let out = std::fs::read_to_string(&out).expect("read");
    let pid = process.pid();
    let expected = format!(
        "given\nme\nnet:[{}]\n/\n{pid} {pid}\n{pid}\ncalled-so\n",
        netns.inode().expect("inode")
    );
    assert_eq!(out, expected);
}

/// Whoever starts the agent may leave something open in it, without the mark that closes it.
#[test]
fn a_program_inherits_three_descriptors_and_no_more() {
    use rustix::io::{FdFlags, fcntl_setfd};

    let dir = tempfile::tempdir().expect("dir");
    let (secret, out) = (dir.path().join("secret"), dir.path().join("out"));
    std::fs::write(&secret, "secret").expect("write");
    let inherited = File::open(&secret).expect("open");
    fcntl_setfd(&inherited, FdFlags::empty()).expect("as if inherited");
    let args = script("for fd in /proc/$$/fd/*; do readlink $fd || true; done");
    let process = Spawn {
        stdout: Some(File::create(&out).expect("out")),
        ..shell(&args)
    }
    .start()
    .expect("start");
    assert_eq!(process.wait().expect("wait"), Exit::Code(0));
    let shown = std::fs::read_to_string(&out).expect("read");
    let expected = format!("/dev/null\n{}\n/dev/null\n", out.display());
    assert_eq!(shown, expected);
}

#[test]
fn signals_reach_the_whole_group_and_the_rest_ends_with_the_leader() {
    let dir = tempfile::tempdir().expect("dir");
    let (fifo, out) = (dir.path().join("fifo"), dir.path().join("out"));
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .expect("mkfifo");
    assert!(made.success());
    // The grandchild holds the pipe's writing end open for as long as it lives.
    let text = format!("sleep 1000 > {} & echo started; wait", fifo.display());
    let args = script(&text);
    let process = Spawn {
        stdout: Some(File::create(&out).expect("out")),
        ..shell(&args)
    }
    .start()
    .expect("start");
    let mut pipe = File::open(&fifo).expect("open");
    assert_eq!(process.try_wait().expect("try"), None);
    assert_eq!(
        process
            .wait_timeout(Duration::from_millis(1))
            .expect("wait"),
        None
    );
    process.signal(Signal::TERM).expect("signal");
    assert_eq!(process.wait().expect("wait"), Exit::Signal(libc::SIGTERM));
    assert_eq!(
        process.wait().expect("wait again"),
        Exit::Signal(libc::SIGTERM)
    );
    // End of file: the grandchild is gone, although only the leader was signalled.
    assert_eq!(io::copy(&mut pipe, &mut io::sink()).expect("read"), 0);
    process
        .signal_group(Signal::KILL)
        .expect("signalling nobody is fine");
}

#[test]
fn a_running_process_is_adopted_by_id_and_start_time_only() {
    let args = script("exec sleep 1000");
    let process = shell(&args).start().expect("start");
    let (pid, start_time) = (process.pid(), process.start_time());
    assert!(
        Process::adopt(pid, start_time + 1)
            .expect("adopt")
            .is_none()
    );
    let adopted = Process::adopt(pid, start_time)
        .expect("adopt")
        .expect("it runs");
    assert_eq!(adopted.pid(), pid);
    assert_eq!(adopted.try_wait().expect("try"), None);
    adopted.signal_group(Signal::KILL).expect("kill");
    assert_eq!(adopted.wait().expect("wait"), Exit::Unknown);
    // A zombie is not adopted.
    assert!(Process::adopt(pid, start_time).expect("adopt").is_none());
    assert_eq!(process.wait().expect("wait"), Exit::Signal(libc::SIGKILL));
    assert!(Process::adopt(pid, start_time).expect("adopt").is_none());
}

#[test]
fn a_child_is_taken_up_by_its_id_and_a_stranger_is_not() {
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "sleep 0.1; exit 7"])
        .spawn()
        .expect("start");
    let taken = Process::inherit(child.id()).expect("readable");
    let taken = taken.expect("it is a child of this process");
    assert_eq!(taken.wait().expect("wait"), Exit::Code(7));
    assert!(child.wait().is_err(), "it was waited for");
    let parent = rustix::process::getppid().expect("a parent");
    let parent = parent.as_raw_nonzero().get().unsigned_abs();
    assert!(Process::inherit(parent).expect("readable").is_none());
    assert!(Process::inherit(child.id()).expect("gone").is_none());
    assert!(Process::inherit(0).expect("no id").is_none());
}

#[test]
fn what_cannot_start_is_named() {
    let none = [OsString::new(), OsString::new()];
    let start = |path: &Path| {
        Spawn {
            program: path,
            ..shell(&none)
        }
        .start()
    };
    let error = start(Path::new("/no/such/program")).expect_err("missing");
    assert_eq!(
        error.to_string(),
        "program /no/such/program was not found on this node"
    );

    let dir = tempfile::tempdir().expect("dir");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "#!/no/such/interpreter\n").expect("write");
    let error = start(&plain).expect_err("no permission");
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o755)).expect("chmod");
    let error = start(&plain).expect_err("no interpreter");
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
}

#[test]
fn exit_codes_are_told_as_shells_do() {
    let args = script("exit 3");
    let process = shell(&args).start().expect("start");
    let exit = process.wait().expect("wait");
    assert_eq!(
        (exit, exit.shell_code(), exit.success()),
        (Exit::Code(3), Some(3), false)
    );
    assert_eq!(Exit::Signal(9).shell_code(), Some(137));
}

#[test]
fn a_program_does_not_inherit_the_raised_limit_of_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = Rlimit {
        current: Some(maximum.map_or(4096, |n| n.min(4096))),
        maximum,
    };
    setrlimit(Resource::Nofile, before).expect("lower");
    let raised = crate::open_files::raise().expect("raise");
    assert_eq!(raised, before.maximum);
    assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    assert_eq!(crate::open_files::raise().expect("twice"), raised);
    let dir = tempfile::tempdir().expect("dir");
    let out = dir.path().join("out");
    let args = script("ulimit -S -n; ulimit -H -n");
    let process = Spawn {
        stdout: Some(File::create(&out).expect("out")),
        ..shell(&args)
    }
    .start()
    .expect("start");
    assert_eq!(process.wait().expect("wait"), Exit::Code(0));
    let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    let expected = format!("{}\n{}\n", text(before.current), text(before.maximum));
    assert_eq!(std::fs::read_to_string(&out).expect("read"), expected);
}
