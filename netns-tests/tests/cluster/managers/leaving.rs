//! How managers leave: what is refused and why, the careful way, the careless one, and what `node rm`
//! takes.

use weft_netns_tests::{Cluster, Said};

use super::{NO_LEADER, comes_to_do, comes_to_refuse, lists, with_managers};

const LEAVING: &str =
    "weft: You are attempting to leave the swarm on a node that is participating as a manager. ";
const QUORUM_LEFT: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
const TWO: &str = "Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be inaccessible. ";

const LEFT: &str = "Node left the swarm.\n";

/// Docker's text in the first line, and below it the way that keeps the swarm.
#[track_caller]
fn refused(said: &Said, text: &str) {
    said.refused(&[]);
    assert_eq!(said.err.lines().next(), Some(text), "{said:?}");
    let more = said.err.lines().skip(1);
    let names_it = |line: &str| line.contains("weft swarm leave --demote");
    assert!(more.into_iter().any(names_it), "{said:?}");
}

#[test]
fn managers_leave_carefully_and_carelessly() {
    let cluster = with_managers(3, 3);
    let leave =
        |node: &str, words: &[&str]| cluster.weft(node, &[&["swarm", "leave"][..], words].concat());
    let weft = |words: &[&str]| cluster.weft("node1", words);

    refused(&leave("node3", &[]), &format!("{LEAVING}{QUORUM_LEFT}"));
    forced_out_then_demoted(&cluster);

    // It comes back, and this time goes as it should: nobody has to be forced, nothing be demoted.
    let token = cluster.token_for("manager");
    let said = cluster.join("node3", &token).ok();
    assert_eq!(said, "This node joined a swarm as a manager.\n");
    lists(
        &cluster,
        "node1",
        &[
            "node1 Ready Leader",
            "node2 Ready Reachable",
            "node3 Ready Reachable",
        ],
    );
    assert_eq!(leave("node3", &["--demote"]).ok(), LEFT);
    lists(
        &cluster,
        "node1",
        &["node1 Ready Leader", "node2 Ready Reachable", "node3 Down"],
    );
    assert_eq!(weft(&["node", "rm", "node3"]).ok(), "node3\n");

    // Two are left: one that goes without a word takes the swarm with it.
    refused(
        &leave("node2", &[]),
        &format!("{LEAVING}{TWO}{QUORUM_LEFT}"),
    );
    weft(&["node", "rm", "node2"]).refused(&[
        "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    ]);
    weft(&["network", "create", "before"]).done();
    assert_eq!(leave("node2", &["--force"]).ok(), LEFT);
    comes_to_refuse(&cluster, "node1", &["network", "create", "lost"], NO_LEADER);
    weft(&["node", "ls"]).refused(&[NO_LEADER]);
    assert_eq!(leave("node1", &["--force"]).ok(), LEFT);
    weft(&["node", "ls"]).refused(&["\"weft swarm init\""]);
}

/// As in the day: one leaves by force, is still a manager for the others, and is demoted before it is
/// removed.
fn forced_out_then_demoted(cluster: &Cluster) {
    let weft = |words: &[&str]| cluster.weft("node1", words);
    let said = cluster.weft("node3", &["swarm", "leave", "--force"]).ok();
    assert_eq!(said, LEFT);
    lists(
        cluster,
        "node1",
        &[
            "node1 Ready Leader",
            "node2 Ready Reachable",
            "node3 Down Unreachable",
        ],
    );
    weft(&["node", "rm", "node3"]).refused(&["It must be demoted to worker before removal"]);
    // Two of three answer: without another one there would be no quorum.
    weft(&["node", "demote", "node2"]).refused(&[
        "can't remove member from the raft: this would result in a loss of quorum",
        "`weft node demote --force` demotes it all the same",
    ]);
    let said = weft(&["node", "demote", "node3"]).ok();
    assert_eq!(said, "Manager node3 demoted in the swarm.\n");
    lists(
        cluster,
        "node1",
        &["node1 Ready Leader", "node2 Ready Reachable", "node3 Down"],
    );
    assert_eq!(weft(&["node", "rm", "node3"]).ok(), "node3\n");
}

#[test]
#[ignore = "second tier: who leads when the leader is asked to go is what differs from the first"]
fn the_leader_leaves_by_itself_and_is_forced_out_of_the_list() {
    let cluster = with_managers(4, 3);
    cluster.network("front");
    let said = cluster.weft("node1", &["swarm", "leave", "--demote"]).ok();
    assert_eq!(said, LEFT);
    let leader = cluster.wait_leader(&["node2", "node3"]);
    cluster.ask(&leader);
    comes_to_do(&cluster, &leader, &["network", "create", "after"]);
    comes_to_do(&cluster, &leader, &["node", "rm", "node1"]);
    // A worker that answers is removed by force alone, and does not come back.
    let rm = |words: &[&str]| cluster.weft(&leader, &[&["node", "rm"][..], words].concat());
    rm(&["node4"]).refused(&["is not down and can't be removed"]);
    assert_eq!(rm(&["--force", "node4"]).ok(), "node4\n");
    let other = if leader == "node2" { "node3" } else { "node2" };
    let mut wanted = [
        (leader.as_str(), "Ready Leader"),
        (other, "Ready Reachable"),
    ];
    wanted.sort_unstable();
    let wanted = wanted.map(|(node, part)| format!("{node} {part}"));
    lists(&cluster, &leader, &[&wanted[0], &wanted[1]]);
    cluster.restart_agent("node4");
    comes_to_refuse(&cluster, "node4", &["node", "ls"], "swarm");
    lists(&cluster, &leader, &[&wanted[0], &wanted[1]]);
}
