//! Images of the node that is asked, in the shapes of Docker's API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::objects::Platform;

/// Header with credentials for a registry: JSON in URL-safe base64, as in Docker's API. A secret.
pub const REGISTRY_AUTH: &str = "x-registry-auth";

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageSummary {
    /// Digest of its configuration.
    pub id: String,
    /// Names with a tag: `nginx:latest`. None: it is dangling.
    pub repo_tags: Vec<String>,
    /// Names with the digest that a registry has it by: `nginx@sha256:…`.
    pub repo_digests: Vec<String>,
    /// When it was built, in Unix seconds; 0 where it does not say.
    pub created: i64,
    /// Bytes of its files; of a layer that no task has used yet, as it is stored: compressed.
    pub size: u64,
    /// What it says of itself.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Tasks of this node that use it.
    pub containers: u64,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageDetail {
    /// Digest of its configuration.
    pub id: String,
    /// Names with a tag.
    pub repo_tags: Vec<String>,
    /// Names with a digest.
    pub repo_digests: Vec<String>,
    /// Digest of its manifest, which other nodes and registries have it by.
    pub manifest: String,
    /// When it was built, as RFC 3339 has it; empty where it does not say.
    pub created: String,
    /// Who built it.
    pub author: String,
    /// What tasks of it are, where their service does not say otherwise.
    pub config: ImageConfig,
    /// What it runs on, as Go calls it: `amd64`.
    pub architecture: String,
    /// Which of these: `v8`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Bytes of its files; of a layer that no task has used yet, as it is stored: compressed.
    pub size: u64,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
}

/// What tasks of an image are, where their service does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `NAME|UID[:GROUP|GID]`; root when empty.
    pub user: String,
    /// `80/tcp`: what it may listen on. Nothing is opened by it.
    pub exposed_ports: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// What runs, before the command.
    pub entrypoint: Vec<String>,
    /// What runs, or arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// Folders that are volumes.
    pub volumes: Vec<String>,
    /// Where it runs.
    pub working_dir: String,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
    /// What asks it to end; SIGTERM when empty.
    pub stop_signal: String,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Digests of them, unpacked, bottom first.
    pub layers: Vec<String>,
}

/// What to pull, as parameters of the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullQuery {
    /// Its name, with tag or digest where it has one.
    pub from_image: String,
    /// A tag or a digest, where the name has none.
    pub tag: Option<String>,
}

/// One line of what is told while an image is pulled or loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageProgress {
    /// For people: `Downloading`, `Status: Downloaded newer image for nginx:latest`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// What that is about; a line about the same takes the place of the one before.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// For people, with its line feed: `Loaded image: nginx:latest`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// It has failed: the last line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl ImageProgress {
    /// A line for people.
    #[must_use]
    pub fn status(text: impl Into<String>) -> Self {
        Self {
            status: text.into(),
            ..Self::default()
        }
    }

    /// The last line of what failed.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self {
            error: text.into(),
            ..Self::default()
        }
    }
}

/// How far something is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressDetail {
    /// So many of them.
    pub current: u64,
    /// All; 0 while that is not known.
    pub total: u64,
}

/// Which images to write into an archive, as parameters of the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveQuery {
    /// Names or ids, with commas between.
    pub names: String,
}

/// How to remove an image, as parameters of the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageRemoveQuery {
    /// Also where it has several names.
    pub force: bool,
}

/// What was done to remove an image: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageRemoved {
    /// A name that it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged: Option<String>,
    /// Its id: it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
}

/// Which images to prune, as parameters of the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagePruneQuery {
    /// Also those that have a name, where no task uses them.
    pub all: bool,
}

/// What pruning came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagesPruned {
    /// What was done.
    pub images_deleted: Vec<ImageRemoved>,
    /// Bytes of disk that are free again.
    pub space_reclaimed: u64,
}

/// Which image is asked for, as parameters of the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveQuery {
    /// Its name.
    pub name: String,
}

/// What a name stands for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResolvedImage {
    /// The whole name with its digest: `docker.io/library/nginx:latest@sha256:…`.
    pub name: String,
    /// Of its manifest, or of its list of manifests.
    pub digest: String,
    /// Machines that it runs on; nothing where it does not say.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// Why no registry has said so: it is the image that a node has. Nothing where one has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registry_error: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_have_dockers_names_and_no_more_than_is_said() {
        let line = ImageProgress {
            status: "Downloading".to_owned(),
            id: "nginx:latest".to_owned(),
            progress_detail: Some(ProgressDetail {
                current: 1,
                total: 3,
            }),
            ..ImageProgress::default()
        };
        assert_eq!(
            serde_json::to_value(&line).unwrap(),
            json!({
                "status": "Downloading", "id": "nginx:latest",
                "progressDetail": {"current": 1, "total": 3},
            })
        );
        let failed = ImageProgress::error("no such image");
        assert_eq!(
            serde_json::to_value(&failed).unwrap(),
            json!({"error": "no such image"})
        );
        // Docker says more in some.
        let told = json!({"status": "x", "progress": "[=> ]", "errorDetail": {"message": "y"}});
        let told: ImageProgress = serde_json::from_value(told).unwrap();
        assert_eq!(told, ImageProgress::status("x"));
    }

    #[test]
    fn what_was_removed_is_one_of_both() {
        let done = ImageRemoved {
            untagged: Some("nginx:latest".to_owned()),
            deleted: None,
        };
        let json = json!({"Untagged": "nginx:latest"});
        assert_eq!(serde_json::to_value(&done).unwrap(), json);
        assert_eq!(serde_json::from_value::<ImageRemoved>(json).unwrap(), done);
        let unknown = serde_json::from_value::<PullQuery>(json!({"fromImage": "a", "all": true}));
        assert!(unknown.is_err(), "nobody would carry it out");
    }
}
