//! How a node that was made a manager gets what the others have: a place in the log, and with it all
//! else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;
use weft_cluster::{CommandError, UnlockKey};
use weft_model::id::NodeId;
use zeroize::Zeroizing;

use super::lock;
use crate::convert::from_status;
use crate::identity::{Identity, IdentityError, remove_file};
use crate::membership::STORE_FILE;
use crate::proto::raft_client::RaftClient;
use crate::proto::{EnlistRequest, UnlockKeyRequest};
use crate::raft::{MemberSight, RaftStore};
use crate::sealing::{DataKeys, KeyRing};
use crate::tls::{connect, member_config, with_port};

/// Between two rounds of asking: the first pause, and the longest.
const ASK_MIN: Duration = Duration::from_millis(100);
const ASK_MAX: Duration = Duration::from_secs(2);

/// The other managers as a node knows them now, `host:port`, the newest word first; asked again and again.
pub type KnownManagers = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

async fn client(manager: &str, own: &Identity) -> Result<RaftClient<Channel>, CommandError> {
    let config = member_config(own)?;
    let channel = connect(&with_port(manager), config).await?;
    Ok(RaftClient::new(channel))
}

/// What a manager tells a new one.
struct Told {
    /// What managers lock their disks with, where they do.
    unlock: Option<UnlockKey>,
    /// Version of the state that says so.
    version: u64,
}

async fn unlock_key(manager: &str, own: &Identity) -> Result<Told, CommandError> {
    let asked = client(manager, own)
        .await?
        .unlock_key(UnlockKeyRequest {})
        .await;
    let answer = asked.map_err(|status| from_status(&status))?.into_inner();
    let unlock = Zeroizing::new(answer.unlock_key);
    let unlock = <[u8; 32]>::try_from(unlock.as_slice()).ok();
    Ok(Told {
        unlock: unlock.map(UnlockKey::from_bytes),
        version: answer.state_version,
    })
}

/// The keys of what this manager keeps: those of an attempt before this one, or a new one, which is
/// never on the disk in clear where managers are locked. That the leader knows.
pub(super) async fn data_keys(
    data_dir: &Path,
    managers: &[String],
    own: &Identity,
) -> Result<DataKeys, CommandError> {
    if let Some(keys) = lock::left_keys(data_dir, own, None)? {
        return Ok(keys);
    }
    let mut refused = CommandError::unavailable("no other manager is known");
    for manager in managers {
        match unlock_key(manager, own).await {
            Ok(told) => return Ok(keep(data_dir, own, &told)?),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Writes the keys as a manager told to.
fn keep(data_dir: &Path, own: &Identity, told: &Told) -> Result<DataKeys, IdentityError> {
    let unlock = told.unlock.as_ref();
    let keys = match lock::left_keys(data_dir, own, unlock)? {
        Some(keys) => keys,
        None => {
            // Whatever log an attempt before this one has begun, nobody opens it any more.
            remove_file(&data_dir.join(STORE_FILE))?;
            KeyRing::draw().into()
        }
    };
    // While the log comes in, this manager sees states of before.
    lock::found(data_dir, told.version, &keys.ring(), unlock)?;
    Ok(keys)
}

async fn ask(manager: &str, own: &Identity, request: EnlistRequest) -> Result<(), CommandError> {
    let asked = client(manager, own).await?.enlist(request).await;
    asked.map(drop).map_err(|status| from_status(&status))
}

/// The managers to ask, `host:port`, each once: where the node knows them, and where its list has the
/// others by now.
fn to_ask(known: Vec<String>, members: &[MemberSight], own: &NodeId) -> Vec<String> {
    let mut asked = known;
    let others = members.iter().filter(|member| member.node != *own);
    for other in others.map(|member| member.addr.to_string()) {
        if !asked.contains(&other) {
            asked.push(other);
        }
    }
    asked
}

/// Asks the managers to add this one to their log, until one has, the leader among them; or the leader
/// counts on this one. What its own file says is no reason not to ask: a manager that was demoted and
/// promoted while it was away still has a list that it is on.
pub(super) async fn enlist(
    raft: Arc<RaftStore>,
    own: watch::Receiver<Arc<Identity>>,
    managers: KnownManagers,
    addr: SocketAddr,
) {
    let request = EnlistRequest {
        member: raft.member(),
        addr: addr.to_string(),
    };
    let mut pause = ASK_MIN;
    while !raft.takes_part() {
        let own_id = own.borrow().node_id().clone();
        for manager in to_ask(managers(), &raft.members(), &own_id) {
            let identity = Arc::clone(&own.borrow());
            match ask(&manager, &identity, request.clone()).await {
                Ok(()) => {
                    tracing::info!(%addr, "this manager is in the log of the others");
                    return;
                }
                Err(error) => tracing::debug!(manager, %error, "not added to the log yet"),
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(ASK_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_asked_where_they_were_and_where_they_are() {
        let sight = |node: &str, addr: &str| MemberSight {
            node: NodeId(node.to_owned()),
            addr: addr.parse().unwrap(),
            votes: true,
            leads: false,
            reachable: false,
        };
        let members = [
            sight("own", "192.0.2.1:2377"),
            sight("stays", "192.0.2.2:2377"),
            sight("moved", "192.0.2.9:2377"),
        ];
        let known = ["192.0.2.3:2377".to_owned(), "192.0.2.2:2377".to_owned()];
        let asked = to_ask(known.to_vec(), &members, &NodeId("own".to_owned()));
        assert_eq!(
            asked,
            ["192.0.2.3:2377", "192.0.2.2:2377", "192.0.2.9:2377"]
        );
    }
}
