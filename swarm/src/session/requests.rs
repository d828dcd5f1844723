//! What the users of a node ask of a manager, by way of the session.

use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::Channel;
use weft_cluster::{Attach, CommandError};
use weft_model::objects::Endpoint;

use super::{Farewell, Session, rpc};
use crate::convert::{SCHEMA, decode, encode, from_status};
use crate::proto::control_client::ControlClient;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{AttachEndpointRequest, DetachEndpointRequest, LeaveRequest};

/// How long a user's command waits for a session that is just being opened.
const SESSION_WAIT: Duration = Duration::from_secs(2);

impl Session {
    /// Makes an endpoint on this node (`weft network connect`).
    ///
    /// # Errors
    /// The manager's refusal in its words, or no manager is reachable.
    pub async fn attach(&self, attach: &Attach) -> Result<Endpoint, CommandError> {
        let request = AttachEndpointRequest {
            schema: SCHEMA,
            attach_json: encode(attach).map_err(|s| from_status(&s))?,
        };
        let channel = self.channel().await?;
        let reply = rpc(ControlClient::new(channel).attach_endpoint(request)).await?;
        decode(reply.schema, &reply.endpoint_json).map_err(|s| from_status(&s))
    }

    /// Removes an endpoint of this node (`weft network disconnect`), or that of a node that is down when
    /// this one is a manager, or any then with `force`; returns what it was.
    ///
    /// # Errors
    /// The manager's refusal in its words, or no manager is reachable.
    pub async fn detach(
        &self,
        network: &str,
        endpoint: &str,
        force: bool,
    ) -> Result<Endpoint, CommandError> {
        let request = DetachEndpointRequest {
            network: network.to_owned(),
            endpoint: endpoint.to_owned(),
            force,
        };
        let channel = self.channel().await?;
        let reply = rpc(ControlClient::new(channel).detach_endpoint(request)).await?;
        decode(reply.schema, &reply.endpoint_json).map_err(|s| from_status(&s))
    }

    /// Ends the session, then tells the manager that this node does not come back
    /// (`weft swarm leave`, or a join that failed). Once this returns, also with an error, the session writes no file any
    /// more; those there are [`crate::Membership::forget`]'s.
    ///
    /// # Errors
    /// No manager is reachable: it will find out by missing heartbeats.
    pub async fn leave(&self, farewell: Farewell) -> Result<(), CommandError> {
        let channel = self.channel().await;
        // The session first: it must neither open again after the farewell nor bring files back.
        self.end().await;
        let channel = channel?;
        let request = LeaveRequest {
            never_started: farewell == Farewell::NeverStarted,
        };
        rpc(DispatcherClient::new(channel).leave(request)).await?;
        Ok(())
    }

    /// The open connection, waiting a little for one that is just being made.
    pub(super) async fn channel(&self) -> Result<Channel, CommandError> {
        let mut channel = self.shared.channel.subscribe();
        let found = timeout(SESSION_WAIT, channel.wait_for(Option::is_some)).await;
        if let Ok(Ok(found)) = &found
            && let Some(channel) = &**found
        {
            return Ok(channel.clone());
        }
        let why = self
            .last_error()
            .map_or_else(String::new, |e| format!(": {e}"));
        Err(CommandError::unavailable(format!(
            "no manager is reachable{why}"
        )))
    }
}
