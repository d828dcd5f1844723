//! Images that come from registries: once for a cluster, whatever happens on the way.

use std::collections::BTreeSet;

use weft_lab::image::{Layer, Registry, web};
use weft_lab::{Patience, Stop};
use weft_netns_tests::{Cluster, LIMIT, Settings, eventually, figure, get};

use super::fake_registry::{FakeRegistry, Trouble};
use super::{NODES, REGISTRY, archive, becomes, cluster, create, made, named, remove, text};

/// Settings of nodes that have images of their own, and may ask these hosts over plain HTTP.
fn settings(nodes: u8, hosts: Vec<String>) -> Settings {
    Settings {
        nodes,
        shares_images: false,
        insecure_registries: hosts,
        ..Settings::default()
    }
}

#[test]
fn three_nodes_ask_a_registry_once_for_an_image() {
    let cluster = cluster(&settings(3, vec![REGISTRY.to_owned()]));
    cluster.network("front");
    let files = cluster.dir().join("registry");
    let patience = Patience::new(LIMIT, &Stop::default());
    let registry = made(Registry::start(cluster.lab(), &files, 5000, &patience));
    assert_eq!(registry.host(), REGISTRY);
    let image = archive(&made(web("web:1", "1")));
    made(registry.push(&image));

    let name = named("web:1");
    let mut words = vec!["service", "create", "--name", "web", "--mode", "global"];
    words.extend(["--network", "front", "-p", "8000:80", "--update-monitor"]);
    words.extend(["0s", &name]);
    let said = cluster.weft("node1", &words);
    assert_eq!(said.code, 0, "{said:#?}");
    assert!(!said.err.contains("could not be accessed"), "{said:?}");
    for node in NODES {
        let to = cluster.at(node, 8000);
        eventually("it serves", || get(&cluster.outside(), to));
    }
    let tasks = cluster.tasks("web");
    let nodes: BTreeSet<&str> = tasks.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(NODES));
    for content in &image.layers {
        let asked = made(registry.gets(content));
        assert_eq!(asked, 1, "{} was asked for {asked} times", content.digest);
    }
    // And who made the service looked for which machines the image is.
    let asked = made(registry.gets(&image.config));
    assert!((1..=2).contains(&asked), "its configuration: {asked} times");
    figure(&format!(
        "three nodes have {} bytes of an image, which the registry was asked for once",
        image.size()
    ));

    let service = cluster.inspect("service", "web");
    let pinned = &service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
    let wanted = format!("{name}@{}", image.manifest.digest);
    assert_eq!(pinned.as_str(), Some(wanted.as_str()));
    what_a_registry_does_not_have_is_told(&cluster);
    images_are_listed_saved_and_removed(&cluster, image.config.digest.as_str());
}

fn what_a_registry_does_not_have_is_told(cluster: &Cluster) {
    let flags = ["--restart-condition", "none"];
    create(cluster, "nowhere", &flags, "nosuch:1", &[]);
    let row = becomes(cluster, "nowhere", "Rejected");
    let error = text(&row, "Error");
    let told = error.contains("No such image: ") && error.contains("nosuch:1");
    assert!(told, "{row}");
    remove(cluster, "nowhere");
}

fn images_are_listed_saved_and_removed(cluster: &Cluster, id: &str) {
    let name = named("web:1");
    let repository = named("web");
    let said = cluster.weft("node2", &["image", "ls", "--no-trunc", "--format", "json"]);
    let rows = said.ok();
    let row: serde_json::Value = rows
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .find(|row: &serde_json::Value| row["Repository"] == repository.as_str())
        .unwrap_or_default();
    assert_eq!(text(&row, "ID"), id, "{row}");

    let file = cluster.dir().join("saved.tar");
    let path = file.display().to_string();
    cluster
        .weft("node1", &["image", "save", "-o", &path, id])
        .done();
    assert!(file.metadata().expect("a file").len() > 500_000);
    let said = cluster.weft("node1", &["image", "rm", id]);
    assert_ne!(said.code, 0, "a task uses it: {said:?}");
    cluster.weft("node1", &["service", "rm", "web"]).done();
    let said = eventually("nobody uses it any more", || {
        let said = cluster.weft("node1", &["image", "rm", "-f", id]);
        if said.code == 0 {
            Ok(said.out)
        } else {
            Err(said)
        }
    });
    assert!(said.contains(&format!("Deleted: {id}")), "{said}");
    // Another node has it still, and hands it over.
    cluster
        .weft("node1", &["image", "load", "-i", &path])
        .done();
    let inspected = cluster.weft("node1", &["image", "inspect", id]);
    assert!(inspected.ok().contains(id));
    let said = cluster.weft("node3", &["image", "ls", "-q", "--no-trunc", &name]);
    assert!(said.code == 0, "{said:?}");
}

/// The image comes all the same where it can, and where it cannot, a sentence says why.
#[test]
fn pulls_survive_what_a_registry_does_to_them_or_say_what_it_was() {
    let host = |port: u16| format!("10.77.0.254:{port}");
    let hosts: Vec<String> = Trouble::ALL.iter().map(|(port, _)| host(*port)).collect();
    let cluster = cluster(&settings(1, hosts));
    for (port, trouble) in Trouble::ALL {
        // An image of its own for each: what is there already is asked for no more.
        let mut own = Layer::new();
        made(
            own.file("trouble", 0o644, format!("{trouble:?}").as_bytes())
                .map(drop),
        );
        let image = made(made(web("web:1", "1")).with(own));
        let image = image.named(&format!("{}/web:1", host(port)));
        let image = made(weft_lab::image::Archive::of(&image));
        let fake = FakeRegistry::start(&cluster, port, trouble, image.clone());
        let said = cluster.weft("node1", &["image", "pull", &image.name]);
        let heard = fake.heard();
        match trouble {
            Trouble::Cut | Trouble::Busy => {
                assert_eq!(said.code, 0, "{trouble:?}: {said:#?}\n{heard:#?}");
                let words = ["image", "inspect", &image.name];
                let found = cluster.weft("node1", &words).ok();
                assert!(found.contains(image.config.digest.as_str()), "{found}");
            }
            Trouble::Missing | Trouble::Forbidden | Trouble::Wrong => {
                assert_ne!(said.code, 0, "{trouble:?}: {said:#?}");
                let tells = trouble.tells();
                let told = tells.iter().any(|word| said.err.contains(word));
                assert!(told, "{trouble:?}: {tells:?} are missing: {said:#?}");
            }
        }
        if trouble == Trouble::Cut {
            let resumed = heard.iter().any(|request| request.range > 0);
            assert!(resumed, "the rest alone was asked for: {heard:#?}");
        }
    }
    // What was refused left nothing that a task would run.
    let name = format!("{}/web:1", host(Trouble::WRONG_PORT));
    let words = [
        "service",
        "create",
        "-d",
        "--name",
        "bad",
        "--restart-condition",
    ];
    let words = [&words[..], &["none", name.as_str()]].concat();
    let said = cluster.weft("node1", &words);
    assert_eq!(said.code, 0, "{said:?}");
    let row = becomes(&cluster, "bad", "Rejected");
    let error = text(&row, "Error");
    let tells = Trouble::Wrong.tells();
    assert!(tells.iter().any(|word| error.contains(word)), "{row}");
    a_disk_that_fills_up_is_told(&cluster, &format!("{}/web:1", host(5001)));
}

/// The image does not fit: that is told, and once there is room it comes.
fn a_disk_that_fills_up_is_told(cluster: &Cluster, image: &str) {
    let store = cluster.lab().dir().join("node1/data/images/shared");
    let store = store.display().to_string();
    let small = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", &store];
    cluster.run("node1", None, &small).done();
    start_anew(cluster);
    let said = cluster.weft("node1", &["image", "pull", image]);
    assert_ne!(said.code, 0, "{said:#?}");
    assert!(said.err.to_lowercase().contains("space"), "{said:#?}");
    let away = ["umount", "--lazy", &store];
    cluster.run("node1", None, &away).done();
    start_anew(cluster);
    cluster.weft("node1", &["image", "pull", image]).done();
}

/// The next agent finds what is on its disk.
fn start_anew(cluster: &Cluster) {
    cluster.restart_agent("node1");
    eventually("its API answers", || {
        let said = cluster.weft("node1", &["info"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
}
