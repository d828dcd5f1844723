//! Services of images: real containers on the nodes of a lab, of images that are made here.
//!
//! One cluster is asked many things, for what costs time is to build it.

mod bombs;
mod day;
mod deaths;
mod debian;
mod ends;
mod fake_registry;
mod inside;
mod mounts;
mod nodes;
mod packages;
mod process_one;
mod pulls;
mod registries;
mod sign_in;
mod site;
mod stacks;
mod sticky;
mod typing;
mod update;
mod upgrade;
mod ways;

use std::path::PathBuf;

use serde_json::{Value, json};
use weft_lab::image::{Archive, Image, Layer, base, web};
use weft_netns_tests::{Cluster, Settings, eventually};

use crate::PROGRAM;

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Host and port that images are named after: a registry on the machine outside. Most clusters have
/// none there, and hear so at once.
const REGISTRY: &str = "10.77.0.254:5000";

/// Programs of the image `box`, by their paths.
const SCRIPTS: [(&str, &str); 4] = [
    // Process 1 has to have a handler for what ends it.
    (
        "bin/forever",
        "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.1; done\n",
    ),
    (
        "bin/nine",
        "#!/bin/sh\ntrap 'exit 9' TERM\nwhile :; do sleep 0.1; done\n",
    ),
    (
        "bin/usr1",
        "#!/bin/sh\ntrap 'echo got USR1; exit 0' USR1\nwhile :; do sleep 0.1; done\n",
    ),
    (
        "bin/late",
        "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 1\ntouch /tmp/good\nwhile :; do sleep 0.1; done\n",
    ),
];

#[test]
fn containers_of_a_loaded_image_are_what_they_are_asked_to_be() {
    let mut cluster = cluster(&Settings::default());
    cluster.network("front");
    for image in [made(web("web:1", "1")), made(web("web:2", "2")), in_a_box()] {
        load(&cluster, "node1", &image);
    }
    day::a_service_answers_on_every_node(&cluster);
    inside::programs_have_what_was_asked_for(&cluster);
    inside::exec_ends_as_its_program_does(&cluster);
    typing::a_terminal_is_one_of_the_container_s_own(&cluster);
    typing::a_password_is_not_shown_and_the_window_s_size_is_told(&cluster);
    process_one::is_weft_s_own_where_it_is_asked_for(&cluster);
    ends::exit_codes_and_output_are_kept(&cluster);
    ends::what_cannot_start_says_why(&cluster);
    ends::memory_has_an_end(&cluster);
    ends::the_image_says_how_to_stop(&cluster);
    ends::the_image_says_how_to_ask_for_health(&cluster);
    mounts::are_seen_inside(&cluster);
    mounts::that_miss_their_source_are_told(&cluster);
    mounts::are_all_that_can_be_written_to_where_the_root_is_read_only(&cluster);
    mounts::travel_where_they_are_asked_to(&cluster);
    mounts::volumes_outlive_their_tasks(&cluster);
    update::another_image_and_back_without_a_failed_request(&cluster, 20);
    deaths::of_an_agent_ends_no_container(&cluster);
    deaths::of_a_shim_ends_its_container_alone(&cluster);
    deaths::of_a_node_ends_all_of_its_containers(&mut cluster);
}

/// A swarm whose nodes can run containers.
fn cluster(settings: &Settings) -> Cluster {
    needs_runtime();
    Cluster::swarm(PROGRAM, settings)
}

/// Loads an HTTP server on the first node, for tests that run the same with containers as with programs
/// of the node, and returns the name of its image.
pub(crate) fn load_web(cluster: &Cluster) -> String {
    needs_runtime();
    load(cluster, "node1", &made(web("web:1", "1"))).name
}

/// Process ids of those servers on a node.
pub(crate) fn web_pids(cluster: &Cluster, node: &str) -> Vec<String> {
    let pids = processes(cluster, node, "/bin/sh /bin/serve").into_iter();
    pids.map(|pid| pid.to_string()).collect()
}

/// # Panics
/// This machine has no runtime.
#[track_caller]
fn needs_runtime() {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let mut programs = places
        .iter()
        .flat_map(|place| ["runc", "crun"].map(|name| PathBuf::from(place).join(name)));
    assert!(
        programs.any(|path| path.is_file()),
        "there is no runtime of containers here: install the package runc (apt-get install runc)"
    );
}

#[track_caller]
fn made<T>(image: anyhow::Result<T>) -> T {
    image.expect("an image")
}

/// Nothing but busybox and a few scripts; it has a folder that volumes are filled with.
fn in_a_box() -> Image {
    let files = || {
        let mut layer = Layer::new();
        for (path, script) in SCRIPTS {
            layer.file(path, 0o755, script.as_bytes())?;
        }
        layer.folder("srv", 0o755)?;
        layer.folder("srv/filled", 0o755)?;
        layer.file("srv/filled/greeting", 0o644, b"from the image\n")?;
        base("box:1")?.with(layer)
    };
    made(files())
        .set("Volumes", json!({ "/srv/anonymous": {} }))
        .runs(&["/bin/forever"])
}

/// The name of an image with the registry that it would be of.
fn named(name: &str) -> String {
    format!("{REGISTRY}/{name}")
}

/// An image as files, under its name with the registry.
fn archive(image: &Image) -> Archive {
    let name = named(image.name());
    made(Archive::of(&image.clone().named(&name)))
}

/// `weft image load` on a node.
#[track_caller]
fn load(cluster: &Cluster, node: &str, image: &Image) -> Archive {
    let archive = archive(image);
    let file = format!("{}.tar", image.name().replace([':', '/'], "-"));
    let path = cluster.dir().join(file);
    made(archive.write_file(&path));
    let path = path.display().to_string();
    let said = cluster.weft(node, &["image", "load", "-i", &path]).ok();
    assert_eq!(said, format!("Loaded image: {}\n", archive.name));
    archive
}

/// Starts a service of an image and does not wait for it.
#[track_caller]
fn create(cluster: &Cluster, name: &str, flags: &[&str], image: &str, command: &[&str]) {
    let words = ["service", "create", "-d", "--name", name];
    let usual = ["--stop-grace-period", "2s", "--restart-delay", "0s"];
    let image = named(image);
    let words = [&words[..], &usual, flags, &[image.as_str()], command].concat();
    cluster.weft("node1", &words).done();
}

#[track_caller]
fn remove(cluster: &Cluster, name: &str) {
    cluster.weft("node1", &["service", "rm", name]).done();
}

/// What `service ps` says of the tasks of a service: by slots, in each of them the newest first.
fn rows(cluster: &Cluster, name: &str) -> Vec<Value> {
    cluster.rows(&["service", "ps", "--no-trunc", name])
}

/// Waits until the newest task of the first slot is that far.
#[track_caller]
fn becomes(cluster: &Cluster, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), || {
        let rows = rows(cluster, name);
        let first = rows.first().filter(|row| row["State"] == state);
        first.cloned().ok_or(rows)
    })
}

/// A text of a row.
fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// Processes of a node, by its own numbers, whose whole command is this.
fn processes(cluster: &Cluster, node: &str, command: &str) -> Vec<u32> {
    let said = cluster.run(node, None, &["pgrep", "-xf", command]);
    said.out
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Waits until so many of them are there.
#[track_caller]
fn are(cluster: &Cluster, node: &str, command: &str, count: usize) -> Vec<u32> {
    eventually(&format!("{count} times {command} on {node}"), || {
        let found = processes(cluster, node, command);
        if found.len() == count {
            Ok(found)
        } else {
            Err(found)
        }
    })
}
