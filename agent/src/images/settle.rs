//! Layers that were unpacked, known to be on the disk: else they are unpacked again after the machine
//! has started anew.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Images;
use crate::blocking::blocking;

/// Between two looks at what nobody told of, such as layers of another node of this machine.
const USUAL: Duration = Duration::from_secs(60);
/// After layers were unpacked: more of them may follow, and tasks that start want the disk.
const SOON: Duration = Duration::from_secs(5);

impl Images {
    /// Waits for the disk now and then, for as long as it is polled.
    pub(crate) async fn settle(&self) {
        self.settle_after(SOON).await;
    }

    pub(super) async fn settle_after(&self, soon: Duration) {
        loop {
            if timeout(USUAL, self.0.unpacked.notified()).await.is_ok() {
                sleep(soon).await;
            }
            let store = self.store().clone();
            match blocking(move || store.settle()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "unpacked layers are not known to be on the disk");
                }
                Err(error) => tracing::warn!(%error, "waiting for the disk has failed"),
            }
        }
    }
}
