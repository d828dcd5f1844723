//! `[registries."HOST"]` of the file: how registries are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::{Origin, Problem};

/// How a registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registry {
    /// `mirrors`: where its images are asked for first, one after the other.
    pub(crate) mirrors: Vec<String>,
    /// `insecure`: by HTTP where it speaks no TLS, and by TLS whatever its certificate.
    pub(crate) insecure: bool,
    /// `ca`: a file with the certificate, in PEM, that vouches for it, besides those of the system.
    pub(crate) ca: Option<PathBuf>,
}

/// Keys of one of them.
const KEYS: [&str; 3] = ["mirrors", "insecure", "ca"];

/// All of them, by host and port; adds what is wrong to `problems`.
pub(super) fn parse(
    value: &Spanned<DeValue<'_>>,
    written_at: Origin,
    at: impl Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Registry> {
    const FORM: &str = "expected tables like [registries.\"registry.example:5000\"]";
    let mut registries = BTreeMap::new();
    let DeValue::Table(hosts) = value.get_ref() else {
        problems.push(Problem {
            origin: written_at,
            message: format!("registries: {FORM}"),
        });
        return registries;
    };
    for (key, value) in hosts {
        let (origin, host) = (at(key.span().start), key.get_ref().as_ref());
        let mut wrong = |origin: Origin, message: String| {
            let message = format!("registries.{host:?}: {message}");
            problems.push(Problem { origin, message });
        };
        if !is_host(host) {
            wrong(
                origin.clone(),
                "expected a host, with its port where that is another one, as in registry.example:5000"
                    .to_owned(),
            );
        }
        let DeValue::Table(settings) = value.get_ref() else {
            wrong(origin, FORM.to_owned());
            continue;
        };
        let mut registry = Registry::default();
        for (key, value) in settings {
            let origin = at(key.span().start);
            if let Err(message) = set(&mut registry, key.get_ref().as_ref(), value.get_ref()) {
                wrong(origin, message);
            }
        }
        registries.insert(host.to_owned(), registry);
    }
    registries
}

/// A host name or address, perhaps with a port; what else it may be is up to who asks it.
fn is_host(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    !text.is_empty() && text.len() <= 261 && text.chars().all(legal)
}

fn set(registry: &mut Registry, key: &str, value: &DeValue<'_>) -> Result<(), String> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) if !text.is_empty() => Some(text.as_ref().to_owned()),
        _ => None,
    };
    match key {
        "mirrors" => {
            let DeValue::Array(items) = value else {
                return Err("mirrors: expected a list, as [\"https://mirror.example\"]".to_owned());
            };
            let mirrors = items.iter().map(|item| text(item.get_ref()));
            let mirrors = mirrors.collect::<Option<Vec<_>>>();
            registry.mirrors = mirrors.ok_or_else(|| {
                "mirrors: expected a list of texts, as [\"https://mirror.example\"]".to_owned()
            })?;
        }
        "insecure" => {
            let DeValue::Boolean(insecure) = value else {
                return Err("insecure: expected true or false".to_owned());
            };
            registry.insecure = *insecure;
        }
        "ca" => {
            let path = text(value).map(PathBuf::from);
            let path = path.filter(|path| path.is_absolute());
            let path = path.ok_or_else(|| {
                "ca: expected the path of a PEM file, which starts with \"/\"".to_owned()
            })?;
            registry.ca = Some(path);
        }
        other => {
            return Err(format!(
                "unknown key {other:?}: the keys are {}",
                KEYS.join(", ")
            ));
        }
    }
    Ok(())
}
