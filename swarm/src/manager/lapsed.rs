//! Certificates that have run out: their holders may renew them, and nothing else.
//!
//! Renewal must not need what it renews: a cluster that was switched off for longer than its
//! certificates live would never come back. So TLS lets a certificate of this cluster pass that was
//! valid once, and the [`super::gate`] lets its holder renew it if the node is still a member.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tonic::Status;
use weft_model::objects::Node;

use crate::clocks::local;
use crate::identity::PeerIdentity;

/// Asks a verifier again as of the last second of a certificate that has run out. Everything else
/// about it has to be right.
#[derive(Debug)]
pub(super) struct LapsedToo(pub(super) Arc<dyn ClientCertVerifier>);

const fn has_run_out(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::Expired)
            | Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
    )
}

impl ClientCertVerifier for LapsedToo {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(error) if has_run_out(&error) => error,
            verdict => return verdict,
        };
        let Ok(member) = PeerIdentity::from_certificate(end_entity) else {
            return Err(refused);
        };
        let last = member.not_after.duration_since(UNIX_EPOCH);
        let last = UnixTime::since_unix_epoch(last.unwrap_or_default());
        if last >= now {
            return Err(refused);
        }
        self.0.verify_client_cert(end_entity, intermediates, last)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The certificate has run out at that time of day.
pub(super) fn has_lapsed(member: &PeerIdentity, now: SystemTime) -> bool {
    now > member.not_after
}

/// What the holder of a certificate that has run out hears to everything but its renewal.
pub(super) fn only_renewal(member: &PeerIdentity, now: SystemTime) -> Status {
    Status::unauthenticated(format!(
        "the certificate of node {} counted from {} until {}, and the clock of the manager says {}: \
         it may be renewed, and nothing else. weftd does that by itself; where it goes on, one of \
         both clocks is wrong",
        member.node,
        local(member.not_before),
        local(member.not_after),
        local(now)
    ))
}

/// Whether a certificate that has run out may be renewed: the `node` has not shown a newer one, and
/// the authority, valid in `root`, vouches for it and can vouch again.
pub(super) fn may_be_renewed(
    member: &PeerIdentity,
    node: &Node,
    root: (SystemTime, SystemTime),
    now: SystemTime,
) -> Result<(), Status> {
    let again = "run \"weft swarm leave --force\" there and join again";
    // Whoever finds an old certificate on an old disk must not become the node.
    let newest = UNIX_EPOCH + Duration::from_millis(node.certified);
    if member.not_before < newest {
        return Err(Status::permission_denied(format!(
            "Permission denied: the certificate of node {} counted until {}, and the node has had a \
             newer one since; {again}",
            member.node,
            local(member.not_after)
        )));
    }
    let (from, until) = root;
    if member.not_after < from {
        return Err(Status::permission_denied(format!(
            "Permission denied: the certificate of node {} counted until {}, before the root \
             certificate of this swarm was made ({}); {again}",
            member.node,
            local(member.not_after),
            local(from)
        )));
    }
    if now > until {
        return Err(Status::failed_precondition(format!(
            "the root certificate of this swarm counted until {}, and the clock of the manager says \
             {}: nothing can be renewed. Unless that clock is wrong, make a new swarm",
            local(until),
            local(now)
        )));
    }
    Ok(())
}
