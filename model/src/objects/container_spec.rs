//! The program of a task: from which file system, who it is, what it sees and may do.
//!
//! Names and shapes are those of `ContainerSpec` in Docker's API.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::{HealthConfig, ReadyCheck};
use super::mount::Mount;
use super::payload::{ConfigReference, PayloadKind, PayloadUse, SecretReference};

/// What runs a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The node itself: a program of its own file system.
    #[default]
    Host,
    /// An OCI runtime program of the node, with the file system of an image.
    Container,
}

impl Runtime {
    /// The word for an image that asks for [`Runtime::Host`]. An image of this name is `library/host`.
    pub const HOST_IMAGE: &'static str = "host";

    /// The runtime that an image asks for.
    #[must_use]
    pub fn of_image(image: &str) -> Self {
        if image == Self::HOST_IMAGE {
            Self::Host
        } else {
            Self::Container
        }
    }
}

/// Rights that a task may not gain. What is not known here is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Privileges {
    /// Nothing that it executes gains rights by its file.
    pub no_new_privileges: bool,
}

/// Who asks a registry for the image. What is not known here is refused.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct PullOptions {
    /// Credentials for the image's registry, as in Docker's header `X-Registry-Auth`: JSON with
    /// `username` and `password`, or `identitytoken`, in URL-safe base64. A secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry_auth: String,
}

impl PullOptions {
    /// Nobody in particular asks, as Docker writes it (`{}`): in an update, whoever asked before asks
    /// no more. A service is never kept with it.
    pub const NOBODY: &'static str = "e30=";

    /// True when nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registry_auth.is_empty()
    }
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions").finish_non_exhaustive()
    }
}

/// Which servers a container asks for names that weft does not know. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct DnsConfig {
    /// Addresses of servers; those of the node when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Domains to search; those of the node when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Words for `options` of resolv.conf(5).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl DnsConfig {
    /// True when nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One limit of setrlimit(2). What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ulimit {
    /// In small letters without `RLIMIT_`: `nofile`.
    pub name: String,
    /// What a program may raise itself; -1 is no limit.
    pub hard: i64,
    /// What counts; -1 is no limit.
    pub soft: i64,
}

/// The program of a task, who it is, and what it may do on its node: by default what root in a
/// container of Docker may. What is not known here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct ContainerSpec {
    /// The name of an image; the word `host` for a program of the node's own file system.
    pub image: String,
    /// Labels of the container, not of the service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Instead of the image's entrypoint, and of its command too. A host task has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Host name that the program sees, a template (`{{.Task.Slot}}`); the task's name when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Of a host task: program and arguments. Of a container: instead of the image's command.
    pub args: Vec<String>,
    /// `KEY=value`, more environment of the task; values are templates. A `KEY` alone removes the
    /// image's variable of that name.
    pub env: Vec<String>,
    /// Working directory; the image's when empty, made where it is missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `NAME|UID[:GROUP|GID]`, looked up in the files that the task sees; the image's, or root, when
    /// empty.
    pub user: String,
    /// More groups of the user: names or numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Rights that it may not gain.
    pub privileges: Privileges,
    /// A terminal for the program.
    #[serde(rename = "TTY", skip_serializing_if = "is_false")]
    pub tty: bool,
    /// Nothing of the image can be written to.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// A process 1 of weft's before the program, which passes signals on and reaps orphans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Volumes, folders of the node and memory that it sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Secrets that it sees as files, in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretReference>,
    /// Configs that it sees as files, in memory as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ConfigReference>,
    /// More lines of `/etc/hosts`: `ADDRESS NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What stands in `/etc/resolv.conf`, and whom the resolver asks.
    #[serde(rename = "DNSConfig", skip_serializing_if = "DnsConfig::is_empty")]
    pub dns_config: DnsConfig,
    /// Kernel settings of its namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities beyond Docker's default, as [`crate::capability::canonical`] spells them.
    #[serde(rename = "CapabilityAdd")]
    pub cap_add: Vec<String>,
    /// Capabilities of the default that it does not have.
    #[serde(rename = "CapabilityDrop")]
    pub cap_drop: Vec<String>,
    /// Limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// From -1000 (never killed where memory is short) to 1000 (first).
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_score_adj: i64,
    /// What asks the program to end, such as `SIGQUIT` or `3`; the image's, or SIGTERM, when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Between that and SIGKILL; written in nanoseconds. Ten seconds when absent, as in Swarm.
    #[serde(rename = "StopGracePeriod", with = "crate::time::nanoseconds")]
    pub stop_grace: Duration,
    /// A command inside the task that says whether it is healthy.
    #[serde(rename = "Healthcheck", skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthConfig>,
    /// A port of the task that says whether it takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<ReadyCheck>,
    /// Who asks a registry for the image. Another one makes no other tasks.
    #[serde(skip_serializing_if = "PullOptions::is_empty")]
    pub pull_options: PullOptions,
}

/// True for what is not written.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// True for what is not written.
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            image: String::new(),
            labels: BTreeMap::new(),
            command: Vec::new(),
            hostname: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            dir: String::new(),
            user: String::new(),
            groups: Vec::new(),
            privileges: Privileges::default(),
            tty: false,
            read_only: false,
            init: None,
            mounts: Vec::new(),
            secrets: Vec::new(),
            configs: Vec::new(),
            hosts: Vec::new(),
            dns_config: DnsConfig::default(),
            sysctls: BTreeMap::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            ulimits: Vec::new(),
            oom_score_adj: 0,
            stop_signal: String::new(),
            stop_grace: Duration::from_secs(10),
            health: None,
            ready: None,
            pull_options: PullOptions::default(),
        }
    }
}

impl ContainerSpec {
    /// The secrets, then the configs, that it uses.
    pub fn payloads(&self) -> impl Iterator<Item = PayloadUse<'_>> {
        let secrets = self.secrets.iter().map(|secret| PayloadUse {
            kind: PayloadKind::Secret,
            id: &secret.id,
            name: &secret.name,
            file: &secret.file,
        });
        let configs = self.configs.iter().map(|config| PayloadUse {
            kind: PayloadKind::Config,
            id: &config.id,
            name: &config.name,
            file: &config.file,
        });
        secrets.chain(configs)
    }

    /// True where both make the same of a task: who asks for the image is left out.
    #[must_use]
    pub fn runs_as(&self, other: &Self) -> bool {
        if self.pull_options == other.pull_options {
            return self == other;
        }
        let other = Self {
            pull_options: self.pull_options.clone(),
            ..other.clone()
        };
        *self == other
    }
}
