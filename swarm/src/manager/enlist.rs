//! How a node that was made a manager gets what the others have: a place in the log, and with it all
//! else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;
use weft_cluster::CommandError;

use crate::convert::from_status;
use crate::identity::Identity;
use crate::proto::EnlistRequest;
use crate::proto::raft_client::RaftClient;
use crate::raft::RaftStore;
use crate::tls::{connect, member_config, with_port};

/// Between two rounds of asking: the first pause, and the longest.
const ASK_MIN: Duration = Duration::from_millis(100);
const ASK_MAX: Duration = Duration::from_secs(2);

async fn client(manager: &str, own: &Identity) -> Result<RaftClient<Channel>, CommandError> {
    let config = member_config(own)?;
    let channel = connect(&with_port(manager), config).await?;
    Ok(RaftClient::new(channel))
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
