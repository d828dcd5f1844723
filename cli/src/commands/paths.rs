//! Paths of objects in the node API (`weft_model::api`).

use weft_client::segment;
use weft_model::objects::PayloadKind;

/// Of a service.
pub(super) fn service(name: &str) -> String {
    format!("/v1/services/{}", segment(name))
}

/// Of the tasks of a service.
pub(super) fn tasks(service_name: &str) -> String {
    format!("{}/tasks", service(service_name))
}

/// Of a volume.
pub(super) fn volume(name: &str) -> String {
    format!("/v1/volumes/{}", segment(name))
}

/// Of all secrets, or of all configs.
pub(super) fn payloads(kind: PayloadKind) -> &'static str {
    match kind {
        PayloadKind::Secret => "/v1/secrets",
        PayloadKind::Config => "/v1/configs",
    }
}

/// Of a secret or a config.
pub(super) fn payload(kind: PayloadKind, name: &str) -> String {
    format!("{}/{}", payloads(kind), segment(name))
}

/// Of a network.
pub(super) fn network(name: &str) -> String {
    format!("/v1/networks/{}", segment(name))
}

/// Of an image. A name that is a word of the API is asked for by the tag that is meant.
pub(super) fn image(name: &str) -> String {
    const WORDS: [&str; 6] = ["json", "create", "load", "get", "prune", "resolve"];
    let tag = if WORDS.contains(&name) { ":latest" } else { "" };
    format!("/v1/images/{}{}", segment(name), segment(tag))
}
