//! What the loops, the calls and the read models of a member work on. Each takes from here what it
//! needs, and none of them knows the member.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use weft_model::id::NodeId;
use weft_model::objects::Role;
use weft_swarm::{Manager, Membership, Session};
use weft_volumes::Volumes;

use super::data_path::DataPath;
use super::local::LocalPorts;
use super::manager_slot::ManagerSlot;
use super::warnings::Warnings;
use crate::api::ApiError;
use crate::config::Config;
use crate::dns::DnsServer;
use crate::images::Images;
use crate::sandbox::runner::Runner;

/// Everything that a member has, running or not yet.
pub(crate) struct Handles {
    pub(crate) config: Arc<Config>,
    pub(crate) membership: Membership,
    pub(crate) node_id: NodeId,
    pub(crate) session: Session,
    pub(crate) manager: ManagerSlot,
    /// There once the first orders were carried out.
    pub(crate) data_path: ArcSwapOption<DataPath>,
    pub(crate) local: Arc<LocalPorts>,
    pub(crate) dns: DnsServer,
    pub(crate) runner: Runner,
    pub(crate) images: Images,
    pub(crate) volumes: Volumes,
    pub(crate) warnings: Arc<Warnings>,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles")
            .field("node_id", &self.node_id)
            .field("membership", &self.membership)
            .finish_non_exhaustive()
    }
}

impl Handles {
    /// Where the namespace of a task is bound.
    pub(crate) fn netns_path(&self, task: &str) -> PathBuf {
        self.config.run_dir.join("netns").join(task)
    }

    /// The manager, for a command that needs one.
    ///
    /// # Errors
    /// The node has none, or it is off: the text says why and what to do.
    pub(crate) fn need_manager(&self) -> Result<Arc<Manager>, ApiError> {
        if let Some(manager) = self.manager.get() {
            return Ok(manager);
        }
        self.manager.is_on()?;
        if self.session.identity().role() == Role::Manager {
            return Err(ApiError::unavailable(
                "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
            ));
        }
        let managers = self.named_managers();
        let managers = managers.unwrap_or_else(|| self.membership.managers.join(", "));
        Err(ApiError::unavailable(format!(
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.\nManagers: {managers}"
        )))
    }

    /// Names and addresses of the managers, as the orders say.
    fn named_managers(&self) -> Option<String> {
        let orders = self.session.assignments().borrow().clone()?;
        let nodes = orders.shared.nodes.iter();
        let managers = nodes.filter(|node| node.role == Role::Manager);
        let list: Vec<String> = managers
            .map(|node| format!("{} ({})", node.hostname, node.addr))
            .collect();
        (!list.is_empty()).then(|| list.join(", "))
    }
}
