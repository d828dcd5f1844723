//! The first stack of most people: a web tier before a database that keeps its data in a volume.

use std::collections::BTreeSet;

use weft_lab::image::{WORDPRESS_PORT, wordpress, wordpress_file};
use weft_netns_tests::{Cluster, eventually};

use super::super::{NODES, REGISTRY, load, made, processes, text};
use super::{asked, counts, deploy, inside, nothing_is_left, remove};

const STACK: &str = "wstack";

/// What serves the database.
const DATABASE: &str = "nc -ll -p 3306 -e /bin/accounts";

pub(super) fn stack_answers_on_every_node_and_leaves_nothing(cluster: &Cluster) {
    for image in made(wordpress()) {
        load(cluster, "node1", &image);
    }
    let file = wordpress_file(REGISTRY);
    let said = deploy(cluster, STACK, &file);
    assert_eq!(
        said,
        "Creating network wstack_default\nCreating service wstack_db\n\
         Creating service wstack_wordpress\n"
    );
    counts(cluster, STACK, &[("db", "1/1"), ("wordpress", "1/1")]);
    let stacks = cluster.rows(&["stack", "ls"]);
    let row = stacks.iter().find(|row| text(row, "Name") == STACK);
    let row = row.expect("the stack is listed");
    assert_eq!(text(row, "Services"), "2", "{row}");
    let networks = cluster.rows(&["network", "ls"]);
    let made = networks
        .iter()
        .find(|row| text(row, "Name") == "wstack_default");
    let made = made.expect("the network is listed");
    assert_eq!(text(made, "Driver"), "overlay", "{made}");
    its_page_is_there(cluster, 1);

    let words = ["service", "scale", "-d", "wstack_wordpress=3"];
    let said = cluster.weft("node1", &words).ok();
    assert!(said.contains("wstack_wordpress scaled to 3"), "{said}");
    counts(cluster, STACK, &[("db", "1/1"), ("wordpress", "3/3")]);
    its_page_is_there(cluster, 3);

    for slot in 1..=3 {
        let task = format!("wstack_wordpress.{slot}");
        let said = inside(cluster, &task, "echo $WORDPRESS_DB_HOST $WORDPRESS_DB_USER");
        assert_eq!(said, "db:3306 wordpress\n");
    }
    let script = "echo $MYSQL_DATABASE; grep -c . /var/lib/mysql/visits";
    let said = inside(cluster, "wstack_db.1", script);
    let (database, visits) = said.split_once('\n').expect("two lines");
    assert_eq!(database, "wordpress");
    let visits: u32 = visits.trim().parse().expect("a number");
    assert!(
        visits >= 12,
        "three nodes were asked by one task and by three: {visits}"
    );
    its_volume_is_named_after_it(cluster);

    let said = remove(cluster, STACK);
    assert_eq!(
        said,
        "Removing service wstack_db\nRemoving service wstack_wordpress\n\
         Removing network wstack_default\n"
    );
    // It has waited: there is nothing to wait for any more.
    nothing_is_left(cluster, STACK);
    for node in NODES {
        assert_eq!(processes(cluster, node, DATABASE), [0; 0], "{node}");
    }
    let said = cluster.weft("node1", &["stack", "ps", STACK]);
    said.refused(&["nothing found in stack: wstack"]);
    let said = cluster.weft("node1", &["stack", "rm", STACK]);
    assert!(
        said.code == 0 && said.err.contains("Nothing found in stack: wstack"),
        "{said:?}"
    );
}

/// The page of so many tasks, by each node.
fn its_page_is_there(cluster: &Cluster, tasks: usize) {
    for node in NODES {
        let mut heard = BTreeSet::new();
        eventually(&format!("{tasks} tasks answer by {node}"), || {
            let page = asked(cluster, cluster.at(node, WORDPRESS_PORT), "/");
            let page = page.map_err(|error| error.to_string())?;
            let greeting = page.split_once(", welcome to wordpress, visit ");
            let (hello, _) = greeting.ok_or_else(|| page.clone())?;
            heard.insert(hello.to_owned());
            if heard.len() == tasks {
                Ok(())
            } else {
                Err(format!("{heard:?}"))
            }
        });
    }
}

fn its_volume_is_named_after_it(cluster: &Cluster) {
    let rows = cluster.rows(&["service", "ps", "wstack_db"]);
    let node = text(&rows[0], "Node");
    let said = cluster.weft(node, &["volume", "ls", "-q"]).ok();
    assert!(said.lines().any(|name| name == "wstack_db_data"), "{said}");
}
