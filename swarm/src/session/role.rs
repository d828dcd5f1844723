//! The node's role: it follows the orders, by a certificate of another role, and what the managers are
//! asked about it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;
use weft_cluster::{CommandError, Quorum};
use weft_model::objects::Role;

use super::{Session, Shared, lock, rpc, within};
use crate::proto::ca_client::CaClient;
use crate::proto::control_client::ControlClient;
use crate::proto::{CountManagersRequest, ResignRequest};

/// Until the next request for a certificate of the role that the orders say: a manager has none of a
/// worker before it is out of the log.
const RETRY: Duration = Duration::from_millis(100);
/// A node leaves the managers' log in two steps, each of which may wait for a manager that is slow.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(28);

impl Session {
    /// The role in the newest certificate, as it changes.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    /// Asks to be a worker; with what a person should know of the swarm that stays.
    ///
    /// # Errors
    /// It is the last manager, the others would be no quorum, or no manager is reachable.
    pub async fn resign(&self) -> Result<Vec<String>, CommandError> {
        let mut control = ControlClient::new(self.channel().await?);
        let reply = within(RESIGN_TIMEOUT, control.resign(ResignRequest {})).await?;
        Ok(reply.warnings)
    }

    /// How many managers there are and answer, as the leader knows.
    ///
    /// # Errors
    /// It is not reachable.
    pub async fn count_managers(&self) -> Result<Quorum, CommandError> {
        let mut control = ControlClient::new(self.channel().await?);
        let reply = rpc(control.count_managers(CountManagersRequest {})).await?;
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Quorum {
            managers: count(reply.managers),
            reachable: count(reply.reachable),
        })
    }

    /// Ends for good, without a farewell: it writes no file any more.
    pub async fn end(&self) {
        self.task.abort();
        self.shared.writes.close().await;
    }
}

impl Shared {
    fn certified(&self) -> Role {
        lock(&self.identity).role()
    }

    /// The role that the orders say.
    pub(super) fn ordered(&self) -> Option<Role> {
        let orders = self.assignment.borrow();
        orders.as_ref().map(|orders| orders.own.node.spec.role)
    }

    /// Has the node get the certificate of another role when its orders say so. The next session, with
    /// the same manager, opens with that.
    pub(super) async fn follow_role(
        &self,
        channel: Channel,
    ) -> Result<std::convert::Infallible, CommandError> {
        let mut ca = CaClient::new(channel);
        let mut orders = self.assignment.subscribe();
        loop {
            let differs = orders.wait_for(|orders| {
                let own = orders.as_ref().map(|orders| &orders.own.node.spec);
                own.is_some_and(|spec| spec.role != self.certified())
            });
            // The sender is in `self`.
            drop(differs.await);
            // Once it has one the session is opened again, and this ends.
            if let Err(error) = self.renew_now(&mut ca).await {
                tracing::debug!(%error, "no certificate of the new role yet");
            }
            sleep(RETRY).await;
        }
    }
}
