//! What a member is told, and what is not its word.

use std::path::Path;

use weft_netns_tests::{Cluster, Said, eventually};

use crate::swarm;

/// Every file below `dir` that holds the word.
fn holding(dir: &Path, word: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            holding(&path, word, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(word.len()).any(|w| w == word.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

fn connect(cluster: &Cluster, node: &str, netns: &Path, words: &[&str]) -> Said {
    let netns = netns.display().to_string();
    let words = [&["network", "connect"], words, &[&netns]].concat();
    cluster.weft(node, &words)
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one swarm, and one thing after the other happens to it"
)]
fn a_member_is_told_of_its_own_and_believed_for_itself_only() {
    let cluster = swarm(2);
    cluster.network("back");
    let weft = |words: &[&str]| cluster.weft("node1", words);
    weft(&["node", "update", "--availability", "drain", "node2"]).done();
    let create = [
        "service",
        "create",
        "--name",
        "api",
        "--network",
        "name=back,alias=gate",
    ];
    let program = ["--env", "DB_PASSWORD=hunter2", "host", "sleep", "86417"];
    weft(&[&create[..], &program].concat()).done();
    let task = cluster.tasks("api").remove(0);
    assert_eq!(task.node, "node1");

    // Node 2 knows the service and its task by name, and not what it is made of.
    cluster.guest("node2", "box", "back");
    let resolve = || {
        let words = [cluster.program(), "demo-dns", "tasks.api"];
        let said = cluster.run("node2", Some("/run/netns/box".as_ref()), &words);
        if said.out.contains(&task.ip.to_string()) {
            Ok(())
        } else {
            Err(said)
        }
    };
    eventually("the name resolves on node 2", resolve);
    let data = cluster.lab().dir().join("node2/data");
    for secret in ["hunter2", "86417"] {
        let mut found = Vec::new();
        holding(&data, secret, &mut found);
        assert!(found.is_empty(), "{secret} is in {found:?}");
        holding(&cluster.lab().dir().join("node1/data"), secret, &mut found);
        assert!(!found.is_empty(), "{secret} is with the node that runs it");
    }

    // Being a replica, and a name of a service, are a manager's word.
    let spare = |node: &str, name: &str| {
        let path = cluster.lab().add_netns(node, name);
        path.expect("a namespace")
    };
    let (on1, on2) = (spare("node1", "spare"), spare("node2", "spare"));
    for words in [
        &["--service", "api", "back"][..],
        &["--alias", "api", "back"],
        &["--alias", "gate", "back"],
        &["--name", "api", "back"],
    ] {
        connect(&cluster, "node2", &on2, words).refused(&[
            "takes no endpoints of worker nodes",
            "service update --attach=true api",
        ]);
    }
    connect(
        &cluster,
        "node1",
        &on1,
        &["--name", "mine", "--service", "api", "back"],
    )
    .done();
    weft(&["service", "update", "--attach=true", "--detach", "api"]).done();
    connect(
        &cluster,
        "node2",
        &on2,
        &["--name", "yours", "--service", "api", "back"],
    )
    .done();
    eventually("all three are replicas on every node", || {
        let names = |node: &str| {
            let said = cluster.weft(node, &["why", "--format", "{{.Name}}", "api"]);
            said.out.lines().count()
        };
        match (names("node1"), names("node2")) {
            (3, 3) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // A network for services only.
    weft(&["network", "create", "--attachable=false", "closed"]).done();
    for node in ["node1", "node2"] {
        let more = spare(node, "more");
        connect(&cluster, node, &more, &["closed"]).refused(&[
            "Could not attach to network closed: network closed not manually attachable",
        ]);
    }

    // What a task says of its end does not steer the terminal of who asks.
    let evil = "/no/\u{1b}]0;owned\u{7}\u{1b}[31m\u{9b}1m\u{202e}such\nweb.1  node9  Running";
    let fails = ["service", "create", "--detach", "--name", "evil"];
    weft(&[&fails[..], &["--restart-condition", "none", "host", evil]].concat()).done();
    let ps = |words: &[&str]| {
        let words = [&["service", "ps", "--no-trunc"], words, &["evil"]].concat();
        weft(&words).ok()
    };
    eventually("it was rejected", || {
        let text = ps(&["--format", "{{.State}} {{.Error}}"]);
        if text.starts_with("Rejected") || text.starts_with("Failed") {
            Ok(())
        } else {
            Err(text)
        }
    });
    for words in [
        &[][..],
        &["--format", "{{.Error}}"],
        &["--format", "json"],
        &["--format", "table {{.Error}}"],
    ] {
        let text = ps(words);
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(steers), "{words:?}: {text:?}");
        assert!(text.contains("owned"), "{text}");
        assert!(!text.lines().any(|l| l.starts_with("web.1")), "{text}");
    }
}
