//! Request parts, with errors in the API's own form.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use weft_model::api::{MAX_REQUEST, max_request};
use weft_model::backup::{MAX_BACKUP, UNLOCK_KEY_HEADER};

use super::error::{ApiError, ErrorKind};

/// How much of a request that is too large is read before the answer, in bytes: whoever still
/// writes would otherwise find the connection closed, and never read why.
const READ_AT_MOST: usize = 64 << 20;

/// A JSON body. An empty body counts as `{}`; the content type is not asked for.
pub(super) struct Body<T>(pub(super) T);

impl<T, S> FromRequest<S> for Body<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, bytes) = whole_body(request).await?;
        let route = route_of(&parts);
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) {
            b"{}"
        } else {
            &bytes
        };
        match Json::<T>::from_bytes(text) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::bad_request(format!(
                "{route}: {}",
                rejection.body_text()
            ))),
        }
    }
}

/// A backup as the body, with the unlock key for it.
pub(super) struct Sent {
    pub(super) file: Vec<u8>,
    pub(super) unlock_key: Option<String>,
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let route = route_of(&parts);
        let key = parts.headers.get(UNLOCK_KEY_HEADER);
        let key = key.and_then(|key| key.to_str().ok());
        let unlock_key = key.map(str::to_owned);
        let read = read(body, MAX_BACKUP, MAX_BACKUP + READ_AT_MOST).await;
        let file = read.map_err(|error| match error {
            Unreadable::TooLarge => ApiError::new(
                ErrorKind::TooLarge,
                format!(
                    "{route}: the file is larger than {MAX_BACKUP} bytes, which no backup of a swarm \
                     is"
                ),
            ),
            Unreadable::Broken(error) => ApiError::bad_request(format!("{route}: {error}")),
        })?;
        Ok(Self { file, unlock_key })
    }
}

fn route_of(parts: &Parts) -> String {
    format!("{} {}", parts.method, parts.uri.path())
}

/// A request with all of its body.
pub(super) async fn whole_body(request: Request) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let limit = max_request(parts.method.as_str(), parts.uri.path());
    let read = read(body, limit, READ_AT_MOST).await;
    let read = read.map_err(|error| match error {
        Unreadable::TooLarge => {
            let instead = if limit == MAX_REQUEST {
                "ask for less at once, such as fewer ports"
            } else {
                "keep what is as long in an image, or in a volume"
            };
            let route = route_of(&parts);
            ApiError::new(
                ErrorKind::TooLarge,
                format!("{route}: the request is larger than {limit} bytes; {instead}"),
            )
        }
        Unreadable::Broken(error) => {
            ApiError::bad_request(format!("{}: {error}", route_of(&parts)))
        }
    });
    Ok((parts, read?.into()))
}

enum Unreadable {
    TooLarge,
    Broken(axum::Error),
}

/// A body of `limit` bytes, or why not; of a longer one no more than `at_most` are read.
async fn read(
    mut body: axum::body::Body,
    limit: usize,
    at_most: usize,
) -> Result<Vec<u8>, Unreadable> {
    let (mut bytes, mut length) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(Unreadable::Broken)?.into_data() else {
            continue;
        };
        length = length.saturating_add(piece.len());
        if length <= limit {
            bytes.extend_from_slice(&piece);
        } else if length <= at_most {
            bytes = Vec::new();
        } else {
            break;
        }
    }
    if length > limit {
        return Err(Unreadable::TooLarge);
    }
    Ok(bytes)
}

/// Parameters of the path.
pub(super) struct Params<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Params<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::bad_request(format!(
                "{} {}: {}",
                parts.method,
                parts.uri.path(),
                rejection.body_text()
            ))),
        }
    }
}

/// Parameters of the query.
pub(super) struct Asked<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Asked<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::bad_request(format!(
                "{} {}: {}",
                parts.method,
                parts.uri.path(),
                rejection.body_text()
            ))),
        }
    }
}
