//! What an answer without content means.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::error::{RegistryError, tame};
use super::exchange;
use super::manner::Manner;
use crate::name::ImageName;

/// Longest text of an error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;
/// The longest wait that is believed.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The image that a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a ImageName,
    /// How its registry is asked, and who else has to be.
    pub(super) manner: Manner,
}

impl Subject<'_> {
    pub(super) fn denied(&self, host: &str, said: &str) -> RegistryError {
        RegistryError::AccessDenied {
            image: self.name.familiar(),
            host: host.to_owned(),
            said: said.to_owned(),
        }
    }
}

/// `{"errors": [{"code", "message"}]}` of registries, `{"details"}` of Docker Hub's token server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Errors {
    errors: Vec<OneError>,
    details: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OneError {
    code: String,
    message: String,
}

/// Why there is no content.
pub(super) async fn refusal(
    host: &str,
    response: Response<Incoming>,
    idle: Duration,
    subject: &Subject<'_>,
) -> RegistryError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT));
    // An error's text is worth no error of its own.
    let said = match exchange::read(host, response.into_body(), MAX_ERROR, idle).await {
        Ok(body) => words(&body),
        Err(_) => String::new(),
    };
    let image = subject.name.familiar();
    let host = host.to_owned();
    match status {
        StatusCode::NOT_FOUND => RegistryError::NoSuchImage { image, host, said },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::AccessDenied { image, host, said }
        }
        StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
            host,
            retry_after,
            said,
        },
        other => RegistryError::Server {
            host,
            status: other.as_u16(),
            said,
        },
    }
}

/// The first error of a body, as docker shows it: `manifest unknown: …`.
fn words(body: &[u8]) -> String {
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else {
        return String::new();
    };
    let Some(first) = errors.errors.first() else {
        return tame(&errors.details);
    };
    let code = first.code.to_lowercase().replace('_', " ");
    match (code.is_empty(), first.message.is_empty()) {
        (true, _) => tame(&first.message),
        (false, true) => tame(&code),
        (false, false) => tame(&format!("{code}: {}", first.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_registries() {
        let text = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(words(text), "manifest unknown: manifest unknown");
        assert_eq!(
            words(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(words(b"<html>"), "");
        assert_eq!(words(b"{}"), "");
        let long = format!(
            r#"{{"errors":[{{"message":"\u001b[2J{}"}}]}}"#,
            "x".repeat(1000)
        );
        let said = words(long.as_bytes());
        assert!(
            said.starts_with("[2Jxx") && said.chars().count() == 200,
            "{said}"
        );
    }
}
