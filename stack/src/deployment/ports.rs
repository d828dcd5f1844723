//! Published ports.

use std::net::IpAddr;

use weft_model::objects::{ClientAddress, EndpointMode, PortSpec, Protocol, PublishMode};

use super::{StackPort, Work, path_of};
use crate::model::{Port, Service};
use crate::problem::below;

/// The ports of a service in the order of the published ones, as docker sends them. That none is there
/// twice was looked at when all files were there (`whole`).
pub(super) fn ports(service: &Service, mode: EndpointMode, work: &mut Work<'_>) -> Vec<PortSpec> {
    let name = work.scoped(&service.name);
    let mut ports: Vec<PortSpec> = Vec::with_capacity(service.ports.len());
    for (index, port) in service.ports.iter().enumerate() {
        let path = path_of(service, &below("ports", index));
        let made = convert(&path, port, work);
        if made.target == 0 {
            let mend = "write the port of the container";
            work.findings
                .error(&port.at, &path, "has the target 0", mend);
        }
        if made.mode == PublishMode::Ingress && mode == EndpointMode::Dnsrr {
            let what = "a port with `mode: ingress` can't be used with `endpoint_mode: dnsrr`";
            let mend = "write `mode: host`, or `endpoint_mode: vip`";
            work.findings.error(&port.at, &path, what, mend);
        }
        if made.published != 0 {
            work.ports.push(StackPort {
                service: name.clone(),
                at: port.at.clone(),
                path,
                spec: made.clone(),
            });
        }
        ports.push(made);
    }
    ports.sort_by_key(|port| port.published);
    ports
}

fn convert(path: &str, port: &Port, work: &mut Work<'_>) -> PortSpec {
    let protocol = match port.protocol.as_str() {
        "udp" => Protocol::Udp,
        "sctp" => {
            let what = "has the protocol sctp, which weft does not carry";
            work.findings
                .error(&port.at, path, what, "write tcp or udp");
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
