//! Published ports: `[IP:][PUBLISHED[-PUBLISHED]:]TARGET[-TARGET][/PROTOCOL]`, or written out.

use std::net::IpAddr;

use super::place::Place;
use crate::model::Port;
use crate::problem::Findings;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
/// Most ports of all services: a range is many in few bytes.
const MAX_PORTS: usize = 10_000;

pub(super) fn ports(place: &Place<'_>, findings: &mut Findings) -> Vec<Port> {
    let mut ports = Vec::new();
    for item in place.get("ports").iter().flat_map(Place::items) {
        if findings.ports > MAX_PORTS {
            break;
        }
        let more: Vec<Port> = match item.node.text() {
            Some(text) => short(text).unwrap_or_else(|what| {
                let mend = "write [IP:][PUBLISHED:]TARGET[/PROTOCOL], such as \"8080:80/tcp\"";
                findings.error(item.at(), &item.path, what, mend);
                Vec::new()
            }),
            None if item.node.entries().is_empty() => Vec::new(),
            None => long(&item, findings).into_iter().collect(),
        };
        findings.ports += more.len();
        if findings.ports > MAX_PORTS {
            let what = format!("makes more than {MAX_PORTS} ports of all services");
            let mend = "publish fewer of them: services on one network reach every port";
            findings.error(item.at(), &item.path, what, mend);
            break;
        }
        let at = item.at();
        ports.extend(more.into_iter().map(|port| Port {
            at: at.clone(),
            ..port
        }));
    }
    ports
}

fn long(place: &Place<'_>, findings: &mut Findings) -> Option<Port> {
    const MOST: u64 = 65_535;
    let mode = place.one_of("mode", &["ingress", "host"], findings);
    let protocol = place.one_of("protocol", &PROTOCOLS, findings);
    let published = place.count("published", MOST, findings);
    let host_ip = place.text("host_ip").filter(|ip| !ip.is_empty());
    if let Some(ip) = host_ip.as_ref().filter(|ip| ip.parse::<IpAddr>().is_err()) {
        let what = format!("has the host_ip {ip:?}, which is no address");
        findings.error(
            place.at(),
            &place.path,
            what,
            "write it as 192.0.2.1 or 2001:db8::1",
        );
    }
    // As in the short form: every address is what is had without one.
    let host_ip = host_ip.filter(|ip| {
        let address = ip.parse::<IpAddr>();
        !address.is_ok_and(|address| address.is_unspecified())
    });
    let host_ip = host_ip.map(|ip| {
        let address = ip.parse::<IpAddr>();
        address.map_or(ip, |address| address.to_string())
    });
    if place.get("target").is_none() {
        let what = "has no target";
        findings.error(
            place.at(),
            &place.path,
            what,
            "write the port of the container as `target`",
        );
    }
    let target = place.count("target", MOST, findings)?;
    Some(Port {
        host_ip,
        mode: mode.unwrap_or_else(|| "ingress".to_owned()),
        target: u16::try_from(target).ok()?,
        published: published
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
        protocol: protocol.unwrap_or_else(|| "tcp".to_owned()),
        ..Port::default()
    })
}

/// A short form, which is several ports where it has ranges.
fn short(text: &str) -> Result<Vec<Port>, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => (rest, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!("has the protocol {protocol:?} in {text:?}"));
    }
    let (before, target) = match rest.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, rest),
    };
    let (ip, published) = match before.map(|before| before.rsplit_once(':')) {
        Some(Some((ip, published))) => (Some(ip), published),
        Some(None) => (None, before.unwrap_or_default()),
        None => (None, ""),
    };
    let host_ip = match ip {
        Some(ip) => {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
            let address = bare.unwrap_or(ip).parse::<IpAddr>();
            let address =
                address.map_err(|_| format!("has no address where {ip:?} is in {text:?}"))?;
            // Every address is what is had without one.
            (!address.is_unspecified()).then(|| address.to_string())
        }
        None => None,
    };
    let (first, last) = range(target, text)?;
    let count = u32::from(last - first) + 1;
    let published = if published.is_empty() {
        None
    } else {
        Some(range(published, text)?)
    };
    let port = |target: u16, published: Option<u16>| Port {
        host_ip: host_ip.clone(),
        mode: "ingress".to_owned(),
        target,
        published,
        protocol: protocol.clone(),
        ..Port::default()
    };
    match published {
        None => Ok((first..=last).map(|target| port(target, None)).collect()),
        // Each of them leads to the one port.
        Some((from, to)) if count == 1 => Ok((from..=to)
            .map(|published| port(first, Some(published)))
            .collect()),
        Some((from, to)) if u32::from(to - from) + 1 == count => {
            let pairs = (first..=last).zip(from..=to);
            Ok(pairs
                .map(|(target, published)| port(target, Some(published)))
                .collect())
        }
        Some(_) => Err(format!("has ranges of two lengths in {text:?}")),
    }
}

/// `N` or `N-M`.
fn range(text: &str, whole: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!(
            "has no port from 1 to 65535 where {text:?} is in {whole:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<String, String> {
        let ports = short(text)?;
        let ports = ports.iter().map(|port| {
            let ip = port.host_ip.as_deref().unwrap_or("*");
            let published = port
                .published
                .map_or("?".to_owned(), |port| port.to_string());
            format!("{ip} {published}>{}/{}", port.target, port.protocol)
        });
        Ok(ports.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn ranges_have_an_end() {
        use std::sync::Arc;

        let text = "ports: [\"1-9000\", \"1-9000\", \"80\"]\n";
        let mut findings = Findings::default();
        let node = crate::yaml::parse(&Arc::from("a.yml"), text, &mut findings).expect("a tree");
        let place = Place {
            node: &node,
            path: "services.web".to_owned(),
        };
        assert_eq!(ports(&place, &mut findings).len(), 9000);
        let told: Vec<String> = findings.errors.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("services.web.ports.1 makes more than 10000 ports"));
        // Nor does any other service have some.
        assert_eq!(ports(&place, &mut findings).len(), 0);
        assert_eq!(findings.errors.len(), 1);
    }

    #[test]
    fn short_forms_are_written_out() {
        for (text, is) in [
            ("80", "* ?>80/tcp"),
            ("8080:80", "* 8080>80/tcp"),
            ("53:53/UDP", "* 53>53/udp"),
            ("127.0.0.1:8000:80", "127.0.0.1 8000>80/tcp"),
            ("0.0.0.0:8000:80", "* 8000>80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 ?>80/tcp"),
            ("[::1]:8000:80", "::1 8000>80/tcp"),
            ("8000-8001:80-81", "* 8000>80/tcp, * 8001>81/tcp"),
            ("8000-8001:80", "* 8000>80/tcp, * 8001>80/tcp"),
            ("80-81", "* ?>80/tcp, * ?>81/tcp"),
        ] {
            assert_eq!(told(text).as_deref(), Ok(is), "{text}");
        }
        for bad in [
            "",
            "x",
            "80/icmp",
            "70000",
            "0:80",
            "81-80",
            "8000-8002:80-81",
            "host:80:80",
        ] {
            assert!(short(bad).is_err(), "{bad}");
        }
    }
}
