//! What image and service come to together, by Docker's rules (moby, `daemon/commit.go` `merge`,
//! `container/env.go`).

use std::collections::BTreeMap;
use std::path::{Component, Path};

use oci_spec::image::{Config, ImageConfiguration};
use weft_model::objects::{ContainerSpec, HealthConfig};

/// Where programs are searched when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOSTNAME: &str = "HOSTNAME";
const STOP_SIGNAL: &str = "SIGTERM";

/// Why image and service make no container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Config: nothing to run.
    #[error(
        "no command specified: the image has neither ENTRYPOINT nor CMD, so write the program after the image's name"
    )]
    NoCommand,
    /// Config: of service or image.
    #[error("the working directory {0:?} is invalid, it needs to be an absolute path")]
    WorkingDir(String),
    /// Remote: a `VOLUME` of the image.
    #[error(
        "the image has a volume at {0:?}: it needs to be an absolute path, and not the root; mend the image's VOLUME"
    )]
    Volume(String),
    /// Config or Remote: of the environment.
    #[error("invalid environment variable {0:?}: write KEY=VALUE")]
    Env(String),
}

/// What image and service come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=VALUE`, each key once, but for what depends on the host name: see
    /// [`environment`](Self::environment).
    pub env: Vec<String>,
    /// Where the program starts: an absolute path.
    pub cwd: String,
    /// `NAME|UID[:GROUP|GID]`; root when empty.
    pub user: String,
    /// What asks it to end, such as `SIGQUIT`; of the image it may be no signal.
    pub stop_signal: String,
    /// The check of its health; nothing where there is none, or it is expressly not wanted.
    pub health: Option<HealthConfig>,
    /// Places of the image's volumes that the service mounts nothing at: each gets one of its own.
    pub volumes: Vec<String>,
    /// Ports that the image says it listens on, such as `80/tcp`.
    pub exposed: Vec<String>,
    /// Of the image, and over them those of the service.
    pub labels: BTreeMap<String, String>,
    /// The service takes the host name out of the environment.
    hides_hostname: bool,
}

impl Merged {
    /// The whole environment of the container, of its program and of what is run in it by `exec`.
    #[must_use]
    pub fn environment(&self, hostname: &str) -> Vec<String> {
        let mut env = self.env.clone();
        let is_said = env.iter().any(|entry| key(entry) == HOSTNAME);
        if !is_said && !self.hides_hostname {
            // Docker has it second; nobody should look, but people compare.
            env.insert(env.len().min(1), format!("{HOSTNAME}={hostname}"));
        }
        env
    }
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Puts an image and what a service says of its containers (templates expanded) together.
/// `image_health` is Docker's extension of an image.
///
/// # Errors
/// See [`MergeError`].
pub fn merge(
    spec: &ContainerSpec,
    image: &ImageConfiguration,
    image_health: Option<&HealthConfig>,
) -> Result<Merged, MergeError> {
    let none = Config::default();
    let image = image.config().as_ref().unwrap_or(&none);
    let cwd = first_said(&spec.dir, image.working_dir().as_deref(), "/");
    if !cwd.starts_with('/') {
        return Err(MergeError::WorkingDir(cwd));
    }
    let env = environment(spec, image.env().as_deref().unwrap_or_default())?;
    let mut exposed = image.exposed_ports().clone().unwrap_or_default();
    exposed.sort();
    let labels = image.labels().iter().flatten();
    let labels = labels.chain(&spec.labels);
    Ok(Merged {
        args: args(spec, image)?,
        env,
        cwd,
        user: first_said(&spec.user, image.user().as_deref(), ""),
        stop_signal: first_said(
            &spec.stop_signal,
            image.stop_signal().as_deref(),
            STOP_SIGNAL,
        ),
        health: health(spec.health.as_ref(), image_health),
        volumes: volumes(spec, image.volumes().as_deref().unwrap_or_default())?,
        exposed,
        labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
        hides_hostname: spec.env.iter().any(|entry| entry == HOSTNAME),
    })
}

fn first_said(of_service: &str, of_image: Option<&str>, default: &str) -> String {
    let said = [of_service, of_image.unwrap_or_default(), default];
    let mut said = said.into_iter().filter(|text| !text.is_empty());
    said.next().unwrap_or_default().to_owned()
}

/// A command of the service is all of it with its arguments; arguments alone stand in for the
/// image's command, behind the image's entrypoint.
fn args(spec: &ContainerSpec, image: &Config) -> Result<Vec<String>, MergeError> {
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut args = match (spec.command.is_empty(), spec.args.is_empty()) {
        (false, _) => spec.command.clone(),
        (true, false) => of_image(image.entrypoint()),
        (true, true) => [of_image(image.entrypoint()), of_image(image.cmd())].concat(),
    };
    args.extend(spec.args.iter().cloned());
    // An empty name of a program is none.
    match args.first() {
        Some(program) if !program.is_empty() => Ok(args),
        _ => Err(MergeError::NoCommand),
    }
}

/// Defaults, then the image's, then the service's: each key where it was first, with what was said
/// last. A key alone takes it away.
fn environment(spec: &ContainerSpec, image: &[String]) -> Result<Vec<String>, MergeError> {
    let mut env: Vec<(&str, String)> = vec![("PATH", format!("PATH={DEFAULT_PATH}"))];
    if spec.tty {
        env.push(("TERM", "TERM=xterm".to_owned()));
    }
    for entry in image.iter().chain(&spec.env) {
        let name = key(entry);
        if name.is_empty() || entry.contains('\0') {
            return Err(MergeError::Env(entry.chars().take(40).collect()));
        }
        let at = env.iter().position(|(known, _)| *known == name);
        match (at, entry.contains('=')) {
            (Some(at), true) => env[at].1.clone_from(entry),
            (None, true) => env.push((name, entry.clone())),
            (Some(at), false) => drop(env.remove(at)),
            (None, false) => {}
        }
    }
    Ok(env.into_iter().map(|(_, entry)| entry).collect())
}

/// Field by field: what the service does not say is the image's.
fn health(spec: Option<&HealthConfig>, image: Option<&HealthConfig>) -> Option<HealthConfig> {
    let health = match (spec, image) {
        (Some(spec), Some(image)) => HealthConfig {
            test: if spec.test.is_empty() {
                image.test.clone()
            } else {
                spec.test.clone()
            },
            interval: either(spec.interval, image.interval),
            timeout: either(spec.timeout, image.timeout),
            start_period: either(spec.start_period, image.start_period),
            start_interval: either(spec.start_interval, image.start_interval),
            retries: either(spec.retries, image.retries),
        },
        (spec, image) => spec.or(image)?.clone(),
    };
    health.command().is_some().then_some(health)
}

fn either<T: Default + PartialEq>(first: T, second: T) -> T {
    if first == T::default() { second } else { first }
}

/// Each place once, without those where the service mounts something.
fn volumes(spec: &ContainerSpec, image: &[String]) -> Result<Vec<String>, MergeError> {
    let taken = spec.mounts.iter().filter_map(|mount| clean(&mount.target));
    let taken: Vec<String> = taken.collect();
    let mut volumes = Vec::new();
    for place in image {
        let bad = || MergeError::Volume(place.chars().take(200).collect());
        let place = clean(place).filter(|place| place != "/").ok_or_else(bad)?;
        if !taken.contains(&place) {
            volumes.push(place);
        }
    }
    volumes.sort();
    volumes.dedup();
    Ok(volumes)
}

/// An absolute path without `.`, `..` and doubled slashes; nothing for a relative one.
pub(crate) fn clean(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests;
