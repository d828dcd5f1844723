//! The way of overlay packets to every other node, tried with small and with large ones.

use std::sync::Arc;

use tokio::task::JoinSet;
use weft_gossip::MemberState;
use weft_model::api::Passage;
use weft_model::id::NodeId;

use super::Checks;
use crate::observe::ping::{self, Found, PATIENCE, Peer, SMALL};
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;

/// Nodes that are asked at a time.
const AT_A_TIME: usize = 64;

/// What was found about the way to one node.
#[derive(Debug)]
struct Way {
    peer: Peer,
    small: Found,
    full: u16,
    /// Of packets as large as the way is taken to carry; none where small ones do not pass.
    large: Option<Found>,
}

/// Where everything is, for the texts.
#[derive(Debug)]
struct Ends {
    own: std::net::IpAddr,
    port: u16,
}

/// Asks every node that gossip does not call gone.
pub(super) async fn examine(checks: &mut Checks, handles: &Handles, data_path: &Arc<DataPath>) {
    let Some(orders) = handles.session.assignments().borrow().clone() else {
        return;
    };
    let view = data_path.gossip.view().borrow().clone();
    let ends = Ends {
        own: orders.own.node.data_path_addr,
        port: orders.shared.data_path_port,
    };
    let mut asked = JoinSet::new();
    let mut ways = Vec::new();
    for peer in ping::peers(&orders) {
        // What does not answer gossip either has a line of its own.
        let state = view.members.get(&peer.id).map(|m| m.state);
        if matches!(state, None | Some(MemberState::Down | MemberState::Left)) {
            continue;
        }
        if asked.len() >= AT_A_TIME
            && let Some(Ok(way)) = asked.join_next().await
        {
            ways.push(way);
        }
        let (data_path, own) = (Arc::clone(data_path), handles.node_id.clone());
        asked.spawn(async move { try_both(&data_path, &own, peer).await });
    }
    ways.extend(asked.join_all().await);
    ways.sort_by(|a, b| a.peer.name.cmp(&b.peer.name));
    for way in &ways {
        say(checks, way, &ends);
    }
}

async fn try_both(data_path: &DataPath, own: &NodeId, peer: Peer) -> Way {
    let small = ping::examine(data_path, own, &peer, SMALL, PATIENCE).await;
    let mut full = ping::full(data_path, peer.vtep);
    let mut large = None;
    while small.passes() {
        let found = ping::examine(data_path, own, &peer, full, PATIENCE).await;
        large = Some(found);
        // A router may have told its MTU because of this; the node takes it up within a second,
        // and has done so by now, as silence takes longer.
        let now = ping::full(data_path, peer.vtep);
        if found.passes() || now >= full {
            break;
        }
        full = now;
    }
    Way {
        peer,
        small,
        full,
        large,
    }
}

fn say(checks: &mut Checks, way: &Way, ends: &Ends) {
    let Way {
        peer, small, full, ..
    } = way;
    let name = format!("overlay to {}", peer.name);
    let (own, port) = (ends.own, ends.port);
    let other = peer.vtep;
    if !small.passes() {
        let (found, next) = match small.there {
            Passage::Passes => (
                format!(
                    "no VXLAN answer, gossip answers; {} hears this node by VXLAN",
                    peer.name
                ),
                format!("open UDP {port} from {other} to {own}"),
            ),
            _ => (
                "no VXLAN answer, gossip answers".to_owned(),
                format!("open UDP {port} between {own} and {other}"),
            ),
        };
        checks.fail(name, found, &next);
        return;
    }
    match &way.large {
        Some(large) if !large.passes() => {
            let (from, to, on) = match large.there {
                Passage::Passes => (other, own, peer.name.as_str()),
                _ => (own, other, "this node"),
            };
            checks.fail(
                name,
                format!("packets of {full} bytes do not arrive from {from} at {to}, those of {SMALL} do"),
                &format!(
                    "something on the way carries less and does not say so: widen it, or give {on} its MTU (`ip route change {to} … mtu N`)"
                ),
            );
        }
        _ => {
            let rtt = small.rtt.map_or_else(
                || "after a loss".to_owned(),
                |rtt| format!("in {:.2} ms", rtt.as_secs_f64() * 1e3),
            );
            checks.ok(
                name,
                format!("{SMALL} and {full} bytes pass both ways, {rtt}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use weft_model::api::Health;

    const fn found(there: Passage, back: Passage) -> Found {
        Found {
            rtt: None,
            there,
            back,
        }
    }

    #[test]
    fn each_trouble_names_its_direction_and_what_to_open() {
        use Passage::{Lost, Passes, Unknown};
        let good = Found {
            rtt: Some(Duration::from_micros(210)),
            ..found(Passes, Passes)
        };
        let said = |small, large| {
            let mut checks = Checks::default();
            let peer = Peer {
                id: NodeId("id".into()),
                name: "node2".into(),
                vtep: [10, 77, 0, 2].into(),
            };
            let way = Way {
                peer,
                small,
                full: 1450,
                large,
            };
            let ends = Ends {
                own: [10, 77, 0, 1].into(),
                port: 4789,
            };
            say(&mut checks, &way, &ends);
            let check = checks.0.remove(0);
            assert_eq!(check.health == Health::Ok, check.next.is_empty());
            format!("{}: {}: {}", check.name, check.found, check.next)
        };
        assert_eq!(
            said(good, Some(good)),
            "overlay to node2: 64 and 1450 bytes pass both ways, in 0.21 ms: "
        );
        assert_eq!(
            said(found(Lost, Unknown), None),
            "overlay to node2: no VXLAN answer, gossip answers: open UDP 4789 between 10.77.0.1 and 10.77.0.2"
        );
        assert_eq!(
            said(found(Passes, Lost), None),
            "overlay to node2: no VXLAN answer, gossip answers; node2 hears this node by VXLAN: open UDP 4789 from 10.77.0.2 to 10.77.0.1"
        );
        let there = said(good, Some(found(Lost, Unknown)));
        assert!(
            there.contains("1450 bytes do not arrive from 10.77.0.1 at 10.77.0.2"),
            "{there}"
        );
        let back = said(good, Some(found(Passes, Lost)));
        assert!(
            back.contains("1450 bytes do not arrive from 10.77.0.2 at 10.77.0.1"),
            "{back}"
        );
        assert!(back.contains("give node2 its MTU"), "{back}");
    }
}
