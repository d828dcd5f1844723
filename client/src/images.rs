//! Calls about images.

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use weft_model::objects::Platform;

use super::{Client, decode, segment};

/// Header with credentials for a registry, as Docker's API has it.
const REGISTRY_AUTH: &str = "x-registry-auth";

/// What a registry says that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResolvedImage {
    /// The whole name with its digest: `docker.io/library/nginx:latest@sha256:…`.
    pub name: String,
    /// Of its manifest, or of its list of manifests.
    pub digest: String,
    /// Machines that it runs on; nothing where it does not say.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// Why no registry has said so: it is the image that a node has. Nothing where one has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registry_error: String,
}

impl Client {
    /// Which image a name stands for now, by the registry that has it, or by what a node has where
    /// that says nothing. `credentials` are in the form
    /// of Docker's header `X-Registry-Auth`; the node keeps nothing of them.
    ///
    /// # Errors
    /// As [`Client::get`]; also where the registry cannot be reached, or has no such image.
    pub async fn resolve_image(
        &self,
        name: &str,
        credentials: Option<&str>,
    ) -> anyhow::Result<ResolvedImage> {
        let path = format!("/v1/images/resolve?name={}", segment(name));
        let mut request = Request::builder().uri(&path).header("host", "weftd");
        if let Some(credentials) = credentials {
            request = request.header(REGISTRY_AUTH, credentials);
        }
        let request = request.body(Full::new(Bytes::new()))?;
        decode(&path, &self.exchange(request).await?)
    }
}
