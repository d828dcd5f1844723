//! A process becomes a machine: namespaces of every kind, its own init, and entry from outside.
//!
//! The kernel moves single-threaded processes only, so this test has no harness: it runs itself
//! again in each role.

#![expect(
    clippy::print_stdout,
    reason = "the roles talk to the test through their output"
)]
#![expect(clippy::exit, reason = "a role passes the exit code of its child on")]
#![expect(clippy::zombie_processes, reason = "init reaps with wait_any")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio, exit};

use weft_sys::namespaces::{self, Kinds};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_sys::process::{Exit, Signal};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("role-outer") => outer(args[2] == "user"),
        Some("role-init") => init(),
        Some("role-enter") => enter(args[2].parse().expect("pid"), args[3] == "user"),
        Some("role-inside") => inside(),
        // `cargo test -- --list` and filters of other tests.
        Some("--list") => {}
        _ => {
            for user in ["root", "user"] {
                a_machine_is_made_entered_and_gone(user);
            }
        }
    }
}

fn myself() -> Command {
    Command::new(std::env::current_exe().expect("own path"))
}

fn a_machine_is_made_entered_and_gone(user: &str) {
    let mut machine = myself()
        .args(["role-outer", user])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("outer");
    let mut lines = BufReader::new(machine.stdout.take().expect("stdout")).lines();
    let pid: u32 = lines
        .next()
        .expect("a line")
        .expect("text")
        .parse()
        .expect("pid of init");
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        "init is 1, reaped 7, lo is up"
    );
    let netns = Netns::of_pid(pid).expect("its network");
    assert!(
        !netns
            .same_as(&Netns::current().expect("ours"))
            .expect("stat")
    );

    let entered = myself()
        .args(["role-enter", &pid.to_string(), user])
        .output()
        .expect("enter");
    assert!(entered.status.success(), "{entered:?}");
    let shown = String::from_utf8(entered.stdout).expect("text");
    assert_eq!(shown, "node-1 sees init 1\n");

    // Closing its standard input ends init, and with init everything in its PID namespace.
    drop(machine.stdin.take());
    assert!(machine.wait().expect("wait").success());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// Unshares and spawns init, whose id it prints.
fn outer(user: bool) {
    namespaces::unshare(Kinds {
        user,
        ..Kinds::machine()
    })
    .expect("unshare");
    let mut init = myself().arg("role-init").spawn().expect("init");
    println!("{}", init.id());
    // The orphans' test inside needs this process to wait for init only.
    exit(init.wait().expect("wait").code().unwrap_or(1));
}

fn init() {
    namespaces::set_parent_death_signal(Signal::KILL).expect("pdeathsig");
    namespaces::make_mounts_private().expect("private");
    namespaces::mount_proc().expect("proc");
    namespaces::mount_sys().expect("sys");
    namespaces::set_hostname("node-1").expect("hostname");
    Netlink::open()
        .expect("netlink")
        .set_up("lo", true)
        .expect("lo");
    // Not the folder for temporary files: this program itself may be there.
    let dir = std::path::PathBuf::from("/run");
    namespaces::mount_tmpfs(&dir).expect("tmpfs");
    std::fs::write(dir.join("a"), "a").expect("write");
    std::fs::write(dir.join("b"), "b").expect("write");
    namespaces::bind(&dir.join("a"), &dir.join("b"), false).expect("bind");
    assert_eq!(std::fs::read_to_string(dir.join("b")).expect("read"), "a");

    // An orphan: its parent ends first, so that init must reap it.
    let script = "(exec 1>&-; read x < /proc/1/comm; exit 7) & exit 0";
    let shell = Command::new("/bin/sh")
        .args(["-c", script])
        .spawn()
        .expect("sh");
    let mut ends = Vec::new();
    while let Some(end) = namespaces::wait_any().expect("wait") {
        ends.push(end);
    }
    assert!(ends.contains(&(shell.id(), Exit::Code(0))), "{ends:?}");
    assert!(
        ends.iter().any(|(_, exit)| *exit == Exit::Code(7)),
        "{ends:?}"
    );
    let up = Netlink::open()
        .expect("netlink")
        .link("lo")
        .expect("lo")
        .expect("lo")
        .up;
    assert!(up);
    println!("init is {}, reaped 7, lo is up", std::process::id());
    std::io::stdout().flush().expect("flush");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("until closed");
}

fn enter(pid: u32, user: bool) {
    // Before entering: the machine's /proc does not show this process, which stays in its own PID
    // namespace, so /proc/self is empty from then on.
    let mut command = myself();
    namespaces::enter_process(
        pid,
        Kinds {
            user,
            ..Kinds::machine()
        },
    )
    .expect("enter");
    let status = command.arg("role-inside").status().expect("inside");
    exit(status.code().unwrap_or(1));
}

fn inside() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    let init = std::fs::read_to_string("/proc/1/cmdline").expect("cmdline");
    assert!(init.contains("role-init"), "{init}");
    println!("{} sees init 1", name.trim());
}
