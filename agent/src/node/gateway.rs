//! The node's gateway bridge, set up beside the rest: to load its rules takes as long as everything
//! else of a start together, and ports that are taken up again can do without.

use std::sync::{Arc, OnceLock};

use anyhow::Context;

use super::warnings::Warnings;
use crate::config::{Config, MeshFrontEnd};
use crate::mesh::MeshSockets;
use crate::sandbox::gwbridge::{Egress, GatewayBridge};

/// The bridge, or the lack of one, once that is known.
#[derive(Debug, Clone)]
pub(super) struct Gateway(Arc<OnceLock<Option<Arc<GatewayBridge>>>>);

impl Gateway {
    /// Starts to set it up. What goes wrong is warned of.
    pub(super) fn start(
        config: &Config,
        data_path_port: u16,
        warnings: &Arc<Warnings>,
    ) -> anyhow::Result<Self> {
        let this = Self(Arc::default());
        let (cell, warnings) = (Arc::clone(&this.0), Arc::clone(warnings));
        let (subnet, front_end) = (config.gwbridge_subnet, config.mesh);
        std::thread::Builder::new()
            .name("weft-gateway".to_owned())
            .spawn(move || {
                if front_end == MeshFrontEnd::Socket
                    && let Err(error) = MeshSockets::remove_frame_rules()
                {
                    tracing::info!(%error, "no rules of a frame front end were removed");
                }
                cell.get_or_init(|| match GatewayBridge::ensure(subnet) {
                    Ok(gateway) => {
                        if let Egress::Off(why) = gateway.egress() {
                            warnings.set("gateway", why.clone());
                        }
                        if let Err(error) = gateway.spare_tracking(data_path_port) {
                            tracing::info!(%error, "the data path passes through connection tracking");
                        }
                        Some(Arc::new(gateway))
                    }
                    Err(error) => {
                        warnings.set("gateway", format!("egress is off: {error}"));
                        None
                    }
                });
            })
            .context("cannot start the gateway bridge")?;
        Ok(this)
    }

    /// Waits for it; nothing where it could not be made. Blocks, for some ten milliseconds after
    /// the start.
    pub(super) fn wait(&self) -> Option<Arc<GatewayBridge>> {
        self.0.wait().clone()
    }
}
