//! A registry as a source of images.

use std::sync::Arc;

use super::Registries;
use crate::blob::Blob;
use crate::credentials::Credentials;
use crate::name::ImageName;
use crate::source::{BlobStream, Manifest, Source, SourceFuture};

/// The registries of a node, as seen by whoever has certain credentials.
#[derive(Debug)]
pub struct RegistrySource {
    registries: Arc<Registries>,
    credentials: Option<Credentials>,
}

impl RegistrySource {
    pub(super) fn new(registries: Arc<Registries>, credentials: Option<Credentials>) -> Self {
        Self {
            registries,
            credentials,
        }
    }
}

impl Source for RegistrySource {
    fn name(&self) -> String {
        "the registry".to_owned()
    }

    fn manifest<'a>(&'a self, name: &'a ImageName) -> SourceFuture<'a, Manifest> {
        Box::pin(async move {
            let credentials = self.credentials.as_ref();
            Ok(self.registries.manifest(name, credentials).await?)
        })
    }

    fn blob<'a>(
        &'a self,
        name: &'a ImageName,
        blob: &'a Blob,
        offset: u64,
    ) -> SourceFuture<'a, BlobStream> {
        Box::pin(async move {
            let credentials = self.credentials.as_ref();
            Ok(self
                .registries
                .blob(name, blob, offset, credentials)
                .await?)
        })
    }
}
