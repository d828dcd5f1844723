//! Ways between nodes that gossip's datagrams do not pass: a firewall, as a rule, that a person has to
//! find.

use weft_gossip::Blocked;
use weft_model::assignment::Assignment;

use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;

const SUBJECT: &str = "gossip ways";

/// Sets or clears the warning of this node.
pub(crate) fn warn(handles: &Handles, data_path: &DataPath, orders: &Assignment) {
    let mut texts: Vec<String> = data_path
        .gossip
        .blocked()
        .iter()
        .map(|way| text(way, orders))
        .collect();
    if texts.is_empty() {
        handles.warnings.clear(SUBJECT);
        return;
    }
    texts.sort();
    handles
        .warnings
        .set(SUBJECT, format!("{}; {NEXT}", texts.join("; ")));
}

/// What follows from it, and what to do.
pub(crate) const NEXT: &str = "gossip goes by TCP there, which is slower: open that UDP port in the \
                               firewalls of both nodes (overlay traffic has a port of its own)";

/// The way, in words.
pub(crate) fn text(way: &Blocked, orders: &Assignment) -> String {
    let node = orders.shared.nodes.iter().find(|n| n.id == way.node);
    let name = node.map_or(way.node.short(), |n| n.hostname.as_str());
    let direction = if way.outbound { "to" } else { "from" };
    let (ip, port) = (way.addr.ip(), way.addr.port());
    format!("UDP {port} does not pass {direction} {name} ({ip})")
}
