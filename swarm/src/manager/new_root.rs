//! Where root certificates come from: made here, or brought by an operator. And how one signs
//! another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use weft_cluster::{CommandError, RootPair};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Name;

use crate::clocks::local;
use crate::identity::{IdentityError, certificate_from_pem, damaged, validity_of};
use crate::roots::{certificates, digest_text};

const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Clocks of nodes may be this far behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// Sets the validity of a certificate that counts from `now`, a little backdated.
pub(super) fn set_validity(params: &mut CertificateParams, now: SystemTime, until: SystemTime) {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since(now).saturating_sub(BACKDATE);
    params.not_after = epoch + since(until);
}

fn pair(certificate: &str, key: &str, der: &CertificateDer<'_>) -> RootPair {
    RootPair {
        certificate: format!("{}\n", certificate.trim()),
        key: format!("{}\n", key.trim()),
        digest: digest_text(der),
    }
}

/// A new root: ECDSA P-256, 20 years.
pub(super) fn generate(now: SystemTime) -> Result<RootPair, IdentityError> {
    let fail = |e: rcgen::Error| damaged("the new root certificate", e);
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "swarm-ca");
    params.distinguished_name = name;
    // One of its own may follow, which it signs while that takes its place.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, now + ROOT_LIFE);
    let root = params.self_signed(&key).map_err(fail)?;
    Ok(pair(&root.pem(), &key.serialize_pem(), root.der()))
}

/// The root that an operator brings.
///
/// # Errors
/// It is not one certificate, it is none of an authority, does not count now, or the key is another
/// one's.
pub(super) fn given(
    certificate: &str,
    key: &str,
    now: SystemTime,
) -> Result<RootPair, CommandError> {
    let bad = |why: &str| {
        CommandError::bad(format!(
            "the root certificate of --ca-cert cannot be used: {why}"
        ))
    };
    let list = certificates(certificate).map_err(|e| bad(&e.to_string()))?;
    let [der] = list.as_slice() else {
        return Err(bad("the file must hold one certificate, the root's"));
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| bad(&e.to_string()))?;
    if !parsed.is_ca() || !may_sign(&parsed) {
        return Err(bad(
            "it is not one of an authority (basicConstraints CA:TRUE, keyUsage keyCertSign)",
        ));
    }
    let (from, until) = validity_of("the root certificate", der)?;
    if now < from || until < now {
        return Err(bad(&format!(
            "it counts from {} until {}, and the clock of this manager says {}",
            local(from),
            local(until),
            local(now)
        )));
    }
    let pair_key = KeyPair::from_pem(key).map_err(|e| {
        CommandError::bad(format!(
            "the key of --ca-key cannot be used: {e}; it must be PEM, without a passphrase"
        ))
    })?;
    if pair_key.subject_public_key_info() != parsed.public_key().raw {
        return Err(CommandError::bad(
            "the key of --ca-key does not belong to the certificate of --ca-cert; give the two of one \
             root",
        ));
    }
    Ok(pair(certificate, key, der))
}

fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// A name as it stands in a certificate, to be written again.
fn name(subject: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for attribute in subject.iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let text = attribute.as_str().ok()?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            _ => return None,
        };
        name.push(DnType::from_oid(&oid), value);
    }
    Some(name)
}

/// The certificate of `root`, with its name and its key, signed by another root (PEM).
///
/// # Errors
/// One of them is damaged, or the name is of a kind that cannot be written again.
pub(super) fn cross_sign(
    root: &RootPair,
    by: &RootPair,
    now: SystemTime,
) -> Result<String, IdentityError> {
    const WHAT: &str = "the root certificate";
    let fail = |e: rcgen::Error| damaged(WHAT, e);
    let der = certificate_from_pem(WHAT, &root.certificate)?;
    let signer = certificate_from_pem(WHAT, &by.certificate)?;
    let key = KeyPair::from_pem(&root.key).map_err(fail)?;
    let signer_key = KeyPair::from_pem(&by.key).map_err(fail)?;
    let issuer = Issuer::from_ca_cert_der(&signer, signer_key).map_err(fail)?;
    let subject = |der: &CertificateDer<'_>| {
        let parsed = x509_parser::parse_x509_certificate(der).map_err(|e| damaged(WHAT, e))?;
        let subject = parsed.1.subject();
        Ok::<_, IdentityError>((subject.as_raw().to_vec(), name(subject)))
    };
    let unusable = || {
        damaged(
            WHAT,
            "its name has more than plain UTF-8 or printable texts",
        )
    };
    let (raw, name) = subject(&der)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name.ok_or_else(unusable)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (_, until) = validity_of(WHAT, &der)?;
    let (_, signer_until) = validity_of(WHAT, &signer)?;
    set_validity(&mut params, now, until.min(signer_until));
    let crossed = params.signed_by(&key, &issuer).map_err(fail)?;
    // Verifiers compare names byte by byte.
    if subject(crossed.der())?.0 != raw {
        return Err(unusable());
    }
    Ok(crossed.pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(certificate: &str, key: &str, now: SystemTime) -> String {
        given(certificate, key, now).unwrap_err().message
    }

    #[test]
    fn what_an_operator_brings_is_looked_at() {
        let now = SystemTime::now();
        let (root, other) = (generate(now).unwrap(), generate(now).unwrap());
        let (certificate, key) = (root.certificate.as_str(), root.key.as_str());
        let taken = given(&format!("\n{certificate}\n\n"), key, now).unwrap();
        assert_eq!(taken, root);
        let two = format!("{certificate}{}", other.certificate);
        assert!(refused(&two, key, now).contains("one certificate"));
        assert!(refused("", key, now).contains("holds no certificate"));
        assert!(refused(certificate, "", now).contains("--ca-key"));
        assert!(refused(certificate, &other.key, now).contains("does not belong"));
        let late = now + ROOT_LIFE + BACKDATE;
        let text = refused(certificate, key, late);
        assert!(text.contains(&local(late)), "{text}");
        let leaf = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
        let leaf_pem = params.self_signed(&leaf).unwrap().pem();
        let text = refused(&leaf_pem, &leaf.serialize_pem(), now);
        assert!(text.contains("one of an authority"), "{text}");
    }

    #[test]
    fn another_ones_name_is_written_as_it_was() {
        let now = SystemTime::now();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        let country = DnValue::PrintableString("DE".try_into().unwrap());
        subject.push(DnType::CountryName, country);
        subject.push(DnType::OrganizationName, "Grün & Söhne");
        subject.push(DnType::CommonName, "root 7");
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        set_validity(&mut params, now, now + ROOT_LIFE);
        let root = params.self_signed(&key).unwrap().pem();
        let root = given(&root, &key.serialize_pem(), now).unwrap();
        let first = generate(now).unwrap();
        let crossed = cross_sign(&root, &first, now).unwrap();
        assert_ne!(crossed, root.certificate);
        let list = certificates(&crossed).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&list[0]).unwrap();
        assert!(parsed.subject().to_string().contains("root 7"));
        assert!(parsed.issuer().to_string().contains("swarm-ca"));
    }
}
