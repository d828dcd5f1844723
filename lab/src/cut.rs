//! Firewalls that come between nodes, by rules of nftables in a machine's own namespace.

use anyhow::bail;

use crate::lab::Lab;

impl Lab {
    /// Drops every packet of a TCP port that a machine sends or gets, whichever end has the port: no
    /// other machine is reached at it, and none reaches it there. Connections stay open and silent.
    ///
    /// # Errors
    /// No such machine, it is down, `nft` is missing, or the port is closed already.
    pub fn close_port(&self, node: &str, port: u16) -> anyhow::Result<()> {
        let table = table(port);
        let chain = |hook: &str, interface: &str| {
            // What a node says to itself passes.
            let rule = |end: &str| format!("{interface} != \"lo\" tcp {end} {port} drop\n");
            let (to, from) = (rule("dport"), rule("sport"));
            format!("chain {hook} {{\ntype filter hook {hook} priority raw\n{to}{from}}}\n")
        };
        let (input, output) = (chain("input", "iifname"), chain("output", "oifname"));
        let rules =
            format!("create table inet {table}\ntable inet {table} {{\n{input}{output}}}\n");
        self.nft(node, &[&rules])
    }

    /// Takes [`Lab::close_port`] back.
    ///
    /// # Errors
    /// No such machine, it is down, or the port is not closed.
    pub fn open_port(&self, node: &str, port: u16) -> anyhow::Result<()> {
        self.nft(node, &["delete", "table", "inet", &table(port)])
    }

    fn nft(&self, node: &str, words: &[&str]) -> anyhow::Result<()> {
        let output = self.exec(node, &[&["nft"], words].concat())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("nft on {node}: {}", said.trim());
        }
        Ok(())
    }
}

fn table(port: u16) -> String {
    format!("lab_closed_{port}")
}
