//! The node's own certificate: renewed inside of a session, outside of one when it is late, and
//! taken over from a manager of the same process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use weft_cluster::CommandError;

use super::renewal::{Renewal, lapsed, overdue};
use super::{Session, Shared, lock, rpc};
use crate::identity::Identity;
use crate::join::request_certificate;
use crate::proto::RenewCertificateRequest;
use crate::proto::ca_client::CaClient;
use crate::tls::{connect, member_config};

/// A renewal that failed is tried again after this time, or with the next session.
const RETRY: Duration = Duration::from_secs(3600);
/// How often the time of day is compared with the life of the certificate: somebody may set the
/// clock, or send the machine to sleep.
const LOOK: Duration = Duration::from_secs(600);

impl Session {
    /// Takes over a certificate that the manager in this process made for its own node, and tries to
    /// open a session at once.
    ///
    /// # Errors
    /// It is another node's, or the disk's.
    pub async fn adopt(&self, new: &Identity) -> Result<(), CommandError> {
        let old = self.identity();
        if (old.node_id(), old.cluster_id()) != (new.node_id(), new.cluster_id()) {
            return Err(CommandError::conflict(format!(
                "the certificate is for node {}, and this is node {}",
                new.node_id(),
                old.node_id()
            )));
        }
        let ordered = self.shared.ordered();
        // One that was locked has no other.
        if ordered.is_some_and(|role| role != new.role()) && !old.is_locked() {
            // The manager is about to end: the session gets the other certificate, or has it.
            return Ok(());
        }
        self.shared.take_identity(new.clone()).await?;
        self.shared.again.notify_one();
        Ok(())
    }
}

impl Shared {
    /// Renews the certificate at a random moment between 50 and 80 % of its life (Swarm's rule).
    pub(super) async fn renew(
        &self,
        channel: Channel,
    ) -> Result<std::convert::Infallible, CommandError> {
        let mut ca = CaClient::new(channel);
        let started = Instant::now();
        loop {
            let identity = Arc::clone(&lock(&self.identity));
            let share = rand::rng().random_range(0.5..0.8);
            let now = SystemTime::now();
            let renewal = Renewal::new(identity.validity(), share, now, started.elapsed());
            loop {
                let wait = renewal.wait(SystemTime::now(), started.elapsed());
                if wait.is_zero() {
                    break;
                }
                sleep(wait.min(LOOK)).await;
            }
            match self.renew_now(&mut ca, &identity).await {
                Ok(()) => tracing::info!("node certificate renewed"),
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the node certificate yet");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Before a session is opened: a certificate that does not count any more is renewed first, as
    /// no session opens with it; and one that hardly does, in case the session does not open.
    pub(super) async fn renew_outside(&self, manager: &str) -> Result<(), CommandError> {
        let identity = Arc::clone(&lock(&self.identity));
        let (validity, now) = (identity.validity(), SystemTime::now());
        let needed = lapsed(validity, now) || self.lapsed.load(Ordering::Relaxed);
        if !needed && !overdue(validity, now) {
            return Ok(());
        }
        let renewed = async {
            let channel = connect(manager, member_config(&identity)?).await?;
            self.renew_now(&mut CaClient::new(channel), &identity).await
        };
        match renewed.await {
            Ok(()) => {
                self.lapsed.store(false, Ordering::Relaxed);
                tracing::warn!(manager, "node certificate renewed, outside of a session");
                Ok(())
            }
            Err(error) if needed => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the node certificate is not renewed yet");
                Ok(())
            }
        }
    }

    async fn renew_now(
        &self,
        ca: &mut CaClient<Channel>,
        old: &Identity,
    ) -> Result<(), CommandError> {
        let (key_pem, csr_pem) = request_certificate()?;
        let reply = rpc(ca.renew_certificate(RenewCertificateRequest { csr_pem })).await?;
        let new = Identity::new(old.root_pem().to_owned(), &reply.certificate_pem, &key_pem)?;
        self.take_identity(new.sealed_like(old)).await
    }

    /// First the disk: a node that is started again must not have the old one.
    async fn take_identity(&self, new: Identity) -> Result<(), CommandError> {
        let data_dir = self.config.data_dir.clone();
        let written = new.clone();
        self.writes
            .run(move || written.save(&data_dir))
            .await
            .map_err(|e| CommandError::unavailable(e.to_string()))??;
        let role = new.role();
        *lock(&self.identity) = Arc::new(new);
        self.role.send_if_modified(|last| {
            let is_new = *last != role;
            *last = role;
            is_new
        });
        Ok(())
    }
}
