//! Parsers of single values, and the reader that collects what goes wrong.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use tracing_subscriber::EnvFilter;
use weft_dataplane::TunnelOffload;
use weft_wire::ecn::Dscp;

use super::{LogFormat, MeshFrontEnd, Origin, Problem, Setting, with_dns_port};

/// Longest path of a unix socket, without the closing zero byte (`sockaddr_un`).
const SOCKET_PATH_MAX: usize = 107;
/// Most data plane threads.
const WORKERS_MAX: usize = 256;
/// Longest time that silent datagrams are remembered, seconds.
const UDP_IDLE_MAX: u64 = 24 * 3600;
/// Longest time that a worker polls, microseconds.
const POLL_MAX: u64 = 1000;
/// Longest node name, in characters; as a DNS label.
const NAME_MAX: usize = 63;

/// Reads settings by key and keeps what is wrong.
pub(super) struct Reader<'a> {
    settings: &'a [Setting],
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a [Setting], problems: Vec<Problem>) -> Self {
        Self { settings, problems }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.settings.iter().any(|s| s.key == key)
    }

    /// The value of `key`: none when it is not set or wrong.
    pub(super) fn one<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.each(key, parse).pop()
    }

    /// All elements of the list `key` that are right.
    pub(super) fn each<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(setting) = self.settings.iter().find(|s| s.key == key) else {
            return Vec::new();
        };
        let mut values = Vec::with_capacity(setting.texts.len());
        for text in &setting.texts {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(message) => self.problems.push(Problem {
                    origin: setting.origin.clone(),
                    message: format!("{key}: {message}"),
                }),
            }
        }
        values
    }

    /// The host name, when it can be a node name.
    pub(super) fn default_name(&mut self, hostname: &str) -> String {
        match node_name(hostname) {
            Ok(name) => name,
            Err(message) => {
                self.problems.push(Problem {
                    origin: Origin::Default,
                    message: format!(
                        "the host name cannot be the node's name: {message}; give --name"
                    ),
                });
                String::new()
            }
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

pub(super) fn node_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(legal) {
        return Err(format!(
            "{text:?}: expected 1 to {NAME_MAX} letters, digits, '-', '_' or '.'"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    absolute(text)
}

/// A program by its path; nothing for an empty text.
pub(super) fn program(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    absolute(text).map(Some)
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path)
    } else {
        Err(format!("{text:?}: expected a path that starts with \"/\""))
    }
}

pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    let path = text
        .strip_prefix("unix://")
        .ok_or_else(|| format!("{text:?}: expected unix:///path/of/socket"))?;
    let path = absolute(path)?;
    match path.as_os_str().len() {
        0..=SOCKET_PATH_MAX => Ok(path),
        len => Err(format!(
            "the path has {len} bytes, a unix socket's may have {SOCKET_PATH_MAX}"
        )),
    }
}

pub(super) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    text.parse::<NonZeroUsize>()
        .ok()
        .filter(|n| n.get() <= WORKERS_MAX)
        .ok_or_else(|| format!("{text:?}: expected a number from 1 to {WORKERS_MAX}"))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?}: expected \"text\" or \"json\"")),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "{text:?}: expected error, warn, info, debug, trace, or directives like \
             \"info,weft_dataplane=debug\""
        )),
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{text:?}: expected a port from 1 to 65535"))
}

pub(super) fn mesh(text: &str) -> Result<MeshFrontEnd, String> {
    match text {
        "frame" => Ok(MeshFrontEnd::Frame),
        "socket" => Ok(MeshFrontEnd::Socket),
        _ => Err(format!("{text:?}: expected \"frame\" or \"socket\"")),
    }
}

pub(super) fn udp_idle(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|secs| (1..=UDP_IDLE_MAX).contains(secs))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?}: expected a time from 1s to 24h, as in 90, 90s or 3m"))
}

pub(super) fn poll(text: &str) -> Result<Duration, String> {
    text.parse::<u64>()
        .ok()
        .filter(|micros| *micros <= POLL_MAX)
        .map(Duration::from_micros)
        .ok_or_else(|| format!("{text:?}: expected 0 to {POLL_MAX} microseconds, without a unit"))
}

pub(super) fn tunnel_offload(text: &str) -> Result<TunnelOffload, String> {
    match text {
        "auto" => Ok(TunnelOffload::Auto),
        "on" => Ok(TunnelOffload::On),
        "off" => Ok(TunnelOffload::Off),
        _ => Err(format!("{text:?}: expected auto, on or off")),
    }
}

/// Whether the kernel may carry flows.
pub(super) fn fast_path(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?}: expected auto or off")),
    }
}

pub(super) fn dscp(text: &str) -> Result<Dscp, String> {
    if text == "inherit" {
        return Ok(Dscp::Inherit);
    }
    text.parse::<u8>()
        .ok()
        .filter(|dscp| *dscp < 64)
        .map(Dscp::Fixed)
        .ok_or_else(|| format!("{text:?}: expected 0 to 63, or inherit"))
}

pub(super) fn gwbridge_subnet(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| format!("{text:?}: expected an IPv4 network like 172.18.0.0/16"))?;
    if (8..=29).contains(&net.prefix_len()) {
        Ok(net.trunc())
    } else {
        Err(format!("{text:?}: expected a prefix length from 8 to 29"))
    }
}

pub(super) fn dns_upstream(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(with_dns_port))
        .filter(|addr| addr.port() > 0 && !addr.ip().is_unspecified())
        .ok_or_else(|| format!("{text:?}: expected an address like 192.0.2.1 or 192.0.2.1:53"))
}
