//! Secrets and configs: bytes that the swarm keeps, and that tasks see as files.
//!
//! Names and shapes are those of `Secret` and `Config` in Docker's API, which are one shape. Managers
//! keep the bytes, sealed on their disks; a node is sent those of the tasks that it has, and keeps
//! them in memory.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

use super::meta::Meta;
use crate::id::PayloadId;

/// Which of the two it is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PayloadKind {
    /// Nobody is shown its bytes again.
    #[default]
    Secret,
    /// Everybody who may see services sees its bytes.
    Config,
}

impl PayloadKind {
    /// Most bytes that one holds, as in swarmkit (`manager/controlapi/{secret,config}.go`).
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Secret => 512_000,
            Self::Config => 1_024_000,
        }
    }

    /// Where a file is that has no full path of its own.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Secret => "/run/secrets",
            Self::Config => "/",
        }
    }
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "secret",
            Self::Config => "config",
        })
    }
}

/// Bytes that are wiped when nobody has them any more, and are never shown. In JSON they are base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PayloadBytes(Vec<u8>);

impl PayloadBytes {
    /// Them, to be written where they belong.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for PayloadBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Zeroize for PayloadBytes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for PayloadBytes {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl fmt::Debug for PayloadBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadBytes({} bytes)", self.0.len())
    }
}

impl Serialize for PayloadBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = STANDARD.encode(&self.0);
        let written = serializer.serialize_str(&text);
        text.zeroize();
        written
    }
}

impl<'de> Deserialize<'de> for PayloadBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes());
        text.zeroize();
        // What is wrong with it is not told, as it would show some of it.
        let bytes = bytes.map_err(|_| serde::de::Error::custom("Data is no base64"))?;
        Ok(Self(bytes))
    }
}

/// Who fills in what a payload leaves open. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Templating {
    /// `golang`: `{{.Service.Name}}`, `{{env "KEY"}}`, `{{secret "NAME"}}`, `{{config "NAME"}}`.
    pub name: String,
}

impl Templating {
    /// The only one there is.
    pub const GOLANG: &'static str = "golang";
}

/// What a user asks a secret or a config to be. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct PayloadSpec {
    /// Unique among those of its kind, see [`crate::names::check_payload`].
    pub name: String,
    /// `--label k=v`.
    pub labels: BTreeMap<String, String>,
    /// At least one byte, [`PayloadKind::max_bytes`] at most. Left out where a secret is shown, and in
    /// an update, which changes labels alone.
    #[serde(skip_serializing_if = "PayloadBytes::is_empty")]
    pub data: PayloadBytes,
    /// It is a template; not one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<Templating>,
}

/// A secret or a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Payload {
    /// Unique.
    #[serde(rename = "ID")]
    pub id: PayloadId,
    /// Which of the two.
    pub kind: PayloadKind,
    /// Versions and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// As asked for.
    pub spec: PayloadSpec,
}

impl Payload {
    /// As people and programs may see it: a secret without its bytes.
    #[must_use]
    pub fn shown(&self) -> Self {
        let data = match self.kind {
            PayloadKind::Secret => PayloadBytes::default(),
            PayloadKind::Config => self.spec.data.clone(),
        };
        Self {
            id: self.id.clone(),
            kind: self.kind,
            meta: self.meta.clone(),
            spec: PayloadSpec {
                name: self.spec.name.clone(),
                labels: self.spec.labels.clone(),
                data,
                templating: self.spec.templating.clone(),
            },
        }
    }
}

/// The file that a task sees a payload as. What is not known here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct PayloadFile {
    /// A full path, or one below [`PayloadKind::folder`].
    pub name: String,
    /// Number of its owner.
    #[serde(rename = "UID")]
    pub uid: String,
    /// Number of its group.
    #[serde(rename = "GID")]
    pub gid: String,
    /// Mode, as a number: 292 is 0444.
    pub mode: u32,
}

impl Default for PayloadFile {
    fn default() -> Self {
        Self {
            name: String::new(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        }
    }
}

/// A secret that a task sees. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct SecretReference {
    /// As which file.
    pub file: PayloadFile,
    /// Which; may be left out in a request, where the name tells.
    #[serde(rename = "SecretID")]
    pub id: PayloadId,
    /// Its name, for people.
    #[serde(rename = "SecretName")]
    pub name: String,
}

/// A config that a task sees. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct ConfigReference {
    /// As which file.
    pub file: PayloadFile,
    /// Which; may be left out in a request, where the name tells.
    #[serde(rename = "ConfigID")]
    pub id: PayloadId,
    /// Its name, for people.
    #[serde(rename = "ConfigName")]
    pub name: String,
}

/// What a task uses of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadUse<'a> {
    /// Which of the two.
    pub kind: PayloadKind,
    /// Which.
    pub id: &'a PayloadId,
    /// Its name, for people.
    pub name: &'a str,
    /// As which file.
    pub file: &'a PayloadFile,
}

impl PayloadUse<'_> {
    /// Full path of the file in the task.
    #[must_use]
    pub fn target(&self) -> String {
        let name = match self.file.name.as_str() {
            "" => self.name,
            name => name,
        };
        if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("{}/{name}", self.kind.folder().trim_end_matches('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_as_dockers_and_shown_without_its_bytes() {
        let text = r#"{"Name":"key","Labels":{"a":"b"},"Data":"aHVudGVyMg=="}"#;
        let spec: PayloadSpec = serde_json::from_str(text).expect("read");
        assert_eq!(spec.data.expose(), b"hunter2");
        assert_eq!(serde_json::to_string(&spec).expect("written"), text);
        assert!(!format!("{spec:?}").contains("hunter2"), "{spec:?}");
        let mut payload = Payload {
            id: "s1".into(),
            kind: PayloadKind::Secret,
            meta: Meta::default(),
            spec,
        };
        let shown = serde_json::to_string(&payload.shown()).expect("written");
        assert!(!shown.contains("Data"), "{shown}");
        payload.kind = PayloadKind::Config;
        assert_eq!(payload.shown(), payload);
        let error = serde_json::from_str::<PayloadSpec>(r#"{"Data":"hunter2!"}"#);
        assert!(!error.expect_err("no base64").to_string().contains("hunter"));
    }

    #[test]
    fn files_have_dockers_places() {
        let file = |name: &str| PayloadFile {
            name: name.to_owned(),
            ..PayloadFile::default()
        };
        let id = PayloadId::from("p");
        for (kind, name, target) in [
            (PayloadKind::Secret, "", "/run/secrets/key"),
            (PayloadKind::Secret, "other", "/run/secrets/other"),
            (PayloadKind::Secret, "/etc/key", "/etc/key"),
            (PayloadKind::Config, "", "/key"),
            (PayloadKind::Config, "etc/app.conf", "/etc/app.conf"),
        ] {
            let file = file(name);
            let one = PayloadUse {
                kind,
                id: &id,
                name: "key",
                file: &file,
            };
            assert_eq!(one.target(), target);
        }
    }
}
