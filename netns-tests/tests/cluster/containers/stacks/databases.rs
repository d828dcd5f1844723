//! Both databases of the first day, the real ones: made by stacks, with volumes and passwords, and
//! talked to on a terminal.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use weft_lab::WIDE;
use weft_netns_tests::{Cluster, Settings, within};
use weft_sys::terminal::open_terminal;

use super::super::debian::{mariadb, postgres};
use super::super::{REGISTRY, cluster, load, made};
use super::{counts, deploy, nothing_is_left, remove, try_inside};

/// How long the first start of a database may take.
const FIRST_START: Duration = Duration::from_secs(120);

#[test]
#[ignore = "second tier: images of 150 MB, and databases that are made from nothing"]
fn both_databases_of_the_day_are_logged_in_to() {
    let cluster = cluster(&Settings::default());
    load(&cluster, "node1", &made(postgres("postgres:15")));
    load(&cluster, "node1", &made(mariadb("mariadb:10.11")));
    let file = format!(
        "services:\n  db:\n    image: {REGISTRY}/postgres:15\n    environment:\n      POSTGRES_USER: \
         postgres\n      POSTGRES_PASSWORD: postgres\n    volumes:\n      - \
         data:/var/lib/postgresql/data\nvolumes:\n  data:\n"
    );
    deploy(&cluster, "pstack", &file);
    let file = format!(
        "services:\n  db:\n    image: {REGISTRY}/mariadb:10.11\n    environment:\n      \
         MYSQL_ROOT_PASSWORD: somewordpress\n      MYSQL_DATABASE: wordpress\n      MYSQL_USER: \
         wordpress\n      MYSQL_PASSWORD: wordpress\n    volumes:\n      - \
         data:/var/lib/mysql\nvolumes:\n  data:\n"
    );
    deploy(&cluster, "mstack", &file);
    for stack in ["pstack", "mstack"] {
        counts(&cluster, stack, &[("db", "1/1")]);
    }
    answers(&cluster, "pstack_db.1", "psql -U postgres -c 'select 1'");
    answers(
        &cluster,
        "mstack_db.1",
        "mysql -u wordpress -pwordpress -e 'select 1'",
    );

    let mut typist = Typist::begin(&cluster, &["pstack_db.1", "psql", "-U", "postgres"]);
    typist.sees("postgres=#");
    typist.types("\\l\n");
    for database in ["postgres", "template0", "template1"] {
        typist.sees(database);
    }
    typist.sees("(3 rows)");
    typist.types("\\q\n");
    typist.ends();

    let mut typist = Typist::begin(&cluster, &["mstack_db.1", "mysql", "-u", "wordpress", "-p"]);
    typist.sees("Enter password:");
    typist.types("wordpress\n");
    typist.sees("MariaDB [(none)]>");
    assert!(
        !typist.seen().contains("wordpress"),
        "the password is not shown: {:?}",
        typist.seen()
    );
    typist.types("show databases;\n");
    typist.sees("information_schema");
    typist.sees("2 rows in set");
    typist.types("exit\n");
    typist.ends();

    for stack in ["pstack", "mstack"] {
        remove(&cluster, stack);
        nothing_is_left(&cluster, stack);
    }
}

/// Waits until a command in the task succeeds.
#[track_caller]
fn answers(cluster: &Cluster, task: &str, command: &str) {
    within(FIRST_START, &format!("{task} answers"), || {
        let said = try_inside(cluster, task, command);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
}

/// Somebody at a terminal in which `weft exec -it` runs.
struct Typist {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    /// What was shown since the last wait began, and all.
    fresh: String,
    all: String,
}

impl Typist {
    fn begin(cluster: &Cluster, words: &[&str]) -> Self {
        let (ours, theirs) = open_terminal(WIDE).expect("a terminal");
        let socket = cluster
            .lab()
            .socket("node1")
            .expect("the node has an agent");
        let mut command = Command::new(cluster.program());
        command
            .args(["-H", &format!("unix://{}", socket.display()), "exec", "-it"])
            .args(words)
            .stdin(Stdio::from(theirs.try_clone().expect("a descriptor")))
            .stdout(Stdio::from(theirs.try_clone().expect("a descriptor")))
            .stderr(Stdio::from(theirs));
        let child = command.spawn().expect("weft can be run");
        // The terminal ends with the last one that has it open.
        drop(command);
        let keys = File::from(ours);
        let mut screen = keys.try_clone().expect("a descriptor");
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match screen.read(&mut buffer) {
                    Ok(count) if count > 0 => {
                        if sender.send(buffer[..count].to_vec()).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Linux says EIO once nobody has the other side open (pts(4)).
                    _ => return,
                }
            }
        });
        Self {
            child,
            keys,
            shown,
            fresh: String::new(),
            all: String::new(),
        }
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("a terminal");
    }

    /// Waits until this is shown, after what was waited for before.
    #[track_caller]
    fn sees(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.fresh.find(text) {
                self.fresh.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let more = self.shown.recv_timeout(left);
            assert!(more.is_ok(), "{text:?}, {more:?}: {:?}", self.all);
            let more = more.unwrap_or_default();
            let more = String::from_utf8_lossy(&more);
            self.fresh.push_str(&more);
            self.all.push_str(&more);
        }
    }

    /// All that was shown.
    fn seen(&self) -> &str {
        &self.all
    }

    #[track_caller]
    fn ends(&mut self) {
        within(Duration::from_secs(30), "the program ends", || {
            match self.child.try_wait().expect("a child") {
                Some(status) if status.success() => Ok(()),
                Some(status) => Err(format!("{status}: {:?}", self.all)),
                None => Err("it runs".to_owned()),
            }
        });
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        // One that has ended is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
