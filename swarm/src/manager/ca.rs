//! The cluster's certificate authority: one root, short-lived node certificates.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    date_time_ymd,
};
use weft_model::id::NodeId;
use weft_model::objects::Role;
use zeroize::Zeroizing;

use crate::identity::{
    Identity, IdentityError, MANAGER_UNIT, ROOT_FILE, ROOT_KEY_FILE, WORKER_UNIT, certificate_dir,
    certificate_from_pem, create_private_dir, damaged, validity_of, write_private,
};
use crate::join::digest;
use crate::sealing::{Sealer, SecretKey};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Life of a node certificate (Swarm's default).
pub(super) const NODE_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Clocks of nodes may be this far behind.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// Place of the root key, sealed.
const KEY_PLACE: &[u8] = b"weft root key";

/// Signs node certificates. `Debug` leaves the key out.
pub(super) struct Authority {
    root_pem: String,
    key_pem: Zeroizing<String>,
    issuer: Issuer<'static, KeyPair>,
    digest: [u8; 32],
    validity: (SystemTime, SystemTime),
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// Sets the validity of a certificate that counts from `now`, a little backdated.
fn set_validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(DAY);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + life;
}

impl Authority {
    /// A new root: ECDSA P-256, 20 years.
    pub(super) fn generate(now: SystemTime) -> Result<Self, IdentityError> {
        let fail = |e: rcgen::Error| damaged("the new root certificate", e);
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "swarm-ca");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, ROOT_LIFE);
        let root_pem = params.self_signed(&key).map_err(fail)?.pem();
        Self::new(root_pem, Zeroizing::new(key.serialize_pem()))
    }

    /// A root certificate and its key.
    pub(super) fn new(root_pem: String, key_pem: Zeroizing<String>) -> Result<Self, IdentityError> {
        let root = certificate_from_pem("the root certificate", &root_pem)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|e| damaged("the root key", e))?;
        let issuer =
            Issuer::from_ca_cert_der(&root, key).map_err(|e| damaged("the root certificate", e))?;
        Ok(Self {
            digest: digest(&root),
            validity: validity_of("the root certificate", &root)?,
            root_pem,
            key_pem,
            issuer,
        })
    }

    /// Reads the root of a manager's data directory, whose key is sealed by `seal`.
    pub(super) fn load(data_dir: &Path, seal: &SecretKey) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = certificate_dir(data_dir).join(name);
            std::fs::read(&path).map_err(|source| IdentityError::File {
                action: "read",
                path,
                source,
            })
        };
        let root = String::from_utf8(read(ROOT_FILE)?);
        let root = root.map_err(|e| damaged("the root certificate", e))?;
        let key = Sealer::new(seal.clone()).open(KEY_PLACE, &read(ROOT_KEY_FILE)?);
        let key = String::from_utf8(key.map_err(|e| damaged("the root key", e))?);
        let key = key.map_err(|e| damaged("the root key", e.utf8_error()))?;
        Self::new(root, Zeroizing::new(key))
    }

    /// Writes the certificate, and the key sealed by `seal`, readable by the owner only.
    pub(super) fn save(&self, data_dir: &Path, seal: &SecretKey) -> Result<(), IdentityError> {
        let dir = certificate_dir(data_dir);
        create_private_dir(&dir)?;
        let sealed = Sealer::new(seal.clone()).close(KEY_PLACE, self.key_pem.as_bytes());
        write_private(&dir.join(ROOT_FILE), self.root_pem.as_bytes())?;
        write_private(&dir.join(ROOT_KEY_FILE), &sealed)
    }

    /// The root certificate, for joiners.
    pub(super) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root's key, for other managers.
    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// First and last moment at which the root certificate counts.
    pub(super) fn validity(&self) -> (SystemTime, SystemTime) {
        self.validity
    }

    /// What join tokens pin.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Certifies the public key of a request; everything else in the request is ignored.
    pub(super) fn sign(
        &self,
        csr_pem: &str,
        node: &NodeId,
        role: Role,
        cluster: &str,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| damaged("the certificate request", e))?;
        self.certify(&request.public_key, node, role, cluster, now)
    }

    /// A key and certificate for the manager itself.
    pub(super) fn issue(
        &self,
        node: &NodeId,
        role: Role,
        cluster: &str,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate().map_err(|e| damaged("the new key", e))?;
        let certificate = self.certify(&key, node, role, cluster, now)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        Identity::new(self.root_pem.clone(), &certificate, &key_pem)
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        node: &NodeId,
        role: Role,
        cluster: &str,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let fail = |e: rcgen::Error| damaged("the new node certificate", e);
        let unit = match role {
            Role::Manager => MANAGER_UNIT,
            Role::Worker => WORKER_UNIT,
        };
        // Clients ask for the name of the role, so a worker can never pass for a manager.
        let mut params =
            CertificateParams::new(vec![unit.to_owned(), node.0.clone()]).map_err(fail)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, node.as_str());
        name.push(DnType::OrganizationalUnitName, unit);
        name.push(DnType::OrganizationName, cluster);
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        set_validity(&mut params, now, NODE_LIFE);
        Ok(params.signed_by(key, &self.issuer).map_err(fail)?.pem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerIdentity;
    use crate::join::request_certificate;

    #[test]
    fn certificates_say_who_and_for_how_long() {
        let now = SystemTime::now();
        let ca = Authority::generate(now).unwrap();
        let node = NodeId::from_entropy(7);
        let (_, csr) = request_certificate().unwrap();
        let pem = ca.sign(&csr, &node, Role::Worker, "cluster", now).unwrap();
        let member =
            PeerIdentity::from_certificate(&certificate_from_pem("it", &pem).unwrap()).unwrap();
        assert_eq!((&member.node, member.role), (&node, Role::Worker));
        assert_eq!(member.cluster, "cluster");
        let life = member.not_after.duration_since(member.not_before).unwrap();
        assert_eq!(life, NODE_LIFE + BACKDATE);
        assert!(member.not_before < now);
    }

    #[test]
    fn the_root_survives_a_restart_with_the_same_digest() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::generate(SystemTime::now()).unwrap();
        let seal = SecretKey::draw();
        ca.save(dir.path(), &seal).unwrap();
        let again = Authority::load(dir.path(), &seal).unwrap();
        assert_eq!(again.digest(), ca.digest());
        let error = Authority::load(dir.path(), &SecretKey::draw()).unwrap_err();
        assert!(
            error.to_string().contains("sealed with another key"),
            "{error}"
        );
        let key = certificate_dir(dir.path()).join(ROOT_KEY_FILE);
        let written = std::fs::read(&key).unwrap();
        assert!(!written.windows(7).any(|part| part == b"PRIVATE"));
        let mode = std::fs::metadata(key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            again
                .sign(
                    "nonsense",
                    &NodeId::default(),
                    Role::Worker,
                    "c",
                    SystemTime::now()
                )
                .is_err()
        );
    }
}
