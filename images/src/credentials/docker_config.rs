//! `config.json` of docker's command line: what `docker login` left, and who keeps it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::program::{self, ProgramError, TIME_LIMIT};
use super::{Credentials, CredentialsError};
use crate::name::ImageName;

/// What Docker Hub is called in the file.
const HUB: &str = "https://index.docker.io/v1/";
/// Longest file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// It is there and cannot be read.
    #[error("cannot read the Docker configuration {}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what docker writes.
    #[error("the Docker configuration {} is damaged: {reason}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Line and column at most, no content.
        reason: String,
    },
    /// What stands there for a registry is not.
    #[error("credentials for {registry} in {}: {source}; run docker login {registry}", .path.display())]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Key of the entry.
        registry: String,
        /// What is wrong.
        source: CredentialsError,
    },
    /// The program that keeps them does not answer.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The parts of docker's configuration file that say who one is to a registry.
#[derive(Debug, Default)]
pub struct DockerConfig {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: String,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// Reads `config.json` of `$DOCKER_CONFIG`, or of `~/.docker`. Where there is none, nobody is known.
    ///
    /// # Errors
    /// The file is there, and cannot be read or understood.
    pub fn load() -> Result<Self, DockerConfigError> {
        let folder = match std::env::var_os("DOCKER_CONFIG").filter(|text| !text.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => match std::env::var_os("HOME") {
                Some(home) => PathBuf::from(home).join(".docker"),
                None => return Ok(Self::default()),
            },
        };
        Self::load_from(&folder)
    }

    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    /// The file is there, and cannot be read or understood.
    pub fn load_from(folder: &Path) -> Result<Self, DockerConfigError> {
        let path = folder.join("config.json");
        let mut text = Zeroizing::new(Vec::new());
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(DockerConfigError::Read { path, source }),
        }
        if text.len() as u64 > MAX_FILE {
            let reason = format!("more than {MAX_FILE} bytes");
            return Err(DockerConfigError::Damaged { path, reason });
        }
        match serde_json::from_slice(&text) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => {
                // The error's own text may quote what stands there.
                let reason = format!("line {}, column {}", error.line(), error.column());
                Err(DockerConfigError::Damaged { path, reason })
            }
        }
    }

    /// Who one is to the registry of an image: from the program of that registry, from the program of
    /// all, or from the file itself. Waits for a program, 30 s at most.
    ///
    /// # Errors
    /// A program does not answer; an entry is damaged.
    pub fn credentials_for(
        &self,
        name: &ImageName,
    ) -> Result<Option<Credentials>, DockerConfigError> {
        let server = server(name);
        let helper = find(&self.file.helpers, server).map(|(_, helper)| helper.as_str());
        let program = helper.unwrap_or(&self.file.store);
        if !program.is_empty()
            && let Some(found) = program::ask(program, server, TIME_LIMIT)?
        {
            return Ok(Some(found));
        }
        let Some((key, entry)) = find(&self.file.auths, server) else {
            return Ok(None);
        };
        let found = entry
            .credentials()
            .map_err(|source| DockerConfigError::Entry {
                path: self.path.clone(),
                registry: key.to_owned(),
                source,
            })?;
        Ok(Some(found).filter(|found| !found.is_empty()))
    }
}

impl Entry {
    fn credentials(&self) -> Result<Credentials, CredentialsError> {
        if !self.identity_token.is_empty() {
            return Ok(Credentials::identity(&self.identity_token));
        }
        if !self.auth.is_empty() {
            return Credentials::from_pair(&self.auth);
        }
        Ok(Credentials::basic(&self.username, &self.password))
    }
}

/// The key of a registry in the file.
fn server(name: &ImageName) -> &str {
    if name.domain() == "docker.io" {
        HUB
    } else {
        name.domain()
    }
}

/// The entry of a server: by its key as it is, or by one that names the same host.
fn find<'a, T>(entries: &'a BTreeMap<String, T>, server: &str) -> Option<(&'a str, &'a T)> {
    entries
        .get_key_value(server)
        .or_else(|| entries.iter().find(|(key, _)| host(key) == host(server)))
        .map(|(key, value)| (key.as_str(), value))
}

/// Keys of old are URLs.
fn host(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let host = key.split('/').next().unwrap_or(key);
    if host == "docker.io" || host == "registry-1.docker.io" {
        "index.docker.io"
    } else {
        host
    }
}
