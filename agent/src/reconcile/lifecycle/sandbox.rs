//! The network of a task: its ports, its way out, its resolver.

use std::net::{IpAddr, SocketAddr};

use weft_dns::ClientView;
use weft_model::assignment::EndpointView;
use weft_model::objects::{Attachment, DnsConfig, Network};
use weft_model::records::EndpointRecord;

use super::super::attach::{ifname, local_port, port_config, usable_addresses};
use super::super::stacks::stack_of;
use super::{Lifecycle, Wish};
use crate::blocking::blocking;
use crate::compile::known::KnownEndpoint;
use crate::sandbox::Sandbox;
use crate::sandbox::runner::RunningTask;

/// Where servers of names answer.
const DNS_PORT: u16 = 53;

impl Lifecycle {
    /// Attaches the sandbox of a process that an earlier agent started, also where it is to end: it has
    /// connections to finish. The process says which namespace that is: a path may have lost it.
    pub(super) async fn take_over(&self, process: &RunningTask) -> anyhow::Result<()> {
        tracing::info!(task = %self.task.name(), pid = process.pid(), "adopted");
        let pid = process.pid().to_string();
        let sandbox = blocking(move || Sandbox::open(&pid)).await??;
        self.connect(sandbox).await?;
        Ok(())
    }

    /// Makes the ports, the way out and the resolver; what is there is taken over.
    pub(super) async fn connect(&self, mut sandbox: Sandbox) -> anyhow::Result<Sandbox> {
        let mut outside = false;
        for (index, attachment) in self.task.attachments.iter().enumerate() {
            outside |= self
                .network(attachment)
                .is_some_and(|n| !n.spec.internal && !n.spec.ingress);
            sandbox = self.add_port(sandbox, index, attachment).await?;
        }
        // A task that is only published has a way out too, as in Swarm.
        outside |= self
            .task
            .attachments
            .iter()
            .all(|a| self.network(a).is_some_and(|n| n.spec.ingress));
        let gateway = self.data_path.gateway.clone();
        let (sandbox, egress, sockets) = blocking(move || {
            let gateway = outside.then(|| gateway.wait()).flatten();
            let egress = gateway.map(|g| g.connect(&sandbox));
            let sockets = sandbox.dns_sockets();
            (sandbox, egress, sockets)
        })
        .await?;
        if let Some(Err(error)) = egress {
            self.handles
                .warnings
                .set("gateway", format!("a sandbox has no way out: {error}"));
        }
        let sockets = sockets?;
        let view = ClientView {
            networks: self
                .task
                .attachments
                .iter()
                .filter(|a| self.network(a).is_some_and(|n| !n.spec.ingress))
                .map(|a| a.network.as_str().to_owned())
                .collect(),
            internal_only: !outside,
            stack: stack_of(&self.orders, std::iter::once(&self.task.service)),
        };
        let servers = nameservers(&self.task.spec.container.dns_config);
        let dns = &self.handles.dns;
        dns.serve_asking(self.task.id.as_str(), sockets, view, &servers)?;
        Ok(sandbox)
    }

    fn network(&self, attachment: &Attachment) -> Option<&Network> {
        self.orders
            .shared
            .networks
            .iter()
            .find(|n| n.id == attachment.network)
    }

    async fn add_port(
        &self,
        sandbox: Sandbox,
        index: usize,
        attachment: &Attachment,
    ) -> anyhow::Result<Sandbox> {
        let network = self.network(attachment).ok_or_else(|| {
            anyhow::anyhow!("network {} is not in the orders", attachment.network)
        })?;
        let config = port_config(ifname(index), attachment, network, self.data_path.mtu());
        let (sandbox, tap) = blocking(move || {
            let tap = sandbox.add_port(&config);
            (sandbox, tap)
        })
        .await?;
        let view = EndpointView::of_task(&self.task)
            .find(|view| view.id == attachment.endpoint)
            .ok_or_else(|| anyhow::anyhow!("the task is on no node"))?;
        let said = EndpointRecord {
            id: attachment.endpoint.clone(),
            ready: false,
            // One that an earlier agent was to end, and this one has found.
            draining: *self.wish.borrow() == Wish::Stop,
            ipv4_only: Vec::new(),
            without_ipv6: usable_addresses(attachment, network) != attachment.addresses,
        };
        let record = KnownEndpoint::new(view, &said);
        self.handles.local.insert(local_port(
            self.handles.local.next_id(),
            &self.data_path,
            tap?,
            network.vni,
            record,
        )?);
        Ok(sandbox)
    }
}

/// The servers that a service names for what weft does not know.
fn nameservers(config: &DnsConfig) -> Vec<SocketAddr> {
    let servers = config.nameservers.iter();
    let servers = servers.filter_map(|text| text.parse::<IpAddr>().ok());
    servers.map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_service_are_addresses() {
        let config = DnsConfig {
            nameservers: ["192.0.2.53", "ns.example", "2001:db8::53"]
                .map(str::to_owned)
                .into(),
            ..DnsConfig::default()
        };
        let servers = nameservers(&config);
        let expected = ["192.0.2.53:53", "[2001:db8::53]:53"];
        assert_eq!(
            servers,
            expected.map(|text| text.parse().expect("an address"))
        );
        assert!(nameservers(&DnsConfig::default()).is_empty());
    }
}
