//! Whom TLS trusts, for each registry.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::{RegistryConfig, is_insecure};
use super::error::RegistryError;

/// Configurations of TLS by host, made when they are first asked for.
#[derive(Debug)]
pub(super) struct Trust {
    configs: BTreeMap<String, RegistryConfig>,
    /// Certificates of the hosts that have their own authority.
    own: BTreeMap<String, Vec<CertificateDer<'static>>>,
    /// What the node trusts: a hundred certificates, read when somebody needs them.
    native: OnceLock<Result<Arc<ClientConfig>, String>>,
    unverified: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Trust {
    /// Reads the files of authorities that the configuration names.
    ///
    /// # Errors
    /// [`RegistryError::Authority`].
    pub(super) fn new(configs: BTreeMap<String, RegistryConfig>) -> Result<Self, RegistryError> {
        let mut own = BTreeMap::new();
        for (host, config) in &configs {
            if let Some(path) = &config.ca {
                let certificates = read(path).map_err(|reason| RegistryError::Authority {
                    registry: host.clone(),
                    path: path.clone(),
                    reason,
                })?;
                own.insert(host.clone(), certificates);
            }
        }
        // The host that answers for a name has the name's authority.
        if let Some(hub) = own.get("docker.io").cloned() {
            own.entry("registry-1.docker.io".to_owned()).or_insert(hub);
        }
        Ok(Self {
            configs,
            own,
            native: OnceLock::new(),
            unverified: OnceLock::new(),
        })
    }

    /// How to talk to a host; `host` with its port where it is not 443.
    ///
    /// # Errors
    /// What is wrong with the certificates, for [`RegistryError::Tls`].
    pub(super) fn config(&self, host: &str) -> Result<Arc<ClientConfig>, String> {
        if is_insecure(&self.configs, host) {
            return self.unverified.get_or_init(unverified).clone();
        }
        match self.own.get(host) {
            // Of few hosts, and a connection is kept: not worth a cache.
            Some(certificates) => verified(certificates),
            None => self.native.get_or_init(|| verified(&[])).clone(),
        }
    }
}

/// Certificates of a PEM file.
fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| error.to_string())?
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("there is no certificate (PEM) in it".to_owned());
    }
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| error.to_string())?;
    }
    Ok(certificates)
}

/// The node's own authorities, and these.
fn verified(own: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, String> {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a file of certificates of this node cannot be read");
    }
    let mut store = RootCertStore::empty();
    // Nodes have files with certificates that nobody can use any more.
    let (good, bad) = store.add_parsable_certificates(native.certs);
    tracing::debug!(good, bad, "certificates of this node");
    for certificate in own {
        store
            .add(certificate.clone())
            .map_err(|error| error.to_string())?;
    }
    if store.is_empty() {
        return Err(
            "this node trusts no certificate: install its package ca-certificates".to_owned(),
        );
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn unverified() -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider())))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Takes every certificate: for hosts of which the configuration says `insecure`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
