//! Names of two stacks on one network.

use std::net::IpAddr;

use weft_netns_tests::{Cluster, eventually};

use super::{boxed, counts, deploy, nothing_is_left, remove};

const STACKS: [&str; 2] = ["north", "south"];

/// Both stacks have a service `db` there, and each of their clients gets its own.
pub(super) fn of_two_stacks_on_one_network_are_apart(cluster: &Cluster) {
    cluster.network("shared");
    let image = boxed();
    let file = format!(
        "services:\n  db:\n    image: {image}\n    stop_grace_period: 2s\n    networks: [shared]\n  \
         client:\n    image: {image}\n    stop_grace_period: 2s\n    networks: [shared]\n\
         networks:\n  shared:\n    external: true\n"
    );
    for stack in STACKS {
        let said = deploy(cluster, stack, &file);
        assert!(!said.contains("network"), "{said}");
    }
    for stack in STACKS {
        counts(cluster, stack, &[("db", "1/1"), ("client", "1/1")]);
    }
    for (stack, other) in [("north", "south"), ("south", "north")] {
        let client = cluster.tasks(&format!("{stack}_client")).remove(0);
        let finds = |name: &str, wanted: IpAddr| {
            eventually(&format!("{name} of {stack} is {wanted}"), || {
                let found = cluster.lookup(&client, name, false)?;
                if found == [wanted.to_string()] {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                }
            });
        };
        let (own, others) = (format!("{stack}_db"), format!("{other}_db"));
        let task = cluster.tasks(&own).remove(0).ip;
        finds("db", cluster.vip(&own, "shared"));
        finds("tasks.db", task);
        finds("all-tasks.db", task);
        // By its whole name everybody is found.
        finds(&own, cluster.vip(&own, "shared"));
        finds(&others, cluster.vip(&others, "shared"));
        finds(
            &format!("all-tasks.{others}"),
            cluster.tasks(&others).remove(0).ip,
        );
    }
    for stack in STACKS {
        remove(cluster, stack);
        nothing_is_left(cluster, stack);
    }
    // It is nobody's but the user's.
    let networks = cluster.rows(&["network", "ls"]);
    assert!(
        networks.iter().any(|row| row["Name"] == "shared"),
        "{networks:?}"
    );
}
