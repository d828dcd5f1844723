//! Secrets and configs (swarmkit `manager/controlapi/{secret,config}.go`, of which the texts are).

use std::collections::BTreeMap;

use weft_model::id::PayloadId;
use weft_model::names;
use weft_model::objects::{Meta, Payload, PayloadKind, PayloadSpec, Templating};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::index::Key;
use super::super::object::ObjectId;
use super::super::state::ClusterState;
use super::super::{sizes, template};
use super::node_spec::check_version;

/// Secrets and configs of one cluster at most, together.
const MAX_PAYLOADS: usize = 10_000;
/// Bytes of all of them, with their labels. Every manager has them in memory, every snapshot of the log
/// holds them, and a list of all configs is one answer of the leader to the other managers.
const MAX_BYTES: usize = 32 << 20;

fn check_data(kind: PayloadKind, spec: &PayloadSpec) -> Result<(), CommandError> {
    let (bytes, limit) = (spec.data.len(), kind.max_bytes());
    if bytes == 0 || bytes >= limit {
        return Err(CommandError::bad(format!(
            "{kind} data must be larger than 0 and less than {limit} bytes"
        )));
    }
    let Some(driver) = &spec.templating else {
        return Ok(());
    };
    if driver.name != Templating::GOLANG {
        return Err(CommandError::bad(format!(
            "template driver {:?} is not known: give --template-driver {}, or leave it out",
            driver.name.chars().take(64).collect::<String>(),
            Templating::GOLANG
        )));
    }
    template::check_payload(spec.data.expose())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), CommandError> {
    names::check_labels(labels)?;
    sizes::check_labels(labels)
}

/// What one takes of [`MAX_BYTES`].
fn weight(spec: &PayloadSpec) -> usize {
    let labels = spec.labels.iter();
    spec.data.len()
        + labels
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
}

/// Whether managers have room for `spec`, in place of that of `before`.
fn check_room(
    state: &ClusterState,
    before: Option<&Payload>,
    spec: &PayloadSpec,
) -> Result<(), CommandError> {
    if before.is_none() && state.payloads.len() >= MAX_PAYLOADS {
        return Err(CommandError::conflict(format!(
            "the swarm has {MAX_PAYLOADS} secrets and configs, and may have no more: remove some that no \
             service uses"
        )));
    }
    let given = before.map_or(0, |before| weight(&before.spec));
    let others = state.payloads.values().map(|payload| weight(&payload.spec));
    let all = others.sum::<usize>() - given + weight(spec);
    if all > MAX_BYTES && weight(spec) > given {
        return Err(CommandError::conflict(format!(
            "all secrets and configs of the swarm would have {all} bytes, and may have {MAX_BYTES}: remove \
             some that no service uses, or keep what is long in a volume"
        )));
    }
    Ok(())
}

/// `weft secret create`, `weft config create`. The value has the bytes: people see
/// [`Payload::shown`].
///
/// # Errors
/// A name in use or not valid, too much or no data, labels that cannot be, a template driver that is
/// not known, a template that cannot be read, no room.
pub fn create_payload(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    kind: PayloadKind,
    spec: PayloadSpec,
) -> Result<Planned<Payload>, CommandError> {
    names::check_payload(&kind.to_string(), &spec.name)?;
    check_labels(&spec.labels)?;
    check_data(kind, &spec)?;
    let named = Key::PayloadName(kind, spec.name.clone());
    if state.payloads_at(named).next().is_some() {
        return Err(CommandError::conflict(format!(
            "{kind} {} already exists",
            spec.name
        )));
    }
    check_room(state, None, &spec)?;
    let mut draft = Draft::new(state, now, entropy);
    let id = PayloadId::from_entropy(draft.entropy.next_u128());
    draft.put(Payload {
        id: id.clone(),
        kind,
        meta: Meta::default(),
        spec,
    });
    let payload = draft.state.payloads.get(&id).cloned();
    let payload =
        payload.ok_or_else(|| CommandError::unavailable(format!("the new {kind} vanished")))?;
    Ok(draft.plan(payload))
}

/// Other labels. Bytes and template driver are given as they are, or left out.
///
/// # Errors
/// It does not exist or is not at that version, anything but labels is another thing, or labels that
/// cannot be.
pub fn update_payload(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    kind: PayloadKind,
    reference: &str,
    version: Option<u64>,
    spec: PayloadSpec,
) -> Result<Planned<Payload>, CommandError> {
    let before = state.find_payload(kind, reference)?;
    check_version(&before.meta, version)?;
    let labels_alone = spec.data.is_empty() && spec.templating.is_none();
    let same = spec.data.is_empty() || spec.data == before.spec.data;
    let same = same && (labels_alone || spec.templating == before.spec.templating);
    if spec.name != before.spec.name || !same {
        return Err(CommandError::bad("only updates to Labels are allowed"));
    }
    check_labels(&spec.labels)?;
    let mut payload = before.clone();
    payload.spec.labels = spec.labels;
    check_room(state, Some(before), &payload.spec)?;
    let mut draft = Draft::new(state, now, entropy);
    if payload != *before {
        draft.put(payload.clone());
    }
    let payload = draft.state.payloads.get(&payload.id).cloned();
    let payload =
        payload.ok_or_else(|| CommandError::unavailable(format!("the {kind} vanished")))?;
    Ok(draft.plan(payload))
}

/// `weft secret rm`, `weft config rm`. Tasks that see it keep it until they end. The value is what it
/// was.
///
/// # Errors
/// It does not exist, or a service uses it; the text says which.
pub fn remove_payload(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    kind: PayloadKind,
    reference: &str,
) -> Result<Planned<Payload>, CommandError> {
    let payload = state.find_payload(kind, reference)?;
    let users = state.services_at(Key::Uses(payload.id.clone()));
    let mut users: Vec<&str> = users.map(|service| service.spec.name.as_str()).collect();
    users.sort_unstable();
    if !users.is_empty() {
        let services = if users.len() == 1 {
            "service"
        } else {
            "services"
        };
        return Err(CommandError::conflict(format!(
            "{kind} '{}' is in use by the following {services}: {}",
            payload.spec.name,
            users.join(", ")
        )));
    }
    let mut draft = Draft::new(state, now, entropy);
    draft.delete(ObjectId::Payload(payload.id.clone()));
    Ok(draft.plan(payload.clone()))
}
