//! What the swarm has, and what names of a stack stand for there.

use std::sync::Arc;

use weft_client::{Client, segment};
use weft_model::api::ServiceDetail;
use weft_model::id::PayloadId;
use weft_model::names;
use weft_model::objects::{
    Network, Payload, PayloadKind, PullOptions, STACK_LABEL, Service, ServiceSpec,
};
use weft_stack::Deployment;

/// Networks, secrets, configs and services, as they were a moment ago.
#[derive(Debug, Clone, Default)]
pub(super) struct Current {
    /// Those that nobody has removed.
    pub(super) networks: Vec<Network>,
    /// None where nobody asked for them.
    pub(super) secrets: Vec<Payload>,
    /// Likewise.
    pub(super) configs: Vec<Payload>,
    /// All of the swarm.
    pub(super) services: Vec<Service>,
}

impl Current {
    /// Asks for what concerns a stack.
    ///
    /// # Errors
    /// The node's: it is no manager, for instance.
    pub(super) async fn load(client: &Client, deployment: &Deployment) -> anyhow::Result<Self> {
        let secrets = match deployment.secrets.as_slice() {
            [] => Vec::new(),
            _ => payloads(client, PayloadKind::Secret).await?,
        };
        let configs = match deployment.configs.as_slice() {
            [] => Vec::new(),
            _ => payloads(client, PayloadKind::Config).await?,
        };
        let services: Vec<ServiceDetail> = client.get("/v1/services").await?;
        Ok(Self {
            networks: networks(client).await?,
            secrets,
            configs,
            services: services.into_iter().map(|d| d.service).collect(),
        })
    }

    /// A network by its name.
    #[must_use]
    pub(super) fn network(&self, name: &str) -> Option<&Network> {
        let mut networks = self.networks.iter();
        networks.find(|network| names::same(&network.spec.name, name))
    }

    /// A secret or a config by its name.
    #[must_use]
    pub(super) fn payload(&self, kind: PayloadKind, name: &str) -> Option<&Payload> {
        let mut payloads = match kind {
            PayloadKind::Secret => self.secrets.iter(),
            PayloadKind::Config => self.configs.iter(),
        };
        payloads.find(|payload| payload.spec.name == name)
    }

    /// A service by its name.
    #[must_use]
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        let mut services = self.services.iter();
        services.find(|service| names::same(&service.spec.name, name))
    }

    /// Services of a stack.
    pub(super) fn of_stack(&self, stack: &str) -> impl Iterator<Item = &Service> {
        let services = self.services.iter();
        services.filter(move |service| service.spec.stack() == Some(stack))
    }

    /// A specification as managers keep it: with ids where the stack has names. What is not there yet
    /// keeps its name, and so is another one than any that there is. Credentials, which nobody is
    /// shown, are left out.
    #[must_use]
    pub(super) fn resolved(&self, spec: &ServiceSpec) -> ServiceSpec {
        let mut spec = spec.clone();
        let task = Arc::make_mut(&mut spec.task);
        task.container.pull_options = PullOptions::default();
        for joined in &mut task.networks {
            if let Some(network) = self.network(&joined.target) {
                joined.target.clone_from(&network.id.0);
            }
        }
        let id = |kind, name: &str, id: &mut PayloadId| {
            if let Some(payload) = self.payload(kind, name).filter(|_| id.0.is_empty()) {
                *id = payload.id.clone();
            }
        };
        for used in &mut task.container.secrets {
            id(PayloadKind::Secret, &used.name, &mut used.id);
        }
        for used in &mut task.container.configs {
            id(PayloadKind::Config, &used.name, &mut used.id);
        }
        spec
    }
}

/// Networks that nobody has removed.
///
/// # Errors
/// The node's.
pub(super) async fn networks(client: &Client) -> anyhow::Result<Vec<Network>> {
    let mut networks: Vec<Network> = client.get("/v1/networks").await?;
    networks.retain(|network| !network.ending);
    Ok(networks)
}

/// All secrets, or all configs.
///
/// # Errors
/// The node's.
pub(super) async fn payloads(client: &Client, kind: PayloadKind) -> anyhow::Result<Vec<Payload>> {
    client.get(&payloads_path(kind)).await
}

/// Path of all secrets, or all configs, in the node API.
#[must_use]
pub(super) fn payloads_path(kind: PayloadKind) -> String {
    format!("/v1/{kind}s")
}

/// Path of one of them.
#[must_use]
pub(super) fn payload_path(kind: PayloadKind, id: &PayloadId) -> String {
    format!("{}/{}", payloads_path(kind), segment(id.as_str()))
}

/// The stack that a network, a secret or a config was made for, by its labels.
#[must_use]
pub(super) fn stack_of(labels: &std::collections::BTreeMap<String, String>) -> Option<&str> {
    labels.get(STACK_LABEL).map(String::as_str)
}
