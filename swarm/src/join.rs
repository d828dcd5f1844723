//! Becoming a member: pin the cluster's root with the token, then ask for a certificate.

use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use weft_cluster::{CommandError, NodeDescription, Token, base36_bytes};
use weft_model::objects::Availability;
use zeroize::Zeroizing;

use crate::convert::{SCHEMA, encode, from_status};
use crate::identity::{Identity, IdentityError, certificate_from_pem};
use crate::leader_hint::named_leader;
use crate::membership::Membership;
use crate::proto::ca_client::CaClient;
use crate::proto::{GetRootCaRequest, IssueCertificateRequest};
use crate::roots::digest;
use crate::tls::{CONNECT_TIMEOUT, connect, joiner_config, unverified_config, with_port};

/// `weft swarm join`
#[derive(Debug, Clone)]
pub struct JoinParams {
    /// `SWMTKN-1-…`
    pub token: String,
    /// A manager: `host`, or `host:port`.
    pub remote: String,
    /// What the node says about itself. Its control address counts while it is a manager.
    pub node: NodeDescription,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Where it listens as a manager.
    pub listen: SocketAddr,
    /// Where the identity is kept.
    pub data_dir: PathBuf,
}

/// A new key, and a request to certify it. Only the public key of the request counts.
pub(crate) fn request_certificate() -> Result<(Zeroizing<String>, String), IdentityError> {
    let what = "the new key";
    let key = KeyPair::generate().map_err(|e| crate::identity::damaged(what, e))?;
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(|e| crate::identity::damaged(what, e))?;
    Ok((Zeroizing::new(key.serialize_pem()), csr))
}

fn late(remote: &str) -> CommandError {
    CommandError::unavailable(format!(
        "the manager at {remote} accepted the connection, but did not answer within {} seconds; try \
         again, or look at the log of weftd there",
        CONNECT_TIMEOUT.as_secs()
    ))
}

/// A certificate, and who made it: the manager that was asked, or the one that leads where that one
/// names it.
async fn certificate(
    remote: String,
    root: &CertificateDer<'static>,
    request: &IssueCertificateRequest,
) -> Result<(String, String), CommandError> {
    let (mut remote, mut is_first) = (remote, true);
    loop {
        let verified = connect(&remote, joiner_config(root)?).await?;
        let mut client = CaClient::new(verified);
        let asked = client.issue_certificate(request.clone());
        let answer = timeout(CONNECT_TIMEOUT, asked).await;
        let refusal = match answer.map_err(|_| late(&remote))? {
            Ok(issued) => return Ok((remote, issued.into_inner().certificate_pem)),
            Err(status) => status,
        };
        match named_leader(&refusal).filter(|_| is_first) {
            Some(leader) => (remote, is_first) = (leader.to_string(), false),
            None => return Err(from_status(&refusal)),
        }
    }
}

/// Joins the cluster of a manager and writes identity and membership.
///
/// Nothing is left behind when it fails. When the answer of the manager is lost on the way, the
/// manager keeps a node that never shows up; `weft node rm` forgets it.
///
/// # Errors
/// A token that is not one, that was made by another cluster, or that was rotated; a manager that
/// cannot be reached; a disk that cannot be written.
pub async fn join(params: JoinParams) -> Result<Identity, CommandError> {
    let token: Token = params
        .token
        .parse()
        .map_err(|e: weft_cluster::ParseTokenError| CommandError::bad(e.to_string()))?;
    if Identity::load(&params.data_dir)?.is_some() {
        return Err(CommandError::unavailable(
            "This node is already part of a swarm. Use \"weft swarm leave\" to leave this swarm \
             and join another one.",
        ));
    }
    let remote = with_port(&params.remote);
    let unverified = connect(&remote, unverified_config()?).await?;
    let root_pem = timeout(
        CONNECT_TIMEOUT,
        CaClient::new(unverified).get_root_ca(GetRootCaRequest {}),
    )
    .await
    .map_err(|_| late(&remote))?
    .map_err(|s| from_status(&s))?
    .into_inner()
    .root_pem;
    let root = certificate_from_pem("the root certificate of the manager", &root_pem)?;
    let found = digest(&root);
    if found != token.ca_digest {
        return Err(CommandError::forbidden(format!(
            "remote CA does not match fingerprint. Expected: {}, got: {}. The token belongs to \
             another swarm, or is from before the root certificate was rotated, or {remote} is not a \
             manager of the swarm; run `weft swarm join-token worker` on a manager and use what it \
             prints.",
            base36_bytes(&token.ca_digest, 50),
            base36_bytes(&found, 50)
        )));
    }
    let (key_pem, csr_pem) = request_certificate()?;
    let request = IssueCertificateRequest {
        csr_pem,
        token: token.to_string(),
        schema: SCHEMA,
        node_json: encode(&params.node).map_err(|s| from_status(&s))?,
        availability_json: encode(&params.availability).map_err(|s| from_status(&s))?,
    };
    // What an earlier attempt left behind does not count, as a log that a restore did not finish.
    Membership::forget(&params.data_dir)?;
    // Only now the secret leaves this machine, to managers that the pinned root vouches for.
    let (remote, certificate_pem) = certificate(remote, &root, &request).await?;
    let identity = Identity::new(root_pem, &certificate_pem, &key_pem)?;
    let membership = Membership {
        node: params.node,
        managers: vec![remote],
        listen: Some(params.listen),
    };
    membership.save(&params.data_dir, &identity)?;
    Ok(identity)
}
