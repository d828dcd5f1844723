//! `weft ping`, and the doctor's look at the ways to other nodes: what they say of a data path that
//! is whole, of one that a firewall closes, and of one that loses what is large.

use std::net::UdpSocket;
use std::time::Duration;

use weft_netns_tests::{Cluster, Said, eventually};

use crate::swarm;

/// A firewall in front of a node's data path, beside the rules of weft.
fn wall(cluster: &Cluster, node: &str, rule: Option<&str>) {
    let mut script = "nft delete table inet wall 2>/dev/null; true".to_owned();
    if let Some(rule) = rule {
        script += &format!(
            " && nft 'add table inet wall; add chain inet wall input {{ type filter hook input priority -300; }}; add rule inet wall input {rule}'"
        );
    }
    cluster.run(node, None, &["sh", "-c", &script]).done();
}

fn ping(cluster: &Cluster, words: &[&str]) -> Said {
    cluster.weft(
        "node1",
        &[&["ping", "-W", "0.3", "-i", "0.05"], words].concat(),
    )
}

/// The doctor's line about node2, as text.
fn line(cluster: &Cluster) -> String {
    let format = "{{.Health}} {{.Name}}: {{.Found}}: {{.Next}}";
    let said = cluster.weft("node1", &["doctor", "--format", format]).out;
    let mut lines = said.lines().filter(|l| l.contains("overlay to node2"));
    lines.next().unwrap_or("no line").to_owned()
}

#[test]
fn ping_and_doctor_tell_what_a_firewall_does_to_the_data_path() {
    let cluster = swarm(2);
    eventually("packets of both sizes pass", || {
        let said = ping(&cluster, &["-c", "1", "node2"]);
        let both = said.code == 0 && said.out.contains("64 bytes from 10.77.0.2: seq=1");
        let both = both && said.out.contains("\n1450 bytes from 10.77.0.2: seq=1");
        if both { Ok(()) } else { Err(said) }
    });
    let said = ping(&cluster, &["-c", "3", "-s", "1000", "10.77.0.2"]).ok();
    assert!(
        said.contains("3 packets of 1000 bytes transmitted, 3 received, 0% packet loss"),
        "{said}"
    );
    assert!(said.contains("1000 bytes: there pass, back pass"), "{said}");
    let line_of = line(&cluster);
    assert!(
        line_of.starts_with("ok overlay to node2: 64 and 1450 bytes pass both ways"),
        "{line_of}"
    );
    for (node, words) in [
        ("node9", "node2"),
        ("node1", "this node itself"),
        ("10.77.0.9", "no other node"),
    ] {
        let said = ping(&cluster, &["-c", "1", node]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
    }

    // Nothing arrives at the other node.
    wall(&cluster, "node2", Some("udp dport 4789 drop"));
    assert_eq!(
        line(&cluster),
        "fail overlay to node2: no VXLAN answer, gossip answers: open UDP 4789 between 10.77.0.1 and 10.77.0.2"
    );
    wall(&cluster, "node2", None);

    // What it answers does not come back.
    wall(&cluster, "node1", Some("udp dport 4789 drop"));
    let said = ping(&cluster, &["-c", "1", "-s", "64", "node2"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("64 bytes: there pass, back lost"),
        "{said:?}"
    );
    wall(&cluster, "node1", None);

    // What is large does not arrive, and nobody says so.
    wall(
        &cluster,
        "node2",
        Some("udp dport 4789 udp length > 1400 drop"),
    );
    let said = ping(&cluster, &["-c", "1", "node2"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("64 bytes: there pass, back pass"),
        "{said:?}"
    );
    assert!(
        said.out.contains("1450 bytes: there lost, back unknown"),
        "{said:?}"
    );
    wall(&cluster, "node2", None);
    wall(
        &cluster,
        "node1",
        Some("udp dport 4789 udp length > 1400 drop"),
    );
    let line_of = line(&cluster);
    assert!(
        line_of.contains("packets of 1450 bytes do not arrive from 10.77.0.2 at 10.77.0.1"),
        "{line_of}"
    );
    wall(&cluster, "node1", None);

    strangers_get_no_answer(&cluster);
}

/// A question in the form of a node's, from a machine that is none.
fn strangers_get_no_answer(cluster: &Cluster) {
    let mut question = vec![8, 0, 0, 0, 0xff, 0xff, 0xff, 0];
    question.extend([0x02, 0x57, 0x45, 0x46, 0x54, 0].repeat(2));
    question.extend([0x89, 0x02, 0, 3, 0, 4, 0, 0, 0, 1, 3, 0, 9]);
    question.extend([0; 10]);
    let before = cluster.drops("node2", "unknown_vtep");
    let to = cluster.at("node2", 4789);
    let answered = cluster.outside().run_in(move || {
        let socket = UdpSocket::bind("10.77.0.254:4789").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a limit");
        socket.send_to(&question, to).expect("sent");
        socket.recv_from(&mut [0; 100]).is_ok()
    });
    assert!(!answered.expect("a thread"), "a stranger was answered");
    assert_eq!(cluster.drops("node2", "unknown_vtep"), before + 1);
}
