//! Secrets and configs as tasks see them, and as nobody else does.

use std::collections::BTreeSet;

use weft_netns_tests::{Cluster, eventually, within};

use super::super::{NODES, are, becomes, create, processes, rows, text};
use super::rotation;
use super::search::Value;
use super::{
    STACK_LIMIT, boxed, counts, deploy, ids, inside, lines, nothing_is_left, remove, try_deploy,
    try_inside, written,
};

/// More bytes than a secret may have, and fewer than a config.
const LARGE: usize = 600_000;

pub(super) fn of_a_stack_come_and_go_with_it(cluster: &Cluster) {
    written(cluster, "vault.key", "hunter2");
    written(
        cluster,
        "vault.conf",
        "{{.Service.Name}} is on {{.Node.Hostname}}\n",
    );
    let file = format!(
        "services:\n  keeper:\n    image: {}\n    stop_grace_period: 2s\n    secrets:\n      - key\n      \
         - source: key\n        target: /etc/app/key\n        uid: \"1000\"\n        gid: \"2000\"\n        \
         mode: 0400\n    configs:\n      - source: app\n        target: /etc/app.conf\n\
         secrets:\n  key:\n    file: ./vault.key\nconfigs:\n  app:\n    file: ./vault.conf\n    \
         template_driver: golang\n",
        boxed()
    );
    let said = deploy(cluster, "vault", &file);
    let wanted = "Creating network vault_default\nCreating secret vault_key\n\
                  Creating config vault_app\nCreating service vault_keeper\n";
    assert_eq!(said, wanted);
    counts(cluster, "vault", &[("keeper", "1/1")]);
    let task = "vault_keeper.1";
    let script =
        "cat /run/secrets/key /etc/app/key; echo; stat -c '%a %u %g' /run/secrets/key /etc/app/key";
    let said = inside(cluster, task, script);
    assert_eq!(said, "hunter2hunter2\n444 0 0\n400 1000 2000\n");
    let node = cluster.tasks("vault_keeper").remove(0).node;
    let said = inside(cluster, task, "cat /etc/app.conf");
    assert_eq!(said, format!("vault_keeper is on {node}\n"));

    // The same again replaces nothing, and other bytes are refused before anything is changed.
    let before = ids(cluster, "vault_keeper");
    deploy(cluster, "vault", &file);
    assert_eq!(ids(cluster, "vault_keeper"), before);
    written(cluster, "vault.key", "hunter3");
    let said = try_deploy(cluster, "vault", &file, &[]);
    assert_eq!(said.code, 1, "{said:#?}");
    assert!(
        said.err.contains("only updates to Labels are allowed"),
        "{said:#?}"
    );
    assert!(!said.err.contains("hunter"), "{said:#?}");
    assert_eq!(inside(cluster, task, "cat /run/secrets/key"), "hunter2");
    assert_eq!(ids(cluster, "vault_keeper"), before);

    let said = remove(cluster, "vault");
    let wanted = [
        "Removing service vault_keeper",
        "Removing secret vault_key",
        "Removing config vault_app",
        "Removing network vault_default",
    ];
    assert_eq!(lines(&said), BTreeSet::from(wanted), "{said}");
    nothing_is_left(cluster, "vault");
}

pub(super) fn sizes_and_names_are_checked(cluster: &Cluster) {
    let large = written(cluster, "large", &"x".repeat(LARGE));
    let large = large.display().to_string();
    let says = "secret data must be larger than 0 and less than 512000 bytes";
    let said = cluster.weft("node1", &["secret", "create", "none", "-"]);
    said.refused(&["error reading from STDIN: data is empty"]);
    let said = cluster.weft("node1", &["secret", "create", "large", &large]);
    said.refused(&[says]);
    let said = cluster.weft("node1", &["config", "create", "large", &large]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = cluster.weft_reading("node1", &["config", "create", "large", "-"], "other");
    said.refused(&["already exists"]);
    cluster.weft("node1", &["config", "rm", "large"]).done();
    let said = cluster.weft_reading("node1", &["secret", "create", "a b", "-"], "x");
    said.refused(&["name"]);
    let rows = cluster.rows(&["secret", "ls"]);
    assert!(rows.is_empty(), "{rows:?}");
    let words = [
        "service", "create", "-d", "--name", "lost", "--secret", "nowhere",
    ];
    let said = cluster.weft("node1", &[&words[..], &["host", "true"]].concat());
    said.refused(&["secret not found: nowhere"]);
}

/// One secret's life, with all who see it, and a search among all who must not.
pub(super) fn are_files_that_tasks_read(cluster: &Cluster) {
    let value = Value::random(cluster, "value");
    // An environment is for the nodes of its tasks alone.
    let mark = Value::random(cluster, "mark");
    let words = ["secret", "create", "db-pass", "-"];
    let id = cluster.weft_reading("node1", &words, &value.text).ok();
    assert_eq!(id.trim_end().len(), 25, "{id:?}");
    let template = "slot {{.Task.Slot}} of {{.Service.Name}} is {{env \"COLOUR\"}}\n";
    let words = [
        "config",
        "create",
        "--template-driver",
        "golang",
        "app-conf",
        "-",
    ];
    cluster.weft_reading("node1", &words, template).done();

    let marked = format!("MARK={}", mark.text);
    let mut flags = vec![
        "--secret",
        "source=db-pass,target=pass,uid=1000,gid=2000,mode=0400",
    ];
    flags.extend(["--secret", "source=db-pass,target=/srv/deep/pass"]);
    flags.extend(["--config", "source=app-conf,target=/etc/app.conf,mode=0440"]);
    flags.extend(["--read-only", "-e", "COLOUR=blue", "-e", &marked]);
    flags.extend([
        "--constraint",
        "node.role==worker",
        "--replicas-max-per-node",
        "1",
    ]);
    flags.extend(["--update-monitor", "0s"]);
    create(cluster, "keeper", &flags, "box:1", &[]);
    let row = becomes(cluster, "keeper", "Running");
    let node = text(&row, "Node").to_owned();
    inside_of_a_container(cluster, &value.text);

    let mut words = vec![
        "service", "create", "-d", "--name", "plain", "--secret", "db-pass",
    ];
    words.extend([
        "--stop-grace-period",
        "2s",
        "--constraint",
        "node.hostname==node2",
    ]);
    words.extend(["host", "sleep", "1000"]);
    cluster.weft("node1", &words).done();
    becomes(cluster, "plain", "Running");
    let script = "cat /run/secrets/db-pass; stat -c ' %a %u %g' /run/secrets/db-pass";
    let said = inside(cluster, "plain.1", script);
    assert_eq!(said, format!("{} 444 0 0\n", value.text));

    let said = cluster.weft("node1", &["secret", "rm", "db-pass"]);
    said.refused(&[
        "secret 'db-pass' is in use by the following service",
        "keeper",
        "plain",
    ]);

    value.is_nowhere(cluster);
    for words in [
        &["secret", "inspect", "db-pass"][..],
        &["service", "inspect", "keeper"],
        &["service", "inspect", "--pretty", "keeper"],
        &["task", "inspect", "keeper.1"],
        &["service", "logs", "keeper"],
    ] {
        let said = cluster.weft("node1", words).ok();
        value.is_not_in(&words.join(" "), &said);
    }
    for other in NODES {
        let found = mark.files(cluster, other);
        assert_eq!(
            found.is_empty(),
            other != node,
            "{other} of {node}: {found:?}"
        );
    }

    a_dead_agent_takes_nothing_away(cluster, &node, &value.text);
    cluster
        .weft("node1", &["service", "scale", "-d", "keeper=2"])
        .done();
    let second = another_node(cluster, &node);
    assert_ne!(second, "node1");
    let said = inside(cluster, "keeper.2", "cat /run/secrets/pass /etc/app.conf");
    assert_eq!(said, format!("{}slot 2 of keeper is blue\n", value.text));

    let next = rotation::another_value_takes_its_place(cluster, &value);
    gone_with_their_tasks(cluster);
    for node in NODES {
        assert_eq!(value.files(cluster, node), [""; 0], "{node}");
        assert_eq!(next.files(cluster, node), [""; 0], "{node}");
    }
    for (kind, name) in [
        ("secret", "db-pass"),
        ("secret", "db-pass-2"),
        ("config", "app-conf"),
    ] {
        cluster.weft("node1", &[kind, "rm", name]).done();
    }
}

/// The node of a second task, once it runs.
fn another_node(cluster: &Cluster, node: &str) -> String {
    eventually("another node has one too", || {
        let rows = rows(cluster, "keeper");
        let mut running = rows.iter().filter(|row| text(row, "State") == "Running");
        let other = running.find(|row| text(row, "Node") != node);
        let other = other.map(|row| text(row, "Node").to_owned());
        other.ok_or(rows.clone())
    })
}

/// Mode, owner, content; and that nobody writes there.
fn inside_of_a_container(cluster: &Cluster, value: &str) {
    let says = |script: &str| inside(cluster, "keeper.1", script);
    let script = "stat -c '%a %u %g %s' /run/secrets/pass /srv/deep/pass /etc/app.conf";
    let conf = "slot 1 of keeper is blue\n";
    let wanted = format!("400 1000 2000 64\n444 0 0 64\n440 0 0 {}\n", conf.len());
    assert_eq!(says(script), wanted);
    assert_eq!(says("cat /run/secrets/pass"), value);
    assert_eq!(says("cat /srv/deep/pass"), value);
    assert_eq!(says("cat /etc/app.conf"), conf);
    for file in ["/run/secrets/pass", "/srv/deep/pass", "/etc/app.conf"] {
        let said = try_inside(cluster, "keeper.1", &format!("echo x > {file}"));
        assert!(
            said.err.contains("Read-only file system"),
            "{file}: {said:?}"
        );
        let mount = says(&format!("grep ' {file} ' /proc/mounts"));
        let options = mount.split(' ').nth(3).unwrap_or_default();
        let options: Vec<&str> = options.split(',').collect();
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(options.contains(&option), "{option} is missing: {mount}");
        }
    }
    for (user, may) in [("app", true), ("nobody", false)] {
        let words = ["exec", "-u", user, "keeper.1", "cat", "/run/secrets/pass"];
        let said = cluster.weft("node1", &words);
        assert_eq!(said.code == 0 && said.out == value, may, "{user}: {said:?}");
    }
}

fn a_dead_agent_takes_nothing_away(cluster: &Cluster, node: &str, value: &str) {
    let before = ids(cluster, "keeper");
    cluster.restart_agent(node);
    let said = eventually("it is adopted, and still sees its file", || {
        let said = try_inside(cluster, "keeper.1", "cat /run/secrets/pass");
        if said.code == 0 {
            Ok(said.out)
        } else {
            Err(said)
        }
    });
    assert_eq!(said, value);
    cluster.wait_ready(3);
    assert_eq!(ids(cluster, "keeper"), before);
}

/// Removes both services and looks for the memory that their tasks had.
fn gone_with_their_tasks(cluster: &Cluster) {
    let mut tasks = Vec::new();
    for service in ["keeper", "plain"] {
        let rows = rows(cluster, service);
        tasks.extend(rows.iter().map(|row| text(row, "ID").to_owned()));
        cluster.weft("node1", &["service", "rm", service]).done();
    }
    for node in NODES {
        are(cluster, node, "/bin/sh /bin/forever", 0);
        within(
            STACK_LIMIT,
            &format!("nothing is mounted on {node}"),
            || {
                let mounts = cluster.run(node, None, &["cat", "/proc/mounts"]).ok();
                let left = mounts
                    .lines()
                    .find(|line| tasks.iter().any(|id| line.contains(id.as_str())));
                left.map_or(Ok(()), |line| Err(line.to_owned()))
            },
        );
    }
    assert_eq!(processes(cluster, "node2", "sleep 1000"), [0; 0]);
}
