//! The node's address, where managers were told another one (`node update --advertise-addr`): it is
//! kept, and `weftd` ends for its supervisor to start it again with that. Sockets of the data path,
//! gossip and the manager open with it then; tasks outlive it, as every restart. Addresses of managers are
//! kept here as well: they are in the same file.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use weft_model::objects::Node;
use weft_swarm::Membership;

use super::address::HostAddresses;
use super::known_managers::Kept;
use crate::blocking::blocking;
use crate::parts::handles::Handles;

/// How often is looked whether the machine has the address by now, and what the node's own manager
/// says: its session may be as lost as its address.
const LOOK: Duration = Duration::from_secs(1);
/// Answers to the command that changed it go out first.
const GRACE: Duration = Duration::from_millis(500);

/// Subject of the warning.
const SUBJECT: &str = "address";

/// Takes up another address; `ends` is told why `weftd` is to end then.
pub(super) async fn follow(
    handles: Arc<Handles>,
    mut stop: watch::Receiver<bool>,
    ends: Arc<watch::Sender<Option<String>>>,
) {
    let mut orders = handles.session.assignments();
    let mut kept = Kept::default();
    loop {
        tokio::select! {
            // Both ends are fine: other orders, or the time.
            waited = timeout(LOOK, orders.changed()) => drop(waited),
            _ = stop.wait_for(|s| *s) => return,
        }
        orders.mark_unchanged();
        kept.keep(&handles).await;
        let Some(addr) = ordered(&handles).filter(|a| *a != handles.membership.node.addr) else {
            handles.warnings.clear(SUBJECT);
            continue;
        };
        match take_up(&handles, addr).await {
            Ok(()) => {
                begin_again(&ends, addr).await;
                return;
            }
            Err(why) => handles.warnings.set(SUBJECT, why),
        }
    }
}

/// Ends `weftd`, for it to begin again with an address that is kept.
pub(super) async fn begin_again(ends: &watch::Sender<Option<String>>, addr: impl Display) {
    tokio::time::sleep(GRACE).await;
    ends.send_replace(Some(format!(
        "the address of this node is {addr} from now on, and it begins again with that"
    )));
}

/// The address that the newest word about this node gives it: of its orders, or of its own manager.
fn ordered(handles: &Handles) -> Option<IpAddr> {
    let orders = handles.session.assignments().borrow().clone();
    let by_orders = orders.as_ref().map(|orders| &orders.own.node);
    let state = handles.manager.get().map(|manager| manager.state());
    let by_manager = state
        .as_ref()
        .and_then(|state| state.nodes.get(&handles.node_id));
    newest(by_orders, by_manager)?.spec.advertise_addr
}

fn newest<'a>(one: Option<&'a Node>, other: Option<&'a Node>) -> Option<&'a Node> {
    let both = one.into_iter().chain(other);
    both.max_by_key(|node| node.meta.version)
}

/// Keeps the address, if it is one of this machine.
async fn take_up(handles: &Handles, addr: IpAddr) -> Result<(), String> {
    let data_dir = handles.config.data_dir.clone();
    let kept = blocking(move || -> Result<(), String> {
        let host = HostAddresses::read().map_err(|error| error.to_string())?;
        if !host.has(addr) {
            return Err(format!(
                "this node is to be reached at {addr}, and the machine does not have that address (it has {host}): add it, or give the node another one with `weft node update --advertise-addr`"
            ));
        }
        let loaded = Membership::load(&data_dir).map_err(|error| error.to_string())?;
        let (membership, _) = loaded.ok_or("the node is no member any more")?;
        let moved = membership.moved_to(addr);
        moved.replace(&data_dir).map_err(|error| error.to_string())
    });
    kept.await.map_err(|error| error.to_string())?
}
