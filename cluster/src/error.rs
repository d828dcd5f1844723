//! Why a command was refused.

use weft_model::names::InvalidName;

/// What kind of refusal: decides the status code of the node API and of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request can never work as it is.
    BadRequest,
    /// It names an object that does not exist.
    NotFound,
    /// It collides with an object that exists.
    Conflict,
    /// It may work later or elsewhere (no manager, not part of a swarm).
    Unavailable,
    /// Another manager decides, or none does at present. Nothing of the command was done, so that it
    /// can be given to whoever leads.
    NotLed,
    /// The caller may not do this.
    Forbidden,
}

/// A refused command. Nothing was changed. The text says what, where and the next step; where
/// Docker has a text for the case, it is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// Kind of refusal.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

impl CommandError {
    /// Any kind with any text.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// [`ErrorKind::BadRequest`]
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// [`ErrorKind::NotFound`]
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Conflict`]
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Unavailable`]
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::NotLed`]
    #[must_use]
    pub fn not_led(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotLed, message)
    }

    /// [`ErrorKind::Forbidden`]
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }
}

impl From<InvalidName> for CommandError {
    fn from(error: InvalidName) -> Self {
        Self::bad(error.message)
    }
}
