//! A registry as a source of images.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Registries;
use super::manner::Manner;
use crate::blob::Blob;
use crate::credentials::Credentials;
use crate::name::ImageName;
use crate::source::{BlobStream, Manifest, Source, SourceFuture};

/// The registries of a node, as seen by whoever has certain credentials.
#[derive(Debug)]
pub struct RegistrySource {
    registries: Arc<Registries>,
    credentials: Option<Credentials>,
    manner: Manner,
    /// A manifest was asked for already.
    was_asked: AtomicBool,
}

impl RegistrySource {
    pub(super) fn new(
        registries: Arc<Registries>,
        credentials: Option<Credentials>,
        manner: Manner,
    ) -> Self {
        Self {
            registries,
            credentials,
            manner,
            was_asked: AtomicBool::new(false),
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
            let manner = if self.was_asked.swap(true, Ordering::Relaxed) {
                self.manner.retried()
            } else {
                self.manner
            };
            let manifest = self.registries.manifest(name, credentials, manner).await;
            Ok(manifest?)
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
            // A break in the middle is made up for, also where the way back takes its time.
            Ok(self
                .registries
                .blob(name, blob, offset, credentials, Manner::Again)
                .await?)
        })
    }
}
