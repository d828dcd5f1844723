//! Placement constraints: `node.role==worker`, `node.labels.az!=b` (SwarmKit's `constraint`).

use std::net::IpAddr;

use ipnet::IpNet;
use weft_model::objects::{Node, Role, architecture};

/// What a constraint may ask about, for people.
const KEYS: &str = "node.id, node.hostname, node.ip, node.role, node.platform.os, \
                    node.platform.arch, node.labels.KEY and engine.labels.KEY";

/// What a constraint asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Architecture,
    /// The key as it is written: case counts.
    NodeLabel(String),
    /// An agent has no labels, so that each is empty.
    EngineLabel,
}

/// A condition that a node meets or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constraint {
    subject: Subject,
    equal: bool,
    value: String,
}

/// What follows a prefix, whatever the case of that.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    (start.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then_some(rest)
}

impl Subject {
    fn parse(key: &str) -> Option<Self> {
        if let Some(label) = after(key, "node.labels.") {
            return Some(Self::NodeLabel(label.to_owned()));
        }
        if after(key, "engine.labels.").is_some() {
            return Some(Self::EngineLabel);
        }
        Some(match key.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Architecture,
            _ => return None,
        })
    }
}

impl Constraint {
    /// Reads a constraint as people write it.
    ///
    /// # Errors
    /// What is wrong with it, and how it is written.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // As in SwarmKit, `==` is looked for first, wherever it stands.
        let parts = text.split_once("==").map(|parts| (parts, true));
        let parts = parts.or_else(|| text.split_once("!=").map(|parts| (parts, false)));
        let Some(((key, value), equal)) = parts else {
            return Err(format!(
                "constraint {text:?}: constraint expected one operator from ==, !=; write it as \
                 node.labels.disk==ssd"
            ));
        };
        let (key, value) = (key.trim(), value.trim());
        let Some(subject) = Subject::parse(key) else {
            return Err(format!(
                "constraint {text:?}: key '{key}' is invalid; there are {KEYS}"
            ));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_ .*()?+[]\\^$|/".contains(c);
        if value.is_empty() || !value.chars().all(plain) {
            return Err(format!(
                "constraint {text:?}: value '{value}' is invalid; it is made of letters, digits and \
                 -_.:/ and is not empty"
            ));
        }
        if subject == Subject::Ip && value.parse::<IpAddr>().is_err() {
            value.parse::<IpNet>().map_err(|_| {
                format!(
                    "constraint {text:?}: value '{value}' is no address; write node.ip==192.0.2.7, \
                     or a subnet as in node.ip==192.0.2.0/24"
                )
            })?;
        }
        Ok(Self {
            subject,
            equal,
            value: value.to_owned(),
        })
    }

    /// Whether a node meets it.
    pub(super) fn is_met_by(&self, node: &Node) -> bool {
        let is = |text: &str| text.eq_ignore_ascii_case(&self.value);
        let matches = match &self.subject {
            Subject::Id => is(node.id.as_str()),
            Subject::Hostname => is(&node.description.hostname),
            Subject::Ip => self.holds(node.status.addr),
            Subject::Role => is(match node.spec.role {
                Role::Worker => "worker",
                Role::Manager => "manager",
            }),
            Subject::Os => is(&node.description.platform.os),
            Subject::Architecture => {
                architecture(&node.description.platform.architecture) == architecture(&self.value)
            }
            // A label that is not there counts as empty.
            Subject::NodeLabel(key) => is(node.spec.labels.get(key).map_or("", String::as_str)),
            Subject::EngineLabel => is(""),
        };
        matches == self.equal
    }

    fn holds(&self, addr: IpAddr) -> bool {
        match self.value.parse::<IpAddr>() {
            Ok(one) => one == addr,
            Err(_) => self.value.parse::<IpNet>().is_ok_and(|n| n.contains(&addr)),
        }
    }
}

/// The key of a label that tasks are spread over: `node.labels.KEY`.
///
/// # Errors
/// How it is written.
pub(super) fn spread_label(descriptor: &str) -> Result<&str, String> {
    after(descriptor, "node.labels.").ok_or_else(|| {
        format!(
            "placement preference spread={descriptor}: tasks are spread over the labels of nodes; \
             write spread=node.labels.KEY"
        )
    })
}
