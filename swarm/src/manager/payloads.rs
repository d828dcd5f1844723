//! What the node API asks of a manager about secrets and configs. Nobody is shown the bytes of a secret.

use weft_cluster::{CommandError, create_payload, remove_payload, update_payload};
use weft_model::objects::{Payload, PayloadKind, PayloadSpec};

use super::Manager;

impl Manager {
    /// `weft secret ls`, `weft config ls`, by name.
    #[must_use]
    pub fn payloads(&self, kind: PayloadKind) -> Vec<Payload> {
        let state = self.state();
        let of_kind = state.payloads.values().filter(|p| p.kind == kind);
        let mut payloads: Vec<_> = of_kind.map(Payload::shown).collect();
        payloads.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        payloads
    }

    /// `weft secret inspect`, `weft config inspect`
    ///
    /// # Errors
    /// There is none of that kind, or an ambiguous reference.
    pub fn payload(&self, kind: PayloadKind, reference: &str) -> Result<Payload, CommandError> {
        let state = self.state();
        Ok(state.find_payload(kind, reference)?.shown())
    }

    /// `weft secret create`, `weft config create`
    ///
    /// # Errors
    /// A name in use or not valid, no bytes or too many.
    pub async fn create_payload(
        &self,
        kind: PayloadKind,
        spec: PayloadSpec,
    ) -> Result<Payload, CommandError> {
        let made = self
            .core
            .run(|s, now, e| create_payload(s, now, e, kind, spec.clone()))
            .await?;
        Ok(made.shown())
    }

    /// Other labels for one, as it was at a version where one is given.
    ///
    /// # Errors
    /// There is none of that kind, or it is not at that version, or anything else is to change.
    pub async fn update_payload(
        &self,
        kind: PayloadKind,
        reference: &str,
        version: Option<u64>,
        spec: PayloadSpec,
    ) -> Result<Payload, CommandError> {
        let updated = self
            .core
            .run(|s, now, e| update_payload(s, now, e, kind, reference, version, spec.clone()))
            .await?;
        Ok(updated.shown())
    }

    /// `weft secret rm`, `weft config rm`
    ///
    /// # Errors
    /// There is none of that kind, or a service uses it; the text says which.
    pub async fn remove_payload(
        &self,
        kind: PayloadKind,
        reference: &str,
    ) -> Result<(), CommandError> {
        self.core
            .run(|s, now, e| remove_payload(s, now, e, kind, reference))
            .await
            .map(drop)
    }
}
