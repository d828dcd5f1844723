//! Networks, volumes, secrets and configs of a stack.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::problem::Position;

/// Whether a stack makes a thing, or it is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum External {
    /// The stack makes it.
    #[default]
    No,
    /// It is there, and stays when the stack goes.
    Yes,
}

impl External {
    fn is_no(&self) -> bool {
        *self == Self::No
    }
}

impl Serialize for External {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self == Self::Yes)
    }
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// In place of `STACK_NAME`; always there where it is external.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `overlay`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// It is there already.
    #[serde(skip_serializing_if = "External::is_no")]
    pub external: External,
    /// Without a way to the outside.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Others than services may join.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    /// IPv6 beside IPv4.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enable_ipv6: bool,
    /// For people and programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Addresses of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ipam {
    /// `default`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Subnets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<Pool>,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// `10.1.0.0/24`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

/// A volume. Nodes make it when the first task that uses it comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// In place of `STACK_NAME`; always there where it is external.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `local`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// It is there already.
    #[serde(skip_serializing_if = "External::is_no")]
    pub external: External,
    /// For people and programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A secret. What it holds is not here: whoever deploys reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// In place of `STACK_NAME`; always there where it is external.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absolute path of the file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The variable that holds it, where weft is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// It is there already.
    #[serde(skip_serializing_if = "External::is_no")]
    pub external: External,
    /// For people and programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who has it instead of the swarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// `golang`: it is a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_driver: Option<String>,
}

/// A config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where it is written.
    #[serde(skip)]
    pub at: Position,
    /// In place of `STACK_NAME`; always there where it is external.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absolute path of the file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The variable that holds it, where weft is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// It is there already.
    #[serde(skip_serializing_if = "External::is_no")]
    pub external: External,
    /// For people and programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `golang`: it is a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_driver: Option<String>,
}
