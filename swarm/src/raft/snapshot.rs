//! The whole state as bytes: what is kept in place of the entries that made it, and what a member
//! gets that is too far behind.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weft_cluster::{ClusterState, Object, given_twice};

use super::known::Applied;
use super::types::{RaftId, SnapshotMeta};

/// Number of the form below. Newer ones are refused.
const FORMAT: u32 = 1;

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSnapshot {
    /// Of a version to come.
    #[error(
        "the snapshot has format {0}, this weftd reads {reads}; run the same version on all managers",
        reads = FORMAT
    )]
    Newer(u32),
    /// Damaged, or something else.
    #[error("the snapshot is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// No manager makes such a state.
    #[error("the state has something twice that there may be once: {0}")]
    Twice(String),
}

#[derive(Serialize, Deserialize)]
struct Image {
    format: u32,
    version: u64,
    /// All objects, in the order of [`ClusterState::ids`].
    objects: Vec<Object>,
}

/// What is read first.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Writes a state.
pub(crate) fn encode(state: &ClusterState) -> Vec<u8> {
    let image = Image {
        format: FORMAT,
        version: state.version,
        objects: state.ids().iter().filter_map(|id| state.get(id)).collect(),
    };
    serde_json::to_vec(&image).expect("objects have texts for keys, and nothing that fails")
}

/// Reads a state.
///
/// # Errors
/// The bytes are none, or of a version to come; or two objects have what one may have.
pub(crate) fn decode(bytes: &[u8]) -> Result<ClusterState, NoSnapshot> {
    let Format { format } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(NoSnapshot::Newer(format));
    }
    let image: Image = serde_json::from_slice(bytes)?;
    let mut state = ClusterState::default();
    let mut there = BTreeSet::new();
    for object in image.objects {
        if let Some(id) = there.replace(object.id()) {
            return Err(NoSnapshot::Twice(format!("{id:?}")));
        }
        state.put(object);
    }
    state.version = image.version;
    if let Some(what) = given_twice(&state) {
        return Err(NoSnapshot::Twice(what));
    }
    Ok(state)
}

/// What is said of a snapshot of `applied`. Two that one member makes of one entry are the same.
pub(super) fn describe(applied: &Applied, member: RaftId) -> SnapshotMeta {
    let of = applied
        .last
        .map_or_else(String::new, |last| last.to_string());
    SnapshotMeta {
        last_log_id: applied.last,
        last_membership: applied.membership.clone(),
        snapshot_id: format!("{of}-by-{member}"),
    }
}

#[cfg(test)]
mod tests {
    use weft_cluster::Counters;
    use weft_model::objects::{Meta, Payload, PayloadKind, PayloadSpec};

    use super::*;

    #[test]
    fn a_state_survives_and_another_format_is_refused() {
        let mut state = ClusterState::default();
        state.put(Object::Counters(Counters {
            last_vni: 4711,
            ..Counters::default()
        }));
        state.put(Object::from(Payload {
            id: "key".into(),
            kind: PayloadKind::Secret,
            meta: Meta::default(),
            spec: PayloadSpec {
                data: b"hunter2".to_vec().into(),
                ..PayloadSpec::default()
            },
        }));
        state.version = 9;
        let bytes = encode(&state);
        let again = decode(&bytes).unwrap();
        assert_eq!(again, state);
        assert_eq!(again.payloads.len(), 1);
        let before = again.changed_since(8);
        assert_eq!(before, None, "who follows its changes looks at everything");
        let newer = String::from_utf8(bytes.clone()).unwrap();
        let newer = newer.replacen(r#""format":1"#, r#""format":2,"new":[]"#, 1);
        let error = decode(newer.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("has format 2, this weftd reads 1"),
            "{error}"
        );
        let error = decode(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn an_object_that_is_there_twice_is_refused() {
        let counters = || Object::Counters(Counters::default());
        let image = Image {
            format: FORMAT,
            version: 9,
            objects: vec![counters(), counters()],
        };
        let error = decode(&serde_json::to_vec(&image).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the state has something twice that there may be once: Counters"
        );
    }
}
