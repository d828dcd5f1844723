//! Published ports.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a published port.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where a published port is accepted.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node.
    #[default]
    Ingress,
    /// On the node of the task only.
    Host,
}

/// What a replica learns of the clients of a published port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// Connections come from the client's own address, where the node can do that.
    #[default]
    Keep,
    /// Connections come from the node that the client connected to.
    Node,
    /// As `Node`, and each begins with a header of the PROXY protocol, version 1.
    ProxyV1,
    /// The same, version 2.
    ProxyV2,
}

/// A published port. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PortSpec {
    /// Bind to one address only; every address when absent.
    #[serde(default, rename = "HostIP")]
    pub host_ip: Option<IpAddr>,
    /// 0 asks for a dynamic port, 30000-32767.
    #[serde(default, rename = "PublishedPort")]
    pub published: u16,
    /// Port inside the task.
    #[serde(rename = "TargetPort")]
    pub target: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Every node or the task's node.
    #[serde(default, rename = "PublishMode")]
    pub mode: PublishMode,
    /// What replicas learn of their clients.
    #[serde(default)]
    pub client_address: ClientAddress,
}

impl std::fmt::Display for PortSpec {
    /// `192.0.2.1:8000->80/tcp`; the target alone while no port is given.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        if self.published != 0 {
            write!(f, "{}->", self.published)?;
        }
        write!(f, "{}/{}", self.target, self.protocol)
    }
}
