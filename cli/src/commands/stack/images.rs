//! Which image each service of a stack runs: `--resolve-image` (docker/cli
//! `cli/command/stack/swarm/deploy_composefile.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::sleep;
use weft_client::Client;
use weft_images::ImageName;
use weft_model::objects::{STACK_IMAGE_LABEL, ServiceSpec};
use weft_stack::StackService;

use super::current::Current;
use crate::args::{RegistryArgs, ResolveImageArg, StackDeployArgs};
use crate::commands::asking;
use crate::commands::pinning::{self, Pinned};

/// Registries that are asked at one time.
const AT_ONCE: usize = 8;

/// What became of the image of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is what the name stands for, as far as that is known.
    Found,
    /// It is the one that the service has.
    Kept,
    /// The same, though a node has another one of that name: no registry has said which one counts.
    KeptBefore,
}

/// What the names of a stack's images stand for.
#[derive(Debug, Default)]
pub(super) struct Images {
    when: ResolveImageArg,
    /// By the names of the file.
    pinned: BTreeMap<String, Pinned>,
    /// Nodes are told who asks for the image.
    pub(super) with_credentials: bool,
}

impl Images {
    /// Of nothing but who asks for them.
    #[cfg(test)]
    pub(super) fn asked_for_by_name() -> Self {
        Self {
            with_credentials: true,
            ..Self::default()
        }
    }

    /// Asks for each image once, as far as `--resolve-image` has it; says so where that takes its time.
    ///
    /// # Errors
    /// What `docker login` has kept cannot be read.
    pub(super) async fn resolve(
        client: &Client,
        services: &[StackService],
        current: &Current,
        args: &StackDeployArgs,
    ) -> anyhow::Result<Self> {
        let (when, with_credentials) = (args.resolve_image, args.with_registry_auth);
        let all = services.iter().map(|service| image_of(&service.spec));
        let all: BTreeSet<String> = all.map(str::to_owned).collect();
        let asked = asked(services, current, when);
        let mut pinned = BTreeMap::new();
        let all: Vec<String> = all.into_iter().collect();
        for some in all.chunks(AT_ONCE) {
            let mut calls = JoinSet::new();
            for image in some {
                let (client, image) = (client.clone(), image.clone());
                let registry = RegistryArgs {
                    with_registry_auth: with_credentials,
                    no_resolve_image: !asked.contains(&image),
                };
                calls.spawn(async move {
                    // What is told is told of all of them at once.
                    let pinned = pinning::pin(&client, &image, registry, true).await;
                    (image, pinned)
                });
            }
            let mut silence = pin!(sleep(asking::SILENCE));
            let mut is_told = args.quiet;
            loop {
                tokio::select! {
                    done = calls.join_next() => {
                        let Some(done) = done else { break };
                        let (image, found) = done?;
                        pinned.insert(image, found?);
                    }
                    () = &mut silence, if !is_told => {
                        is_told = true;
                        let open = some.iter().filter(|image| !pinned.contains_key(*image));
                        let names = open.filter_map(|image| image.parse::<ImageName>().ok());
                        asking::tell(&names.collect::<Vec<ImageName>>());
                    }
                }
            }
        }
        Ok(Self {
            when,
            pinned,
            with_credentials,
        })
    }

    /// Puts the image into what a service is to be, where `before` is what it is.
    pub(super) fn put_into(&self, spec: &mut ServiceSpec, before: Option<&ServiceSpec>) -> Choice {
        let Some(pinned) = self.pinned.get(image_of(spec)) else {
            return Choice::Found;
        };
        let there = before.filter(|before| {
            // One that no registry tells of is no reason to replace tasks that run.
            let unknown = self.when != ResolveImageArg::Always || pinned.unsaid().is_some();
            unknown && label(before).is_some() && label(before) == label(spec)
        });
        let task = Arc::make_mut(&mut spec.task);
        pinned.apply(task);
        let Some(there) = there else {
            return Choice::Found;
        };
        let there = &there.task;
        task.container.image.clone_from(&there.container.image);
        let platforms = &there.placement.platforms;
        task.placement.platforms.clone_from(platforms);
        if pinned.unsaid().is_some() && pinned.image() != there.container.image {
            Choice::KeptBefore
        } else {
            Choice::Kept
        }
    }

    /// What people are told of images that could not be asked for: docker's four lines, once for each,
    /// where a service that is sent runs one without a digest. `kept` are those that all services keep,
    /// `before` those that some keep though the node has another one.
    #[must_use]
    pub(super) fn warnings(
        &self,
        kept: &BTreeSet<String>,
        before: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (image, pinned) in &self.pinned {
            let go_on = |why: &str| {
                format!(
                    "weft: warning: image {image} could not be accessed on a registry, so services go \
                     on with the one that they have: {why}"
                )
            };
            match (pinned.failed(), pinned.unsaid()) {
                (Some(why), _) if kept.contains(image) => lines.push(go_on(why)),
                (None, Some(why)) if before.contains(image) => lines.push(format!(
                    "{}; for the one that the node has: weft service update --image {image} SERVICE",
                    go_on(why)
                )),
                _ => lines.extend(pinned.warning()),
            }
        }
        lines
    }
}

/// As the file has it.
pub(super) fn image_of(spec: &ServiceSpec) -> &str {
    label(spec).unwrap_or(&spec.task.container.image)
}

fn label(spec: &ServiceSpec) -> Option<&str> {
    spec.labels.get(STACK_IMAGE_LABEL).map(String::as_str)
}

/// Images that a registry is asked for.
fn asked(services: &[StackService], current: &Current, when: ResolveImageArg) -> BTreeSet<String> {
    let is_asked = |spec: &ServiceSpec| match when {
        ResolveImageArg::Always => true,
        ResolveImageArg::Never => false,
        ResolveImageArg::Changed => {
            let there = current.service(&spec.name);
            there.is_none_or(|there| label(&there.spec) != label(spec))
        }
    };
    let asked = services.iter().filter(|service| is_asked(&service.spec));
    let asked = asked.map(|service| image_of(&service.spec).to_owned());
    asked.collect()
}

#[cfg(test)]
mod tests {
    use weft_model::objects::{ContainerSpec, Service, ServiceEndpoint, TaskSpec};

    use super::*;

    fn spec(image: &str, label: &str) -> ServiceSpec {
        ServiceSpec {
            name: "vote_web".to_owned(),
            labels: BTreeMap::from([(STACK_IMAGE_LABEL.to_owned(), label.to_owned())]),
            task: Arc::new(TaskSpec {
                container: ContainerSpec {
                    image: image.to_owned(),
                    ..ContainerSpec::default()
                },
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        }
    }

    fn wanted(image: &str) -> StackService {
        StackService {
            key: "web".to_owned(),
            spec: spec(image, image),
            depends_on: Vec::new(),
        }
    }

    fn images(when: ResolveImageArg, image: &str, pinned: Pinned) -> Images {
        Images {
            when,
            pinned: BTreeMap::from([(image.to_owned(), pinned)]),
            with_credentials: false,
        }
    }

    #[test]
    fn registries_are_asked_for_what_may_be_another_one() {
        let there = Service {
            id: "s1".into(),
            meta: weft_model::objects::Meta::default(),
            spec: spec("nginx:1@sha256:aa", "nginx:1"),
            previous_spec: None,
            endpoint: ServiceEndpoint::default(),
            update_status: None,
            job_status: None,
            rebalancing: None,
            homes: Vec::new(),
        };
        let current = Current {
            services: vec![there],
            ..Current::default()
        };
        for (when, image, is_asked) in [
            (ResolveImageArg::Always, "nginx:1", true),
            (ResolveImageArg::Never, "nginx:2", false),
            (ResolveImageArg::Changed, "nginx:1", false),
            (ResolveImageArg::Changed, "nginx:2", true),
        ] {
            let asked = asked(&[wanted(image)], &current, when);
            assert_eq!(asked.contains(image), is_asked, "{when:?} {image}");
        }
    }

    #[test]
    fn the_image_that_runs_is_kept_where_nobody_asks_for_another_one() {
        let before = spec("nginx:1@sha256:aa", "nginx:1");
        let new = || Pinned::of("nginx:1@sha256:bb", None);
        for (when, pinned, image) in [
            (ResolveImageArg::Always, new(), "nginx:1@sha256:bb"),
            (ResolveImageArg::Changed, new(), "nginx:1@sha256:aa"),
            (ResolveImageArg::Never, new(), "nginx:1@sha256:aa"),
            (
                ResolveImageArg::Always,
                Pinned::of("nginx:1", Some("no route to host")),
                "nginx:1@sha256:aa",
            ),
        ] {
            let images = images(when, "nginx:1", pinned);
            let mut spec = wanted("nginx:1").spec;
            images.put_into(&mut spec, Some(&before));
            assert_eq!(spec.task.container.image, image, "{when:?}");
        }
        // A service that is new has what is known of it.
        let images = images(ResolveImageArg::Changed, "nginx:1", new());
        let mut spec = wanted("nginx:1").spec;
        assert_eq!(images.put_into(&mut spec, None), Choice::Found);
        assert_eq!(spec.task.container.image, "nginx:1@sha256:bb");
    }

    #[test]
    fn what_a_node_has_is_for_services_that_are_new_or_of_another_name() {
        let there = |image: &str| Some(spec(image, "nginx:1"));
        for (before, image, choice) in [
            // As `--resolve-image never` made it: nothing to send, and nothing starts anew.
            (there("nginx:1"), "nginx:1", Choice::KeptBefore),
            (
                there("nginx:1@sha256:aa"),
                "nginx:1@sha256:aa",
                Choice::KeptBefore,
            ),
            (
                there("nginx:1@sha256:bb"),
                "nginx:1@sha256:bb",
                Choice::Kept,
            ),
            (None, "nginx:1@sha256:bb", Choice::Found),
            (
                Some(spec("nginx:0@sha256:aa", "nginx:0")),
                "nginx:1@sha256:bb",
                Choice::Found,
            ),
        ] {
            let pinned = Pinned::of_a_node("nginx:1@sha256:bb", "no route to host");
            let images = images(ResolveImageArg::Always, "nginx:1", pinned);
            let mut spec = wanted("nginx:1").spec;
            assert_eq!(
                images.put_into(&mut spec, before.as_ref()),
                choice,
                "{image}"
            );
            assert_eq!(spec.task.container.image, image);
        }
    }

    #[test]
    fn a_node_that_has_another_image_than_services_is_told_of() {
        let pinned = || Pinned::of_a_node("nginx:1@sha256:bb", "no route to host");
        let images = images(ResolveImageArg::Always, "nginx:1", pinned());
        let none = BTreeSet::new();
        assert!(images.warnings(&none, &none).is_empty());
        let before = BTreeSet::from(["nginx:1".to_owned()]);
        assert_eq!(
            images.warnings(&none, &before),
            [
                "weft: warning: image nginx:1 could not be accessed on a registry, so services go on \
                 with the one that they have: no route to host; for the one that the node has: weft \
                 service update --image nginx:1 SERVICE"
            ]
        );
    }

    #[test]
    fn what_could_not_be_asked_for_is_told_once_for_each_image() {
        let failed = Pinned::of("nginx:1", Some("no route to host"));
        let images = images(ResolveImageArg::Always, "nginx:1", failed);
        let none = BTreeSet::new();
        let lines = images.warnings(&none, &none);
        assert_eq!(
            lines[0],
            "image nginx:1 could not be accessed on a registry to record"
        );
        assert_eq!(lines.len(), 5);
        let kept = BTreeSet::from(["nginx:1".to_owned()]);
        let lines = images.warnings(&kept, &none);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("go on with the one"), "{lines:?}");
    }
}
