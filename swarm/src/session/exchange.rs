//! What goes over an open session: orders in, heartbeats and statuses out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use weft_cluster::CommandError;
use zeroize::Zeroize as _;

use super::{BEAT_MAX, Shared, rpc};
use crate::convert::{SCHEMA, encode, from_status, vitals_to_proto};
use crate::orders::{self, Held};
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{HeartbeatRequest, SessionMessage, TaskUpdate, UpdateTaskStatusRequest};

/// Shortest time that a manager may ask for.
const BEAT_MIN: Duration = Duration::from_millis(20);
/// Shortest time between two heartbeats.
const NEWS_PERIOD: Duration = Duration::from_millis(200);
/// A heartbeat takes so long at least before it counts as lost, and so long at most.
const LOST_MIN: Duration = Duration::from_millis(500);
const LOST_MAX: Duration = Duration::from_secs(3);
/// Statuses in one report, and bytes of them: less than a manager reads.
const MAX_REPORTS: usize = 1000;
const MAX_REPORT_BYTES: usize = 1 << 20;

impl Shared {
    /// Takes over a message; what it does not bring is as it was in `held`.
    pub(super) async fn take_orders(
        &self,
        mut message: SessionMessage,
        held: &Held,
    ) -> Result<Held, CommandError> {
        let held =
            orders::next(held, &message).inspect_err(|refusal| self.refused.count(refusal))?;
        // Secrets and configs are in memory alone, and there once.
        message.payloads_json.zeroize();
        let period = Duration::from_millis(u64::from(message.heartbeat_ms));
        self.period.send_if_modified(|known| {
            let wanted = period.clamp(BEAT_MIN, BEAT_MAX);
            std::mem::replace(known, wanted) != wanted
        });
        if let Some(roots) = &message.roots_pem {
            self.take_roots(roots).await?;
        }
        let Some(orders) = held.orders() else {
            // What has come is for orders that follow.
            return Ok(held);
        };
        let (file, shared) = (self.assignment_file.clone(), Arc::clone(&orders.shared));
        // Before anybody acts on them: an agent that is killed in between must not come back with
        // orders older than its deeds. The disk is not waited for: orders would queue behind it.
        let written = self.writes.run(move || file.keep(&message, &shared)).await;
        match written {
            Ok(Err(error)) => {
                // The node works on; only a restart without managers would miss the file.
                tracing::warn!(%error, "cannot keep the orders");
            }
            _ => self.unsynced.notify_one(),
        }
        self.assignment.send_replace(Some(Arc::new(orders)));
        Ok(held)
    }

    /// Brings written orders to the disk, however many at once.
    pub(super) async fn sync_orders(&self) {
        loop {
            self.unsynced.notified().await;
            let file = self.assignment_file.clone();
            let synced = tokio::task::spawn_blocking(move || file.sync()).await;
            if let Ok(Err(error)) = synced {
                tracing::warn!(%error, "the orders may not outlive a loss of power");
            }
        }
    }

    pub(super) async fn beat(
        &self,
        channel: Channel,
    ) -> Result<std::convert::Infallible, CommandError> {
        let mut dispatcher = DispatcherClient::new(channel);
        let mut vitals = self.vitals.subscribe();
        let mut wanted = self.period.subscribe();
        // A manager that this session is new to has heard nothing yet.
        vitals.mark_changed();
        loop {
            let period = *wanted.borrow_and_update();
            // The senders are in `self`. Not even much news makes many heartbeats.
            let news = async {
                sleep(period.min(NEWS_PERIOD)).await;
                tokio::select! {
                    told = vitals.changed() => told,
                    other = wanted.changed() => other,
                }
            };
            // Both ends are fine: news, or the period.
            drop(timeout(period, news).await);
            let told = vitals.borrow_and_update().clone();
            let request = HeartbeatRequest {
                vitals: told.map(vitals_to_proto),
            };
            // A beat that takes two periods, or long enough, is a lost manager: the next one may be
            // reachable.
            let limit = (period * 2).clamp(LOST_MIN, LOST_MAX);
            match timeout(limit, dispatcher.heartbeat(request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => {
                    self.note_leader(&status);
                    return Err(from_status(&status));
                }
                Err(_) => {
                    return Err(CommandError::unavailable(
                        "the manager does not answer heartbeats",
                    ));
                }
            }
        }
    }

    pub(super) async fn send_reports(
        &self,
        channel: Channel,
    ) -> Result<std::convert::Infallible, CommandError> {
        let mut dispatcher = DispatcherClient::new(channel);
        loop {
            let mut batch = self.reports.wait().await;
            let mut updates = Vec::new();
            let mut bytes = 0;
            for (task, status) in batch.iter().take(MAX_REPORTS) {
                let status_json = encode(status).map_err(|s| from_status(&s))?;
                bytes += status_json.len();
                if bytes > MAX_REPORT_BYTES && !updates.is_empty() {
                    break;
                }
                let task = task.0.clone();
                updates.push(TaskUpdate { task, status_json });
            }
            // The rest is still pending, and next.
            batch.truncate(updates.len());
            let request = UpdateTaskStatusRequest {
                schema: SCHEMA,
                updates,
            };
            rpc(dispatcher.update_task_status(request)).await?;
            self.reports.stored(&batch);
        }
    }
}
