//! How a node that was made a manager gets what the others have: the root's key, and a place in the
//! log.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;
use weft_cluster::{CommandError, UnlockKey};
use zeroize::Zeroizing;

use super::ca::Authority;
use super::lock;
use crate::convert::from_status;
use crate::identity::{Identity, remove_file};
use crate::membership::STORE_FILE;
use crate::proto::raft_client::RaftClient;
use crate::proto::{EnlistRequest, RootKeyRequest};
use crate::raft::RaftStore;
use crate::sealing::SecretKey;
use crate::tls::{connect, member_config, with_port};

/// Between two rounds of asking: the first pause, and the longest.
const ASK_MIN: Duration = Duration::from_millis(100);
const ASK_MAX: Duration = Duration::from_secs(2);

async fn client(manager: &str, own: &Identity) -> Result<RaftClient<Channel>, CommandError> {
    let config = member_config(own)?;
    let channel = connect(&with_port(manager), config).await?;
    Ok(RaftClient::new(channel))
}

/// What a manager tells a new one.
struct Told {
    root_key: Zeroizing<String>,
    /// What managers lock their disks with, where they do.
    unlock: Option<UnlockKey>,
    /// Version of the state that says so.
    version: u64,
}

async fn root_key(manager: &str, own: &Identity) -> Result<Told, CommandError> {
    let asked = client(manager, own)
        .await?
        .root_key(RootKeyRequest {})
        .await;
    let answer = asked.map_err(|status| from_status(&status))?.into_inner();
    let unlock = Zeroizing::new(answer.unlock_key);
    let unlock = <[u8; 32]>::try_from(unlock.as_slice()).ok();
    Ok(Told {
        root_key: Zeroizing::new(answer.key_pem),
        unlock: unlock.map(UnlockKey::from_bytes),
        version: answer.state_version,
    })
}

/// The authority of a data directory with the key that seals it, or that of the first manager that
/// tells its key; then it is kept.
pub(super) async fn authority(
    data_dir: &Path,
    managers: &[String],
    own: &Identity,
) -> Result<(Authority, SecretKey), CommandError> {
    if let Some(key) = lock::left_key(data_dir, own, None)?
        && let Ok(authority) = Authority::load(data_dir, &key)
    {
        return Ok((authority, key));
    }
    let mut refused = CommandError::unavailable("no other manager is known");
    for manager in managers {
        match root_key(manager, own).await {
            Ok(told) => return keep(data_dir, own, told),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Writes what a manager told, sealed.
fn keep(
    data_dir: &Path,
    own: &Identity,
    told: Told,
) -> Result<(Authority, SecretKey), CommandError> {
    let authority = Authority::new(own.root_pem().to_owned(), told.root_key)?;
    let unlock = told.unlock.as_ref();
    let key = match lock::left_key(data_dir, own, unlock)? {
        Some(key) => key,
        None => {
            // Whatever log an attempt before this one has begun, nobody opens it any more.
            remove_file(&data_dir.join(STORE_FILE))?;
            SecretKey::draw()
        }
    };
    // While the log comes in, this manager sees states of before.
    lock::found(data_dir, told.version, &key, unlock)?;
    authority.save(data_dir, &key)?;
    Ok((authority, key))
}

async fn ask(manager: &str, own: &Identity, request: EnlistRequest) -> Result<(), CommandError> {
    let asked = client(manager, own).await?.enlist(request).await;
    asked.map(drop).map_err(|status| from_status(&status))
}

/// Asks the managers to add this one to their log, until one has: the leader among them.
pub(super) async fn enlist(
    raft: Arc<RaftStore>,
    own: watch::Receiver<Arc<Identity>>,
    managers: Vec<String>,
    addr: SocketAddr,
) {
    let request = EnlistRequest {
        member: raft.member(),
        addr: addr.to_string(),
    };
    let mut pause = ASK_MIN;
    while !raft.is_member() {
        for manager in &managers {
            let identity = Arc::clone(&own.borrow());
            match ask(manager, &identity, request.clone()).await {
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
