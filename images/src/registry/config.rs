//! Settings of registries, and which hosts they come to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use super::error::RegistryError;
use crate::name::ImageName;

/// What a node's configuration says of one registry: `[registries."registry.example:5000"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistryConfig {
    /// Who is asked before the registry itself, in this order: `mirror.example:5000` or
    /// `https://mirror.example/path`. They get no credentials.
    pub mirrors: Vec<String>,
    /// Any certificate will do, and plain HTTP where there is no TLS. Loopback is always so.
    pub insecure: bool,
    /// A file of certificates (PEM) that are trusted beside the node's own.
    pub ca: Option<PathBuf>,
}

/// One host that may be asked for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host and port as in URLs.
    pub(super) host: String,
    /// What stands before `/v2/` on a mirror; without a slash at its end.
    pub(super) prefix: String,
    /// Certificates are not looked at, and plain HTTP is tried.
    pub(super) insecure: bool,
    /// A mirror's configuration asks for plain HTTP.
    pub(super) plain: bool,
    /// The registry that this is a mirror of.
    pub(super) mirrors: Option<String>,
}

/// Whom to ask for an image, in this order: mirrors, then the registry.
///
/// # Errors
/// [`RegistryError::Config`].
pub(super) fn endpoints(
    configs: &BTreeMap<String, RegistryConfig>,
    name: &ImageName,
) -> Result<Vec<Endpoint>, RegistryError> {
    let domain = name.domain();
    let mut found = Vec::new();
    if let Some(config) = configs.get(domain) {
        for mirror in &config.mirrors {
            found.push(mirror_endpoint(configs, domain, mirror)?);
        }
    }
    let host = name.registry_host().to_owned();
    let insecure = is_insecure(configs, &host) || is_insecure(configs, domain);
    found.push(Endpoint {
        insecure,
        host,
        prefix: String::new(),
        plain: false,
        mirrors: None,
    });
    Ok(found)
}

/// # Errors
/// [`RegistryError::Config`]: no URL of a host.
pub(super) fn mirror_endpoint(
    configs: &BTreeMap<String, RegistryConfig>,
    registry: &str,
    mirror: &str,
) -> Result<Endpoint, RegistryError> {
    let refused = |reason: &str| RegistryError::Config {
        registry: registry.to_owned(),
        reason: format!("mirror {mirror:?} {reason}"),
    };
    let text = if mirror.contains("://") {
        mirror.to_owned()
    } else {
        format!("https://{mirror}")
    };
    let url = Url::parse(&text).map_err(|error| refused(&format!("is no URL: {error}")))?;
    let plain = match url.scheme() {
        "https" => false,
        "http" => true,
        _ => return Err(refused("is neither https nor http")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("has a user's name: mirrors get no credentials"));
    }
    let host = authority(&url).ok_or_else(|| refused("names no host"))?;
    Ok(Endpoint {
        insecure: is_insecure(configs, &host),
        host,
        prefix: url.path().trim_end_matches('/').to_owned(),
        plain,
        mirrors: Some(registry.to_owned()),
    })
}

/// Host, and port where it is not that of the scheme.
pub(super) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// True for loopback, and where the configuration says so.
pub(super) fn is_insecure(configs: &BTreeMap<String, RegistryConfig>, host: &str) -> bool {
    configs.get(host).is_some_and(|config| config.insecure) || is_loopback(host)
}

/// True where a host says its port, which is that of both schemes then.
pub(super) fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name without its port and without the brackets of IPv6.
pub(super) fn bare_host(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    let bare = bare_host(host);
    bare == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(toml: &[(&str, RegistryConfig)]) -> BTreeMap<String, RegistryConfig> {
        toml.iter()
            .map(|(host, config)| ((*host).to_owned(), config.clone()))
            .collect()
    }

    fn mirrored(mirrors: &[&str]) -> RegistryConfig {
        RegistryConfig {
            mirrors: mirrors.iter().map(|text| (*text).to_owned()).collect(),
            ..RegistryConfig::default()
        }
    }

    #[test]
    fn mirrors_come_first() {
        let configs = configs(&[
            (
                "docker.io",
                mirrored(&["mirror.example:5000", "http://[::1]:80/hub/"]),
            ),
            (
                "mirror.example:5000",
                RegistryConfig {
                    insecure: true,
                    ..RegistryConfig::default()
                },
            ),
        ]);
        let name = "nginx".parse().expect("a name");
        let found = endpoints(&configs, &name).expect("three hosts");
        let hosts: Vec<&str> = found.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(
            hosts,
            ["mirror.example:5000", "[::1]", "registry-1.docker.io"]
        );
        assert!(found[0].insecure && !found[0].plain);
        assert!(found[1].plain && found[1].insecure);
        assert_eq!(found[1].prefix, "/hub");
        assert_eq!(found[1].mirrors.as_deref(), Some("docker.io"));
        assert!(!found[2].insecure);
        assert_eq!(found[2].mirrors, None);

        let other = "registry.example/x".parse().expect("a name");
        assert_eq!(endpoints(&configs, &other).expect("one").len(), 1);
    }

    #[test]
    fn loopback_may_be_plain() {
        let none = BTreeMap::new();
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_insecure(&none, host), "{host}");
        }
        for host in [
            "10.0.0.1:5000",
            "localhost.example",
            "[fc00::1]:5000",
            "registry.example",
        ] {
            assert!(!is_insecure(&none, host), "{host}");
        }
    }

    #[test]
    fn ports_that_are_given() {
        for host in ["registry.example:5000", "127.0.0.1:1", "[::1]:5000"] {
            assert!(has_port(host), "{host}");
        }
        for host in ["registry.example", "127.0.0.1", "[::1]", ""] {
            assert!(!has_port(host), "{host}");
        }
    }

    #[test]
    fn mirrors_that_are_none() {
        for mirror in ["ftp://x", "", "https://", "https://u:p@x", "unix:///run/x"] {
            let configs = configs(&[("docker.io", mirrored(&[mirror]))]);
            let name = "nginx".parse().expect("a name");
            let error = endpoints(&configs, &name).expect_err(mirror);
            assert!(error.to_string().contains("docker.io"), "{error}");
        }
    }
}
