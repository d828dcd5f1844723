//! A session with whichever manager leads: opened, and opened again when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use tokio::time::timeout;
use tonic::{Code, Status};
use weft_cluster::{CommandError, ErrorKind};
use weft_model::objects::Role;

use super::knock::Knocks;
use super::{Failure, RPC_TIMEOUT, Shared, lock, rpc};
use crate::convert::{SCHEMA, encode, from_status};
use crate::leader_hint::named_leader;
use crate::orders::Held;
use crate::proto::SessionRequest;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::tls::{Upkeep, connect_with, member_config};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// What another machine seems to be may be the agent before this one, until the manager misses it:
/// longest pause of so many first attempts.
const BACKOFF_SOON: Duration = Duration::from_millis(400);
const SOON: usize = 10;
/// The orders of a large cluster are larger than gRPC's default of 4 MiB.
const MAX_MESSAGE: usize = 256 << 20;

/// The session is over because the node has a certificate of another root or role.
struct Moved;

impl Shared {
    pub(super) async fn hold_sessions(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut told = String::new();
        let mut follows = false;
        let mut knocks = Knocks::default();
        for attempt in 0_usize.. {
            let ended = match self.next_manager(attempt) {
                Some(manager) => tokio::select! {
                    ended = self.serve(&manager, &mut backoff) => {
                        knocks.forget(&manager);
                        ended
                    }
                    opened = self.answers_again(&mut knocks) => {
                        *lock(&self.leader) = Some(opened);
                        continue;
                    }
                },
                None => Err(CommandError::unavailable("no manager is known")),
            };
            self.channel.send_replace(None);
            let Err(error) = ended else {
                tracing::info!("the session is opened again with another certificate");
                continue;
            };
            // Once: two managers that name each other are no leader.
            follows = !follows && lock(&self.leader).is_some();
            if follows {
                tracing::debug!(%error, "another manager leads");
                continue;
            }
            if lock(&self.last_failure).is_none() {
                // A session was open since: what comes now is news.
                told.clear();
            }
            // The same words with other times and ports in them are the same reason.
            let reason: String = error.message.replace(|c: char| c.is_ascii_digit(), "");
            if reason == told {
                tracing::debug!(%error, "no session with the manager");
            } else {
                tracing::warn!(%error, "no session with the manager; what runs goes on");
                told = reason;
            }
            if error.kind == ErrorKind::Conflict && attempt < SOON {
                // The session of a life before, which is over in a moment.
                backoff = backoff.min(BACKOFF_SOON);
            }
            let at = SystemTime::now();
            *lock(&self.last_failure) = Some(Failure { error, at });
            let jitter = rand::rng().random_range(0.5..1.0);
            // All ends are fine: the pause, or a reason to try at once.
            tokio::select! {
                ended = timeout(backoff.mul_f64(jitter), self.again.notified()) => {
                    drop(ended);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                opened = self.answers_again(&mut knocks) => {
                    *lock(&self.leader) = Some(opened);
                    backoff = BACKOFF_MIN;
                }
            }
        }
    }

    /// Waits until a manager answers that did not, while no session is open.
    async fn answers_again(&self, knocks: &mut Knocks) -> SocketAddr {
        let mut channel = self.channel.subscribe();
        let managers = || -> Vec<SocketAddr> {
            let managers = self.managers().into_iter();
            managers.filter_map(|m| m.parse().ok()).collect()
        };
        tokio::select! {
            biased;
            _ = channel.wait_for(Option::is_some) => {}
            opened = knocks.opened(managers) => return opened,
        }
        knocks.clear();
        std::future::pending().await
    }

    /// The leader, if it was named; else the managers in turn.
    fn next_manager(&self, attempt: usize) -> Option<String> {
        let named = lock(&self.leader).take();
        named.map(|leader| leader.to_string()).or_else(|| {
            let managers = self.managers();
            managers.get(attempt % managers.len().max(1)).cloned()
        })
    }

    /// Keeps whom a refusal names.
    pub(super) fn note_leader(&self, refusal: &Status) {
        *lock(&self.leader) = named_leader(refusal);
    }

    /// Managers of the last orders, then those that the node was told.
    fn managers(&self) -> Vec<String> {
        let mut managers: Vec<String> = self
            .assignment
            .borrow()
            .iter()
            .flat_map(|a| &a.shared.nodes)
            .filter(|n| n.role == Role::Manager)
            .filter_map(|n| n.manager_addr.map(|a| a.to_string()))
            .collect();
        for manager in &self.config.managers {
            if !managers.contains(manager) {
                managers.push(manager.clone());
            }
        }
        managers
    }

    /// One session with one manager, until it fails, or is to be opened again with it.
    async fn serve(&self, manager: &str, backoff: &mut Duration) -> Result<Moved, CommandError> {
        let mut moved = self.moved.subscribe();
        let failed = self.serve_until_error(manager, backoff);
        tokio::select! {
            biased;
            result = failed => match result {
                Ok(never) => match never {},
                Err(error) => Err(error),
            },
            // The sender is in `self`.
            _ = moved.changed() => {
                *lock(&self.leader) = manager.parse().ok();
                Ok(Moved)
            }
        }
    }

    async fn serve_until_error(
        &self,
        manager: &str,
        backoff: &mut Duration,
    ) -> Result<std::convert::Infallible, CommandError> {
        self.renew_outside(manager).await?;
        let identity = Arc::clone(&lock(&self.identity));
        let config = member_config(&identity)?;
        let channel = connect_with(manager, config, Upkeep::Beaten).await?;
        let mut dispatcher =
            DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = SessionRequest {
            schema: SCHEMA,
            node_json: encode(&self.config.node).map_err(|s| from_status(&s))?,
            life: self.life.clone(),
        };
        let opened = async {
            let opened = dispatcher.session(request).await;
            if let Err(status) = &opened {
                self.note_leader(status);
                if status.code() == Code::Unauthenticated {
                    self.lapsed.store(true, Ordering::Relaxed);
                }
            }
            opened
        };
        let mut stream = rpc(opened).await?;
        let first = timeout(RPC_TIMEOUT, stream.message())
            .await
            .map_err(|_| CommandError::unavailable("the manager sent no orders"))?
            .map_err(|s| from_status(&s))?
            .ok_or_else(|| CommandError::unavailable("the manager closed the session"))?;
        // It may have secrets and configs alone, and many: heartbeats do not wait for what follows.
        let mut held = self.take_orders(first, &Held::default()).await?;
        *backoff = BACKOFF_MIN;
        *lock(&self.last_failure) = None;
        self.channel.send_replace(Some(channel.clone()));
        tracing::info!(manager, "session with the manager is open");
        let orders = async {
            loop {
                match stream.message().await {
                    Ok(Some(message)) => held = self.take_orders(message, &held).await?,
                    Ok(None) => {
                        return Err(CommandError::unavailable("the manager closed the session"));
                    }
                    Err(status) => return Err(from_status(&status)),
                }
            }
        };
        tokio::select! {
            result = orders => result,
            result = self.beat(channel.clone()) => result,
            result = self.send_reports(channel.clone()) => result,
            result = self.follow_role(channel.clone()) => result,
            result = self.answer_questions(manager, &identity, channel.clone()) => result,
            result = self.renew(channel) => result,
        }
    }
}
