//! Calls about secrets and configs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use weft_model::api::VersionQuery;
use weft_model::objects::{Payload, PayloadKind, PayloadSpec};

use super::error::ApiError;
use super::extract::{Asked, Body, Params};
use super::reply::{Empty, whole};
use super::service::Answer;

type Reply<T> = Result<Json<T>, ApiError>;
type Node<S> = State<Arc<S>>;

/// What a node does about secrets and configs, one method for each route. Nobody is told the bytes of a
/// secret.
///
/// A `reference` is a full id, an exact name, or a unique prefix of an id. What changes something runs to
/// its end, also when the client goes away.
///
/// Methods are written as `async fn` in implementations.
pub(crate) trait PayloadCalls: Send + Sync + 'static {
    /// GET /v1/secrets, GET /v1/configs
    fn payloads(&self, kind: PayloadKind) -> impl Future<Output = Answer<Vec<Payload>>> + Send;

    /// POST /v1/secrets, POST /v1/configs
    fn payload_create(
        &self,
        kind: PayloadKind,
        spec: PayloadSpec,
    ) -> impl Future<Output = Answer<Payload>> + Send;

    /// GET /v1/secrets/{ref}, GET /v1/configs/{ref}
    fn payload(
        &self,
        kind: PayloadKind,
        reference: String,
    ) -> impl Future<Output = Answer<Payload>> + Send;

    /// POST /v1/secrets/{ref}/update, POST /v1/configs/{ref}/update
    fn payload_update(
        &self,
        kind: PayloadKind,
        reference: String,
        query: VersionQuery,
        spec: PayloadSpec,
    ) -> impl Future<Output = Answer<Payload>> + Send;

    /// DELETE /v1/secrets/{ref}, DELETE /v1/configs/{ref}
    fn payload_remove(
        &self,
        kind: PayloadKind,
        reference: String,
    ) -> impl Future<Output = Answer<()>> + Send;
}

/// Which of the two a route is about.
pub(super) trait Kind: Send + Sync + 'static {
    const KIND: PayloadKind;
}

/// Routes of secrets.
pub(super) enum Secrets {}

impl Kind for Secrets {
    const KIND: PayloadKind = PayloadKind::Secret;
}

/// Routes of configs.
pub(super) enum Configs {}

impl Kind for Configs {
    const KIND: PayloadKind = PayloadKind::Config;
}

pub(super) async fn list<S: PayloadCalls, K: Kind>(State(node): Node<S>) -> Reply<Vec<Payload>> {
    node.payloads(K::KIND).await.map(Json)
}

pub(super) async fn create<S: PayloadCalls, K: Kind>(
    State(node): Node<S>,
    Body(spec): Body<PayloadSpec>,
) -> Reply<Payload> {
    whole(async move { node.payload_create(K::KIND, spec).await })
        .await
        .map(Json)
}

pub(super) async fn inspect<S: PayloadCalls, K: Kind>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<Payload> {
    node.payload(K::KIND, reference).await.map(Json)
}

pub(super) async fn update<S: PayloadCalls, K: Kind>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<VersionQuery>,
    Body(spec): Body<PayloadSpec>,
) -> Reply<Payload> {
    whole(async move { node.payload_update(K::KIND, reference, query, spec).await })
        .await
        .map(Json)
}

pub(super) async fn remove<S: PayloadCalls, K: Kind>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<Empty> {
    whole(async move { node.payload_remove(K::KIND, reference).await })
        .await
        .map(|()| Json(Empty {}))
}
