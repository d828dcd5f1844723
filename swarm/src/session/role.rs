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

use super::{Session, Shared, lock, rpc, within};
use crate::proto::ca_client::CaClient;
use crate::proto::control_client::ControlClient;
use crate::proto::{CountManagersRequest, ResignRequest};

/// Until the next request for a certificate of the role that the orders say, the first time and at most:
/// a manager has none of a worker before it is out of the log, and may be kept there for hours by others
/// that do not answer.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
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

/// Pauses between requests that are refused: longer each time, while the orders say the same.
#[derive(Debug, Default)]
struct Pauses {
    told: Option<Told>,
    last: Duration,
}

impl Pauses {
    fn next(&mut self, told: &Told) -> Duration {
        if self.told.as_ref() == Some(told) {
            self.last = (self.last * 2).min(RETRY_MAX);
        } else {
            self.told = Some(told.clone());
            self.last = RETRY_MIN;
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demotion_that_is_held_back_is_asked_for_now_and_then() {
        let mut pauses = Pauses::default();
        let managers = |names: &[&str]| -> Told {
            let names = names.iter().map(|name| NodeId::from(*name));
            (Some(Role::Worker), names.collect())
        };
        let told = managers(&["a", "b"]);
        let (mut passed, mut asked) = (Duration::ZERO, 0);
        while passed < Duration::from_secs(3600) {
            passed += pauses.next(&told);
            asked += 1;
            if asked == 3 {
                assert!(passed < Duration::from_secs(1), "most wait for a moment");
            }
        }
        assert!(asked < 150, "{asked} requests in an hour");
        // One more has been promoted, which may be what it waited for.
        assert_eq!(pauses.next(&managers(&["a", "b", "c"])), RETRY_MIN);
        assert_eq!(pauses.next(&managers(&["a", "b", "c"])), RETRY_MIN * 2);
    }
}
