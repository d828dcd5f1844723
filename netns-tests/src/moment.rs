//! What is to be known of a failure at its moment: when the test ends, the cause is gone.

use std::path::Path;

use weft_lab::Failure;

use crate::cluster::Cluster;
use crate::wait::note;

/// Where a node has the namespaces of its tasks, those that are about to end among them.
const SANDBOXES: &str = "/run/weft/netns";

impl Cluster {
    /// Prints what nodes have of connections and drops, and the kernel's sockets and counters in each
    /// sandbox.
    ///
    /// # Panics
    /// A machine is down.
    pub fn note_moment(&self, failure: &Failure) {
        note(&format!("--- the first failure: {failure:?}"));
        let port = failure.progress.local.map_or(0, |local| local.port());
        let tracked = format!("port={port} ");
        for machine in self.lab().status() {
            let node = machine.name.as_str();
            if self.lab().socket(node).is_err() {
                continue;
            }
            let of_agent: [&[&str]; 2] = [
                &["mesh", "conns", "--format", "json"],
                &["drops", "--by-port"],
            ];
            // Not every kernel has the file.
            let of_kernel: [&[&str]; 2] = [
                &["nft", "list", "counters"],
                &["grep", tracked.as_str(), "/proc/net/nf_conntrack"],
            ];
            let agent = of_agent.map(|words| self.weft(node, words));
            let kernel = of_kernel.map(|words| self.run(node, None, words));
            for said in agent.into_iter().chain(kernel) {
                note(&format!("--- {}\n{}{}", said.command, said.out, said.err));
            }
            for name in self.run(node, None, &["ls", SANDBOXES]).out.lines() {
                let path = Path::new(SANDBOXES).join(name);
                let files = ["cat", "/proc/net/netstat", "/proc/net/tcp"];
                let said = self.run(node, Some(&path), &files);
                note(&format!("--- {node} {name}\n{}{}", said.out, said.err));
            }
        }
    }
}
