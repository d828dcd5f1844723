//! The cluster's certificate authority: a root, short-lived node certificates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use weft_cluster::{ClusterState, CommandError, RootPair, Roots};
use weft_model::id::NodeId;
use weft_model::objects::{CaConfig, Role};
use zeroize::Zeroizing;

use super::new_root::set_validity;
use crate::identity::{
    Identity, IdentityError, MANAGER_UNIT, WORKER_UNIT, certificate_from_pem, damaged, validity_of,
};
use crate::roots::{Roots as Trusted, digest};

/// Signs node certificates. `Debug` leaves the key out.
pub(super) struct Authority {
    /// Of the roots that it is made of.
    generation: u64,
    /// Of node certificates.
    life: Duration,
    /// All roots that count, the signer first.
    trusted: Trusted,
    /// What joiners pin.
    root_pem: String,
    digest: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
    /// Goes with each certificate while joiners pin another root than the signer.
    cross_signed: Option<String>,
    validity: (SystemTime, SystemTime),
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// Of a new cluster.
    pub(super) fn first(root: RootPair) -> Result<Self, IdentityError> {
        let roots = Roots {
            current: root,
            successor: None,
            generation: 1,
        };
        Self::of(&roots, CaConfig::EXPIRY)
    }

    /// Makes certificates that live so long, at most as long as the root.
    fn of(roots: &Roots, life: Duration) -> Result<Self, IdentityError> {
        const WHAT: &str = "the root certificate";
        let signer = roots.signer();
        let certificate = certificate_from_pem(WHAT, &signer.certificate)?;
        let current = certificate_from_pem(WHAT, &roots.current.certificate)?;
        let key = KeyPair::from_pem(&signer.key).map_err(|e| damaged("the root key", e))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| damaged(WHAT, e))?;
        let successor = roots.successor.as_ref();
        Ok(Self {
            generation: roots.generation,
            life,
            trusted: Trusted::from_pem(roots.bundle()).map_err(|e| damaged(WHAT, e))?,
            root_pem: roots.current.certificate.clone(),
            digest: digest(&current),
            issuer,
            cross_signed: successor.map(|successor| successor.cross_signed.clone()),
            validity: (
                validity_of(WHAT, &current)?.0,
                validity_of(WHAT, &certificate)?.1,
            ),
        })
    }

    /// Whether nodes that trust `root` alone take certificates that it makes. One may say of itself that
    /// it makes none of such names, or have a key that TLS does not verify with.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check_root(
        root: &RootPair,
        node: &NodeId,
        cluster: &str,
        now: SystemTime,
    ) -> Result<(), CommandError> {
        let bad = |why: &str| {
            CommandError::bad(format!(
                "the root certificate of --ca-cert cannot be used: {why}"
            ))
        };
        let authority = Self::first(root.clone()).map_err(|e| bad(&e.to_string()))?;
        for role in [Role::Manager, Role::Worker] {
            let made = authority.issue(node, role, cluster, now);
            if !made.map_err(|e| bad(&e.to_string()))?.is_of_first_root() {
                return Err(bad(
                    "certificates of nodes that it makes do not count by it. It must not limit names \
                     (nameConstraints), and its key must be one that TLS verifies with, such as ECDSA \
                     P-256; bring another one, or none: then one is made",
                ));
            }
        }
        Ok(())
    }

    /// Changes with the roots.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The root certificate, for joiners.
    pub(super) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Since when certificates of this cluster count, and how long there can be new ones.
    pub(super) fn validity(&self) -> (SystemTime, SystemTime) {
        self.validity
    }

    /// Roots that count and vouch for a chain of certificates, by digest: first the one that made it.
    pub(super) fn vouching(&self, chain: &[CertificateDer<'_>]) -> Vec<String> {
        self.trusted.vouching(chain)
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
        Identity::new(self.trusted.pem().to_owned(), &certificate, &key_pem)
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
        let until = (now + self.life).min(self.validity.1);
        set_validity(&mut params, now, until);
        let pem = params.signed_by(key, &self.issuer).map_err(fail)?.pem();
        Ok(pem + self.cross_signed.as_deref().unwrap_or_default())
    }
}

/// The authority of the state that was asked about last.
#[derive(Debug, Default)]
pub(super) struct HeldAuthority(Mutex<Option<Arc<Authority>>>);

impl HeldAuthority {
    /// That of a state.
    ///
    /// # Errors
    /// The state has none, or a damaged one.
    pub(super) fn of(&self, state: &ClusterState) -> Result<Arc<Authority>, CommandError> {
        let (Some(secrets), Some(cluster)) = (&state.secrets, &state.cluster) else {
            return Err(CommandError::unavailable(
                "this manager does not have the state of the swarm yet; try again",
            ));
        };
        let (roots, life) = (&secrets.roots, cluster.spec.ca_config.node_cert_expiry);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &*held
            && held.generation == roots.generation
            && held.life == life
        {
            return Ok(Arc::clone(held));
        }
        let made = Arc::new(Authority::of(roots, life)?);
        *held = Some(Arc::clone(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::super::new_root::{BACKDATE, cross_sign, generate};
    use super::*;
    use crate::identity::PeerIdentity;
    use crate::join::request_certificate;
    use crate::roots::certificates;

    impl Authority {
        /// Of a root that nobody has seen before.
        pub(in super::super) fn generate(now: SystemTime) -> Result<Self, IdentityError> {
            Self::first(generate(now)?)
        }

        /// The same for another life of certificates.
        pub(in super::super) fn lives(mut self, life: Duration) -> Self {
            self.life = life;
            self
        }
    }

    #[test]
    fn certificates_say_who_and_for_how_long() {
        let now = SystemTime::now();
        let ca = Authority::generate(now).unwrap();
        let node = NodeId::from_entropy(7);
        let (_, csr) = request_certificate().unwrap();
        let sign = |ca: &Authority| {
            let pem = ca.sign(&csr, &node, Role::Worker, "cluster", now).unwrap();
            PeerIdentity::from_certificate(&certificate_from_pem("it", &pem).unwrap()).unwrap()
        };
        let member = sign(&ca);
        assert_eq!((&member.node, member.role), (&node, Role::Worker));
        assert_eq!(member.cluster, "cluster");
        let life = |m: &PeerIdentity| m.not_after.duration_since(m.not_before).unwrap();
        assert_eq!(life(&member), CaConfig::EXPIRY + BACKDATE);
        assert!(member.not_before < now);
        let hour = Duration::from_secs(3600);
        let ca = ca.lives(hour);
        assert_eq!(life(&sign(&ca)), hour + BACKDATE);
        // No certificate outlives the root.
        let ca = ca.lives(hour * 24 * 365 * 30);
        assert_eq!(sign(&ca).not_after, ca.validity().1);
        assert!(
            ca.sign("nonsense", &node, Role::Worker, "c", now).is_err(),
            "no request"
        );
    }

    #[test]
    fn who_knows_one_of_two_roots_can_verify_certificates_of_both() {
        let now = SystemTime::now();
        let (first, second) = (generate(now).unwrap(), generate(now).unwrap());
        let successor = weft_cluster::Successor {
            cross_signed: cross_sign(&second, &first, now).unwrap(),
            root: second.clone(),
        };
        let roots = Roots {
            current: first.clone(),
            successor: Some(successor),
            generation: 2,
        };
        let ca = Authority::of(&roots, CaConfig::EXPIRY).unwrap();
        let node = NodeId::from_entropy(7);
        let (_, csr) = request_certificate().unwrap();
        let pem = ca.sign(&csr, &node, Role::Worker, "c", now).unwrap();
        let chain = certificates(&pem).unwrap();
        assert_eq!(chain.len(), 2);
        let trusts = |pem: &str| Trusted::from_pem(pem.to_owned()).unwrap();
        let vouching = |pem: &str| trusts(pem).vouching(&chain);
        assert_eq!(
            vouching(&first.certificate),
            std::slice::from_ref(&first.digest)
        );
        assert_eq!(
            vouching(&second.certificate),
            std::slice::from_ref(&second.digest)
        );
        let both = [second.digest.clone(), first.digest.clone()];
        assert_eq!(vouching(&roots.bundle()), both);
        assert!(trusts(&roots.bundle()).made(&chain));
        assert!(!trusts(&first.certificate).made(&chain), "by its help only");
        let other = generate(now).unwrap();
        assert!(vouching(&other.certificate).is_empty());
        assert_eq!(ca.digest(), Authority::first(first).unwrap().digest());
    }
}
