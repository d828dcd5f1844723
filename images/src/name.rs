//! Names of images, as docker reads and writes them.
//!
//! The grammar is that of `distribution/reference`: `[DOMAIN/]PATH[:TAG][@DIGEST]`. A name is normalised
//! once, when it is read: `nginx` is `docker.io/library/nginx:latest` from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_model::objects::Runtime;

use crate::digest::Digest;

/// Where names without a domain are.
const DEFAULT_DOMAIN: &str = "docker.io";
/// What [`DEFAULT_DOMAIN`] was called once.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Which host answers for [`DEFAULT_DOMAIN`], a name that is none.
const DEFAULT_HOST: &str = "registry-1.docker.io";
/// Of paths of one word on [`DEFAULT_DOMAIN`].
const OFFICIAL: &str = "library/";
/// The tag of a name that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Longest path, in bytes.
const MAX_PATH: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;
/// No name that means something is longer; so nothing below looks at a megabyte.
const MAX_NAME: usize = 1024;

/// Why something is no name of an image, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of the form.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// An id of an image where a name is asked for.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// A path of more than 255 bytes.
    #[error("repository name must not be more than {MAX_PATH} characters")]
    TooLong,
    /// A digest of another kind than sha256.
    #[error("unsupported digest algorithm in {0}: only sha256 is known")]
    Algorithm(String),
    /// A digest of sha256 that is none.
    #[error("invalid checksum digest in {0}: sha256 has 64 hexadecimal digits in lower case")]
    Digest(String),
}

/// The name of an image, normalised: always with a domain, and with a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageName {
    /// Domain of the registry, with its port where one was given: `docker.io`, `registry.example:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Host, and port where one was given, that answers for the domain.
    #[must_use]
    pub fn registry_host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN {
            DEFAULT_HOST
        } else {
            &self.domain
        }
    }

    /// Path of the repository in its registry: `library/nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given, or `latest` if no digest was given either.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same name with this digest, in place of the one that it may have.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same name by its tag alone; by `latest` where it had a digest only.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        Self {
            tag: Some(self.tag.as_deref().unwrap_or(DEFAULT_TAG).to_owned()),
            digest: None,
            ..self.clone()
        }
    }

    /// What a registry is asked for: the digest if there is one, as it counts then; the tag otherwise.
    #[must_use]
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// For people, whole: `nginx:latest@sha256:…`. Reads as the same name again.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_short();
        if self.tag.is_none() && self.digest.is_some() {
            text = self.repository();
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }

    /// For tables: without the digest, `nginx:latest`; `nginx` where there was a digest alone.
    #[must_use]
    pub fn familiar_short(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository()),
            None => self.repository(),
        }
    }

    /// For people, without tag and digest: `nginx`.
    #[must_use]
    pub fn repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.strip_prefix(OFFICIAL) {
            // The word alone means the node's own programs.
            Some(word) if !word.contains('/') && word != Runtime::HOST_IMAGE => word.to_owned(),
            _ => self.path.clone(),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        if is_identifier(text) {
            return Err(NameError::Identifier(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NameError::Uppercase(path.to_owned()));
        }
        if !is_domain(domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(NameError::Format);
        }
        if path.len() > MAX_PATH {
            return Err(NameError::TooLong);
        }
        let digest = digest.map(parse_digest).transpose()?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag,
            digest,
        })
    }
}

impl Serialize for ImageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The domain and all after it. The first part is a domain only where it cannot be part of a path:
/// `splitDockerDomain` of distribution/reference.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if looks_like_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    // As docker: a slash in tag or digest counts too, and is refused by their own rules.
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        (domain, format!("{OFFICIAL}{rest}"))
    } else {
        (domain, rest.to_owned())
    }
}

fn looks_like_domain(word: &str) -> bool {
    word == "localhost" || word.contains(['.', ':']) || word.chars().any(char::is_uppercase)
}

/// 64 hexadecimal digits are an id of an image.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// `HOST[:PORT]`, where `HOST` is a name, an IPv4 address, or one of IPv6 in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, "")) => return is_ipv6(address),
        Some((address, after)) => {
            let Some(port) = after.strip_prefix(':') else {
                return false;
            };
            return is_ipv6(address) && is_port(port);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(is_port) && host.split('.').all(is_label)
}

fn is_ipv6(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(*first)
        && is_word(*last)
        && bytes.split(|byte| is_word(*byte)).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
        })
}

/// `[\w][\w.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= MAX_TAG
        && bytes.next().is_some_and(is_word)
        && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// A digest of the grammar is told from one that weft knows.
fn parse_digest(text: &str) -> Result<Digest, NameError> {
    let (algorithm, hex) = text.split_once(':').ok_or(NameError::Format)?;
    let is_algorithm = algorithm.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    let is_hex = hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_algorithm || !is_hex {
        return Err(NameError::Format);
    }
    if algorithm != "sha256" {
        return Err(NameError::Algorithm(text.to_owned()));
    }
    text.parse().map_err(|_| NameError::Digest(text.to_owned()))
}

#[cfg(test)]
mod tests;
