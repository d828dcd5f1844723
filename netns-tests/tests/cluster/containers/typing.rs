//! A person at a terminal: `weft exec -it`, and what it says of mistakes.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use weft_netns_tests::{Cluster, eventually};
use weft_sys::terminal::{Size, open_terminal, resize};

use super::{becomes, create, remove};

/// Asks for what is not shown, then tells how large the terminal is after each line.
const SCRIPT: &str = "stty -echo; printf 'password: '; read -r line; stty echo; \
    printf '\\nlength %s\\n' \"${#line}\"; stty size; \
    while read -r line; do test \"$line\" = end && exit 4; stty size; done";

/// What nobody is to see.
const PASSWORD: &str = "correct-horse";

/// A program on a terminal, and what that has shown.
struct Typist {
    child: Child,
    terminal: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Typist {
    fn begin(cluster: &Cluster, size: Size, words: &[&str]) -> Self {
        let (ours, theirs) = open_terminal(size).expect("a terminal");
        let socket = cluster.lab().socket("node1").expect("it has an agent");
        let copy = || Stdio::from(theirs.try_clone().expect("a copy"));
        let mut command = Command::new(cluster.program());
        command
            .args(["-H", &format!("unix://{}", socket.display())])
            .args(words)
            .stdin(copy())
            .stdout(copy())
            .stderr(copy());
        let child = command.spawn().expect("weft runs");
        let terminal = File::from(ours);
        let mut screen = terminal.try_clone().expect("a copy");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Linux says EIO when nobody has the other side any more (pts(4)).
            while let Ok(count) = screen.read(&mut buffer)
                && count > 0
            {
                let mut all = all.lock().expect("no panic");
                all.extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            child,
            terminal,
            shown,
        }
    }

    fn shown(&self) -> String {
        let shown = self.shown.lock().expect("no panic");
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until the terminal has shown this.
    #[track_caller]
    fn shows(&self, text: &str) {
        eventually(&format!("{text:?} is shown"), || {
            let shown = self.shown();
            if shown.contains(text) {
                Ok(())
            } else {
                Err(shown)
            }
        });
    }

    /// A line and the key that ends it.
    fn types(&mut self, line: &str) {
        let keys = format!("{line}\r");
        self.terminal.write_all(keys.as_bytes()).expect("typed");
    }

    /// As a person who draws at the window's corner.
    fn resizes(&self, size: Size) {
        resize(&self.terminal, size).expect("a size");
        // The kernel tells those whose controlling terminal it is; this one is nobody's.
        let pid = self.child.id().to_string();
        let said = Command::new("kill").args(["-WINCH", &pid]).status();
        assert!(said.expect("kill").success());
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// As `ssh`, `su` and `screen` want it: it has a name in the container, and is its user's.
pub(super) fn a_terminal_is_one_of_the_container_s_own(cluster: &Cluster) {
    create(cluster, "owned", &[], "box:1", &[]);
    becomes(cluster, "owned", "Running");
    let script = "tty; stty size; ls -ln $(tty); id -u > /dev/tty";
    let words = ["exec", "-t", "-u", "app", "owned.1", "sh", "-c", script];
    let lines = cluster.typed_on("node1", &words, (100, 30));
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[..2], ["/dev/pts/0", "30 100"]);
    let fields: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!((fields[0], fields[2]), ("crw--w----", "1000"), "{lines:?}");
    assert_eq!(lines[3], "1000");

    let said = cluster.weft("node1", &["exec", "owned.1", "nosuch"]);
    assert_eq!(said.code, 127, "{said:?}");
    let begins = "OCI runtime exec failed: exec failed: unable to start container process";
    let why = "exec: \"nosuch\": executable file not found in $PATH: unknown";
    assert_eq!(said.err, format!("{begins}: {why}\n"));
    let which = "owned is a service; its tasks: owned.1 on node";
    let next = ": weft exec owned.1 CMD";
    let said = cluster.weft("node1", &["exec", "owned", "sh"]);
    said.refused(&[which, next]);
    remove(cluster, "owned");
}

pub(super) fn a_password_is_not_shown_and_the_window_s_size_is_told(cluster: &Cluster) {
    create(cluster, "typed", &[], "box:1", &[]);
    becomes(cluster, "typed", "Running");
    let words = ["exec", "-it", "typed.1", "sh", "-c", SCRIPT];
    let mut typist = Typist::begin(cluster, (100, 30), &words);
    typist.shows("password: ");
    typist.types(PASSWORD);
    typist.shows(&format!("length {}", PASSWORD.len()));
    assert!(!typist.shown().contains(PASSWORD), "{}", typist.shown());
    typist.shows("30 100\r\n");
    typist.resizes((90, 25));
    // Echo is back. The keys may be faster than the size.
    eventually("the new size is told", || {
        typist.types("a word");
        let shown = typist.shown();
        if shown.contains("25 90\r\n") && shown.contains("a word\r\n") {
            Ok(())
        } else {
            Err(shown)
        }
    });
    typist.types("end");
    let status = eventually("it ends", || match typist.child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(status.code(), Some(4), "{}", typist.shown());
    remove(cluster, "typed");
}
