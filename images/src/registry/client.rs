//! The protocol of registries: challenges met, redirects followed, both ways of HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use hyper::{Response, StatusCode};
use url::Url;

use super::answer::{self, Subject};
use super::challenge;
use super::config::{Endpoint, RegistryConfig, authority, has_port, is_insecure};
use super::connect::TimeOuts;
use super::error::{RegistryError, tame};
use super::exchange::{Ask, Exchange};
use super::manner::Manner;
use super::tls::Trust;
use super::token::{Key, Tokens};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::media;
use crate::name::ImageName;

/// As many as a registry, its storage and the storage's edge need, and some.
const MAX_REDIRECTS: usize = 5;

/// What of an image is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The manifest that the name stands for.
    Manifest,
    /// A blob, from this byte on.
    Blob { digest: &'a Digest, offset: u64 },
}

/// An answer with content.
#[derive(Debug)]
pub(super) struct Answer {
    /// Who gave it: another than was asked, where that one sent us on.
    pub(super) host: String,
    pub(super) response: Response<Incoming>,
}

/// Asks hosts that speak the protocol of registries. Two locks, never both held, never over an await.
#[derive(Debug)]
pub(super) struct Client {
    configs: BTreeMap<String, RegistryConfig>,
    exchange: Exchange,
    tokens: Tokens,
    /// Hosts without TLS, among those that may be so.
    plain: Mutex<BTreeMap<String, bool>>,
}

impl Client {
    /// # Errors
    /// The configuration names certificates that cannot be read.
    pub(super) fn new(
        configs: BTreeMap<String, RegistryConfig>,
        times: TimeOuts,
    ) -> Result<Self, RegistryError> {
        let trust = Arc::new(Trust::new(configs.clone())?);
        Ok(Self {
            configs,
            exchange: Exchange::new(trust, times),
            tokens: Tokens::default(),
            plain: Mutex::default(),
        })
    }

    pub(super) fn configs(&self) -> &BTreeMap<String, RegistryConfig> {
        &self.configs
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// An answer with status 200 or 206.
    ///
    /// # Errors
    /// Everything else.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        name: &ImageName,
        wanted: Wanted<'_>,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Answer, RegistryError> {
        // What is for the registry is not for its mirrors.
        let credentials =
            credentials.filter(|known| endpoint.mirrors.is_none() && !known.is_empty());
        let known = {
            let plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
            plain.get(&endpoint.host).copied()
        };
        let schemes: &[&str] = match (endpoint.plain, endpoint.insecure, known) {
            (true, _, _) | (_, true, Some(true)) => &["http"],
            (_, true, None) => &["https", "http"],
            _ => &["https"],
        };
        let mut last = None;
        for scheme in schemes {
            match self
                .get_by(scheme, endpoint, name, wanted, credentials, manner)
                .await
            {
                Err(error) if error.is_down() => {
                    // A name, and a port that is given, are the same by any scheme.
                    let is_the_same = match error.cause() {
                        RegistryError::Name { .. } => true,
                        RegistryError::Connect { .. } => has_port(&endpoint.host),
                        _ => false,
                    };
                    last = Some(error);
                    if is_the_same {
                        break;
                    }
                }
                heard => {
                    let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
                    plain.insert(endpoint.host.clone(), *scheme == "http");
                    return heard;
                }
            }
        }
        // It may come back as something else.
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        plain.remove(&endpoint.host);
        Err(last.expect("there is a scheme at least, and it failed"))
    }

    async fn get_by(
        &self,
        scheme: &str,
        endpoint: &Endpoint,
        name: &ImageName,
        wanted: Wanted<'_>,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Answer, RegistryError> {
        let subject = Subject { name, manner };
        let key = Key {
            host: endpoint.host.clone(),
            repository: name.path().to_owned(),
            who: credentials.map(Credentials::fingerprint),
        };
        let ask = question(scheme, endpoint, name, wanted)?;
        let mut header = self.tokens.kept(&key);
        let mut attempts = 0;
        loop {
            let mut ask = ask.clone();
            if let Some(header) = &header {
                ask.authorize(header)?;
            }
            let (answer, redirected) = self.follow(ask, manner).await?;
            let status = answer.response.status();
            if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
                return Ok(answer);
            }
            if status == StatusCode::UNAUTHORIZED && !redirected && attempts == 0 {
                attempts += 1;
                self.tokens.forget(&key);
                if let Some(challenge) = challenge::best(answer.response.headers()) {
                    let met = self
                        .tokens
                        .meet(
                            &challenge,
                            &key,
                            credentials,
                            &self.configs,
                            &self.exchange,
                            &subject,
                        )
                        .await?;
                    header = Some(met);
                    continue;
                }
            }
            if status == StatusCode::UNAUTHORIZED {
                self.tokens.forget(&key);
            }
            let idle = self.exchange.idle();
            return Err(answer::refusal(&answer.host, answer.response, idle, &subject).await);
        }
    }

    /// The answer, and whether another host than the first gave it. Others get no `Authorization`.
    async fn follow(&self, mut ask: Ask, manner: Manner) -> Result<(Answer, bool), RegistryError> {
        let mut redirected = false;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange.send(&ask, manner).await?;
            let host = ask.host();
            if !is_redirect(response.status()) {
                return Ok((Answer { host, response }, redirected));
            }
            let next = self.next_place(&ask.url, response.headers())?;
            if next.origin() != ask.url.origin() {
                ask.headers.remove(AUTHORIZATION);
                redirected = true;
            }
            ask.url = next;
        }
        Err(RegistryError::Protocol {
            host: ask.host(),
            reason: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// Where a redirect leads.
    fn next_place(&self, from: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
        let refused = |reason: String| RegistryError::Protocol {
            host: authority(from).unwrap_or_default(),
            reason,
        };
        let location = headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| refused("a redirect to nowhere".to_owned()))?;
        let mut next = from
            .join(location)
            .map_err(|error| refused(format!("a redirect that is no URL: {error}")))?;
        next.set_fragment(None);
        let host = authority(&next).ok_or_else(|| refused("a redirect to no host".to_owned()))?;
        let stays_plain = from.scheme() == "http";
        match next.scheme() {
            "https" => Ok(next),
            "http" if stays_plain || is_insecure(&self.configs, &host) => Ok(next),
            other => Err(refused(format!(
                "it redirects from TLS to {} at {}",
                tame(other),
                tame(&host)
            ))),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn question(
    scheme: &str,
    endpoint: &Endpoint,
    name: &ImageName,
    wanted: Wanted<'_>,
) -> Result<Ask, RegistryError> {
    let (kind, reference) = match wanted {
        Wanted::Manifest => ("manifests", name.reference()),
        Wanted::Blob { digest, .. } => ("blobs", digest.to_string()),
    };
    let text = format!(
        "{scheme}://{}{}/v2/{}/{kind}/{reference}",
        endpoint.host,
        endpoint.prefix,
        name.path()
    );
    let mut url = Url::parse(&text).map_err(|error| RegistryError::Protocol {
        host: endpoint.host.clone(),
        reason: format!("{text} is no URL: {error}"),
    })?;
    if let Some(registry) = &endpoint.mirrors {
        // As containerd: a mirror of several registries has to know of which.
        url.query_pairs_mut().append_pair("ns", registry);
    }
    let mut ask = Ask::get(url);
    match wanted {
        Wanted::Manifest => {
            ask.headers
                .insert(ACCEPT, HeaderValue::from_static(media::MANIFESTS));
        }
        Wanted::Blob { offset: 0, .. } => {}
        Wanted::Blob { offset, .. } => {
            let range = HeaderValue::try_from(format!("bytes={offset}-"))
                .expect("a number is a header's value");
            ask.headers.insert(RANGE, range);
        }
    }
    Ok(ask)
}
