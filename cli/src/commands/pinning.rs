//! Which image a name stands for, before there is a service of it: the node behind the command asks
//! the registry, and all nodes of the swarm run the very same image.

use anyhow::Context;
use weft_client::{Client, ResolvedImage};
use weft_images::{DockerConfig, ImageName};
use weft_model::objects::{Platform, PullOptions, Runtime, TaskSpec};

use crate::args::RegistryArgs;
use crate::commands::asking;
use crate::output::complain;

/// What a task is to be made of.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    /// Its name, with a digest where that is known; as it was given where there is no image to ask for.
    image: String,
    platforms: Vec<Platform>,
    asks: Option<PullOptions>,
    /// Why the digest is not known, where that was asked for.
    failed: Option<String>,
    /// Why the digest is that of an image that a node has, and not what a registry says.
    of_a_node: Option<String>,
}

/// Asks which image it is; says so where that takes its time, unless `quiet`.
///
/// # Errors
/// What `docker login` has kept cannot be read.
pub(super) async fn pin(
    client: &Client,
    image: &str,
    registry: RegistryArgs,
    quiet: bool,
) -> anyhow::Result<Pinned> {
    let given = || Pinned {
        image: image.to_owned(),
        ..Pinned::default()
    };
    if Runtime::of_image(image) == Runtime::Host {
        return Ok(given());
    }
    // What is no name at all the manager refuses.
    let Ok(name) = tagged(image).parse::<ImageName>() else {
        return Ok(given());
    };
    let asks = registry
        .with_registry_auth
        .then(|| credentials(&name))
        .transpose()?;
    let mut pinned = Pinned {
        image: name.familiar(),
        asks,
        ..Pinned::default()
    };
    if registry.no_resolve_image {
        return Ok(pinned);
    }
    let header = pinned.asks.as_ref().map(|asks| &*asks.registry_auth);
    let header = header.filter(|header| *header != PullOptions::NOBODY);
    let answer = client.resolve_image(&pinned.image, header);
    let resolved = if quiet {
        answer.await
    } else {
        asking::told(&name, answer).await
    };
    match resolved.and_then(|resolved| named(&resolved).map(|name| (name, resolved))) {
        Ok((name, resolved)) => {
            pinned.image = name;
            pinned.platforms = platforms(resolved.platforms);
            let why = resolved.registry_error;
            pinned.of_a_node = Some(why).filter(|why| !why.is_empty());
        }
        Err(error) => pinned.failed = Some(format!("{error:#}")),
    }
    Ok(pinned)
}

/// Of an image that stays: only who asks for it, where that is to be told.
///
/// # Errors
/// As of [`pin`].
pub(super) fn ask_as(task: &mut TaskSpec, registry: RegistryArgs) -> anyhow::Result<()> {
    if registry.with_registry_auth
        && task.runtime == Runtime::Container
        && let Ok(name) = task.container.image.parse::<ImageName>()
    {
        task.container.pull_options = credentials(&name)?;
    }
    Ok(())
}

impl Pinned {
    /// As if a registry had said so, or not.
    #[cfg(test)]
    pub(super) fn of(image: &str, failed: Option<&str>) -> Self {
        Self {
            image: image.to_owned(),
            failed: failed.map(str::to_owned),
            ..Self::default()
        }
    }

    /// As if a node had the image, and no registry had answered.
    #[cfg(test)]
    pub(super) fn of_a_node(image: &str, why: &str) -> Self {
        Self {
            of_a_node: Some(why.to_owned()),
            ..Self::of(image, None)
        }
    }

    /// Its name, with a digest where that is known.
    #[must_use]
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// Puts the image into a specification.
    pub(super) fn apply(&self, task: &mut TaskSpec) {
        task.container.image.clone_from(&self.image);
        task.placement.platforms.clone_from(&self.platforms);
        if let Some(asks) = &self.asks {
            task.container.pull_options = asks.clone();
        }
    }

    /// Tells that nobody knows which image it is, as docker does, and why.
    pub(super) fn warn(&self) {
        for line in self.warning() {
            complain(&line);
        }
    }

    /// Why nobody knows which image it is, where that was asked for.
    #[must_use]
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Why no registry has said which image it is, though it was asked for: nobody knows it, or it is the
    /// one that a node has.
    #[must_use]
    pub(super) fn unsaid(&self) -> Option<&str> {
        self.failed.as_deref().or(self.of_a_node.as_deref())
    }

    /// What [`Pinned::warn`] tells, a line each.
    #[must_use]
    pub(super) fn warning(&self) -> Vec<String> {
        let Some(why) = &self.failed else {
            return Vec::new();
        };
        let image = &self.image;
        vec![
            format!("image {image} could not be accessed on a registry to record"),
            format!("its digest. Each node will access {image} independently,"),
            "possibly leading to different nodes running different".to_owned(),
            "versions of the image.".to_owned(),
            format!("weft: warning: {why}"),
        ]
    }
}

/// With the tag that is meant where none is given.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// The name with its digest, as people write it.
fn named(resolved: &ResolvedImage) -> anyhow::Result<String> {
    let name: ImageName = resolved
        .name
        .parse()
        .with_context(|| format!("the node calls the image {:?}", resolved.name))?;
    Ok(name.familiar())
}

/// Those that a scheduler can compare: what is no machine (`unknown`) is left out, and of 32 bits of
/// ARM, which images call `arm` and machines `armv7l`, the architecture, as docker does.
fn platforms(of_image: Vec<Platform>) -> Vec<Platform> {
    let known = of_image.into_iter().filter(|p| p.os != "unknown");
    let mut platforms: Vec<Platform> = known
        .map(|platform| match platform.architecture.as_str() {
            "arm" => Platform {
                architecture: String::new(),
                ..platform
            },
            _ => platform,
        })
        .collect();
    platforms.sort();
    platforms.dedup();
    platforms
}

/// What `docker login` has kept for the registry of an image; where that is nothing, nobody in
/// particular asks.
fn credentials(name: &ImageName) -> anyhow::Result<PullOptions> {
    let kept = DockerConfig::load().context("cannot read what \"docker login\" has kept")?;
    let found = kept
        .credentials_for(name)
        .with_context(|| format!("no credentials for the registry of {}", name.familiar()))?;
    let registry_auth = match found {
        Some(credentials) => credentials.to_header(),
        None => PullOptions::NOBODY.to_owned(),
    };
    Ok(PullOptions { registry_auth })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(architecture: &str, os: &str) -> Platform {
        Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
        }
    }

    #[test]
    fn a_name_without_a_tag_means_latest() {
        for (image, means) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.27", "nginx:1.27"),
            (
                "registry.example:5000/web",
                "registry.example:5000/web:latest",
            ),
            ("registry.example:5000/web:2", "registry.example:5000/web:2"),
            ("nginx@sha256:00", "nginx@sha256:00"),
        ] {
            assert_eq!(tagged(image), means);
        }
    }

    #[test]
    fn platforms_are_those_that_nodes_can_be() {
        let given = vec![
            platform("amd64", "linux"),
            platform("arm", "linux"),
            platform("arm", "linux"),
            platform("unknown", "unknown"),
        ];
        assert_eq!(
            platforms(given),
            [platform("", "linux"), platform("amd64", "linux")]
        );
    }

    #[test]
    fn what_is_not_known_is_told_in_dockers_four_lines() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let mut task = TaskSpec::default();
        let pinned = Pinned {
            image: format!("nginx:latest@{digest}"),
            platforms: vec![platform("amd64", "linux")],
            ..Pinned::default()
        };
        assert!(pinned.warning().is_empty());
        task.container.pull_options.registry_auth = "e30".to_owned();
        pinned.apply(&mut task);
        assert_eq!(task.container.image, format!("nginx:latest@{digest}"));
        assert_eq!(task.placement.platforms, [platform("amd64", "linux")]);
        assert_eq!(task.container.pull_options.registry_auth, "e30", "it stays");
        let pinned = Pinned {
            image: "nginx:latest".to_owned(),
            asks: Some(PullOptions {
                registry_auth: PullOptions::NOBODY.to_owned(),
            }),
            failed: Some("no route to host".to_owned()),
            ..Pinned::default()
        };
        pinned.apply(&mut task);
        assert!(task.placement.platforms.is_empty());
        assert_eq!(
            task.container.pull_options.registry_auth,
            PullOptions::NOBODY
        );
        assert_eq!(
            pinned.warning(),
            [
                "image nginx:latest could not be accessed on a registry to record",
                "its digest. Each node will access nginx:latest independently,",
                "possibly leading to different nodes running different",
                "versions of the image.",
                "weft: warning: no route to host",
            ]
        );
    }
}
