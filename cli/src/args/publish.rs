//! `-p`: published ports in docker's short and long form (docker/cli `opts/swarmopts/port.go`).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use weft_model::objects::{ClientAddress, PortSpec, Protocol, PublishMode};

/// The ports that one `-p` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortList(pub(crate) Vec<PortSpec>);

/// Parses one `-p`: `[IP:][PUBLISHED:]TARGET[/PROTOCOL]`, where both ports may be ranges of the
/// same length, or `published=,target=,protocol=,mode=`.
///
/// A published port of 0 asks for a dynamic one.
///
/// # Errors
/// What is wrong, in docker's words where docker has some.
pub(crate) fn parse_publish(text: &str) -> Result<PortList, String> {
    if text.is_empty() {
        return Err("no port specified: <empty>".to_owned());
    }
    let ports = if text.contains('=') {
        vec![parse_long(text)?]
    } else {
        parse_short(text)?
    };
    Ok(PortList(ports))
}

fn parse_long(text: &str) -> Result<PortSpec, String> {
    let mut spec = PortSpec::default();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field: {field}"))?;
        match key.to_ascii_lowercase().as_str() {
            "protocol" => spec.protocol = parse_protocol(value)?,
            "mode" => {
                spec.mode = match value {
                    "ingress" => PublishMode::Ingress,
                    "host" => PublishMode::Host,
                    _ => {
                        return Err(format!(
                            "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                        ));
                    }
                }
            }
            "client_address" => {
                spec.client_address = match value {
                    "keep" => ClientAddress::Keep,
                    "node" => ClientAddress::Node,
                    "proxy-v1" => ClientAddress::ProxyV1,
                    "proxy-v2" => ClientAddress::ProxyV2,
                    _ => {
                        return Err(format!(
                            "invalid client_address ({value}): must be 'keep', 'node', 'proxy-v1' or 'proxy-v2'"
                        ));
                    }
                }
            }
            "target" => spec.target = parse_long_port("target", value)?,
            "published" => spec.published = parse_long_port("published", value)?,
            "host_ip" => {
                spec.host_ip = Some(
                    value
                        .parse()
                        .map_err(|_| format!("invalid host_ip ({value}): expected an address"))?,
                );
            }
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if spec.target == 0 {
        return Err("missing mandatory field 'target'".to_owned());
    }
    Ok(spec)
}

fn parse_long_port(field: &str, value: &str) -> Result<u16, String> {
    value
        .parse()
        .map_err(|_| format!("invalid {field} port ({value}): value must be an integer: 0-65535"))
}

fn parse_short(text: &str) -> Result<Vec<PortSpec>, String> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, parse_protocol(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (host_ip, ports) = split_host_ip(ports)?;
    let (published, target) = match ports.split_once(':') {
        Some((published, target)) => (published, target),
        None => ("", ports),
    };
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let target = parse_range("containerPort", target)?;
    let published = if published.is_empty() {
        None
    } else {
        Some(parse_range("hostPort", published)?)
    };
    // A port of 0 by itself asks for a dynamic one; a range cannot begin with it.
    if let Some(range) = &published
        && *range.start() == 0
        && range.len() > 1
    {
        return Err(format!(
            "invalid hostPort: {}-{}",
            range.start(),
            range.end()
        ));
    }
    if *target.start() == 0 {
        return Err("invalid containerPort: 0".to_owned());
    }
    if let Some(published) = &published
        && published.len() != target.len()
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {}-{} and {}-{}",
            target.start(),
            target.end(),
            published.start(),
            published.end()
        ));
    }
    let mut published = published.into_iter().flatten();
    Ok(target
        .map(|target| PortSpec {
            host_ip,
            published: published.next().unwrap_or(0),
            target,
            protocol,
            mode: PublishMode::Ingress,
            client_address: ClientAddress::Keep,
        })
        .collect())
}

/// Splits `IP:` or `[IPv6]:` off the front.
fn split_host_ip(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    let (ip, rest) = if let Some(bracketed) = text.strip_prefix('[') {
        bracketed
            .split_once("]:")
            .ok_or_else(|| format!("invalid IP address in {text}: expected [IPv6]:port"))?
    } else if text.matches(':').count() >= 2 {
        match text.split_once(':') {
            Some(split) => split,
            None => return Ok((None, text)),
        }
    } else {
        return Ok((None, text));
    };
    if ip.is_empty() {
        return Ok((None, rest));
    }
    let ip = ip
        .parse()
        .map_err(|_| format!("invalid IP address: {ip}"))?;
    Ok((Some(ip), rest))
}

fn parse_range(what: &str, text: &str) -> Result<RangeInclusive<u16>, String> {
    let bad = || format!("invalid {what}: {text}");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if last < first {
        return Err(bad());
    }
    Ok(first..=last)
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!("invalid protocol value '{text}'")),
    }
}
