//! What a message of orders makes of those that a node has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use weft_cluster::CommandError;
use weft_model::assignment::change::{Misfit, SharedChange};
use weft_model::assignment::{Assignment, Own, PayloadContent, Payloads, Shared};
use weft_model::id::PayloadId;

use crate::convert::{SCHEMA, decode, from_status};
use crate::proto::SessionMessage;

/// Secrets and configs that a node holds at most. A manager sends no more.
pub(crate) const MAX_PAYLOADS: usize = 4096;
/// The same, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 512 << 20;

/// Why a message is refused. The session ends then, and the next one begins with the whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Of another version of weftd, or no orders at all.
    #[error(transparent)]
    Damaged(CommandError),
    /// The first orders of a session have to be whole.
    #[error("the manager sent half of the orders")]
    Half,
    /// Changes need lists in the order of their ids.
    #[error("the manager sent orders whose lists are not in order")]
    Disorder,
    /// A change of something else than what is there.
    #[error("the manager sent a change that does not fit: {0}")]
    Misfit(#[from] Misfit),
    /// More secrets and configs than a node holds.
    #[error(
        "the manager sent more secrets and configs than a node holds: {count} with {bytes} bytes, and there \
         may be {most} with {most_bytes}",
        most = MAX_PAYLOADS,
        most_bytes = MAX_PAYLOAD_BYTES
    )]
    Excess {
        /// How many they are.
        count: usize,
        /// Of all of them.
        bytes: usize,
    },
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Damaged(error) => error,
            refusal => Self::unavailable(refusal.to_string()),
        }
    }
}

/// What a session has brought so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    halves: Option<(Arc<Shared>, Arc<Own>)>,
    payloads: Arc<Payloads>,
}

impl Held {
    /// The orders; nothing before both halves have come.
    pub(crate) fn orders(&self) -> Option<Assignment> {
        let (shared, own) = self.halves.clone()?;
        Some(Assignment {
            shared,
            own,
            payloads: Arc::clone(&self.payloads),
        })
    }
}

/// Secrets and configs that tasks of these orders use. All others both ends of a session forget with
/// each message that has an own half.
pub(crate) fn used(own: &Own) -> BTreeSet<&PayloadId> {
    let tasks = own.tasks.iter();
    let used = tasks.flat_map(|task| task.spec.container.payloads());
    used.map(|payload| payload.id).collect()
}

fn read<T: DeserializeOwned>(schema: u32, json: &[u8]) -> Result<T, Refusal> {
    decode(schema, json).map_err(|status| Refusal::Damaged(from_status(&status)))
}

fn read_payload(schema: u32, json: &[u8]) -> Result<PayloadContent, Refusal> {
    read(schema, json).map_err(|refusal| {
        if schema != SCHEMA {
            return refusal;
        }
        // What is wrong with it is not told, as it would show some of it.
        let text = "the manager sent a damaged object: no secret or config";
        Refusal::Damaged(CommandError::bad(text))
    })
}

/// What is held with a message. Secrets and configs may come alone, before the orders of the tasks that
/// use them or after them; what a message does not bring stays as it is. How many changes and payloads it may have is
/// bounded by its fields ([`crate::codec::MAX_FIELDS`]).
///
/// # Errors
/// The message is refused.
pub(crate) fn next(held: &Held, message: &SessionMessage) -> Result<Held, Refusal> {
    let has_halves = message.shared_json.is_some()
        || message.own_json.is_some()
        || !message.shared_changes_json.is_empty();
    let halves = if has_halves || message.payloads_json.is_empty() {
        Some(halves(held, message)?)
    } else {
        held.halves.clone()
    };
    let own = halves.as_ref().map(|(_, own)| &**own);
    let own = own.filter(|_| message.own_json.is_some());
    Ok(Held {
        payloads: payloads(&held.payloads, message, own)?,
        halves,
    })
}

fn halves(held: &Held, message: &SessionMessage) -> Result<(Arc<Shared>, Arc<Own>), Refusal> {
    let schema = message.schema;
    let before = || held.halves.as_ref().ok_or(Refusal::Half);
    let mut shared = match &message.shared_json {
        Some(json) => {
            let shared: Shared = read(schema, json)?;
            if !shared.is_in_order() {
                return Err(Refusal::Disorder);
            }
            Arc::new(shared)
        }
        None => Arc::clone(&before()?.0),
    };
    for json in &message.shared_changes_json {
        let change: SharedChange = read(schema, json)?;
        shared = Arc::new(shared.with(&change)?);
    }
    let own: Arc<Own> = match &message.own_json {
        Some(json) => Arc::new(read(schema, json)?),
        None => Arc::clone(&before()?.1),
    };
    Ok((shared, own))
}

/// Those that are held with those of a message; where this has an own half, only what that uses. The very
/// same where nothing comes or goes.
fn payloads(
    held: &Arc<Payloads>,
    message: &SessionMessage,
    own: Option<&Own>,
) -> Result<Arc<Payloads>, Refusal> {
    let used = own.map(used);
    let is_unused = |id: &PayloadId| used.as_ref().is_some_and(|used| !used.contains(id));
    if message.payloads_json.is_empty() && !held.keys().any(is_unused) {
        return Ok(Arc::clone(held));
    }
    let mut payloads = Payloads::clone(held);
    for json in &message.payloads_json {
        let payload = read_payload(message.schema, json)?;
        payloads.insert(payload.id.clone(), Arc::new(payload));
    }
    payloads.retain(|id, _| !is_unused(id));
    let count = payloads.len();
    let bytes: usize = payloads.values().map(|payload| payload.data.len()).sum();
    if count > MAX_PAYLOADS || bytes > MAX_PAYLOAD_BYTES {
        return Err(Refusal::Excess { count, bytes });
    }
    Ok(Arc::new(payloads))
}

/// Messages that were refused since the start, by why.
#[derive(Debug, Default)]
pub struct RefusedOrders {
    damaged: AtomicU64,
    half: AtomicU64,
    disorder: AtomicU64,
    misfit: AtomicU64,
    excess: AtomicU64,
}

impl RefusedOrders {
    pub(crate) fn count(&self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Damaged(_) => &self.damaged,
            Refusal::Half => &self.half,
            Refusal::Disorder => &self.disorder,
            Refusal::Misfit(_) => &self.misfit,
            Refusal::Excess { .. } => &self.excess,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Each with its word (`damaged`, `half`, …).
    #[must_use]
    pub fn sample(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("damaged", &self.damaged),
            ("half", &self.half),
            ("disorder", &self.disorder),
            ("misfit", &self.misfit),
            ("excess", &self.excess),
        ];
        let read = |(why, counter): (_, &AtomicU64)| (why, counter.load(Ordering::Relaxed));
        all.into_iter().map(read).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
