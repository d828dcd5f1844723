//! Root certificates that count for a node, and which of them vouch for a certificate.

use std::fmt::Write as _;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;

/// A text that is no list of root certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRoots {
    /// There is none in it.
    #[error("it holds no certificate")]
    Empty,
    /// It is no PEM.
    #[error("{0:?}")]
    Pem(rustls::pki_types::pem::Error),
    /// One of them cannot be a root.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
}

/// SHA-256 of a root certificate, as tokens pin it.
pub(crate) fn digest(der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// The same in hexadecimal digits.
pub(crate) fn digest_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(bytes) {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// All certificates of a PEM text, in its order.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, BadRoots> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(BadRoots::Pem)?;
    if found.is_empty() {
        return Err(BadRoots::Empty);
    }
    Ok(found)
}

/// One of them.
#[derive(Debug, Clone)]
struct Root {
    digest: String,
    der: CertificateDer<'static>,
    store: RootCertStore,
}

impl Root {
    /// Whether it signed the first certificate of a chain, by way of `between`. When is another
    /// question: asked is for a moment at which all of them had begun to count.
    fn vouches(&self, leaf: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> bool {
        let Ok(parsed) = ParsedCertificate::try_from(leaf) else {
            return false;
        };
        let begun = between.iter().map(begins).max().unwrap_or(0);
        let begun = begun.max(begins(leaf)).max(begins(&self.der));
        let at = UnixTime::since_unix_epoch(Duration::from_secs(begun));
        let algorithms = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = algorithms.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.store, between, at, algorithms)
            .is_ok()
    }
}

/// The second from which on a certificate counts.
fn begins(der: &CertificateDer<'_>) -> u64 {
    let parsed = x509_parser::parse_x509_certificate(der);
    let begins = parsed.map(|(_, cert)| cert.validity().not_before.timestamp());
    begins.map_or(0, |secs| u64::try_from(secs).unwrap_or(0))
}

/// All of them. While one takes the place of another there are two; the first one makes certificates.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pem: String,
    list: Vec<Root>,
}

impl Roots {
    /// Reads them.
    ///
    /// # Errors
    /// There is none in the text, or something that is none.
    pub(crate) fn from_pem(pem: String) -> Result<Self, BadRoots> {
        let mut list = Vec::new();
        for der in certificates(&pem)? {
            let mut store = RootCertStore::empty();
            store.add(der.clone())?;
            list.push(Root {
                digest: digest_text(&der),
                der,
                store,
            });
        }
        Ok(Self { pem, list })
    }

    /// As they were read.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// For TLS.
    pub(crate) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        for root in &self.list {
            store.roots.extend(root.store.roots.iter().cloned());
        }
        store
    }

    /// Digests of those that vouch for the first certificate of a chain: first those that signed it
    /// themselves, then those that signed who did.
    pub(crate) fn vouching(&self, chain: &[CertificateDer<'_>]) -> Vec<String> {
        let Some((leaf, between)) = chain.split_first() else {
            return Vec::new();
        };
        let (direct, rest): (Vec<&Root>, Vec<&Root>) =
            self.list.iter().partition(|root| root.vouches(leaf, &[]));
        let by_others = rest.into_iter().filter(|root| root.vouches(leaf, between));
        let all = direct.iter().copied().chain(by_others);
        all.map(|root| root.digest.clone()).collect()
    }

    /// Whether the one that makes certificates now made that of a chain.
    pub(crate) fn made(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some(first), Some(leaf)) = (self.list.first(), chain.first()) else {
            return false;
        };
        first.vouches(leaf, &[])
    }
}
