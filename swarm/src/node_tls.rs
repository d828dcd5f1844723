//! TLS between any two nodes of a cluster, for what they hand to each other without a manager.
//!
//! Both sides show their certificates. Who dials knows which node it wants, and takes no other;
//! who answers learns which node asks, and decides by itself whether that one is still a member.

use std::io::{Error, Result};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_model::id::NodeId;

use crate::identity::{Identity, IdentityError, PeerIdentity, damaged};
use crate::tls::provider;

/// A connection between two nodes, each of which knows the other one.
pub type NodeStream = tokio_rustls::TlsStream<TcpStream>;

/// What is spoken: nothing else that listens or dials with these certificates understands it.
const PROTOCOL: &[u8] = b"weft-content/1";

/// The certificates of a node, for connections with other nodes. Made anew with each new identity.
#[derive(Clone)]
pub struct NodeTls {
    cluster: String,
    server: TlsAcceptor,
    client: TlsConnector,
}

impl std::fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeTls")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl NodeTls {
    /// By the certificates of a node.
    ///
    /// # Errors
    /// They are damaged, or the key is that of a manager which is locked.
    pub fn new(identity: &Identity) -> std::result::Result<Self, IdentityError> {
        const WHAT: &str = "the node certificate";
        let roots = identity.roots().store();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| damaged("the root certificate", e))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| damaged("the TLS configuration", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain().to_vec(), identity.key()?)
            .map_err(|e| damaged(WHAT, e))?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| damaged("the TLS configuration", e))?
            .with_root_certificates(identity.roots().store())
            .with_client_auth_cert(identity.chain().to_vec(), identity.key()?)
            .map_err(|e| damaged(WHAT, e))?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self {
            cluster: identity.cluster_id().to_owned(),
            server: TlsAcceptor::from(Arc::new(server)),
            client: TlsConnector::from(Arc::new(client)),
        })
    }

    /// Answers a connection, and tells whose it is. Without a time limit.
    ///
    /// # Errors
    /// The other side shows no certificate of this cluster, or hangs up.
    pub async fn accept(&self, stream: TcpStream) -> Result<(NodeStream, NodeId)> {
        stream.set_nodelay(true)?;
        let stream = NodeStream::from(self.server.accept(stream).await?);
        let peer = self.peer(&stream)?;
        Ok((stream, peer))
    }

    /// Speaks to a node, and to no other. Without a time limit.
    ///
    /// # Errors
    /// The other side is another one, or hangs up.
    pub async fn connect(&self, node: &NodeId, stream: TcpStream) -> Result<NodeStream> {
        stream.set_nodelay(true)?;
        // Certificates have the id among their names.
        let name = ServerName::try_from(node.0.clone()).map_err(Error::other)?;
        let stream = NodeStream::from(self.client.connect(name, stream).await?);
        let found = self.peer(&stream)?;
        if found == *node {
            Ok(stream)
        } else {
            Err(Error::other(format!("{found} answers there, not {node}")))
        }
    }

    /// Who has shown the certificate at the other end, of which TLS has proved that a root of ours
    /// vouches for it.
    fn peer(&self, stream: &NodeStream) -> Result<NodeId> {
        let chain = stream.get_ref().1.peer_certificates();
        let own = chain.and_then(<[_]>::first);
        let own = own.ok_or_else(|| Error::other("it shows no certificate"))?;
        let peer = PeerIdentity::from_certificate(own).map_err(Error::other)?;
        if peer.cluster == self.cluster {
            Ok(peer.node)
        } else {
            Err(Error::other("it is a node of another cluster"))
        }
    }
}
