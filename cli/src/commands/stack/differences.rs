//! What is another one in a service, or a network, than in the file: a word for each, for people.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};
use weft_model::objects::{NetworkSpec, STACK_IMAGE_LABEL, ServiceMode, ServiceSpec};

/// What an update changes: `image nginx:1 → nginx:2`, `replicas 1 → 3`, `env`.
#[must_use]
pub(super) fn of_service(before: &ServiceSpec, after: &ServiceSpec) -> Vec<String> {
    let (was, is) = (&before.task, &after.task);
    let mut found = Vec::new();
    found.extend(image(&was.container.image, &is.container.image));
    found.extend(mode(before.mode, after.mode));
    let skipped = ["Image", "PullOptions"];
    for key in keys(&was.container, &is.container, &skipped) {
        found.push(match key.as_str() {
            "Labels" => "container labels".to_owned(),
            key => words(key),
        });
    }
    let skipped = ["ContainerSpec", "ForceUpdate", "Placement"];
    found.extend(keys(&**was, &**is, &skipped).iter().map(|key| words(key)));
    // Platforms are the image's.
    if !keys(&was.placement, &is.placement, &["Platforms"]).is_empty() {
        found.push("placement".to_owned());
    }
    if labels(before) != labels(after) {
        found.push("labels".to_owned());
    }
    if before.endpoint.ports != after.endpoint.ports {
        found.push("ports".to_owned());
    }
    if before.endpoint.mode != after.endpoint.mode {
        found.push("endpoint mode".to_owned());
    }
    let skipped = ["Name", "Labels", "TaskTemplate", "Mode", "EndpointSpec"];
    found.extend(keys(before, after, &skipped).iter().map(|key| words(key)));
    found
}

/// What of a network that is there is not as the file says. It stays.
#[must_use]
pub(super) fn of_network(before: &NetworkSpec, after: &NetworkSpec) -> Vec<&'static str> {
    let mut found = Vec::new();
    let asked = &after.ipam.config;
    // A network has more subnets than were asked for.
    if asked
        .iter()
        .any(|subnet| !before.ipam.config.contains(subnet))
    {
        found.push("subnets");
    }
    if before.internal != after.internal {
        found.push("internal");
    }
    if before.attachable != after.attachable {
        found.push("attachable");
    }
    if before.ipv6 != after.ipv6 {
        found.push("IPv6");
    }
    if before.options != after.options {
        found.push("driver options");
    }
    found
}

fn image(was: &str, is: &str) -> Option<String> {
    let short = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    if was == is {
        None
    } else if short(was) == short(is) {
        let how = match (was.contains('@'), is.contains('@')) {
            (false, _) => "digest not known before",
            (true, false) => "digest not known any more",
            (true, true) => "another digest",
        };
        Some(format!("image {} ({how})", short(is)))
    } else {
        Some(format!("image {} → {}", short(was), short(is)))
    }
}

fn mode(was: ServiceMode, is: ServiceMode) -> Option<String> {
    match (was, is) {
        _ if was == is => None,
        (ServiceMode::Replicated { replicas: was }, ServiceMode::Replicated { replicas: is }) => {
            Some(format!("replicas {was} → {is}"))
        }
        _ => Some("mode".to_owned()),
    }
}

fn labels(spec: &ServiceSpec) -> BTreeMap<&String, &String> {
    let labels = spec.labels.iter();
    // It goes with the image.
    labels
        .filter(|(key, _)| *key != STACK_IMAGE_LABEL)
        .collect()
}

/// Keys of Docker's JSON whose values differ.
fn keys<T: Serialize>(was: &T, is: &T, skipped: &[&str]) -> BTreeSet<String> {
    let [was, is] = [was, is].map(fields);
    let all: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let all = all.into_iter().filter(|key| was.get(*key) != is.get(*key));
    let all = all.filter(|key| !skipped.contains(&key.as_str()));
    all.cloned().collect()
}

fn fields<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// `stop grace period` of `StopGracePeriod`, `dns config` of `DNSConfig`.
fn words(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let mut text = String::with_capacity(key.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(index + 1);
        let begins = before.is_some_and(|before| {
            before.is_lowercase() || after.is_some_and(|after| after.is_lowercase())
        });
        if letter.is_uppercase() && begins {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weft_model::objects::{Ipam, Platform, PortSpec, TaskSpec};

    use super::*;

    fn changed(change: impl FnOnce(&mut ServiceSpec, &mut TaskSpec)) -> String {
        let mut before = ServiceSpec::default();
        Arc::make_mut(&mut before.task).container.image = "nginx:1@sha256:aa".to_owned();
        let mut after = before.clone();
        let mut task = TaskSpec::clone(&after.task);
        change(&mut after, &mut task);
        after.task = Arc::new(task);
        of_service(&before, &after).join(", ")
    }

    #[test]
    fn words_of_keys() {
        for (key, is) in [
            ("Env", "env"),
            ("StopGracePeriod", "stop grace period"),
            ("DNSConfig", "dns config"),
            ("TTY", "tty"),
        ] {
            assert_eq!(words(key), is);
        }
    }

    #[test]
    fn what_an_update_changes_has_a_word_each() {
        assert_eq!(changed(|_, _| {}), "");
        let text = changed(|spec, task| {
            task.container.image = "nginx:2@sha256:bb".to_owned();
            task.container.env = vec!["A=1".to_owned()];
            spec.mode = ServiceMode::Replicated { replicas: 3 };
        });
        assert_eq!(text, "image nginx:1 → nginx:2, replicas 1 → 3, env");
        let text = changed(|_, task| task.container.image = "nginx:1@sha256:cc".to_owned());
        assert_eq!(text, "image nginx:1 (another digest)");
        let text = changed(|spec, task| {
            task.container.stop_grace = Duration::from_secs(1);
            let label = ("a".to_owned(), "b".to_owned());
            task.container.labels = BTreeMap::from([label.clone()]);
            task.placement.constraints = vec!["node.role==worker".to_owned()];
            task.restart.delay = Duration::from_secs(1);
            spec.labels = BTreeMap::from([label]);
            spec.endpoint.ports = vec![PortSpec::default()];
            spec.update.parallelism = 7;
        });
        assert_eq!(
            text,
            "container labels, stop grace period, restart policy, placement, labels, ports, \
             update config"
        );
        assert_eq!(changed(|spec, _| spec.mode = ServiceMode::Global), "mode");
    }

    #[test]
    fn a_digest_that_is_not_there_is_no_other_one() {
        for (was, is, text) in [
            ("nginx:1", "nginx:1@sha256:aa", "digest not known before"),
            ("nginx:1@sha256:aa", "nginx:1", "digest not known any more"),
            ("nginx:1@sha256:aa", "nginx:1@sha256:bb", "another digest"),
        ] {
            assert_eq!(image(was, is), Some(format!("image nginx:1 ({text})")));
        }
        assert_eq!(image("nginx:1", "nginx:1"), None);
    }

    #[test]
    fn what_goes_with_the_image_is_not_told_besides() {
        let text = changed(|spec, task| {
            task.placement.platforms = vec![Platform::default()];
            task.container.pull_options.registry_auth = "e30=".to_owned();
            let label = (STACK_IMAGE_LABEL.to_owned(), "nginx:1".to_owned());
            spec.labels = BTreeMap::from([label]);
        });
        assert_eq!(text, "");
    }

    #[test]
    fn networks_are_compared_by_what_was_asked_for() {
        let ipam = |subnets: &[&str]| -> Ipam {
            let subnets = subnets
                .iter()
                .map(|text| text.parse::<ipnet::IpNet>().expect("a subnet"));
            subnets.collect()
        };
        let before = NetworkSpec {
            ipam: ipam(&["10.1.0.0/24", "fd00::/64"]),
            ..NetworkSpec::default()
        };
        let mut after = NetworkSpec::default();
        assert!(of_network(&before, &after).is_empty());
        after.ipam = ipam(&["10.1.0.0/24"]);
        assert!(of_network(&before, &after).is_empty());
        after.ipam = ipam(&["10.2.0.0/24"]);
        after.internal = true;
        assert_eq!(of_network(&before, &after), ["subnets", "internal"]);
    }
}
