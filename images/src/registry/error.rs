//! What goes wrong with registries, told apart.

use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;
use crate::media::MediaTypeError;
use crate::source::{SourceError, SourceErrorKind};

/// Longest text of a registry that is shown, in characters.
const MAX_SAID: usize = 200;

/// Why a registry gives nothing. `host` is always the one that was asked, which may be a mirror, a token
/// server or where a registry sends its clients for content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It has no such repository, tag or content.
    #[error("No such image: {image}: {host} does not have it{}", after(.said))]
    NoSuchImage {
        /// The name, as people write it.
        image: String,
        /// Who was asked.
        host: String,
        /// Its own words.
        said: String,
    },
    /// It does not let us; many say so of what they do not have.
    #[error(
        "pull access denied for {image}, repository does not exist or may require 'docker login' \
         and --with-registry-auth: {host}{}", after(.said)
    )]
    AccessDenied {
        /// The name, as people write it.
        image: String,
        /// Who was asked.
        host: String,
        /// Its own words.
        said: String,
    },
    /// It has had too many requests.
    #[error(
        "toomanyrequests: {host} limits how often it is asked{}{}", patience(.retry_after), after(.said)
    )]
    RateLimited {
        /// Who was asked.
        host: String,
        /// How long it asks to wait, where it says so.
        retry_after: Option<Duration>,
        /// Its own words.
        said: String,
    },
    /// Its name has no address.
    #[error("cannot find the address of {host}: {reason}; check the name and the node's resolver")]
    Name {
        /// Who was to be asked.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// Who was to be asked.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// Not who it should be, or no TLS at all.
    #[error(
        "TLS with {host} failed: {reason}; give its authority by `ca`, or set `insecure`, in \
         [registries.\"{host}\"] of the node's configuration"
    )]
    Tls {
        /// Who was to be asked.
        host: String,
        /// What rustls says.
        reason: String,
    },
    /// It could not be reached a moment ago, and was not asked again.
    #[error("{error} (remembered: asked {} s ago)", .ago.as_secs())]
    Remembered {
        /// What came of asking it.
        error: Box<Self>,
        /// How long ago that was.
        ago: Duration,
    },
    /// It took the request, or began to answer, and fell silent.
    #[error("{host} has not said anything for {} s", .limit.as_secs_f32())]
    Silent {
        /// Who was asked.
        host: String,
        /// For how long it was waited.
        limit: Duration,
    },
    /// The connection ended before the answer did.
    #[error("the connection to {host} broke off: {reason}")]
    Cut {
        /// Who was asked.
        host: String,
        /// What hyper says.
        reason: String,
    },
    /// It has a trouble of its own.
    #[error("{host} answers {status}{}", after(.said))]
    Server {
        /// Who was asked.
        host: String,
        /// Of HTTP.
        status: u16,
        /// Its own words.
        said: String,
    },
    /// It does not speak the protocol of registries, or not as it should.
    #[error("{host} does not answer as a registry does: {reason}")]
    Protocol {
        /// Who was asked.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// Other content than was asked for.
    #[error("wrong digest: {host} was asked for {wanted} and sent {got}")]
    WrongDigest {
        /// Who was asked.
        host: String,
        /// What was asked for.
        wanted: Digest,
        /// What came.
        got: Digest,
    },
    /// Content of a kind that is no image.
    #[error("{host}: {source}")]
    MediaType {
        /// Who was asked.
        host: String,
        /// What is wrong.
        source: MediaTypeError,
    },
    /// The configuration names a file of authorities that cannot be used.
    #[error("[registries.{registry:?}] ca = {}: {reason}", .path.display())]
    Authority {
        /// Key in the configuration.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The configuration names a registry or mirror that is no host.
    #[error("[registries.{registry:?}]: {reason}")]
    Config {
        /// Key in the configuration.
        registry: String,
        /// What is wrong.
        reason: String,
    },
}

impl RegistryError {
    /// True where another host, or the same one later, may do better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Name { .. }
            | Self::Connect { .. }
            | Self::Remembered { .. }
            | Self::Silent { .. }
            | Self::Cut { .. } => true,
            Self::Server { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// True where nothing at all was heard from the host.
    pub(super) fn is_down(&self) -> bool {
        self.is_unreached() || matches!(self.cause(), Self::Tls { .. })
    }

    /// True where it does not show that somebody is there.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(
            self.cause(),
            Self::Name { .. } | Self::Connect { .. } | Self::Silent { .. }
        )
    }

    /// What came of asking, be it now or a moment ago.
    pub(super) fn cause(&self) -> &Self {
        match self {
            Self::Remembered { error, .. } => error,
            other => other,
        }
    }
}

impl From<RegistryError> for SourceError {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::NoSuchImage { .. } => SourceErrorKind::Missing,
            RegistryError::AccessDenied { .. } => SourceErrorKind::Denied,
            RegistryError::RateLimited { retry_after, .. } => SourceErrorKind::Busy {
                retry_after: *retry_after,
            },
            RegistryError::Remembered { .. } => SourceErrorKind::Down,
            other if other.is_transient() => SourceErrorKind::Unreachable,
            _ => SourceErrorKind::Unusable,
        };
        Self::new(kind, error.to_string())
    }
}

/// A stranger's words: short, on one line, and nothing that moves a terminal's cursor.
pub(super) fn tame(text: &str) -> String {
    text.trim()
        .chars()
        .map(|letter| if letter.is_whitespace() { ' ' } else { letter })
        .filter(|letter| !letter.is_control())
        .take(MAX_SAID)
        .collect()
}

fn after(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    }
}

fn patience(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| {
        format!(", and asks to wait for {} s", wait.as_secs())
    })
}
