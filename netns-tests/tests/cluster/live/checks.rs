//! Health commands that do what they should not.

use std::process::Command;

use weft_netns_tests::{Cluster, eventually, figure};

use super::{becomes, create, remove, rows, text};

/// Bytes that one of them prints.
const MUCH: u64 = 1_000_000_000;

/// The checks that are under way.
pub(super) struct Begun {
    /// What one of them leaves behind.
    child: String,
}

pub(super) fn begin(cluster: &Cluster) -> Begun {
    let child = format!("sleep 98766.{}", std::process::id());
    let forks = format!("{child} & exit 0");
    let often = ["--health-interval", "100ms", "--health-retries", "2"];
    let flags = [&often[..], &["--health-cmd", &forks]].concat();
    create(cluster, "forks", &flags, &["sleep", "1000"]);

    let hangs = ["--health-cmd", "sleep 1000", "--health-timeout", "300ms"];
    let once = ["--restart-condition", "none"];
    let flags = [&often[..], &hangs, &once].concat();
    create(cluster, "hangs", &flags, &["sleep", "1000"]);

    // Asked once, until it has passed.
    let prints = format!("head -c {MUCH} /dev/zero");
    let pace = ["--health-interval", "1h", "--health-start-period", "1h"];
    let more = ["--health-start-interval", "100ms", "--health-cmd", &prints];
    let where_to = ["--constraint", "node.hostname==node1"];
    let flags = [&pace[..], &more, &where_to].concat();
    create(cluster, "prints", &flags, &["sleep", "1000"]);
    Begun { child }
}

impl Begun {
    pub(super) fn came_to(self, cluster: &Cluster) {
        becomes(cluster, "forks", "Running");
        // Each leaves one behind, ten times a second: there is a moment without.
        eventually("what a check leaves behind is ended with it", || {
            let left = Command::new("pgrep").args(["-fx", &self.child]).output();
            let left = left.expect("pgrep").stdout;
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        remove(cluster, "forks");

        let failed = becomes(cluster, "hangs", "Failed");
        let error = text(&failed, "Error");
        assert!(
            error.contains("dockerexec: unhealthy container"),
            "{failed}"
        );
        let message = text(&failed, "Message");
        assert!(message.contains("exceeded timeout (300ms)"), "{failed}");
        assert_eq!(rows(cluster, "hangs").len(), 1, "{failed}");
        remove(cluster, "hangs");

        becomes(cluster, "prints", "Running");
        let agent = cluster.lab().agent_pid("node1").expect("a node");
        let status = format!("/proc/{}/status", agent.expect("an agent"));
        let status = std::fs::read_to_string(status).expect("readable");
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let most = most.and_then(|most| most.trim().strip_suffix(" kB"));
        let most: u64 = most.expect("a size").trim().parse().expect("a number");
        figure(&format!(
            "a check printed {MUCH} bytes, and weftd had {most} kB at most"
        ));
        assert!(most < MUCH / 1024 / 2, "{most} kB");
        remove(cluster, "prints");
    }
}
