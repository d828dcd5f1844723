//! The gRPC service of the log that managers share. The gate has let managers pass; here is asked
//! whether they are members.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use tonic::{Request, Response, Status};
use weft_model::id::NodeId;
use weft_model::objects::Role;

use super::engine::Engine;
use super::gate::{Peer, removed};
use crate::convert::{SCHEMA, decode, encode, to_status};
use crate::proto::raft_server::Raft;
use crate::proto::{
    EnlistRequest, EnlistResponse, RaftRequest, RaftResponse, SnapshotChunk, UnlockKeyRequest,
    UnlockKeyResponse,
};
use crate::raft::{Member, Part, RaftStore, SnapshotOf, Unserved};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct RaftRpc {
    pub(super) core: Arc<Engine>,
    pub(super) raft: Arc<RaftStore>,
}

impl From<Unserved> for Status {
    fn from(unserved: Unserved) -> Self {
        // Not "unavailable": the connection is fine.
        Self::failed_precondition(unserved.to_string())
    }
}

fn respond<T: Serialize>(answer: &T) -> Result<Response<RaftResponse>, Status> {
    Ok(Response::new(RaftResponse {
        schema: SCHEMA,
        response_json: encode(answer)?,
    }))
}

impl RaftRpc {
    /// The node that calls.
    fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
        let peer = request.extensions().get::<Peer>();
        let member = peer.and_then(|peer| peer.member.as_ref());
        member
            .map(|member| member.node.clone())
            .ok_or_else(|| Status::internal("the connection has no peer"))
    }

    /// The node that calls, when it is a manager by the state of the leader, which is this one.
    fn new_manager<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        self.core.check_leads().map_err(to_status)?;
        let node = Self::caller(request)?;
        let state = self.core.state();
        let known = state.nodes.get(&node).ok_or_else(|| removed(&node))?;
        if known.spec.role != Role::Manager {
            return Err(Status::permission_denied(format!(
                "Permission denied: node {node} is no manager"
            )));
        }
        Ok(node)
    }

    /// Whether the call is for this manager, and from one that may speak here.
    fn check<T>(&self, request: &Request<T>, target: u64, list: (u64, u64)) -> Result<(), Status> {
        if target != self.raft.member() {
            return Err(Status::not_found(
                "another manager was here before; its node joined anew",
            ));
        }
        let node = Self::caller(request)?;
        if self.raft.may_speak(&node, list) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "Permission denied: node {node} is no manager of this swarm any more"
        )))
    }

    fn checked(&self, request: Request<RaftRequest>) -> Result<RaftRequest, Status> {
        let RaftRequest {
            target,
            list_term,
            list_index,
            ..
        } = *request.get_ref();
        self.check(&request, target, (list_term, list_index))?;
        Ok(request.into_inner())
    }
}

#[tonic::async_trait]
impl Raft for RaftRpc {
    async fn append(
        &self,
        request: Request<RaftRequest>,
    ) -> Result<Response<RaftResponse>, Status> {
        let request = self.checked(request)?;
        let entries = decode(request.schema, &request.request_json)?;
        respond(&self.raft.append(entries).await?)
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Result<Response<RaftResponse>, Status> {
        let request = self.checked(request)?;
        let asked = decode(request.schema, &request.request_json)?;
        respond(&self.raft.vote(asked).await?)
    }

    async fn install(
        &self,
        request: Request<SnapshotChunk>,
    ) -> Result<Response<RaftResponse>, Status> {
        let chunk = request.get_ref();
        let list = (chunk.list_term, chunk.list_index);
        self.check(&request, chunk.target, list)?;
        let chunk = request.into_inner();
        let of: SnapshotOf = decode(chunk.schema, &chunk.of_json)?;
        let part = Part {
            of,
            offset: chunk.offset,
            data: chunk.data,
            done: chunk.done,
        };
        respond(&self.raft.install(part).await?)
    }

    async fn unlock_key(
        &self,
        request: Request<UnlockKeyRequest>,
    ) -> Result<Response<UnlockKeyResponse>, Status> {
        let node = self.new_manager(&request)?;
        tracing::info!(%node, "a new manager asked how it has to lock its disk");
        let state = self.core.state();
        let unlock = state.secrets.as_ref().and_then(|s| s.unlock_key.as_ref());
        Ok(Response::new(UnlockKeyResponse {
            unlock_key: unlock.map_or_else(Vec::new, |key| key.as_bytes().to_vec()),
            state_version: state.version,
        }))
    }

    async fn enlist(
        &self,
        request: Request<EnlistRequest>,
    ) -> Result<Response<EnlistResponse>, Status> {
        let node = self.new_manager(&request)?;
        let EnlistRequest { member, addr } = request.into_inner();
        let addr: SocketAddr = addr
            .parse()
            .map_err(|_| Status::invalid_argument("the address is not ADDRESS:PORT"))?;
        let added = self.raft.add_member(member, Member { node, addr }).await;
        added.map_err(|error| to_status(self.core.not_proposed(error)))?;
        Ok(Response::new(EnlistResponse {}))
    }
}
