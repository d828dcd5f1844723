//! The node's own certificate: renewed inside of a session, outside of one when it is late, and
//! taken over from a manager of the same process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use weft_cluster::CommandError;
use weft_model::objects::Role;

use super::pauses::Pauses;
use super::renewal::{Renewal, lapsed, overdue};
use super::{Session, Shared, lock, rpc};
use crate::identity::{Identity, IdentityError};
use crate::join::request_certificate;
use crate::proto::RenewCertificateRequest;
use crate::proto::ca_client::CaClient;
use crate::tls::{connect, member_config};

/// A renewal that failed is tried again after this part of the certificate's life, at most after that
/// time, or with the next session.
const RETRY_PART: u32 = 20;
const RETRY: Duration = Duration::from_secs(3600);
/// The same where the present certificate may soon be worth nothing.
const RETRY_SOON: Duration = Duration::from_secs(2);
/// All nodes hear of a new root at once, and need not all ask at once.
const SPREAD: Duration = Duration::from_millis(500);
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
        self.shared.take_identity(|_| Ok(new.clone())).await?;
        self.shared.again.notify_one();
        Ok(())
    }

    /// Whether a manager of this process makes certificates for its own node, as one does that is open:
    /// true at first. While it is not, the node has other managers renew what is of another root.
    pub fn set_own_manager(&self, is_open: bool) {
        self.shared.own_manager.send_replace(is_open);
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
        let mut roots = self.roots.subscribe();
        let mut pauses = Pauses::default();
        loop {
            let identity = Arc::clone(&lock(&self.identity));
            let share = rand::rng().random_range(0.5..0.8);
            let now = SystemTime::now();
            let renewal = Renewal::new(identity.validity(), share, now, started.elapsed());
            let old = async {
                loop {
                    let wait = renewal.wait(SystemTime::now(), started.elapsed());
                    if wait.is_zero() {
                        break;
                    }
                    sleep(wait.min(LOOK)).await;
                }
            };
            tokio::select! {
                () = old => {}
                () = self.of_another_root() => {
                    let part = rand::rng().random_range(0.0..1.0);
                    sleep(SPREAD.mul_f64(part)).await;
                }
            }
            match self.renew_now(&mut ca).await {
                Ok(()) if self.is_of_another_root() => {
                    tracing::warn!(
                        "node certificate renewed, and it is of another root than this node was told"
                    );
                    // At once it would be the same again.
                    let told = *roots.borrow_and_update();
                    tokio::select! {
                        () = sleep(pauses.next(&told)) => {}
                        _ = roots.changed() => {}
                    }
                }
                Ok(()) => tracing::info!("node certificate renewed"),
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the node certificate yet");
                    sleep(self.retry()).await;
                }
            }
        }
    }

    /// Waits until the certificate is not of the root that makes them now. A manager makes its own, and
    /// with it what it shows to others, so its node waits for that one while it is open.
    async fn of_another_root(&self) {
        let mut roots = self.roots.subscribe();
        let mut own_manager = self.own_manager.subscribe();
        while !self.is_of_another_root() {
            // The senders are in `self`.
            tokio::select! {
                _ = roots.changed() => {}
                _ = own_manager.changed() => {}
            }
        }
    }

    fn is_of_another_root(&self) -> bool {
        let identity = Arc::clone(&lock(&self.identity));
        let renews = identity.role() == Role::Worker || !*self.own_manager.borrow();
        renews && !identity.is_of_first_root()
    }

    fn retry(&self) -> Duration {
        if self.is_of_another_root() {
            return RETRY_SOON;
        }
        let (from, until) = lock(&self.identity).validity();
        let life = until.duration_since(from).unwrap_or_default();
        RETRY.min(life / RETRY_PART)
    }

    /// Trusts these roots from now on.
    ///
    /// # Errors
    /// They are none, or the disk's.
    pub(super) async fn take_roots(&self, pem: &str) -> Result<(), CommandError> {
        if lock(&self.identity).root_pem() == pem {
            return Ok(());
        }
        self.take_identity(|identity| identity.with_roots(pem.to_owned()))
            .await?;
        self.roots.send_modify(|count| *count += 1);
        Ok(())
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
            self.renew_now(&mut CaClient::new(channel)).await
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

    pub(super) async fn renew_now(&self, ca: &mut CaClient<Channel>) -> Result<(), CommandError> {
        let (key_pem, csr_pem) = request_certificate()?;
        let reply = rpc(ca.renew_certificate(RenewCertificateRequest { csr_pem })).await?;
        self.take_identity(|present| {
            let roots = present.root_pem().to_owned();
            let new = Identity::new(roots, &reply.certificate_pem, &key_pem)?;
            Ok(new.sealed_like(present))
        })
        .await
    }

    /// Puts what is made of the present identity in its place. First the disk: a node that is started
    /// again must not have the old one.
    async fn take_identity(
        &self,
        make: impl FnOnce(&Identity) -> Result<Identity, IdentityError>,
    ) -> Result<(), CommandError> {
        // New roots and a new certificate may come at once: the later one is made of the earlier one.
        let turn = self.taking.lock().await;
        let old = Arc::clone(&lock(&self.identity));
        let new = make(&old)?;
        let data_dir = self.config.data_dir.clone();
        let (written, before) = (new.clone(), Arc::clone(&old));
        self.writes
            .run(move || written.save_over(&before, &data_dir))
            .await
            .map_err(|e| CommandError::unavailable(e.to_string()))??;
        let role = new.role();
        let is_other = role != old.role();
        let moved = new.is_of_first_root() && !new.roots().made(old.chain());
        *lock(&self.identity) = Arc::new(new);
        drop(turn);
        if is_other {
            tracing::info!(?role, "the node has another role");
            self.role.send_replace(role);
        }
        if is_other || moved {
            self.moved.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}
