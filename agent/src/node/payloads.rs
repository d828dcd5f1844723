//! Calls of the node API about secrets and configs.

use weft_model::api::VersionQuery;
use weft_model::objects::{Payload, PayloadKind, PayloadSpec};

use super::Node;
use crate::api::{Answer, PayloadCalls};

impl PayloadCalls for Node {
    async fn payloads(&self, kind: PayloadKind) -> Answer<Vec<Payload>> {
        Ok(self.manager().await?.1.payloads(kind))
    }

    async fn payload_create(&self, kind: PayloadKind, spec: PayloadSpec) -> Answer<Payload> {
        Ok(self.manager().await?.1.create_payload(kind, spec).await?)
    }

    async fn payload(&self, kind: PayloadKind, reference: String) -> Answer<Payload> {
        Ok(self.manager().await?.1.payload(kind, &reference)?)
    }

    async fn payload_update(
        &self,
        kind: PayloadKind,
        reference: String,
        query: VersionQuery,
        spec: PayloadSpec,
    ) -> Answer<Payload> {
        let (_, manager) = self.manager().await?;
        let version = query.version;
        Ok(manager
            .update_payload(kind, &reference, version, spec)
            .await?)
    }

    async fn payload_remove(&self, kind: PayloadKind, reference: String) -> Answer<()> {
        let (_, manager) = self.manager().await?;
        Ok(manager.remove_payload(kind, &reference).await?)
    }
}
