//! A stack that is deployed again, or cannot be.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use weft_netns_tests::{Cluster, eventually, within};

use super::super::text;
use super::{
    boxed, counts, deploy, ids, inside, nothing_is_left, remove, try_deploy, version, written,
};

const STACK: &str = "again";

/// Two services; the second one with a value in its environment, or left out where there is none.
fn file(value: Option<&str>) -> String {
    let image = boxed();
    let one = format!("services:\n  one:\n    image: {image}\n    stop_grace_period: 2s\n");
    match value {
        None => one,
        Some(value) => format!(
            "{one}  two:\n    image: {image}\n    stop_grace_period: 2s\n    environment:\n      \
             VALUE: {value}\n    deploy:\n      replicas: 2\n      update_config:\n        \
             monitor: 0s\n"
        ),
    }
}

/// Waits until both services run.
fn both_run(cluster: &Cluster) {
    counts(cluster, STACK, &[("one", "1/1"), ("two", "2/2")]);
}

pub(super) fn what_did_not_change_goes_on(cluster: &Cluster) {
    deploy(cluster, STACK, &file(Some("red")));
    both_run(cluster);
    let (one, two) = (ids(cluster, "again_one"), ids(cluster, "again_two"));
    let before = version(cluster, "again_one");

    let said = deploy(cluster, STACK, &file(Some("red")));
    assert!(!said.contains("Creating"), "{said}");
    assert_eq!(version(cluster, "again_one"), before);
    let words = ["--dry-run"];
    let said = try_deploy(cluster, STACK, &file(Some("blue")), &words).ok();
    assert!(
        said.contains("again_two") && !said.contains("again_one"),
        "{said}"
    );
    let value = "echo $VALUE";
    assert_eq!(inside(cluster, "again_two.1", value), "red\n");
    assert_eq!(
        (ids(cluster, "again_one"), ids(cluster, "again_two")),
        (one.clone(), two.clone())
    );

    let said = deploy(cluster, STACK, &file(Some("blue")));
    assert!(said.contains("Updating service again_two (id: "), "{said}");
    eventually("both tasks have the new value", || {
        let now = ids(cluster, "again_two");
        if now.len() == 2 && now.iter().all(|id| !two.contains(id)) {
            Ok(())
        } else {
            Err(now)
        }
    });
    both_run(cluster);
    for slot in 1..=2 {
        assert_eq!(
            inside(cluster, &format!("again_two.{slot}"), value),
            "blue\n"
        );
    }
    assert_eq!(
        ids(cluster, "again_one"),
        one,
        "only the other one was replaced"
    );

    // What the file does not have stays, unless somebody says otherwise.
    deploy(cluster, STACK, &file(None));
    both_run(cluster);
    let said = try_deploy(cluster, STACK, &file(None), &["--prune"]).ok();
    assert!(said.contains("Removing service again_two"), "{said}");
    counts(cluster, STACK, &[("one", "1/1")]);
    assert_eq!(ids(cluster, "again_one"), one);
    it_can_be_removed_and_deployed_at_once(cluster);
}

/// Tasks begin, are to end, and others take their names, ports and network at once.
fn it_can_be_removed_and_deployed_at_once(cluster: &Cluster) {
    let file = format!("{}    ports:\n      - 8010:80\n", file(None));
    for _ in 0..2 {
        let said = cluster
            .weft("node1", &["stack", "rm", "--detach", STACK])
            .ok();
        assert!(said.contains("Removing network again_default"), "{said}");
        let said = deploy(cluster, STACK, &file);
        assert!(said.contains("Creating network again_default"), "{said}");
    }
    counts(cluster, STACK, &[("one", "1/1")]);
    // The networks of the stacks before are gone with their last tasks.
    eventually("there is one network of that name", || {
        let networks = cluster.rows(&["network", "ls"]);
        let of_stack = networks
            .iter()
            .filter(|row| text(row, "Name") == "again_default");
        if of_stack.count() == 1 {
            Ok(())
        } else {
            Err(networks)
        }
    });
    remove(cluster, STACK);
    nothing_is_left(cluster, STACK);
}

pub(super) fn what_cannot_be_deployed_makes_nothing(cluster: &Cluster) {
    let image = boxed();
    let words = ["service", "create", "-d", "--name", "holder"];
    let more = ["--replicas", "0", "--publish", "8011:80", "host", "true"];
    cluster
        .weft("node1", &[&words[..], &more[..]].concat())
        .done();
    for (file, says) in [
        (
            format!(
                "services:\n  one:\n    image: {image}\n    networks: [inner, outer]\nnetworks:\n  \
                 inner:\n  outer:\n    external: true\n"
            ),
            "network \"outer\" is declared as external, but could not be found. You need to create \
             a swarm-scoped network before the stack is deployed",
        ),
        (
            format!(
                "services:\n  one:\n    image: {image}\n    secrets: [nowhere]\nsecrets:\n  \
                 nowhere:\n    external: true\n"
            ),
            "secret not found: nowhere",
        ),
        (
            format!(
                "services:\n  one:\n    image: {image}\n    configs: [nowhere]\nconfigs:\n  \
                 nowhere:\n    external: true\n"
            ),
            "config not found: nowhere",
        ),
        (
            format!(
                "services:\n  one:\n    image: {image}\n    configs: [made]\n    ports: [\"8011:80\"]\n\
                 configs:\n  made:\n    content: x\n"
            ),
            "refused.yml:5:13: services.one.ports.0 port 8011/tcp is already in use by service holder \
             as an ingress port; publish another port, or remove that service",
        ),
        (
            format!("services:\n  one:\n    image: {image}\n    imgae: x\n"),
            "services.one Additional property imgae is not allowed",
        ),
    ] {
        let said = try_deploy(cluster, "refused", &file, &[]);
        assert_eq!(said.code, 1, "{said:#?}");
        assert!(said.err.contains(says), "{says:?} is missing: {said:#?}");
        nothing_is_left(cluster, "refused");
    }
    cluster.weft("node1", &["service", "rm", "holder"]).done();
}

pub(super) fn whoever_is_waited_for_comes_first(cluster: &Cluster) {
    let usual = format!(
        "    image: {}\n    stop_grace_period: 2s\n    deploy:\n      update_config:\n        \
         monitor: 0s\n",
        boxed()
    );
    let file = format!(
        "services:\n  first:\n{usual}    depends_on: [second]\n  second:\n{usual}    depends_on:\n      \
         third:\n        condition: service_healthy\n  third:\n{usual}    command: [/bin/late]\n    \
         healthcheck:\n      test: [CMD, test, -e, /tmp/good]\n      interval: 200ms\n      retries: 100\n"
    );
    let said = try_deploy(cluster, "order", &file, &["--detach=false"]).ok();
    let created: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("Creating service order_"))
        .collect();
    assert_eq!(created, ["third", "second", "first"], "{said}");
    counts(
        cluster,
        "order",
        &[("first", "1/1"), ("second", "1/1"), ("third", "1/1")],
    );
    remove(cluster, "order");
    nothing_is_left(cluster, "order");
}

pub(super) fn what_was_interrupted_is_finished_by_the_next(cluster: &Cluster) {
    let file = |more: &str| {
        format!(
            "services:\n  late:\n    image: {}\n    stop_grace_period: 2s\n    deploy:\n      \
             update_config:\n        monitor: 0s\n{more}",
            boxed()
        )
    };
    // There is no such node, so that the first one waits.
    let nowhere = "      placement:\n        constraints: [node.labels.speed == fast]\n";
    // What has not come yet is told, whoever ends it.
    let after = format!(
        "  next:\n    image: {}\n    depends_on: [late]\n    stop_grace_period: 2s\n",
        boxed()
    );
    let text = file(&format!("{nowhere}{after}"));
    let said = ended_by(cluster, &written(cluster, "cut.yml", &text), "-TERM");
    for says in [
        "waiting for service cut_late: 0/1 running (",
        "done: network cut_default, service cut_late; not done: service cut_next; run the same command \
         again to finish",
    ] {
        assert!(said.contains(says), "{says:?} is missing: {said}");
    }
    remove(cluster, "cut");

    let path = written(cluster, "cut.yml", &file(nowhere));
    ended_by(cluster, &path, "-INT");
    counts(cluster, "cut", &[("late", "0/1")]);

    let said = try_deploy(cluster, "cut", &file(""), &["--detach=false", "-q"]);
    assert_eq!(said.code, 0, "{said:#?}");
    counts(cluster, "cut", &[("late", "1/1")]);
    remove(cluster, "cut");
    nothing_is_left(cluster, "cut");
}

/// Deploys a stack `cut` until its first service is made, and ends that with a signal; what stood on
/// standard error.
fn ended_by(cluster: &Cluster, path: &Path, signal: &str) -> String {
    let socket = cluster
        .lab()
        .socket("node1")
        .expect("the node has an agent");
    let mut deploying = Command::new(cluster.program())
        .args(["-H", &format!("unix://{}", socket.display())])
        .args(["stack", "deploy", "--detach=false", "-c"])
        .arg(path)
        .arg("cut")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weft can be run");
    eventually("it has made the service", || {
        let rows = cluster.rows(&["stack", "services", "cut"]);
        if rows.len() == 1 { Ok(()) } else { Err(rows) }
    });
    // It is about to wait, or waits.
    thread::sleep(Duration::from_millis(300));
    assert!(deploying.try_wait().expect("a child").is_none(), "it waits");
    let pid = deploying.id().to_string();
    let killed = Command::new("kill").args([signal, &pid]).status();
    assert!(killed.expect("kill runs").success());
    within(Duration::from_secs(10), "it ends", || {
        match deploying.try_wait().expect("a child") {
            Some(status) => Ok(status),
            None => Err("it runs"),
        }
    });
    let mut said = String::new();
    let mut errors = deploying.stderr.take().expect("it was asked for");
    errors.read_to_string(&mut said).expect("text");
    said
}
