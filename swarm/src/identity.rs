//! Who this node is: its certificate, its key and the root that it trusts.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pem::{EncodeConfig, LineEnding};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weft_cluster::{CommandError, UnlockKey};
use weft_model::id::NodeId;
use weft_model::objects::Role;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use weft_sys::state_file;
use zeroize::Zeroizing;

use crate::roots::{Roots, certificates};
use crate::sealing::{DataKeys, KEY_FILE, KeyFile, KeyFileError};

/// Organisational unit in the certificate of a manager, and the name that managers prove.
pub(crate) const MANAGER_UNIT: &str = "swarm-manager";
/// Organisational unit in the certificate of a worker.
pub(crate) const WORKER_UNIT: &str = "swarm-worker";

/// Root certificates that count, below the certificate directory.
pub(crate) const ROOT_FILE: &str = "ca.crt";
/// The node's certificate and key.
pub(crate) const NODE_FILE: &str = "node.pem";

/// Why an identity cannot be read or written. Nothing changed, except where noted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The disk's fault.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// read, write, …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file or message that is no certificate, or not one of ours.
    #[error(
        "{what} is damaged: {why}; restore it from a backup, or stop weftd, remove the folder certs of its data directory, start it, and join again"
    )]
    Damaged {
        /// Which certificate or key.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key that seals the others is not to be had.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// It is to be had for the unlock key.
    #[error("{LOCKED}")]
    Locked,
}

/// What a manager says that has not been unlocked since it started (Docker's words).
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"weft swarm unlock\" to unlock it.";

impl From<IdentityError> for CommandError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Key(error) => error.into(),
            error => Self::unavailable(error.to_string()),
        }
    }
}

/// Tag of a key in the node's file that is sealed.
const SEALED_TAG: &str = "WEFT SEALED KEY";
/// Place of that key.
const SEALED_PLACE: &[u8] = b"weft node key";

pub(crate) fn damaged(what: &str, why: impl std::fmt::Display) -> IdentityError {
    IdentityError::Damaged {
        what: what.to_owned(),
        why: why.to_string(),
    }
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerIdentity {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) cluster: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl PeerIdentity {
    /// Reads CN, OU and O. The caller has verified the signature.
    pub(crate) fn from_certificate(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        const WHAT: &str = "the node certificate";
        let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|e| damaged(WHAT, e))?;
        let subject = cert.subject();
        let text = |attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>,
                    name: &str| {
            attribute
                .and_then(|a| a.as_str().ok())
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| damaged(WHAT, format!("it has no {name}")))
        };
        let node = text(subject.iter_common_name().next(), "common name")?;
        let unit = text(
            subject.iter_organizational_unit().next(),
            "organisational unit",
        )?;
        let cluster = text(subject.iter_organization().next(), "organisation")?;
        let role = match unit.as_str() {
            MANAGER_UNIT => Role::Manager,
            WORKER_UNIT => Role::Worker,
            other => return Err(damaged(WHAT, format!("its role is {other:?}"))),
        };
        let (not_before, not_after) = moments(cert.validity());
        Ok(Self {
            node: NodeId(node),
            role,
            cluster,
            not_before,
            not_after,
        })
    }
}

fn moments(validity: &x509_parser::certificate::Validity) -> (SystemTime, SystemTime) {
    let time = |t: x509_parser::time::ASN1Time| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or(0))
    };
    (time(validity.not_before), time(validity.not_after))
}

/// First and last moment at which a certificate counts.
pub(crate) fn validity_of(
    what: &str,
    der: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime), IdentityError> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|e| damaged(what, e))?;
    Ok(moments(cert.validity()))
}

/// A node's certificate with its key. `Debug` leaves the key out.
#[derive(Clone)]
pub struct Identity {
    member: PeerIdentity,
    /// Certificates and key in one text, so that a renewal replaces all at once.
    pem: Zeroizing<String>,
    roots: Roots,
    /// The node's own, then the one that made it, where that is signed by another root.
    chain: Vec<CertificateDer<'static>>,
    sealing: Sealing,
}

/// How the files of a node are sealed. Those of a worker are not.
#[derive(Debug, Clone)]
enum Sealing {
    /// Not at all.
    None,
    /// By the newest of these keys.
    By(DataKeys),
    /// By a key that is not known before the manager is unlocked.
    Locked,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

/// Directory of certificates below the data directory.
pub(crate) fn certificate_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("certs")
}

/// The certificate in a PEM text.
pub(crate) fn certificate_from_pem(
    what: &str,
    pem: &str,
) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| damaged(what, format!("{e:?}")))
}

impl Identity {
    /// Puts an identity together from PEM texts.
    pub(crate) fn new(
        root_pem: String,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<Self, IdentityError> {
        let pem = Zeroizing::new(format!("{}\n{key_pem}", certificate_pem.trim_end()));
        Self::from_certificates(root_pem, pem)?.checked()
    }

    /// With a key that can be read.
    fn checked(self) -> Result<Self, IdentityError> {
        self.key()?;
        Ok(self)
    }

    /// Whatever its key is.
    fn from_certificates(root_pem: String, pem: Zeroizing<String>) -> Result<Self, IdentityError> {
        let roots = Roots::from_pem(root_pem).map_err(|e| damaged("the root certificate", e))?;
        let chain = certificates(&pem).map_err(|e| damaged("the node certificate", e))?;
        let certificate = chain
            .first()
            .ok_or_else(|| damaged("the node certificate", "it is missing"))?;
        Ok(Self {
            member: PeerIdentity::from_certificate(certificate)?,
            pem,
            roots,
            chain,
            sealing: Sealing::None,
        })
    }

    /// The same node, which trusts other roots from now on.
    ///
    /// # Errors
    /// The text is no list of root certificates.
    pub(crate) fn with_roots(&self, root_pem: String) -> Result<Self, IdentityError> {
        let roots = Roots::from_pem(root_pem).map_err(|e| damaged("the root certificate", e))?;
        Ok(Self {
            roots,
            ..self.clone()
        })
    }

    /// Whether the root that makes certificates now has made this node's.
    pub(crate) fn is_of_first_root(&self) -> bool {
        self.roots.made(&self.chain)
    }

    /// Of a manager that keeps its secrets sealed by these keys: its files are, from the next time on
    /// that they are written.
    pub(crate) fn sealed_by(mut self, keys: DataKeys) -> Self {
        if self.role() == Role::Manager {
            self.sealing = Sealing::By(keys);
        }
        self
    }

    /// The same as of an earlier certificate of the node.
    pub(crate) fn sealed_like(mut self, before: &Self) -> Self {
        if self.role() == Role::Manager {
            self.sealing = before.sealing.clone();
        }
        self
    }

    /// What a manager's secrets on this disk are sealed with; nothing on a node that has none yet.
    ///
    /// # Errors
    /// The manager is locked.
    pub(crate) fn data_keys(&self) -> Result<Option<&DataKeys>, IdentityError> {
        match &self.sealing {
            Sealing::None => Ok(None),
            Sealing::By(keys) => Ok(Some(keys)),
            Sealing::Locked => Err(IdentityError::Locked),
        }
    }

    /// Whether the unlock key of the swarm is needed before this manager does anything: its own key
    /// is sealed, too.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.sealing, Sealing::Locked)
    }

    /// Reads the identity of a data directory; nothing when the node is not part of a swarm. That of a
    /// locked manager has no key.
    ///
    /// # Errors
    /// Files that cannot be read or are damaged.
    pub(crate) fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(read) = Self::read(data_dir)? else {
            return Ok(None);
        };
        match key_file(data_dir, read.role())? {
            Some(file) => match file.clear() {
                Some(ring) => read.opened(ring.clone().into()).map(Some),
                None => Ok(Some(Self {
                    sealing: Sealing::Locked,
                    ..read
                })),
            },
            None if read.sealed_key()?.is_some() => Err(damaged(
                "the node key",
                format!("it is sealed, and certs/{KEY_FILE} is missing"),
            )),
            None => read.checked().map(Some),
        }
    }

    /// The identity of a locked manager, with its key.
    ///
    /// # Errors
    /// Another key, a manager that is not locked, or files that cannot be read or are damaged.
    pub fn unlock(data_dir: &Path, unlock: &UnlockKey) -> Result<Self, IdentityError> {
        let read = Self::read(data_dir)?.ok_or(KeyFileError::NotLocked)?;
        let file = key_file(data_dir, read.role())?.ok_or(KeyFileError::NotLocked)?;
        read.opened(file.unlock(unlock)?.into())
    }

    /// The key in the text as it is sealed; nothing where it is not.
    fn sealed_key(&self) -> Result<Option<Vec<u8>>, IdentityError> {
        let parts = pem::parse_many(self.pem.as_bytes()).map_err(|e| damaged("the node key", e))?;
        let sealed = parts.into_iter().find(|part| part.tag() == SEALED_TAG);
        Ok(sealed.map(pem::Pem::into_contents))
    }

    /// With its key in the text, where that was sealed by one of `keys`.
    fn opened(self, keys: DataKeys) -> Result<Self, IdentityError> {
        let Some(sealed) = self.sealed_key()? else {
            return self.checked().map(|this| this.sealed_by(keys));
        };
        let opened = keys.open(SEALED_PLACE, &sealed);
        let opened = Zeroizing::new(opened.map_err(|e| damaged("the node key", e))?);
        let key_pem = std::str::from_utf8(&opened).map_err(|e| damaged("the node key", e))?;
        let root_pem = self.roots.pem().to_owned();
        let this = Self::new(root_pem, &self.chain_pem(), key_pem)?;
        Ok(this.sealed_by(keys))
    }

    fn chain_pem(&self) -> String {
        let texts = self.chain.iter().map(|der| encode_pem("CERTIFICATE", der));
        texts.collect()
    }

    /// The text as it is written: where there is something to seal by, the key in it is sealed.
    fn text(&self) -> Result<Zeroizing<String>, IdentityError> {
        let Some(keys) = self.data_keys()? else {
            return Ok(self.pem.clone());
        };
        let key_pem = Zeroizing::new(encode_pem("PRIVATE KEY", self.key()?.secret_der()));
        let sealed = keys.close(SEALED_PLACE, key_pem.as_bytes());
        let sealed = encode_pem(SEALED_TAG, &sealed);
        Ok(Zeroizing::new(self.chain_pem() + &sealed))
    }

    fn read(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let dir = certificate_dir(data_dir);
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|source| (path, source))
        };
        let fail = |(path, source)| IdentityError::File {
            action: "read",
            path,
            source,
        };
        let pem = match read(NODE_FILE) {
            Ok(pem) => Zeroizing::new(pem),
            Err((_, e)) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        Self::from_certificates(read(ROOT_FILE).map_err(fail)?, pem).map(Some)
    }

    /// Writes the identity below a data directory, readable by the owner only. The node's file
    /// comes last: an identity that was not written to the end does not count.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let dir = certificate_dir(data_dir);
        create_private_dir(&dir)?;
        let keys = self.data_keys()?;
        // Until the file is there: its key may be one of before otherwise.
        let _alone = keys.map(DataKeys::hold_file);
        let text = self.text()?;
        write_private(&dir.join(ROOT_FILE), self.roots.pem().as_bytes())?;
        write_private(&dir.join(NODE_FILE), text.as_bytes())
    }

    /// The same where the files are those of `before`: who seals the node's file of a manager anew does
    /// not put that in the place of a worker's.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save_over(&self, before: &Self, data_dir: &Path) -> Result<(), IdentityError> {
        // Keys of its own are held as it is written.
        let _alone = match (&self.sealing, &before.sealing) {
            (Sealing::None, Sealing::By(keys)) => Some(keys.hold_file()),
            _ => None,
        };
        self.save(data_dir)
    }

    /// Writes the node's file of a manager anew, with the node's key sealed by the newest of `keys`.
    /// Nothing to do on a node that is none any more.
    ///
    /// # Errors
    /// The file is damaged, or the disk's: it is as it was.
    pub(crate) fn seal_anew(data_dir: &Path, keys: &DataKeys) -> Result<(), IdentityError> {
        let _alone = keys.hold_file();
        let Some(read) = Self::read(data_dir)?.filter(|read| read.role() == Role::Manager) else {
            return Ok(());
        };
        let text = read.opened(keys.clone())?.text()?;
        write_private(&certificate_dir(data_dir).join(NODE_FILE), text.as_bytes())
    }

    /// Id of the node.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.member.node
    }

    /// Role in the certificate.
    #[must_use]
    pub fn role(&self) -> Role {
        self.member.role
    }

    /// Cluster that the node belongs to.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.member.cluster
    }

    /// First and last moment at which the certificate counts.
    #[must_use]
    pub fn validity(&self) -> (SystemTime, SystemTime) {
        (self.member.not_before, self.member.not_after)
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(crate) fn root_pem(&self) -> &str {
        self.roots.pem()
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Certificates and key as they are on disk.
    #[cfg(test)]
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key.
    ///
    /// # Errors
    /// The manager is locked, or the text has none.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        if self.is_locked() {
            return Err(IdentityError::Locked);
        }
        PrivateKeyDer::from_pem_slice(self.pem.as_bytes())
            .map_err(|e| damaged("the node key", format!("{e:?}")))
    }
}

fn encode_pem(tag: &str, content: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, content), config)
}

/// The file with the key that seals the others, on managers alone.
fn key_file(data_dir: &Path, role: Role) -> Result<Option<KeyFile>, KeyFileError> {
    match role {
        Role::Manager => KeyFile::read(&certificate_dir(data_dir).join(KEY_FILE)),
        Role::Worker => Ok(None),
    }
}

pub(crate) fn create_private_dir(dir: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| IdentityError::File {
            action: "create",
            path: dir.to_owned(),
            source,
        })
}

/// Replaces a file as a whole, mode 0600: readers see the old text or the new one, and it outlives
/// the loss of power.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace(path, bytes, Outlives::Power)
}

/// The same without waiting for the disk: it outlives the process, not the loss of power.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace(path, bytes, Outlives::Process)
}

fn replace(path: &Path, bytes: &[u8], outlives: Outlives) -> Result<(), IdentityError> {
    replace_file(path, bytes, PRIVATE, outlives).map_err(|source| IdentityError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Removes a file that may be gone already, with damaged copies of it: they hold the same secrets.
pub(crate) fn remove_file(path: &Path) -> Result<(), IdentityError> {
    state_file::remove(path).map_err(|source| IdentityError::File {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}
