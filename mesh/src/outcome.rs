//! What the fate of a connection says of its replica.

use std::time::Duration;

use weft_wire::Instant;

use crate::ejection::Failure;
use crate::flow::{Flow, FlowConfig, Origin};
use crate::load::OpenFlow;
use crate::state::FlowState;

/// A client that repeats a SYN sooner does not do so because nobody answered: the first
/// retransmission comes after a second (RFC 6298 section 2).
const SILENCE: Duration = Duration::from_millis(500);

/// Whether the replica of an unanswered flow is silent, now that the client asks again or has given
/// up: if it is late enough.
pub(crate) fn is_silent(flow: &Flow, now: Instant) -> bool {
    let late = |open: &OpenFlow| open.opened().is_some_and(|t| now.since(t) >= SILENCE);
    flow.state.is_unanswered() && flow.open.as_ref().is_some_and(late)
}

/// Notes that the replica has failed the connection. `random` spreads the ends of back-offs.
pub(crate) fn note_failure(flow: &Flow, now: Instant, random: u64, failure: Failure) {
    if let Some(open) = answerable(flow) {
        let health = open.load().health();
        health.note_failure_on(flow.reverse.tuple.sport);
        health.note_failure(now, random, failure);
    }
}

/// The count of a flow whose failure is its replica's. Whoever connects to a port of a virtual
/// address where nothing ever listened must not take the replica from all others.
fn answerable(flow: &Flow) -> Option<&OpenFlow> {
    let open = flow.open.as_ref()?;
    let meant = matches!(flow.origin, Origin::Mesh { .. })
        || open
            .load()
            .health()
            .has_answered_on(flow.reverse.tuple.sport);
    meant.then_some(open)
}

/// Notes that the replica has answered, the first time in the life of a flow.
pub(crate) fn note_answer(flow: &Flow, before: FlowState) {
    if before == FlowState::SynSent
        && flow.state == FlowState::SynAnswered
        && let Some(open) = &flow.open
    {
        open.load()
            .health()
            .note_answer_on(flow.reverse.tuple.sport);
        open.note_connected(flow.last_seen);
    }
}

/// Takes the count of a flow back, which was in state `before`. What never came to life has no
/// lifetime.
pub(crate) fn close(flow: &mut Flow, before: FlowState, config: &FlowConfig) -> bool {
    let Some(open) = flow.open.take() else {
        return false;
    };
    match before {
        FlowState::SynSent | FlowState::SynAnswered => drop(open),
        FlowState::Datagrams | FlowState::DatagramsAnswered => {
            // They count as open until they are forgotten.
            let idle = flow.timeout(config).unwrap_or_default();
            open.close(flow.last_seen.after(idle));
        }
        _ => open.close(flow.last_seen),
    }
    true
}
