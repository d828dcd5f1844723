//! Conversations of users with the swarm, begun by the manager that leads.

use std::sync::Arc;

use weft_cluster::CommandError;
use weft_model::talk::Talk;

use super::engine::Engine;
use super::logs;
use crate::exchange::Exchange;

/// Begins one; what is returned is the user's end.
pub(super) fn begin(core: &Arc<Engine>, talk: Talk) -> Result<Exchange, CommandError> {
    core.check_leads()?;
    match talk {
        Talk::Logs { reference, query } => logs::begin(core, &reference, query),
    }
}
