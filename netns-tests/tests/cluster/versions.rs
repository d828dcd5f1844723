//! What another version of weft left on a disk, or says to a manager: refused by name, and nothing is
//! changed (docs/compatibility.md).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tonic::Code;
use weft_netns_tests::{Task, eventually};

use crate::grpc::Caller;
use crate::swarm;

/// Exit status of a `weftd` that systemd is not to start again.
const EXIT_USAGE: i32 = 64;

/// A file or folder: its mode, when it was changed (seconds, nanoseconds), what is in it.
type Kept = (u32, i64, i64, Vec<u8>);

/// A folder with everything below it.
fn content(path: &Path) -> BTreeMap<PathBuf, Kept> {
    let found = path.symlink_metadata().expect("there");
    let mut all = BTreeMap::new();
    let mut bytes = Vec::new();
    if found.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            all.extend(content(&entry.expect("an entry").path()));
        }
    } else if found.is_file() {
        bytes = std::fs::read(path).expect("a file");
    }
    let kept = (found.mode(), found.mtime(), found.mtime_nsec(), bytes);
    all.insert(path.to_owned(), kept);
    all
}

#[test]
fn a_data_directory_of_another_version_is_refused_and_left_as_it_is() {
    let cluster = swarm(1);
    let names =
        |tasks: Vec<Task>| -> Vec<String> { tasks.into_iter().map(|task| task.name).collect() };
    let tasks = names(cluster.web(1));
    let data = cluster.lab().dir().join("node1/data");
    let (run, socket) = (cluster.dir().join("run"), cluster.dir().join("other.sock"));
    let host = format!("unix://{}", socket.display());
    for (format, found) in [
        (None, "has format 1, this weftd reads format "),
        (Some("99\n"), "has format 99, this weftd reads format "),
        (
            Some("two\n"),
            "has \"two\" for a format in its file \"format\"",
        ),
    ] {
        // That of a member, with the state of a manager, orders and a task.
        let copy = cluster.dir().join("copy");
        let [from, to] = [&data, &copy].map(|path| path.display().to_string());
        eventually("a copy", || {
            // Files that are being written come and go.
            let said = cluster.run("node1", None, &["cp", "-aT", &from, &to]);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
        assert!(copy.join("raft.redb").exists(), "{to}");
        match format {
            Some(text) => std::fs::write(copy.join("format"), text).expect("written"),
            None => std::fs::remove_file(copy.join("format")).expect("removed"),
        }
        let before = content(&copy);
        let words = [
            &cluster.weftd(),
            "--name",
            "other",
            "--data-dir",
            &to,
            "--run-dir",
            &run.display().to_string(),
            "-H",
            &host,
        ];
        let said = cluster.run("node1", None, &words);
        assert_eq!(said.code, EXIT_USAGE, "{said:#?}");
        let named = format!("weftd: the data directory {to} {found}");
        for words in [
            named.as_str(),
            "nothing in it was changed",
            "leave the swarm with that version",
        ] {
            assert!(said.err.contains(words), "{words} is missing: {said:#?}");
        }
        let after = content(&copy);
        let others = before.keys().chain(after.keys());
        let others: Vec<_> = others.filter(|p| before.get(*p) != after.get(*p)).collect();
        assert_eq!(others, Vec::<&PathBuf>::new());
        assert!(!socket.exists());
        std::fs::remove_dir_all(&copy).expect("removed");
    }
    assert_eq!(names(cluster.tasks("web")), tasks);
}

/// `IssueCertificateRequest` with a token of less than 128 bytes.
fn asks_to_join(token: &str, schema: u8) -> Bytes {
    let length = u8::try_from(token.len()).expect("a length of one byte");
    [&[0x12, length][..], token.as_bytes(), &[0x18, schema]]
        .concat()
        .into()
}

/// `SessionRequest`
fn asks_for_a_session(schema: u8) -> Bytes {
    vec![0x08, schema].into()
}

fn refusal(caller: &Caller<'_>, path: &'static str, body: &Bytes) -> String {
    let answer = eventually("the manager answers", || {
        caller.call(path, body.clone()).ok_or("no connection")
    });
    let status = answer.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    status.message().to_owned()
}

#[test]
fn who_speaks_another_schema_is_no_member_and_has_no_session() {
    let cluster = swarm(2);
    let from = cluster.netns("node2", None);
    let certs = cluster.lab().dir().join("node2/data/certs");
    let manager = cluster.at("node1", 2377);
    let stranger = Caller::stranger(&from, manager, &certs.join("ca.crt"));
    let member = Caller::member(&from, manager, &certs);
    let token = cluster.token();
    let join = |schema| {
        let body = asks_to_join(&token, schema);
        refusal(&stranger, "/weft.v1.Ca/IssueCertificate", &body)
    };
    let session = |schema| {
        let body = asks_for_a_session(schema);
        refusal(&member, "/weft.v1.Dispatcher/Session", &body)
    };
    let said = join(0);
    let ours = said.split_once("this node speaks ");
    let ours = ours.and_then(|(_, rest)| rest.split_once(';'));
    let ours: u8 = ours.expect("a schema").0.parse().expect("a number");
    for schema in [ours - 1, ours + 1] {
        let says = format!(
            "the peer speaks schema {schema} of the node protocol, this node speaks {ours}; run the \
             same version of weftd on all nodes"
        );
        assert_eq!(join(schema), says);
        assert_eq!(session(schema), says);
    }
    // What is ours is read on: there is nothing in it.
    for said in [join(ours), session(ours)] {
        assert!(said.contains("damaged object"), "{said}");
    }
    assert_eq!(cluster.rows(&["node", "ls"]).len(), 2);
    cluster.wait_ready(2);
}
