//! Where tasks may run, and what of a machine they need and may use.

use serde::{Deserialize, Serialize};

/// What a machine is. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Platform {
    /// `x86_64`, `aarch64`; Docker's other words for them (`amd64`, `arm64`) mean the same.
    pub architecture: String,
    /// `linux`.
    #[serde(rename = "OS")]
    pub os: String,
}

/// One word for an architecture that has several.
#[must_use]
pub fn architecture(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "amd64" => "x86_64".to_owned(),
        "arm64" => "aarch64".to_owned(),
        _ => word,
    }
}

impl Platform {
    /// Whether a machine of platform `other` is one of this; what is empty here is any.
    #[must_use]
    pub fn admits(&self, other: &Self) -> bool {
        let same_os = self.os.is_empty() || self.os.eq_ignore_ascii_case(&other.os);
        let any = self.architecture.is_empty();
        same_os && (any || architecture(&self.architecture) == architecture(&other.architecture))
    }

    /// True when nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.architecture.is_empty() && self.os.is_empty()
    }
}

/// Processors and memory: what a machine has, or what tasks reserve of it. What is not known here is
/// refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Resources {
    /// Billionths of a processor.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: u64,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: u64,
}

impl Resources {
    /// True when nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left of it without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_sub(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    /// Whether this is no more than `room`, in each of both.
    #[must_use]
    pub fn fits(self, room: Self) -> bool {
        self.nano_cpus <= room.nano_cpus && self.memory_bytes <= room.memory_bytes
    }
}

/// What a task may use at most; 0 is no limit. What is not known here is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResourceLimits {
    /// Billionths of a processor.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: u64,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    #[serde(skip_serializing_if = "is_zero")]
    pub pids: u64,
}

impl ResourceLimits {
    /// True when nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a task may use, and what has to be free on its node for it. What is not known here is
/// refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResourceRequirements {
    /// At most.
    #[serde(skip_serializing_if = "ResourceLimits::is_empty")]
    pub limits: ResourceLimits,
    /// At least.
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub reservations: Resources,
}

impl ResourceRequirements {
    /// True when nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What tasks are spread over. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SpreadOver {
    /// `node.labels.KEY`: as many tasks on the nodes of one value of the label as on those of
    /// another one.
    pub spread_descriptor: String,
}

/// Which of the nodes that may have a task gets it. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PlacementPreference {
    /// The only way there is.
    pub spread: SpreadOver,
}

/// On which nodes the tasks of a service may run. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Placement {
    /// `KEY==VALUE` or `KEY!=VALUE`, all of which a node has to meet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Among the nodes that meet them; each one within the branches of the one before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PlacementPreference>,
    /// Tasks of the service on one node at most; 0 is no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub max_replicas: u32,
    /// What the node has to be one of; any when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
}

impl Placement {
    /// True when a task may run on any node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_none(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placement_and_resources_are_written_as_docker_writes_them() {
        let placement = Placement {
            constraints: vec!["node.role==worker".to_owned()],
            preferences: vec![PlacementPreference {
                spread: SpreadOver {
                    spread_descriptor: "node.labels.az".to_owned(),
                },
            }],
            max_replicas: 2,
            platforms: vec![Platform {
                architecture: "amd64".to_owned(),
                os: "linux".to_owned(),
            }],
        };
        let text = json!({
            "Constraints": ["node.role==worker"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.az"}}],
            "MaxReplicas": 2,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
        });
        assert_eq!(serde_json::to_value(&placement).unwrap(), text);
        assert_eq!(
            serde_json::from_value::<Placement>(text).unwrap(),
            placement
        );
        assert_eq!(
            serde_json::to_value(Placement::default()).unwrap(),
            json!({})
        );
        let resources = ResourceRequirements {
            limits: ResourceLimits {
                nano_cpus: 500_000_000,
                memory_bytes: 64 << 20,
                pids: 100,
            },
            reservations: Resources {
                nano_cpus: 250_000_000,
                memory_bytes: 0,
            },
        };
        let text = json!({
            "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 100},
            "Reservations": {"NanoCPUs": 250_000_000},
        });
        assert_eq!(serde_json::to_value(resources).unwrap(), text);
        let unknown = json!({"Reservations": {"GenericResources": []}});
        let error = serde_json::from_value::<ResourceRequirements>(unknown).unwrap_err();
        assert!(error.to_string().contains("GenericResources"), "{error}");
    }

    #[test]
    fn an_architecture_has_one_word() {
        let platform = |architecture: &str, os: &str| Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
        };
        let node = platform("x86_64", "linux");
        for (wanted, admits) in [
            (platform("amd64", "linux"), true),
            (platform("X86_64", ""), true),
            (platform("", "Linux"), true),
            (platform("", ""), true),
            (platform("arm64", "linux"), false),
            (platform("amd64", "windows"), false),
        ] {
            assert_eq!(wanted.admits(&node), admits, "{wanted:?}");
        }
    }
}
