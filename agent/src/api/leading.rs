//! Calls about the whole swarm are answered by the manager that leads. Another one passes them on, and
//! answers a read from what it knows itself when it is asked for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weft_model::api::{NodeRow, STALE};
use weft_model::id::NodeId;
use weft_swarm::{ApiCall, ApiReply};

use super::error::{ApiError, NotLed};
use super::extract::whole_body;
use super::service::SwarmCalls;

/// How long a call goes back and forth while managers change the lead.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a call is tried again that this manager did not lead for.
const PAUSE: Duration = Duration::from_millis(50);

/// Whose user calls, where that is another node.
#[derive(Debug, Clone)]
pub(super) struct AskedBy(pub(super) NodeId);

/// Marks a row as that of the node whose user calls.
pub(super) fn mark_self(row: &mut NodeRow, asked_by: Option<&Extension<AskedBy>>) {
    if let Some(Extension(AskedBy(node))) = asked_by {
        row.is_self = row.node.id == *node;
    }
}

/// A read that is to show what this node knows, newest or not.
fn is_stale(request: &Request) -> bool {
    let asked = request.headers().get(STALE);
    request.method() == Method::GET && asked.is_some_and(|asked| asked == "true")
}

/// Lets a read through once it is sure that what it shows is the newest.
pub(super) async fn confirmed<S: SwarmCalls>(
    State(node): State<Arc<S>>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::GET
        && !is_stale(&request)
        && let Err(error) = node.confirm().await
    {
        return error.into_response();
    }
    next.run(request).await
}

/// Lets a read through once the manager of this node has all that there is, whichever leads.
pub(super) async fn caught_up<S: SwarmCalls>(
    State(node): State<Arc<S>>,
    request: Request,
    next: Next,
) -> Response {
    if !is_stale(&request)
        && let Err(error) = node.catch_up().await
    {
        return error.into_response();
    }
    next.run(request).await
}

/// Passes a call on to the manager that leads, where that is another one.
pub(super) async fn pass_on<S: SwarmCalls>(
    State(node): State<Arc<S>>,
    request: Request,
    next: Next,
) -> Response {
    if is_stale(&request) {
        return next.run(request).await;
    }
    let (parts, body) = match whole_body(request).await {
        Ok(whole) => whole,
        Err(error) => return error.into_response(),
    };
    let path = parts.uri.path_and_query();
    let call = ApiCall {
        method: parts.method.as_str().to_owned(),
        path: path.map_or("/", |path| path.as_str()).to_owned(),
        body: body.clone(),
    };
    let until = Instant::now() + PATIENCE;
    loop {
        match node.pass_on(&call).await {
            Ok(Some(reply)) => return answered(reply),
            Ok(None) => {}
            Err(error) => return error.into_response(),
        }
        let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let response = next.clone().run(request).await;
        let not_led = response.extensions().get::<NotLed>().is_some();
        if !not_led || Instant::now() >= until {
            return response;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn answered(reply: ApiReply) -> Response {
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        let text = format!(
            "the manager that leads answered with status {}",
            reply.status
        );
        return ApiError::internal(text).into_response();
    };
    let kind = [(header::CONTENT_TYPE, reply.content_type)];
    (status, kind, reply.body).into_response()
}
