//! How large it may be what people write. A change goes into the log as a whole, and one that would
//! not is refused here, with its size, before anybody proposes it.
//!
//! Each task is written with all that its service says of tasks, and some commands change every task
//! of a service at once. So a service with many tasks has to be short.

use std::collections::BTreeMap;

use weft_model::objects::{ContainerSpec, Mount, Runtime, ServiceMode, ServiceSpec, TaskSpec};

use super::error::CommandError;

/// Bytes of text in the labels of one object.
const MAX_LABELS: usize = 64 << 10;
/// Bytes of text in what one service says of its tasks.
const MAX_TASK: usize = 512 << 10;
/// The same of all its tasks. With what else tasks have, ten thousand of them are an entry of 32 MiB.
const MAX_TASKS: usize = 16 << 20;
/// Bytes of a moment in the list of those at which a task's slot was tried again.
const MOMENT: usize = 28;
/// What JSON has around a text.
const QUOTES: usize = 4;

fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| text.len() + QUOTES).sum()
}

fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> usize {
    let pairs = pairs.into_iter();
    pairs.map(|(a, b)| a.len() + b.len() + 2 * QUOTES).sum()
}

/// What a mount says beside its texts, in JSON.
const MOUNT: usize = 256;

fn of_mount(mount: &Mount) -> usize {
    let volume = mount.volume_options.iter();
    let of_volume = volume.map(|volume| {
        let driver = volume.driver_config.iter();
        let of_driver = driver.map(|driver| driver.name.len() + pairs(&driver.options));
        volume.subpath.len() + pairs(&volume.labels) + of_driver.sum::<usize>()
    });
    MOUNT + mount.source.len() + mount.target.len() + of_volume.sum::<usize>()
}

/// What a reference to a secret or a config says beside its target, in JSON: its name too, which may
/// still be to come.
const REFERENCE: usize = 256;

/// What only containers have.
fn of_container(container: &ContainerSpec) -> usize {
    let dns = &container.dns_config;
    let ulimits = container.ulimits.iter();
    let credentials = &container.pull_options.registry_auth;
    let single = [&container.image, &container.dir, credentials].into_iter();
    texts(single.filter(|text| !text.is_empty() && *text != Runtime::HOST_IMAGE))
        + pairs(&container.labels)
        + texts(&container.command)
        + texts(&container.groups)
        + texts(&container.hosts)
        + texts(&dns.nameservers)
        + texts(&dns.search)
        + texts(&dns.options)
        + pairs(&container.sysctls)
        // Names of the fields, and two numbers.
        + ulimits.map(|ulimit| ulimit.name.len() + 80).sum::<usize>()
        + container.mounts.iter().map(of_mount).sum::<usize>()
}

fn of_task(task: &TaskSpec) -> usize {
    let container = &task.container;
    let hostname = Some(&container.hostname).filter(|name| !name.is_empty());
    let health = container.health.iter().flat_map(|health| &health.test);
    let networks = task.networks.iter();
    let networks =
        networks.map(|n| n.target.len() + QUOTES + texts(&n.aliases) + texts(&n.stack_aliases));
    let preferences = task.placement.preferences.iter();
    let preferences = preferences.map(|p| &p.spread.spread_descriptor);
    let references = container.payloads();
    let references = references.map(|one| REFERENCE + one.file.name.len());
    of_container(container)
        + references.sum::<usize>()
        + texts(&container.args)
        + texts(hostname)
        + texts(&container.env)
        + texts(&container.cap_add)
        + texts(&container.cap_drop)
        + texts(health)
        + networks.sum::<usize>()
        + texts(&task.placement.constraints)
        + texts(preferences)
        + usize::try_from(task.restart.max_attempts).map_or(MAX_TASK, |n| n.min(MAX_TASK)) * MOMENT
}

/// Whether the log has room for the labels of an object.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), CommandError> {
    let bytes = texts(labels.keys()) + texts(labels.values());
    if bytes <= MAX_LABELS {
        return Ok(());
    }
    Err(CommandError::bad(format!(
        "the labels have {bytes} bytes, and may have {MAX_LABELS}: keep what is long elsewhere, and \
         label where it is"
    )))
}

/// Whether the log has room for a service and as many tasks as it asks for, on so many nodes.
pub(super) fn check_service(spec: &ServiceSpec, nodes: usize) -> Result<(), CommandError> {
    check_labels(&spec.labels)?;
    let bytes = of_task(&spec.task);
    if bytes > MAX_TASK {
        return Err(CommandError::bad(format!(
            "command, environment, mounts, secrets, networks and counted restarts of the service have {bytes} bytes, and \
             may have {MAX_TASK}: keep what is long in a file on the nodes"
        )));
    }
    let tasks = match spec.mode {
        ServiceMode::Replicated { replicas } => replicas as usize,
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => total_completions as usize,
        ServiceMode::Global | ServiceMode::GlobalJob => nodes,
    };
    let all = bytes.saturating_mul(tasks);
    if all > MAX_TASKS {
        return Err(CommandError::bad(format!(
            "command, environment, networks and counted restarts have {bytes} bytes, in {tasks} tasks \
             {all}, and may have {MAX_TASKS} in all of them: ask for fewer tasks or attempts, or keep \
             what is long in a file on the nodes"
        )));
    }
    Ok(())
}
