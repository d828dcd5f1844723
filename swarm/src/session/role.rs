//! The node's role: it follows the orders, by a certificate of another role, and what the managers are
//! asked about it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;
use weft_cluster::{CommandError, Quorum};
use weft_model::assignment::Assignment;
use weft_model::id::NodeId;
use weft_model::objects::Role;

use super::pauses::Pauses;
use super::{Session, Shared, lock, rpc, within};
use crate::proto::ca_client::CaClient;
use crate::proto::control_client::ControlClient;
use crate::proto::{CountManagersRequest, ResignRequest};

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
        let mut pauses = Pauses::default();
        loop {
            let differs = orders.wait_for(|orders| {
                let own = orders.as_ref().map(|orders| &orders.own.node.spec);
                own.is_some_and(|spec| spec.role != self.certified())
            });
            // The sender is in `self`.
            drop(differs.await);
            let told = roles(orders.borrow().as_deref());
            // Once it has one the session is opened again, and this ends.
            // A manager has none of a worker before it is out of the log, and may be kept there for hours by
            // others that do not answer.
            if let Err(error) = self.renew_now(&mut ca).await {
                tracing::debug!(%error, "no certificate of the new role yet");
            }
            tokio::select! {
                () = sleep(pauses.next(&told)) => {}
                _ = orders.wait_for(|orders| roles(orders.as_deref()) != told) => {}
            }
        }
    }
}

/// What orders say of roles: the node's own, and who the managers are.
type Told = (Option<Role>, Vec<NodeId>);

fn roles(orders: Option<&Assignment>) -> Told {
    let own = orders.map(|orders| orders.own.node.spec.role);
    let nodes = orders.into_iter().flat_map(|orders| &orders.shared.nodes);
    let managers = nodes.filter(|node| node.role == Role::Manager);
    (own, managers.map(|node| node.id.clone()).collect())
}
