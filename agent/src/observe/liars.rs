//! What is said on gossip that cannot be so: a person has to find out who says it.

use std::time::Duration;

use weft_gossip::{Forgery, ForgeryKind};
use weft_model::assignment::Assignment;

use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;

/// A lie is shown for so long, as whoever tells it is hardly gone at once.
const SHOWN: Duration = Duration::from_secs(600);

/// Sets or clears the warnings of this node.
pub(crate) fn warn(handles: &Handles, data_path: &DataPath, orders: &Assignment) {
    let lies = data_path.gossip.lies(SHOWN);
    for (subject, kind) in [
        ("entries", ForgeryKind::Own),
        ("gossip", ForgeryKind::Absurd),
    ] {
        let told = lies.iter().filter(|lie| lie.kind == kind);
        let told: Vec<String> = told.map(|lie| text(lie, orders)).collect();
        if told.is_empty() {
            handles.warnings.clear(subject);
        } else {
            handles.warnings.set(subject, told.join("; "));
        }
    }
}

fn text(lie: &Forgery, orders: &Assignment) -> String {
    let ip = lie.from.ip();
    let sender = orders.shared.nodes.iter().find(|n| n.addr == ip);
    let sender = sender.map_or_else(|| ip.to_string(), |n| format!("{} ({ip})", n.hostname));
    match lie.kind {
        ForgeryKind::Own => format!(
            "entries of this node were replaced or declared void on gossip by a message that it did \
             not send, which {sender} sent or passed on; they were told anew. Unless this node's \
             clock went back or it was cut off for a day, somebody misuses a gossip key: remove that \
             node, which changes the keys"
        ),
        ForgeryKind::Absurd => {
            let about = orders.shared.nodes.iter().find(|n| n.id == lie.about);
            let about = about.map_or(lie.about.short(), |n| n.hostname.as_str());
            format!(
                "{sender} said of node {about} what no node can say on gossip (a number out of all \
                 bounds): refused. Somebody misuses a gossip key: find out who, and remove that node, \
                 which changes the keys"
            )
        }
    }
}
