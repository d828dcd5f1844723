//! The leader's side of calls that other managers pass on: the same routes, without a socket.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tower::ServiceExt;
use weft_model::api::ErrorBody;
use weft_model::id::NodeId;
use weft_swarm::{ApiCall, ApiReply};

use super::error::{ApiError, NotLed};
use super::leading::AskedBy;
use super::payloads::PayloadCalls;
use super::routes::for_managers;
use super::service::{NodeService, SwarmCalls};

/// Bytes of an answer at most, as a client of the API takes them.
const MAX_ANSWER: usize = 64 << 20;

/// Answers a call that another manager passed on for a user of the node `asked_by`.
pub(crate) async fn answer<S>(service: Arc<S>, asked_by: NodeId, call: ApiCall) -> ApiReply
where
    S: NodeService + SwarmCalls + PayloadCalls,
{
    let request = Request::builder()
        .method(call.method.as_str())
        .uri(&call.path)
        .extension(AskedBy(asked_by))
        .body(Body::from(call.body));
    let response = match request {
        Ok(request) => {
            let answered = for_managers(service).oneshot(request).await;
            answered.unwrap_or_else(|never| match never {})
        }
        Err(error) => ApiError::bad_request(format!("no call of the API: {error}")).into_response(),
    };
    reply(response).await
}

/// The answer to a call that another manager passed on, of one that does not lead.
pub(crate) async fn not_led(why: &str) -> ApiReply {
    reply(ApiError::not_led(why).into_response()).await
}

async fn reply(response: Response) -> ApiReply {
    let (parts, body) = response.into_parts();
    let body = match to_bytes(body, MAX_ANSWER).await {
        Ok(body) => body,
        Err(error) => {
            // What it was asked is done; the answer is lost.
            tracing::error!(%error, "an answer of the node API does not go to another manager");
            return lost();
        }
    };
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    ApiReply {
        status: parts.status.as_u16(),
        content_type: kind.to_owned(),
        body,
        not_led: parts.extensions.get::<NotLed>().is_some(),
    }
}

/// In place of an answer that is too long, such as a list of very many objects.
fn lost() -> ApiReply {
    let message = format!(
        "the answer is longer than the {MAX_ANSWER} bytes that managers pass on to each other: ask the \
         one that leads itself (`weft node ls` shows which)"
    );
    let body = serde_json::to_vec(&ErrorBody { message });
    ApiReply {
        status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
        content_type: "application/json".to_owned(),
        body: body.map_or_else(|_| Bytes::new(), Bytes::from),
        not_led: false,
    }
}
