//! Which secrets and configs the tasks of a service see, and as which files (swarmkit
//! `manager/controlapi/service.go`, `validateSecretRefsSpec`).

use std::collections::BTreeMap;

use weft_model::id::PayloadId;
use weft_model::objects::{ContainerSpec, PayloadKind, PayloadUse, TaskSpec};

use super::super::error::CommandError;
use super::super::index::Key;
use super::super::state::ClusterState;
use super::super::template::{TemplateFields, expand_mount};
use super::mounts;

/// Secrets and configs of one task at most, together.
const MAX_REFERENCES: usize = 1_000;
/// Bytes of them, in the memory of its node: as many as all of a swarm are at most.
const MAX_TASK_BYTES: usize = 32 << 20;
/// Longest path, in bytes: the kernel's.
const MAX_PATH: usize = 4095;
/// Largest mode of a file.
const MAX_MODE: u32 = 0o7777;
/// Characters of a text that are repeated in an error.
const SHOWN: usize = 128;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Gives each reference of a task its id and its name, and looks whether a task can have these files.
///
/// # Errors
/// A secret or a config that does not exist, a file that cannot be, two at one place.
pub(super) fn resolve(state: &ClusterState, task: &mut TaskSpec) -> Result<(), CommandError> {
    let container = &mut task.container;
    let count = container.secrets.len() + container.configs.len();
    if count == 0 {
        return Ok(());
    }
    if count > MAX_REFERENCES {
        return Err(CommandError::bad(format!(
            "{count} secrets and configs are too many: a task may have {MAX_REFERENCES}"
        )));
    }
    for secret in &mut container.secrets {
        identify(state, PayloadKind::Secret, &mut secret.id, &mut secret.name)?;
    }
    for config in &mut container.configs {
        identify(state, PayloadKind::Config, &mut config.id, &mut config.name)?;
    }
    check_room(state, container)?;
    check(container)
}

/// Whether a node has room for all that a task sees of them: one that is seen at many places is there as
/// often.
fn check_room(state: &ClusterState, container: &ContainerSpec) -> Result<(), CommandError> {
    let payloads = container.payloads().map(|one| state.payloads.get(one.id));
    let sizes = payloads
        .flatten()
        .map(|payload| match payload.spec.templating {
            Some(_) => payload.kind.max_bytes(),
            None => payload.spec.data.len(),
        });
    let bytes: usize = sizes.sum();
    if bytes <= MAX_TASK_BYTES {
        return Ok(());
    }
    Err(CommandError::bad(format!(
        "the secrets and configs of a task come to {bytes} bytes, with as many as it may have for each \
         template: there may be {MAX_TASK_BYTES}; put what is long into the image or a volume"
    )))
}

/// The id counts where there is one, and else the name.
fn identify(
    state: &ClusterState,
    kind: PayloadKind,
    id: &mut PayloadId,
    name: &mut String,
) -> Result<(), CommandError> {
    let found = if !id.as_str().is_empty() {
        let found = state.payloads.get(id);
        found.filter(|payload| payload.kind == kind)
    } else if name.is_empty() {
        return Err(CommandError::bad(format!(
            "malformed {kind} reference: it needs a name or an id"
        )));
    } else {
        let named = Key::PayloadName(kind, name.clone());
        state.payloads_at(named).next()
    };
    let Some(found) = found else {
        let wanted = if name.is_empty() {
            id.as_str()
        } else {
            name.as_str()
        };
        return Err(CommandError::not_found(format!(
            "{kind} not found: {}",
            shown(wanted)
        )));
    };
    id.clone_from(&found.id);
    name.clone_from(&found.spec.name);
    Ok(())
}

fn check(container: &ContainerSpec) -> Result<(), CommandError> {
    let mut files: BTreeMap<String, PayloadUse<'_>> = BTreeMap::new();
    for one in container.payloads() {
        check_file(&one)?;
        let place = place(&one)?;
        if let Some(other) = files.insert(place, one) {
            return Err(conflict(&other, &one));
        }
    }
    for (place, one) in &files {
        let mut folders = place.match_indices('/').map(|(end, _)| &place[..end]);
        if let Some(file) = folders.find_map(|folder| files.get(folder)) {
            return Err(conflict(file, one));
        }
    }
    let trial = TemplateFields::trial();
    for mount in &container.mounts {
        let place = mounts::target(&expand_mount(mount, &trial)?)?;
        if let Some(one) = files.get(&place) {
            return Err(CommandError::bad(format!(
                "ContainerSpec: duplicate mount point: {}: {} '{}' is to be there as well; give one of \
                 them another target",
                shown(&mount.target),
                one.kind,
                one.name
            )));
        }
    }
    Ok(())
}

/// Swarmkit's text, for files of both kinds.
fn conflict(one: &PayloadUse<'_>, other: &PayloadUse<'_>) -> CommandError {
    let what = if one.kind == other.kind {
        format!(
            "{} references '{}' and '{}'",
            one.kind, one.name, other.name
        )
    } else {
        format!(
            "{} reference '{}' and {} reference '{}'",
            one.kind, one.name, other.kind, other.name
        )
    };
    CommandError::bad(format!(
        "{what} have a conflicting target: '{}'; give one of them another target",
        shown(&other.target())
    ))
}

fn check_file(one: &PayloadUse<'_>) -> Result<(), CommandError> {
    let (kind, name, file) = (one.kind, one.name, one.file);
    for (what, number) in [("uid", &file.uid), ("gid", &file.gid)] {
        // The largest one stands for none.
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let fits = number.parse::<u32>().is_ok_and(|number| number < u32::MAX);
        if !digits || !fits {
            return Err(CommandError::bad(format!(
                "invalid {what} {:?} of {kind} '{name}': write a number, such as 33",
                shown(number)
            )));
        }
    }
    if file.mode > MAX_MODE {
        return Err(CommandError::bad(format!(
            "invalid mode {:o} of {kind} '{name}': write 0 to 7777",
            file.mode
        )));
    }
    Ok(())
}

/// Where the file is, in the one spelling that mounts have too.
fn place(one: &PayloadUse<'_>) -> Result<String, CommandError> {
    let target = one.target();
    let invalid = |why: &str| {
        CommandError::bad(format!(
            "invalid target {:?} of {} '{}': {why}",
            shown(&target),
            one.kind,
            one.name
        ))
    };
    if target.len() > MAX_PATH || target.chars().any(char::is_control) {
        return Err(invalid(
            "it may have 4095 bytes at most, and no control characters",
        ));
    }
    let parts = target.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    if parts.contains(&"..") {
        return Err(invalid("it must not have \"..\" in it"));
    }
    if parts.is_empty() || target.ends_with('/') || target.ends_with("/.") {
        return Err(invalid("it has to name a file"));
    }
    Ok(parts.join("/"))
}
