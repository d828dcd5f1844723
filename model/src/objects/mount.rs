//! What a task sees besides its image: volumes, folders of the node, memory.
//!
//! Names and shapes are those of `Mount` in Docker's API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is mounted. What is not known here is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A folder that weft keeps on the node, by name.
    #[default]
    Volume,
    /// A folder or file of the node, by path.
    Bind,
    /// Memory, gone with the task.
    Tmpfs,
}

/// How mounts below a bind travel between the node and the task; mount(2) has the words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither way, also below.
    #[default]
    Rprivate,
    /// Neither way.
    Private,
    /// Both ways, also below.
    Rshared,
    /// Both ways.
    Shared,
    /// From the node to the task, also below.
    Rslave,
    /// From the node to the task.
    Slave,
}

/// What a bind may say. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct BindOptions {
    /// How mounts below it travel.
    pub propagation: Propagation,
    /// Mounts below the source are not shown.
    #[serde(skip_serializing_if = "is_false")]
    pub non_recursive: bool,
    /// A missing source is made, as a folder.
    #[serde(skip_serializing_if = "is_false")]
    pub create_mountpoint: bool,
    /// Read-only, but for mounts below it.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only_non_recursive: bool,
    /// Read-only with all mounts below it, or not at all.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only_force_recursive: bool,
}

/// Who makes a volume, and of what. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct VolumeDriver {
    /// `local`, which empty means too.
    pub name: String,
    /// `type`, `device`, `o` and `size`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What a volume may say. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct VolumeOptions {
    /// An empty volume stays empty; by default it gets what the image has at its place.
    #[serde(skip_serializing_if = "is_false")]
    pub no_copy: bool,
    /// Labels of the volume where it is made; values are templates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who makes it where it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<VolumeDriver>,
    /// A folder inside the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// The task stays on the node where the volume is: weft's own.
    #[serde(skip_serializing_if = "is_false")]
    pub sticky: bool,
}

/// What memory may say. What is not known here is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct TmpfsOptions {
    /// At most; 0 is what the kernel allows, half of all memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: u64,
    /// Mode of its folder; 0 is 1777.
    #[serde(skip_serializing_if = "is_zero_mode")]
    pub mode: u32,
}

/// Something that a task sees at a place of its own. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Mount {
    /// What it is.
    #[serde(rename = "Type")]
    pub kind: MountType,
    /// Name of a volume (none: one of its own, gone with the task), path of a bind, nothing of tmpfs;
    /// a template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Full path in the task; a template.
    pub target: String,
    /// The task cannot write there.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Only where it is a bind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Only where it is a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Only where it is memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// True for what is not written.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// True for what is not written.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// True for what is not written.
fn is_zero_mode(mode: &u32) -> bool {
    *mode == 0
}
