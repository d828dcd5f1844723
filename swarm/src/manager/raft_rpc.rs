//! The gRPC service of the log that managers share. The gate has let managers pass; here is asked
//! whether they are members.

use std::sync::Arc;

use serde::Serialize;
use tonic::{Request, Response, Status};

use super::gate::Peer;
use crate::convert::{SCHEMA, decode, encode};
use crate::proto::raft_server::Raft;
use crate::proto::{RaftRequest, RaftResponse, SnapshotChunk};
use crate::raft::{Part, RaftStore, SnapshotOf, Unserved};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct RaftRpc(pub(super) Arc<RaftStore>);

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
    /// Whether the call is for this manager, and from one that may speak here.
    fn check<T>(&self, request: &Request<T>, target: u64, list: (u64, u64)) -> Result<(), Status> {
        if target != self.0.member() {
            return Err(Status::not_found(
                "another manager was here before; its node joined anew",
            ));
        }
        let peer = request.extensions().get::<Peer>();
        let member = peer.and_then(|peer| peer.member.as_ref());
        let Some(member) = member else {
            return Err(Status::internal("the connection has no peer"));
        };
        if self.0.may_speak(&member.node, list) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "Permission denied: node {} is no manager of this swarm any more",
            member.node
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
        respond(&self.0.append(entries).await?)
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Result<Response<RaftResponse>, Status> {
        let request = self.checked(request)?;
        let asked = decode(request.schema, &request.request_json)?;
        respond(&self.0.vote(asked).await?)
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
        respond(&self.0.install(part).await?)
    }
}
