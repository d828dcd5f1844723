//! Volumes of nodes. Names and shapes are those of Docker's API, where Docker has the thing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a volume takes and who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeUsage {
    /// Bytes of its files; -1 where nobody has counted them.
    pub size: i64,
    /// Tasks of its node that use it.
    pub ref_count: i64,
}

/// A volume of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// When it was made, in Unix milliseconds; written as RFC 3339.
    #[serde(with = "crate::time::rfc3339")]
    pub created_at: u64,
    /// Who keeps it: `local`.
    pub driver: String,
    /// What people note at it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its folder on its node.
    pub mountpoint: String,
    /// Unique on its node.
    pub name: String,
    /// Host name of its node, where several nodes were asked: weft's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `type`, `device`, `o` and `size`, as they were given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Where it can be had: `local`, on its node alone.
    pub scope: String,
    /// Who uses it, and how large it is where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<VolumeUsage>,
}

/// Label of a volume that nobody has named: it is gone with its task.
pub const ANONYMOUS_VOLUME: &str = "com.docker.volume.anonymous";

/// A volume to be made. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct VolumeRequest {
    /// Unique on its node; one of 64 hexadecimal digits when empty.
    pub name: String,
    /// `local`, which empty means too.
    pub driver: String,
    /// `type`, `device`, `o` and `size`.
    #[serde(rename = "DriverOpts")]
    pub options: BTreeMap<String, String>,
    /// What people note at it.
    pub labels: BTreeMap<String, String>,
}

/// Which nodes a call about volumes is for, as parameters of the query: the one that is asked where
/// nothing is said. Others are asked by a manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumesQuery {
    /// Name, id or the start of an id of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// All nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Of a removal: that there is no such volume is no error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Which volumes go that nobody uses. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct VolumePrune {
    /// Also those that have a name of their own.
    pub all: bool,
    /// Only with all of these labels: `KEY` or `KEY=VALUE`.
    pub labels: Vec<String>,
    /// Only without any of these labels.
    pub without_labels: Vec<String>,
}

/// What a node is asked about its volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum VolumeAsk {
    /// All that it has.
    List,
    /// One, with its size.
    Inspect {
        /// Which.
        name: String,
    },
    /// Make one, or find the one of that name.
    Create(VolumeRequest),
    /// Remove one that nobody uses.
    Remove {
        /// Which.
        name: String,
        /// That there is none is no error.
        force: bool,
    },
    /// Remove those that nobody uses.
    Prune(VolumePrune),
}

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeRefusal {
    /// HTTP status of the cause.
    pub status: u16,
    /// What is wrong, and the next step.
    pub message: String,
}

/// What a node answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeAnswer {
    /// Host name of the node; empty from the node itself.
    pub node: String,
    /// What was listed, made, or removed: those with their name alone.
    pub volumes: Vec<Volume>,
    /// Bytes that removals gave back.
    pub space_reclaimed: u64,
    /// What people should know besides.
    pub warnings: Vec<String>,
    /// Why it did nothing, or not all.
    pub refused: Option<VolumeRefusal>,
}

/// What the nodes that were asked have answered, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volumes {
    /// By the names of nodes. Of one that did not answer there is the reason.
    pub answers: Vec<VolumeAnswer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_written_as_dockers() {
        let volume = Volume {
            created_at: 1_767_323_045_000,
            driver: "local".into(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            mountpoint: "/var/lib/weft/volumes/data/_data".into(),
            name: "data".into(),
            scope: "local".into(),
            ..Volume::default()
        };
        let text = serde_json::to_string(&volume).expect("written");
        assert_eq!(
            text,
            r#"{"CreatedAt":"2026-01-02T03:04:05Z","Driver":"local","Labels":{"a":"b"},"Mountpoint":"/var/lib/weft/volumes/data/_data","Name":"data","Options":{},"Scope":"local"}"#
        );
        assert_eq!(serde_json::from_str::<Volume>(&text).expect("read"), volume);
    }

    #[test]
    fn a_request_is_dockers_and_nothing_else() {
        let text = r#"{"Name":"data","Driver":"local","DriverOpts":{"type":"tmpfs"},"Labels":{}}"#;
        let request: VolumeRequest = serde_json::from_str(text).expect("read");
        assert_eq!(request.options["type"], "tmpfs");
        assert!(serde_json::from_str::<VolumeRequest>(r#"{"ClusterVolumeSpec":{}}"#).is_err());
    }
}
