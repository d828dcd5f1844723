//! Errors of the API and the status that each kind has.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use weft_cluster::{CommandError, ErrorKind as Refusal};
use weft_model::api::ErrorBody;

/// Which kind of error a call ended with; decides the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// 400: the request itself is wrong.
    BadRequest,
    /// 403: the caller may not do this.
    Forbidden,
    /// 404: there is no such object.
    NotFound,
    /// 405: the path exists, but not with this method.
    MethodNotAllowed,
    /// 409: a name, address or port is in use, or the state forbids it.
    Conflict,
    /// 413: the body is larger than the limit.
    TooLarge,
    /// 500: a defect or a failing disk or kernel of this node.
    Internal,
    /// 503: not part of a swarm, not a manager, or the manager is unreachable.
    Unavailable,
    /// 503: another manager leads, or none. Nothing of the call was done.
    NotLed,
}

impl ErrorKind {
    /// The HTTP status of this kind.
    #[must_use]
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::NotLed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// In the extensions of an answer: that of a manager which does not lead, and did nothing of the call.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotLed;

/// Why a call failed. The message is for people: what, where, and the next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    /// Decides the status.
    pub(crate) kind: ErrorKind,
    /// One or more sentences.
    pub(crate) message: String,
}

impl ApiError {
    /// An error of any kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// 400: the request itself is wrong.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// 403: the caller may not do this.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// 404: there is no such object.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// 409: a name, address or port is in use, or the state forbids it.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// 500: a defect or a failing disk or kernel of this node.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// 503: another manager leads, or none. Nothing of the call was done.
    pub(crate) fn not_led(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotLed, message)
    }

    /// 503: not part of a swarm, not a manager, or the manager is unreachable.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let kind = match error.kind {
            Refusal::BadRequest => ErrorKind::BadRequest,
            Refusal::NotFound => ErrorKind::NotFound,
            Refusal::Conflict => ErrorKind::Conflict,
            Refusal::Unavailable => ErrorKind::Unavailable,
            Refusal::NotLed => ErrorKind::NotLed,
            Refusal::Forbidden => ErrorKind::Forbidden,
        };
        Self::new(kind, error.message)
    }
}

impl From<anyhow::Error> for ApiError {
    /// An internal error with the whole chain of causes.
    fn from(error: anyhow::Error) -> Self {
        Self::internal(format!("{error:#}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.kind == ErrorKind::Internal {
            tracing::error!(error = %self.message, "a call of the node API failed");
        }
        let body = ErrorBody {
            message: self.message,
        };
        let mut response = (self.kind.status(), Json(body)).into_response();
        if self.kind == ErrorKind::NotLed {
            response.extensions_mut().insert(NotLed);
        }
        response
    }
}
