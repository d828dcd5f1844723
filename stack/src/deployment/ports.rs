//! Published ports.

use std::net::IpAddr;

use weft_model::objects::{ClientAddress, EndpointMode, PortSpec, Protocol, PublishMode};

use super::Work;
use crate::model::{Port, Service};
use crate::problem::below;

/// The ports of a service in the order of the published ones, as docker sends them.
pub(super) fn ports(service: &Service, mode: EndpointMode, work: &mut Work<'_>) -> Vec<PortSpec> {
    let mut ports: Vec<PortSpec> = Vec::with_capacity(service.ports.len());
    for (index, port) in service.ports.iter().enumerate() {
        let key = below("ports", index);
        let made = convert(service, &key, port, work);
        if made.target == 0 {
            let what = "has the target 0";
            work.refuse(service, &key, what, "write the port of the container");
        }
        if made.mode == PublishMode::Ingress && mode == EndpointMode::Dnsrr {
            let what =
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
            let mend = "write `mode: host`, or endpoint_mode: vip";
            work.refuse(service, &key, what, mend);
        }
        if ports.iter().any(|other| collide(other, &made)) {
            let what = format!(
                "EndpointSpec: duplicate published ports provided: {}",
                made.published
            );
            work.refuse(service, &key, what, "publish another port");
        }
        ports.push(made);
    }
    ports.sort_by_key(|port| port.published);
    ports
}

fn convert(service: &Service, key: &str, port: &Port, work: &mut Work<'_>) -> PortSpec {
    let protocol = match port.protocol.as_str() {
        "udp" => Protocol::Udp,
        "sctp" => {
            let what = "has the protocol sctp, which weft does not carry";
            work.refuse(service, key, what, "write tcp or udp");
            Protocol::Tcp
        }
        _ => Protocol::Tcp,
    };
    let address = port.host_ip.as_deref();
    let address = address.and_then(|text| text.parse::<IpAddr>().ok());
    PortSpec {
        // Every address is what is had without one.
        host_ip: address.filter(|address| !address.is_unspecified()),
        published: port.published.unwrap_or_default(),
        target: port.target,
        protocol,
        mode: match port.mode.as_str() {
            "host" => PublishMode::Host,
            _ => PublishMode::Ingress,
        },
        client_address: ClientAddress::default(),
    }
}

/// Whether a node cannot have both.
fn collide(one: &PortSpec, other: &PortSpec) -> bool {
    let meet = match (one.host_ip, other.host_ip) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    one.published != 0 && one.published == other.published && one.protocol == other.protocol && meet
}
