//! Keeps the ports of the cluster closed to sandboxes as nodes come and go.

use std::collections::BTreeSet;

use weft_model::assignment::Assignment;

use crate::blocking::blocking;
use crate::parts::data_path::DataPath;
use crate::parts::gateway::{cluster_ports, open_to_sandboxes};
use crate::parts::warnings::Warnings;
use crate::sandbox::gwbridge::ClusterPort;

/// Keeps [`cluster_ports`] closed as nodes come and go.
#[derive(Debug, Default)]
pub(super) struct Wall {
    closed: Option<BTreeSet<ClusterPort>>,
}

impl Wall {
    /// Takes in the orders. What could not be closed is tried again by the next call.
    pub(super) async fn keep(
        &mut self,
        data_path: &DataPath,
        orders: &Assignment,
        warnings: &Warnings,
    ) {
        let ports = cluster_ports(orders);
        let Some(gateway) = data_path.gateway.get() else {
            return;
        };
        if self.closed.as_ref() == Some(&ports) {
            return;
        }
        let closing = ports.clone();
        let closed = blocking(move || gateway.close(&closing)).await;
        match closed.and_then(|closed| Ok(closed?)) {
            Ok(()) => {
                self.closed = Some(ports);
                warnings.clear("wall");
            }
            Err(error) => warnings.set("wall", open_to_sandboxes(&error)),
        }
    }
}
