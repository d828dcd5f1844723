//! Calls about the images of the node that is asked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weft_model::api::{
    ImageDetail, ImagePruneQuery, ImageRemoveQuery, ImageRemoved, ImageSummary, ImagesPruned,
    PullQuery, REGISTRY_AUTH, ResolveQuery, ResolvedImage, SaveQuery,
};

use super::error::ApiError;
use super::extract::{Asked, Params};
use super::reply::{streamed, whole};
use super::service::Answer;

type Reply<T> = Result<Json<T>, ApiError>;
type Node<S> = State<Arc<S>>;

/// Lines of JSON, as Docker names them.
const LINES: &str = "application/x-ndjson";
/// What an archive of images is.
const TAR: &str = "application/x-tar";

/// Pieces of an archive that wait.
const PIECES: usize = 4;

/// What a node does about its images, one method for each route.
///
/// What pulls, loads or removes runs to its end, also when the client goes away.
///
/// Methods are written as `async fn` in implementations.
pub(crate) trait ImageCalls: Send + Sync + 'static {
    /// GET /v1/images/json
    fn images(&self) -> impl Future<Output = Answer<Vec<ImageSummary>>> + Send;

    /// GET /v1/images/{ref}/json
    fn image(&self, reference: String) -> impl Future<Output = Answer<ImageDetail>> + Send;

    /// DELETE /v1/images/{ref}
    fn image_remove(
        &self,
        reference: String,
        query: ImageRemoveQuery,
    ) -> impl Future<Output = Answer<Vec<ImageRemoved>>> + Send;

    /// POST /v1/images/create: lines, the last of which may be an error. `asker` is the header with
    /// credentials, a secret.
    fn image_pull(
        &self,
        query: PullQuery,
        asker: String,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Bytes>>> + Send;

    /// POST /v1/images/load: lines, the last of which may be an error. The archive comes in pieces; an
    /// error among them is that of its way.
    fn images_load(
        &self,
        archive: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Bytes>>> + Send;

    /// GET /v1/images/get: an archive in pieces; one that fails in the middle ends with an error.
    fn images_save(
        &self,
        query: SaveQuery,
    ) -> impl Future<Output = Answer<mpsc::Receiver<std::io::Result<Bytes>>>> + Send;

    /// POST /v1/images/prune
    fn images_prune(
        &self,
        query: ImagePruneQuery,
    ) -> impl Future<Output = Answer<ImagesPruned>> + Send;

    /// GET /v1/images/resolve
    fn image_resolve(
        &self,
        query: ResolveQuery,
        asker: String,
    ) -> impl Future<Output = Answer<ResolvedImage>> + Send;
}

/// The header with credentials; empty where there is none.
fn asker(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(REGISTRY_AUTH) else {
        return Ok(String::new());
    };
    // What it says is in no message.
    let text = value.to_str().map_err(|_| {
        ApiError::bad_request(format!("the header {REGISTRY_AUTH} is no text of ASCII"))
    })?;
    Ok(text.to_owned())
}

pub(super) async fn list<S: ImageCalls>(State(node): Node<S>) -> Reply<Vec<ImageSummary>> {
    node.images().await.map(Json)
}

pub(super) async fn inspect<S: ImageCalls>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<ImageDetail> {
    node.image(reference).await.map(Json)
}

pub(super) async fn remove<S: ImageCalls>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<ImageRemoveQuery>,
) -> Reply<Vec<ImageRemoved>> {
    whole(async move { node.image_remove(reference, query).await })
        .await
        .map(Json)
}

pub(super) async fn prune<S: ImageCalls>(
    State(node): Node<S>,
    Asked(query): Asked<ImagePruneQuery>,
) -> Reply<ImagesPruned> {
    whole(async move { node.images_prune(query).await })
        .await
        .map(Json)
}

pub(super) async fn resolve<S: ImageCalls>(
    State(node): Node<S>,
    Asked(query): Asked<ResolveQuery>,
    headers: HeaderMap,
) -> Reply<ResolvedImage> {
    let asker = asker(&headers)?;
    node.image_resolve(query, asker).await.map(Json)
}

pub(super) async fn pull<S: ImageCalls>(
    State(node): Node<S>,
    Asked(query): Asked<PullQuery>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let asker = asker(&headers)?;
    let lines = node.image_pull(query, asker).await?;
    Ok(streamed(LINES, lines))
}

/// The archive goes to the store as it comes: it may be larger than memory, and than any other body.
pub(super) async fn load<S: ImageCalls>(
    State(node): Node<S>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let archive = pieces(request.into_body());
    let lines = node.images_load(archive).await?;
    Ok(streamed(LINES, lines))
}

pub(super) async fn save<S: ImageCalls>(
    State(node): Node<S>,
    Asked(query): Asked<SaveQuery>,
) -> Result<impl IntoResponse, ApiError> {
    let archive = node.images_save(query).await?;
    // Where it fails, the connection ends before the body does: nobody takes a part for the whole.
    let body = axum::body::Body::from_stream(ReceiverStream::new(archive));
    Ok(([(header::CONTENT_TYPE, TAR)], body))
}

/// A body as it comes; where it breaks off, with an error at its end.
fn pieces(body: axum::body::Body) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut body = body.into_data_stream();
        loop {
            let piece = tokio::select! {
                piece = tokio_stream::StreamExt::next(&mut body) => piece,
                () = sender.closed() => return,
            };
            let Some(piece) = piece else { return };
            let piece = piece.map_err(std::io::Error::other);
            let over = piece.is_err();
            if sender.send(piece).await.is_err() || over {
                return;
            }
        }
    });
    receiver
}
