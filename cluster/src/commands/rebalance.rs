//! `weft service rebalance`.

use weft_model::objects::{Rebalancing, Service, ServiceMode};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::rebalance::{Move, moves};
use super::super::state::ClusterState;
use super::super::waits::Waits;

/// Moves of one service at most, at one command: a plan of more would keep the manager from all else.
pub const MAX_MOVES: u32 = 100;

/// What `weft service rebalance` will do, without doing it.
///
/// # Errors
/// The service does not exist, is not replicated, or `at_most` is 0 or more than [`MAX_MOVES`].
pub fn plan_rebalance(
    state: &ClusterState,
    now: u64,
    reference: &str,
    at_most: u32,
) -> Result<Vec<Move>, CommandError> {
    let service = state.find_service(reference)?;
    check(service, at_most)?;
    Ok(moves(
        state,
        service,
        now,
        at_most as usize,
        &Waits::default(),
    ))
}

/// Begins to move tasks of a service, one after the other, at most so many; what an earlier command
/// left is forgotten. The moves are those that are planned now.
///
/// # Errors
/// As those of [`plan_rebalance`].
pub fn rebalance_service(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    at_most: u32,
) -> Result<Planned<Vec<Move>>, CommandError> {
    let planned = plan_rebalance(state, now, reference, at_most)?;
    let mut service = state.find_service(reference)?.clone();
    let begun = (!planned.is_empty()).then_some(Rebalancing {
        moves_left: at_most,
        // The first one waits for nothing.
        since: 0,
    });
    let mut draft = Draft::new(state, now, entropy);
    if service.rebalancing != begun {
        service.rebalancing = begun;
        draft.put(service);
    }
    Ok(draft.plan(planned))
}

fn check(service: &Service, at_most: u32) -> Result<(), CommandError> {
    if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
        return Err(CommandError::bad(format!(
            "rebalance can only be used with replicated mode: tasks of service {} are no replicas",
            service.spec.name
        )));
    }
    if at_most == 0 || at_most > MAX_MOVES {
        return Err(CommandError::bad(format!(
            "--max-moves {at_most} cannot be: 1 to {MAX_MOVES} tasks move at one command; give it again \
             for more"
        )));
    }
    Ok(())
}
