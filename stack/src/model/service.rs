//! A service of a stack.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::amount::Nanoseconds;
use crate::model::deploy::Deploy;
use crate::problem::Position;

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Service {
    /// Its name in the stack.
    #[serde(skip)]
    pub name: String,
    /// Where it is first written.
    #[serde(skip)]
    pub at: Position,
    /// Where its keys are, by their paths below it: `deploy.mode`.
    #[serde(skip)]
    pub places: BTreeMap<String, Position>,
    /// `CAP_NET_ADMIN`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// The same, taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Arguments in place of those of the image. No shell is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Configs as files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<Grant>,
    /// Of Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_spec: Option<CredentialSpec>,
    /// What is started before, by its name.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "dependencies"
    )]
    pub depends_on: BTreeMap<String, Dependency>,
    /// How many, where, and how they are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<String>,
    /// Domains that names are looked for in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// The program in place of that of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Variables, those of env files among them; one without a value takes away that of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Option<String>>,
    /// `NAME:ADDRESS`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Groups beside that of the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// How a task shows that it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// May be a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// As written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A small init as the first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Of Windows; `default` elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Of the containers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// By the name in the stack; none is `default`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Option<Attachment>>,
    /// -1000 to 1000
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    /// Published ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// The root of the file system cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// `always`, `unless-stopped`, `on-failure[:N]`, `no`: used where `deploy.restart_policy` is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// Secrets as files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Grant>,
    /// Standard input stays open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_open: Option<bool>,
    /// Between the stop signal and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<Nanoseconds>,
    /// `SIGTERM`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Of the kernel, in the task's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// A terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// Limits of processes, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `USER[:GROUP]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Volumes, folders of the node, and memory (also that of `tmpfs`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// Where the program begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `x-weft`: weft's own.
    #[serde(rename = "x-weft", skip_serializing_if = "BTreeMap::is_empty")]
    pub weft: BTreeMap<String, bool>,
}

impl Service {
    /// Where a key below the service is written, such as `deploy.resources.limits`; the nearest one
    /// above it where that is not known.
    pub(crate) fn place(&self, key: &str) -> &Position {
        let mut key = key;
        loop {
            if let Some(at) = self.places.get(key) {
                return at;
            }
            match key.rsplit_once('.') {
                Some((above, _)) => key = above,
                None => return &self.at,
            }
        }
    }
}

/// A network that a service is on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Names beside that of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
}

/// A service that is started before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// `service_started`, `service_healthy` or `service_completed_successfully`.
    pub condition: String,
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
}

/// Docker's form, a list, wherever that says it all.
fn dependencies<S: Serializer>(
    dependencies: &BTreeMap<String, Dependency>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut conditions = dependencies
        .values()
        .map(|dependency| dependency.condition.as_str());
    if conditions.all(|condition| condition == "service_started") {
        serializer.collect_seq(dependencies.keys())
    } else {
        dependencies.serialize(serializer)
    }
}

/// A secret or a config as a file of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// Its name in the stack.
    pub source: String,
    /// The file; none is `/run/secrets/NAME` of a secret and `/NAME` of a config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its user; none is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its group; none is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// Its mode; none is 0444.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Credentials of Windows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CredentialSpec {
    /// A config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// A file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A value of the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
}

/// How a task shows that it works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `CMD` or `CMD-SHELL` with what follows, or `NONE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Nanoseconds>,
    /// Of one check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Nanoseconds>,
    /// Failures that make a task unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
    /// In which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Nanoseconds>,
    /// Between two checks in that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Nanoseconds>,
    /// No check, also not that of the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Logging {
    /// `json-file`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A limit of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// Both are one number.
    Single(i64),
    /// The one in force, and how far it may be raised.
    Pair {
        /// In force.
        soft: i64,
        /// At most.
        hard: i64,
    },
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// Address of the node that it is published on; none is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// `ingress` or `host`.
    pub mode: String,
    /// Of the task.
    pub target: u16,
    /// Of the node; none is a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<u16>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Something in the file system of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// `volume`, `bind`, `tmpfs`, `npipe` or `image`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the volume in the stack, or an absolute path of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Absolute path in the task.
    pub target: String,
    /// It cannot be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// As written; nothing is made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
    /// Of `type: bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// Of `type: volume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<MountedVolume>,
    /// Of `type: tmpfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Tmpfs>,
}

/// Options of a folder of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bind {
    /// `rprivate`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// A folder that is not there is made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_host_path: bool,
}

/// Options of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MountedVolume {
    /// A new volume does not get what the image has there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nocopy: bool,
    /// A folder inside of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

/// Options of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Bytes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}
