//! Calls of the node API that other managers pass on: what travels, and the side of the leader, which
//! has its agent answer them. The gate has let managers pass.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tonic::codegen::{BoxFuture, Bytes};
use tonic::{Request, Response, Status, Streaming};
use weft_model::id::NodeId;
use weft_model::talk::Talk;

use super::engine::Engine;
use super::gate::Peer;
use super::talks;
use crate::convert::to_status;
use crate::exchange::{Exchange, Pieces};
use crate::proto::api_server::Api;
use crate::proto::{CallRequest, CallResponse, Piece};

/// A call of the node API. `Debug` leaves the body out, which may have secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiCall {
    /// Of HTTP, such as `GET`.
    pub method: String,
    /// As in the request line: percent-encoded, with the query.
    pub path: String,
    /// Of the request, as it came.
    pub body: Bytes,
}

impl fmt::Debug for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiCall")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl ApiCall {
    /// True when it changes nothing, and so may be asked again.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.method == "GET"
    }
}

/// The answer to one. `Debug` leaves the body out.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiReply {
    /// Status of HTTP.
    pub status: u16,
    /// Of the body.
    pub content_type: String,
    /// Of the answer.
    pub body: Bytes,
    /// Who was asked does not lead, and did nothing of it: another manager may be asked.
    pub not_led: bool,
}

impl fmt::Debug for ApiReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiReply")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("not_led", &self.not_led)
            .finish_non_exhaustive()
    }
}

/// Answers calls for the leader: the agent, by its own routes.
#[derive(Clone)]
pub struct ApiServer(Arc<Answer>);

type Answer = dyn Fn(NodeId, ApiCall) -> BoxFuture<ApiReply, Status> + Send + Sync;

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiServer(..)")
    }
}

impl ApiServer {
    /// `answer` gets the node whose user calls. What it returns may be dropped before it is done, when
    /// the other manager is gone.
    #[must_use]
    pub fn new<F, A>(answer: F) -> Self
    where
        F: Fn(NodeId, ApiCall) -> A + Send + Sync + 'static,
        A: Future<Output = ApiReply> + Send + 'static,
    {
        Self(Arc::new(move |node, call| -> BoxFuture<ApiReply, Status> {
            let answering = answer(node, call);
            Box::pin(async move { Ok(answering.await) })
        }))
    }
}

/// The gRPC service.
#[derive(Debug, Clone)]
pub(super) struct ApiRpc {
    pub(super) server: ApiServer,
    pub(super) core: Arc<Engine>,
}

#[tonic::async_trait]
impl Api for ApiRpc {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        let member = peer.and_then(|peer| peer.member.as_ref());
        let node = member
            .map(|member| member.node.clone())
            .ok_or_else(|| Status::internal("the connection has no peer"))?;
        let CallRequest { method, path, body } = request.into_inner();
        let ApiServer(answer) = &self.server;
        let reply = answer(node, ApiCall { method, path, body }).await?;
        Ok(Response::new(CallResponse {
            status: u32::from(reply.status),
            content_type: reply.content_type,
            body: reply.body,
            not_led: reply.not_led,
        }))
    }

    type OpenStream = Pieces;

    async fn open(
        &self,
        request: Request<Streaming<Piece>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap_or_default();
        let talk: Talk = serde_json::from_slice(&first.data).map_err(|error| {
            Status::invalid_argument(format!(
                "what another manager asks is not known here ({error}); run the same version of weftd \
                 on all managers"
            ))
        })?;
        let answered = talks::begin(&self.core, talk).await.map_err(to_status)?;
        let (caller, pieces) = Exchange::accept(stream);
        answered.join(caller);
        Ok(Response::new(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_body_is_in_a_debug_text() {
        let call = ApiCall {
            method: "POST".to_owned(),
            path: "/v1/swarm/ca/rotate".to_owned(),
            body: Bytes::from_static(b"the-secret"),
        };
        let reply = ApiReply {
            status: 200,
            content_type: "application/json".to_owned(),
            body: Bytes::from_static(b"the-secret"),
            not_led: false,
        };
        let texts = format!("{call:?} {reply:?}");
        assert!(!texts.contains("the-secret"), "{texts}");
        assert!(texts.contains("/v1/swarm/ca/rotate"), "{texts}");
    }
}
