//! Whether a service is what a stack asks for already.

use std::sync::Arc;

use weft_model::objects::{PullOptions, ServiceSpec};

/// True where an update to `desired` would say nothing that `current` does not. Both have ids of
/// networks, secrets and configs, and the image that is wanted is in `desired` as it is to be.
///
/// What a client fills in when it pins an image, who asks a registry for it, how often tasks were
/// replaced by force, and the order of what has none do not count. All else does: a service of a stack
/// is what the file says, as with docker.
#[must_use]
pub fn same(desired: &ServiceSpec, current: &ServiceSpec) -> bool {
    plain(desired) == plain(current)
}

/// A specification without what does not count, in one order.
fn plain(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    spec.endpoint
        .ports
        .sort_by_key(|port| (port.published, port.target, port.protocol, port.host_ip));
    let task = Arc::make_mut(&mut spec.task);
    task.force_update = 0;
    task.placement.platforms.clear();
    task.placement.constraints.sort_unstable();
    task.placement.constraints.dedup();
    task.networks
        .sort_by(|one, other| one.target.cmp(&other.target));
    for network in &mut task.networks {
        network.aliases.sort_unstable();
        network.stack_aliases.sort_unstable();
    }
    let container = &mut task.container;
    container.pull_options = PullOptions::default();
    container.env.sort_unstable();
    for names in [&mut container.cap_add, &mut container.cap_drop] {
        names.sort_unstable();
        names.dedup();
    }
    container
        .ulimits
        .sort_by(|one, other| one.name.cmp(&other.name));
    container
        .mounts
        .sort_by(|one, other| one.target.cmp(&other.target));
    container
        .secrets
        .sort_by(|one, other| (&one.file.name, &one.name).cmp(&(&other.file.name, &other.name)));
    container
        .configs
        .sort_by(|one, other| (&one.file.name, &one.name).cmp(&(&other.file.name, &other.name)));
    spec
}

#[cfg(test)]
mod tests {
    use weft_model::objects::{
        NetworkAttachmentSpec, Placement, Platform, PortSpec, ServiceMode, TaskSpec,
    };

    use super::*;

    fn spec(change: impl FnOnce(&mut TaskSpec)) -> ServiceSpec {
        let mut task = TaskSpec {
            networks: ["n1", "n2"]
                .map(|target| NetworkAttachmentSpec {
                    target: target.to_owned(),
                    ..NetworkAttachmentSpec::default()
                })
                .to_vec(),
            placement: Placement {
                constraints: vec!["node.role==worker".to_owned(), "node.id==x".to_owned()],
                ..Placement::default()
            },
            ..TaskSpec::default()
        };
        task.container.image = "web:1".to_owned();
        task.container.env = vec!["A=1".to_owned(), "B=2".to_owned()];
        change(&mut task);
        ServiceSpec {
            name: "shop_web".to_owned(),
            task: Arc::new(task),
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn what_clients_and_managers_fill_in_does_not_count() {
        let one = spec(|_| {});
        assert!(same(&one, &one));
        let other = spec(|task| {
            task.force_update = 7;
            task.container.pull_options.registry_auth = "e30=".to_owned();
            task.placement.platforms = vec![Platform::default()];
        });
        assert!(same(&one, &other));
    }

    #[test]
    fn the_order_of_what_has_none_does_not_count() {
        let one = spec(|_| {});
        let other = spec(|task| {
            task.networks.reverse();
            task.placement.constraints.reverse();
            task.container.env.reverse();
        });
        assert!(same(&one, &other));
        let mut turned = one.clone();
        let port = |published, target| PortSpec {
            published,
            target,
            ..PortSpec::default()
        };
        turned.endpoint.ports = vec![port(80, 1), port(81, 2)];
        let mut straight = one;
        straight.endpoint.ports = vec![port(81, 2), port(80, 1)];
        assert!(same(&turned, &straight));
    }

    #[test]
    fn what_a_file_says_counts() {
        let one = spec(|_| {});
        let changes: [fn(&mut TaskSpec); 6] = [
            |task: &mut TaskSpec| task.container.image = "web:2".to_owned(),
            |task: &mut TaskSpec| task.container.args = vec!["x".to_owned()],
            |task: &mut TaskSpec| task.container.env.push("C=3".to_owned()),
            |task: &mut TaskSpec| {
                task.networks.pop();
            },
            |task: &mut TaskSpec| task.resources.limits.pids = 3,
            |task: &mut TaskSpec| task.networks[0].aliases.push("db".to_owned()),
        ];
        for change in changes {
            assert!(!same(&one, &spec(change)));
        }
        let more = ServiceSpec {
            mode: ServiceMode::Replicated { replicas: 3 },
            ..one.clone()
        };
        assert!(!same(&one, &more));
        let labelled = ServiceSpec {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..one.clone()
        };
        assert!(!same(&one, &labelled));
    }
}
