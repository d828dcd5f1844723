//! Tokens: asked for once for a repository, kept until they end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::answer::{self, Subject};
use super::challenge::Challenge;
use super::config::{RegistryConfig, authority, is_insecure};
use super::error::RegistryError;
use super::exchange::{self, Ask, Exchange};
use crate::credentials::Credentials;
use crate::digest::Digest;

/// What servers say that do not say for how long a token holds.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Tokens are not used in the last part of their life: clocks and requests take their time.
const MARGIN: u32 = 5;
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(3600);
/// Longest answer of a token server, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Headers that are kept; a node has fewer repositories.
const MAX_KEPT: usize = 1000;
/// How weft calls itself to token servers.
const CLIENT: &str = "weft";

/// For whom a header holds. Credentials are told apart by their digest, so that a service never asks with
/// the rights of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) who: Option<Digest>,
}

struct Kept {
    header: Zeroizing<String>,
    until: Instant,
}

/// Values of `Authorization` that registries took. One lock, never held over an await.
#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<BTreeMap<Key, Kept>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Tokens {
    /// What holds still.
    pub(super) fn kept(&self, key: &Key) -> Option<Zeroizing<String>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key)
            .filter(|kept| kept.until > Instant::now())
            .map(|kept| kept.header.clone())
    }

    /// After the registry refused it.
    pub(super) fn forget(&self, key: &Key) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(key);
    }

    fn keep(&self, key: &Key, header: Zeroizing<String>, life: Duration) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let until = now + life;
        kept.insert(key.clone(), Kept { header, until });
    }

    /// A header that meets the challenge: asked for where that is needed, and kept.
    ///
    /// # Errors
    /// There are no credentials, or the token server does not take them.
    pub(super) async fn meet(
        &self,
        challenge: &Challenge,
        key: &Key,
        credentials: Option<&Credentials>,
        configs: &BTreeMap<String, RegistryConfig>,
        exchange: &Exchange,
        subject: &Subject<'_>,
    ) -> Result<Zeroizing<String>, RegistryError> {
        let (header, life) = match challenge {
            Challenge::Basic => match credentials.and_then(Credentials::basic_header) {
                Some(header) => (header, MAX_LIFE),
                None => return Err(subject.denied(&key.host, "authentication required")),
            },
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                if let Some(token) = credentials.and_then(Credentials::registry_token) {
                    let header = Zeroizing::new(format!("Bearer {token}"));
                    (header, DEFAULT_LIFE)
                } else {
                    let default_scope = format!("repository:{}:pull", key.repository);
                    let scope = scope.as_deref().unwrap_or(&default_scope);
                    let ask = token_request(
                        &key.host,
                        realm,
                        service.as_deref(),
                        scope,
                        credentials,
                        configs,
                    )?;
                    fetch(&ask, exchange, subject).await?
                }
            }
        };
        self.keep(key, header.clone(), life);
        Ok(header)
    }
}

/// What the token server is asked.
fn token_request(
    registry: &str,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    credentials: Option<&Credentials>,
    configs: &BTreeMap<String, RegistryConfig>,
) -> Result<Ask, RegistryError> {
    let refused = |reason: String| RegistryError::Protocol {
        host: registry.to_owned(),
        reason,
    };
    let shown = super::error::tame(realm);
    let mut url = Url::parse(realm)
        .map_err(|error| refused(format!("its token server {shown:?} is no URL: {error}")))?;
    let host = authority(&url)
        .ok_or_else(|| refused(format!("its token server {shown:?} names no host")))?;
    let may_be_plain = is_insecure(configs, &host);
    match url.scheme() {
        "https" => {}
        "http" if may_be_plain => {}
        _ => {
            return Err(refused(format!(
                "its token server {shown:?} does not use TLS; set `insecure` in \
                 [registries.\"{host}\"] where that is meant"
            )));
        }
    }
    if let Some(token) = credentials.and_then(Credentials::identity_token) {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT)
            .append_pair("scope", scope)
            .append_pair("refresh_token", token);
        if let Some(service) = service {
            form.append_pair("service", service);
        }
        let mut ask = Ask::get(url);
        ask.method = hyper::Method::POST;
        ask.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        ask.body = form.finish().into();
        return Ok(ask);
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", scope);
        if let Some(credentials) = credentials
            && !credentials.username().is_empty()
        {
            query.append_pair("account", credentials.username());
        }
    }
    let mut ask = Ask::get(url);
    if let Some(header) = credentials.and_then(Credentials::basic_header) {
        ask.authorize(&header)?;
    }
    Ok(ask)
}

/// The token as a header, and how long it is used.
async fn fetch(
    ask: &Ask,
    exchange: &Exchange,
    subject: &Subject<'_>,
) -> Result<(Zeroizing<String>, Duration), RegistryError> {
    let host = ask.host();
    let response = exchange.send(ask, subject.manner).await?;
    if response.status() != StatusCode::OK {
        let error = answer::refusal(&host, response, exchange.idle(), subject).await;
        // A token server that knows no such path is no word about the image.
        return Err(match error {
            RegistryError::NoSuchImage { host, said, .. } => RegistryError::Server {
                host,
                status: 404,
                said,
            },
            other => other,
        });
    }
    let body = exchange::read(&host, response.into_body(), MAX_ANSWER, exchange.idle()).await?;
    let body = Zeroizing::new(body);
    let protocol = |reason: &str| RegistryError::Protocol {
        host: host.clone(),
        reason: reason.to_owned(),
    };
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|_| protocol("the answer of its token server is no JSON"))?;
    let token = answer
        .token
        .as_deref()
        .filter(|token| !token.is_empty())
        .or(answer.access_token.as_deref())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| protocol("its token server sent no token"))?;
    let life = answer
        .expires_in
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_LIFE, Duration::from_secs)
        .min(MAX_LIFE);
    let header = Zeroizing::new(format!("Bearer {token}"));
    Ok((header, life - life / MARGIN))
}

#[cfg(test)]
mod tests {
    use hyper::header::AUTHORIZATION;

    use super::*;

    fn request(realm: &str, credentials: Option<&Credentials>) -> Result<Ask, RegistryError> {
        token_request(
            "registry.example",
            realm,
            Some("the registry"),
            "repository:a/b:pull",
            credentials,
            &BTreeMap::new(),
        )
    }

    #[test]
    fn what_a_token_server_is_asked() {
        let ask = request("https://auth.example/token?x=1", None).expect("a request");
        assert_eq!(
            ask.url.as_str(),
            "https://auth.example/token?x=1&service=the+registry&scope=repository%3Aa%2Fb%3Apull"
        );
        assert!(ask.headers.is_empty());

        let user = Credentials::basic("ann", "secret");
        let ask = request("https://auth.example/token", Some(&user)).expect("a request");
        assert!(ask.url.as_str().ends_with("&account=ann"));
        assert_eq!(ask.headers[AUTHORIZATION], "Basic YW5uOnNlY3JldA==");
        assert!(!format!("{ask:?}").contains("YW5u"));

        let identity = Credentials::identity("t&k");
        let ask = request("https://auth.example/token", Some(&identity)).expect("a request");
        assert_eq!(ask.method, hyper::Method::POST);
        let form = String::from_utf8(ask.body.to_vec()).expect("text");
        assert!(form.contains("grant_type=refresh_token"), "{form}");
        assert!(form.contains("refresh_token=t%26k"), "{form}");
        assert!(!ask.url.as_str().contains("t%26k"));
    }

    #[test]
    fn secrets_need_tls() {
        let user = Credentials::basic("ann", "secret");
        let error = request("http://auth.example/token", Some(&user)).expect_err("plain");
        assert!(error.to_string().contains("does not use TLS"), "{error}");
        assert!(request("http://127.0.0.1:5001/token", Some(&user)).is_ok());
        assert!(request("file:///etc/passwd", Some(&user)).is_err());
        assert!(request("nonsense", None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_end() {
        let tokens = Tokens::default();
        let key = Key {
            host: "registry.example".to_owned(),
            repository: "a/b".to_owned(),
            who: None,
        };
        let header = Zeroizing::new("Bearer x".to_owned());
        tokens.keep(&key, header.clone(), Duration::from_secs(10));
        assert!(tokens.kept(&key).is_some_and(|kept| kept == header));
        let other = Key {
            who: Some(Digest::of(b"somebody")),
            ..key.clone()
        };
        assert!(tokens.kept(&other).is_none());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(tokens.kept(&key).is_none());
    }
}
