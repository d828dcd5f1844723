//! Who asks a registry: as Docker's header says it, and as Docker's configuration file has it.

mod docker_config;
mod program;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use docker_config::{DockerConfig, DockerConfigError};
pub use program::ProgramError;

use crate::digest::Digest;

/// Longest header that is read, in bytes. Identity tokens have some thousands.
const MAX_HEADER: usize = 64 * 1024;
/// The user's name with which programs hand out an identity token.
pub(crate) const TOKEN_USER: &str = "<token>";

/// Why a header holds no credentials. It does not say what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not base64.
    #[error("invalid registry credentials: not base64; send X-Registry-Auth as docker does")]
    Base64,
    /// Not the JSON that Docker writes.
    #[error(
        "invalid registry credentials: not a JSON object with username and password, or identitytoken"
    )]
    Json,
    /// Longer than any.
    #[error("invalid registry credentials: more than {MAX_HEADER} bytes")]
    TooLong,
}

/// A user's name and password for one registry, or an identity token. Wiped from memory when dropped;
/// `Debug` says nothing.
#[derive(Clone, Default, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Credentials {
    username: String,
    password: String,
    identity_token: String,
    registry_token: String,
}

/// `AuthConfig` of Docker's API.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct AuthConfig {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(
        default,
        rename = "identitytoken",
        skip_serializing_if = "String::is_empty"
    )]
    identity_token: String,
    #[serde(
        default,
        rename = "registrytoken",
        skip_serializing_if = "String::is_empty"
    )]
    registry_token: String,
}

impl Credentials {
    /// A user's name and password.
    #[must_use]
    pub fn basic(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            identity_token: String::new(),
            registry_token: String::new(),
        }
    }

    /// An identity token, which a token server makes tokens from.
    #[must_use]
    pub fn identity(token: &str) -> Self {
        Self {
            username: String::new(),
            password: String::new(),
            identity_token: token.to_owned(),
            registry_token: String::new(),
        }
    }

    /// From Docker's header `X-Registry-Auth`: JSON in base64. Without anything, nobody: see
    /// [`Self::is_empty`].
    ///
    /// # Errors
    /// What is wrong with the header, without its content.
    pub fn from_header(header: &str) -> Result<Self, CredentialsError> {
        let header = header.trim();
        if header.is_empty() {
            return Ok(Self::default());
        }
        let json = decode(header)?;
        let config: AuthConfig =
            serde_json::from_slice(&json).map_err(|_| CredentialsError::Json)?;
        let mut read = Self {
            username: config.username.clone(),
            password: config.password.clone(),
            identity_token: config.identity_token.clone(),
            registry_token: config.registry_token.clone(),
        };
        if !config.auth.is_empty() && read.username.is_empty() {
            let pair = Self::from_pair(&config.auth)?;
            read.username.clone_from(&pair.username);
            read.password.clone_from(&pair.password);
        }
        Ok(read)
    }

    /// As Docker's header `X-Registry-Auth`.
    #[must_use]
    pub fn to_header(&self) -> String {
        let config = AuthConfig {
            username: self.username.clone(),
            password: self.password.clone(),
            auth: String::new(),
            identity_token: self.identity_token.clone(),
            registry_token: self.registry_token.clone(),
        };
        let json = Zeroizing::new(
            serde_json::to_vec(&config).expect("strings with fixed names are always JSON"),
        );
        URL_SAFE.encode(&*json)
    }

    /// From `auth` of Docker's file: `USER:PASSWORD` in base64.
    ///
    /// # Errors
    /// [`CredentialsError::Base64`], [`CredentialsError::Json`].
    pub(crate) fn from_pair(text: &str) -> Result<Self, CredentialsError> {
        let bytes = decode(text.trim())?;
        let pair = std::str::from_utf8(&bytes).map_err(|_| CredentialsError::Json)?;
        let (username, password) = pair.split_once(':').ok_or(CredentialsError::Json)?;
        Ok(Self::basic(username, password.trim_end_matches('\0')))
    }

    /// True for nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    /// The user's name; empty where there is a token alone.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Value of `Authorization` by Basic, where there is a user.
    pub(crate) fn basic_header(&self) -> Option<Zeroizing<String>> {
        if self.username.is_empty() {
            return None;
        }
        let pair = Zeroizing::new(format!("{}:{}", self.username, self.password));
        Some(Zeroizing::new(format!(
            "Basic {}",
            STANDARD.encode(pair.as_bytes())
        )))
    }

    /// The identity token, if this is one.
    pub(crate) fn identity_token(&self) -> Option<&str> {
        Some(self.identity_token.as_str()).filter(|token| !token.is_empty())
    }

    /// A token that is shown to the registry as it is.
    pub(crate) fn registry_token(&self) -> Option<&str> {
        Some(self.registry_token.as_str()).filter(|token| !token.is_empty())
    }

    /// Tells these from others in memory without holding them.
    pub(crate) fn fingerprint(&self) -> Digest {
        Digest::of(Zeroizing::new(self.to_header()).as_bytes())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Docker writes the URL's alphabet with padding; its clients in other languages, anything.
fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    if text.len() > MAX_HEADER {
        return Err(CredentialsError::TooLong);
    }
    [URL_SAFE, STANDARD, URL_SAFE_NO_PAD, STANDARD_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(text).ok())
        .map(Zeroizing::new)
        .ok_or(CredentialsError::Base64)
}

#[cfg(test)]
mod tests;
