//! A stack: what its files come to, with short forms written out, variables replaced and paths absolute.
//!
//! Fields have the names and the forms of the long syntax, so that a stack that is written out can be
//! read again.

mod deploy;
mod service;
mod top;

pub use deploy::{
    Deploy, GenericResource, GenericSpec, Limits, Placement, Preference, Reservations, Resources,
    RestartPolicy, UpdateConfig,
};
pub use service::{
    Attachment, Bind, CredentialSpec, Dependency, Grant, Healthcheck, Logging, Mount,
    MountedVolume, Port, Service, Tmpfs, Ulimit,
};
pub use top::{Config, External, Ipam, Network, Pool, Secret, Volume};

use std::collections::BTreeMap;

/// All of a stack.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stack {
    /// Version of the format, `3.13` where no file says one.
    pub version: String,
    /// `name` at the top. The stack has the name that the command line says.
    pub name: Option<String>,
    /// In the order of the files.
    pub services: Vec<Service>,
    /// By the name that services use.
    pub networks: BTreeMap<String, Network>,
    /// By the name that services use.
    pub volumes: BTreeMap<String, Volume>,
    /// By the name that services use.
    pub secrets: BTreeMap<String, Secret>,
    /// By the name that services use.
    pub configs: BTreeMap<String, Config>,
}
