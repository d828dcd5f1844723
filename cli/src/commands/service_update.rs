//! `weft service update` and `weft service rollback`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::StatusCode;
use serde_json::Value;
use weft_client::{Client, Refused};
use weft_model::api::{
    NetworkDetail, PlacementUpdate, Scale, ServiceDetail, ServiceUpdate, UpdatePlan,
};
use weft_model::id::NetworkId;
use weft_model::objects::{
    Runtime, Service, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};

use crate::args::{
    AttemptArgs, HealthArgs, PolicyArgs, PortList, ResourceArgs, RollbackArgs, ServiceUpdateArgs,
    TaskChangeArgs, change_mounts, env,
};
use crate::commands::{converge, local_range, local_volumes, paths, payload_words, pinning};
use crate::output::{Printer, complain, shown};

/// How often a change is made anew because the service was another one by then.
const ATTEMPTS: usize = 4;

/// `weft service update`
pub(super) async fn update(
    client: &Client,
    args: ServiceUpdateArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let mut update = asked(&args);
    let respecifies = args.change != TaskChangeArgs::default()
        || args.max_concurrent.is_some()
        || args.policy != PolicyArgs::default()
        || args.attempts != AttemptArgs::default()
        || args.health != HealthArgs::default()
        || args.resources != ResourceArgs::default()
        || !update.placement.is_empty();
    let nothing = update == ServiceUpdate::default() && !respecifies && args.replicas.is_none();
    if args.rollback {
        if !nothing {
            bail!("other flags may not be combined with --rollback");
        }
        update.rollback = true;
    } else if nothing {
        bail!(
            "nothing to change: give --replicas, --args, --env-add, --publish-add, --update-order, --force \
             or another flag of \"weft service update --help\""
        );
    }
    // A number of tasks alone, or beside what touches no task, has a call of its own.
    let scale = args.replicas.filter(|_| !respecifies && !args.dry_run);
    if respecifies || (args.replicas.is_some() && args.dry_run) {
        return respecify(client, &args, update, out).await;
    }
    if args.dry_run {
        let plan = plan(client, &args.service, None, &update).await?;
        return tell(&args.service, &plan, out);
    }
    let mut id = None;
    if update != ServiceUpdate::default() {
        // Most ports are the network's alone; those of a node, and some changes of others, are the task's.
        let ports = update.publish_add.len() + update.publish_rm.len();
        if ports > 0 && !args.quiet {
            let plan = plan(client, &args.service, None, &update).await?;
            if plan.replaced > 0 {
                warn(&args.service, &plan);
            }
        }
        let path = format!("{}/update", paths::service(&args.service));
        id = Some(posted(client, &path, &update).await?);
    }
    if let Some(replicas) = scale {
        let path = format!("{}/scale", paths::service(&args.service));
        id = Some(posted(client, &path, &Scale { replicas }).await?);
    }
    done(client, &args, &update, id, out).await
}

/// `weft service rollback`
pub(super) async fn roll_back(
    client: &Client,
    args: &RollbackArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let update = ServiceUpdate {
        rollback: true,
        ..ServiceUpdate::default()
    };
    let path = format!("{}/update", paths::service(&args.service));
    let id = posted(client, &path, &update).await?;
    out.line(&args.service)?;
    out.flush()?;
    if !args.detach {
        converge::wait(client, &id, args.quiet, out).await?;
    }
    Ok(())
}

async fn done(
    client: &Client,
    args: &ServiceUpdateArgs,
    update: &ServiceUpdate,
    id: Option<String>,
    out: &mut Printer,
) -> anyhow::Result<()> {
    out.line(&args.service)?;
    out.flush()?;
    local_range::warn(&update.publish_add);
    if let Some(spec) = update
        .spec
        .as_ref()
        .filter(|_| !args.change.mount_add.is_empty())
    {
        local_volumes::warn(client, spec).await;
    }
    if let Some(id) = id.filter(|_| !args.detach) {
        converge::wait(client, &id, args.quiet, out).await?;
    }
    Ok(())
}

/// The id of the service that was changed.
async fn posted<B: serde::Serialize + Sync>(
    client: &Client,
    path: &str,
    body: &B,
) -> anyhow::Result<String> {
    let service: Service = client.post(path, body).await?;
    Ok(service.id.0)
}

/// What touches no task, or only where its ports or its node have to.
fn asked(args: &ServiceUpdateArgs) -> ServiceUpdate {
    let ports = |lists: &[PortList]| lists.iter().flat_map(|list| list.0.clone()).collect();
    ServiceUpdate {
        publish_add: ports(&args.publish_add),
        publish_rm: ports(&args.publish_rm),
        affinity: args.connections.affinity.map(Into::into),
        local_first: args.connections.local_first,
        limit_connections: args.connections.limit_connections,
        limit_client_connections: args.connections.limit_client_connections,
        attach: args.attach,
        placement: PlacementUpdate {
            constraint_add: args.placement.constraint_add.clone(),
            constraint_rm: args.placement.constraint_rm.clone(),
            preference_add: args.placement.placement_pref_add.clone(),
            preference_rm: args.placement.placement_pref_rm.clone(),
            max_replicas: args.placement.replicas_max_per_node,
        },
        ..ServiceUpdate::default()
    }
}

/// Changes the specification as it is now; says before which tasks are replaced, and why.
async fn respecify(
    client: &Client,
    args: &ServiceUpdateArgs,
    mut update: ServiceUpdate,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let leaves = networks(client, &args.change.network_rm).await?;
    let path = paths::service(&args.service);
    let pinned = match &args.change.image {
        Some(image) => {
            let registry = args.change.registry;
            Some(pinning::pin(client, image, registry, args.quiet).await?)
        }
        None => None,
    };
    for attempt in 1.. {
        let detail: ServiceDetail = client.get(&path).await?;
        let version = detail.service.meta.version.index;
        let mut spec = detail.service.spec;
        change(&mut spec, args, &leaves)?;
        match &pinned {
            Some(pinned) => pinned.apply(Arc::make_mut(&mut spec.task)),
            None => pinning::ask_as(Arc::make_mut(&mut spec.task), args.change.registry)?,
        }
        update.spec = Some(spec);
        let plan = plan(client, &args.service, Some(version), &update).await;
        let plan = match plan {
            Err(error) if attempt < ATTEMPTS && is_outdated(&error) => continue,
            plan => plan?,
        };
        if args.dry_run {
            return tell(&args.service, &plan, out);
        }
        if attempt == 1 && !args.quiet && plan.replaced > 0 {
            warn(&args.service, &plan);
        }
        let changed = format!("{path}/update?version={version}");
        match posted(client, &changed, &update).await {
            Err(error) if attempt < ATTEMPTS && is_outdated(&error) => {}
            id => {
                let id = id?;
                if let Some(pinned) = &pinned {
                    pinned.warn();
                }
                return done(client, args, &update, Some(id), out).await;
            }
        }
    }
    Ok(())
}

/// The service is another one than the change was made for.
pub(super) fn is_outdated(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| {
        refused.status == StatusCode::CONFLICT && refused.message.contains("out of sequence")
    })
}

async fn plan(
    client: &Client,
    name: &str,
    version: Option<u64>,
    update: &ServiceUpdate,
) -> anyhow::Result<UpdatePlan> {
    let query = version.map_or_else(String::new, |version| format!("?version={version}"));
    let path = format!("{}/plan{query}", paths::service(name));
    client.post(&path, update).await
}

/// Networks by their names: a specification has their ids.
async fn networks(client: &Client, names: &[String]) -> anyhow::Result<Vec<NetworkId>> {
    let mut ids = Vec::new();
    for name in names {
        let detail: NetworkDetail = client.get(&paths::network(name)).await?;
        ids.push(detail.network.id);
    }
    Ok(ids)
}

/// Does to a specification what the flags say; `leaves` are the networks of `--network-rm`.
pub(super) fn change(
    spec: &mut ServiceSpec,
    args: &ServiceUpdateArgs,
    leaves: &[NetworkId],
) -> anyhow::Result<()> {
    let change = &args.change;
    if let Some(replicas) = args.replicas {
        spec.mode = match spec.mode {
            ServiceMode::Replicated { .. } => ServiceMode::Replicated { replicas },
            ServiceMode::ReplicatedJob { max_concurrent, .. } => ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions: replicas,
            },
            ServiceMode::Global | ServiceMode::GlobalJob => {
                bail!("replicas can only be used with replicated or replicated-job mode")
            }
        };
    }
    if let Some(at_once) = args.max_concurrent {
        let ServiceMode::ReplicatedJob { max_concurrent, .. } = &mut spec.mode else {
            bail!(
                "max-concurrent can only be used with replicated-job mode; drop --max-concurrent"
            );
        };
        *max_concurrent = at_once;
    }
    spec.labels.retain(|key, _| !change.label_rm.contains(key));
    spec.labels.extend(change.label_add.iter().cloned());
    if let Some(mode) = change.endpoint_mode {
        spec.endpoint.mode = mode.into();
    }
    if let Some(early) = args.health.names_before_healthy {
        spec.names_before_healthy = early;
    }
    args.policy.apply(spec)?;
    let mut task = TaskSpec::clone(&spec.task);
    change_program(&mut task, change)?;
    change_rights(&mut task, change);
    change_mounts(
        &mut task.container.mounts,
        &change.mount_add,
        &change.mount_rm,
    )?;
    change.payloads.apply(&mut task.container)?;
    args.attempts.apply(&mut task.restart);
    task.resources = args.resources.over(task.resources);
    task.container.health = args.health.over(task.container.health.take())?;
    task.container.ready = args.health.ready_over(task.container.ready.take())?;
    for id in leaves {
        let before = task.networks.len();
        task.networks.retain(|joined| joined.target != id.0);
        if task.networks.len() == before {
            bail!(
                "service {} has not joined network {id}: leave --network-rm out",
                spec.name
            );
        }
    }
    task.networks.extend(change.network_add.iter().cloned());
    if change.force {
        task.force_update += 1;
    }
    if task != *spec.task {
        spec.task = Arc::new(task);
    }
    Ok(())
}

fn change_program(task: &mut TaskSpec, change: &TaskChangeArgs) -> anyhow::Result<()> {
    let container = &mut task.container;
    if let Some(image) = &change.image {
        container.image.clone_from(image);
        task.runtime = Runtime::of_image(image);
        // Those of the image that it was.
        task.placement.platforms.clear();
    }
    if let Some(line) = &change.args {
        container.args = shlex::split(line).with_context(|| {
            format!("--args {line:?} has a quote or a backslash without an end: close it")
        })?;
    }
    if let Some(hostname) = &change.hostname {
        container.hostname.clone_from(hostname);
    }
    let added: Vec<&str> = change.env_add.iter().map(|pair| env::name(pair)).collect();
    container.env.retain(|pair| {
        let name = env::name(pair);
        !change.env_rm.iter().any(|gone| gone == name) && !added.contains(&name)
    });
    container.env.extend(change.env_add.iter().cloned());
    env::check(task.runtime, &container.env)?;
    change.container.apply(container)?;
    change.lists.apply(container);
    if let Some(signal) = &change.stop_signal {
        container.stop_signal.clone_from(signal);
    }
    if let Some(grace) = change.stop_grace_period {
        container.stop_grace = Duration::from_millis(grace);
    }
    if let Some(condition) = change.restart_condition {
        task.restart.condition = condition.into();
    }
    if let Some(delay) = change.restart_delay {
        task.restart.delay = Duration::from_millis(delay);
    }
    Ok(())
}

/// What is added is dropped no longer, and the other way round.
fn change_rights(task: &mut TaskSpec, change: &TaskChangeArgs) {
    let container = &mut task.container;
    if let Some(user) = &change.user {
        container.user.clone_from(user);
    }
    if let Some(kept) = change.no_new_privileges {
        container.privileges.no_new_privileges = kept;
    }
    let (add, drop) = (&change.cap_add, &change.cap_drop);
    container
        .cap_drop
        .retain(|capability| !add.contains(capability));
    container
        .cap_add
        .retain(|capability| !drop.contains(capability));
    container.cap_add.extend(add.iter().cloned());
    container.cap_drop.extend(drop.iter().cloned());
}

/// `--dry-run`
fn tell(name: &str, plan: &UpdatePlan, out: &mut Printer) -> anyhow::Result<()> {
    for line in lines(name, plan) {
        out.line(&line)?;
    }
    for warning in &plan.warnings {
        out.line(&format!("warning: {warning}"))?;
    }
    Ok(())
}

/// The same beside what docker prints.
fn warn(name: &str, plan: &UpdatePlan) {
    for line in lines(name, plan) {
        complain(&format!("weft: {line}"));
    }
    for warning in &plan.warnings {
        complain(&format!("weft: warning: {warning}"));
    }
}

/// How many tasks are replaced, how, and what is another one than before.
pub(super) fn lines(name: &str, plan: &UpdatePlan) -> Vec<String> {
    let first = if plan.replaced == 0 {
        format!("no task of service {name} is replaced")
    } else if plan.after.mode.is_job() {
        let (replaced, tasks) = (plan.replaced, plan.tasks);
        format!("{replaced} of {tasks} tasks of job {name} are stopped, and another run begins")
    } else {
        let UpdateConfig {
            parallelism, order, ..
        } = plan.after.update;
        let at_a_time = match parallelism {
            0 => "all at once".to_owned(),
            n => format!("{n} at a time"),
        };
        let order = match order {
            UpdateOrder::StopFirst => "stop-first",
            UpdateOrder::StartFirst => "start-first",
        };
        let (replaced, tasks) = (plan.replaced, plan.tasks);
        format!("{replaced} of {tasks} tasks of service {name} are replaced, {at_a_time}, {order}")
    };
    let [before, after] = [&plan.before, &plan.after].map(|spec| {
        let mut leaves = BTreeMap::new();
        flatten(String::new(), whole(spec), &mut leaves);
        leaves
    });
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| {
        let (was, is) = (before.get(key), after.get(key));
        (was != is).then(|| {
            let (was, is) = in_words(was, is);
            shown(&format!("  {key}: {was} -> {is}")).into_owned()
        })
    });
    std::iter::once(first).chain(changes).collect()
}

/// Two values that differ: secrets and configs by their names, unless it is not in these that they do.
fn in_words(was: Option<&Value>, is: Option<&Value>) -> (String, String) {
    let raw = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
    let words = |value: Option<&Value>| {
        let names = value.and_then(payload_words::references);
        names.unwrap_or_else(|| raw(value))
    };
    let (before, after) = (words(was), words(is));
    if before == after {
        (raw(was), raw(is))
    } else {
        (before, after)
    }
}

/// With what is not written because nobody asked for anything else: it may change.
fn whole(spec: &ServiceSpec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    for (name, policy) in [
        ("UpdateConfig", spec.update),
        ("RollbackConfig", spec.rollback),
    ] {
        value[name] = serde_json::to_value(policy).unwrap_or_default();
    }
    value["TaskTemplate"]["ForceUpdate"] = spec.task.force_update.into();
    value["NamesBeforeHealthy"] = spec.names_before_healthy.into();
    value
}

/// Values by where they are, such as `TaskTemplate.ContainerSpec.Args`.
fn flatten(at: String, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if at.is_empty() {
                    name
                } else {
                    format!("{at}.{name}")
                };
                flatten(at, value, into);
            }
        }
        value => {
            into.insert(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use weft_model::objects::{
        ContainerSpec, EndpointMode, FailureAction, NetworkAttachmentSpec, PayloadFile, Platform,
        Ratio, RestartCondition, SecretReference,
    };

    use super::*;
    use crate::args::{Cli, Command, ServiceCommand};

    fn given(words: &str) -> ServiceUpdateArgs {
        let words = words.split_ascii_whitespace().chain(["web"]);
        parsed(["weft", "service", "update"].into_iter().chain(words))
    }

    fn parsed<'a>(words: impl Iterator<Item = &'a str>) -> ServiceUpdateArgs {
        match Cli::try_parse_from(words).expect("a command line").command {
            Command::Service(ServiceCommand::Update(args)) => *args,
            other => unreachable!("{other:?}"),
        }
    }

    fn web() -> ServiceSpec {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ServiceSpec {
            name: "web".to_owned(),
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
            task: Arc::new(TaskSpec {
                container: ContainerSpec {
                    image: "host".to_owned(),
                    args: texts(&["/bin/server"]),
                    env: texts(&["A=1", "B=2", "C=3"]),
                    cap_add: texts(&["CAP_NET_ADMIN"]),
                    cap_drop: texts(&["CAP_KILL"]),
                    ..ContainerSpec::default()
                },
                networks: vec![NetworkAttachmentSpec {
                    target: "net1".to_owned(),
                    aliases: Vec::new(),
                    stack_aliases: Vec::new(),
                }],
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        }
    }

    fn changed(words: &str) -> ServiceSpec {
        let mut spec = web();
        change(&mut spec, &given(words), &[]).expect("changed");
        spec
    }

    #[test]
    fn what_is_not_given_stays() {
        assert_eq!(changed("--quiet"), web());
        let spec = changed("--label-add a=b --label-rm tier --replicas 3");
        assert_eq!(spec.labels, BTreeMap::from([("a".into(), "b".into())]));
        assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 3 });
        assert_eq!(spec.task, web().task);
    }

    #[test]
    fn what_is_added_takes_the_place_of_what_was() {
        let spec = changed("--env-add B=5 --env-add D=4 --env-rm A --restart-condition on-failure");
        assert_eq!(spec.task.container.env, ["C=3", "B=5", "D=4"]);
        assert_eq!(spec.task.restart.condition, RestartCondition::OnFailure);
        let spec = changed("--cap-add kill --cap-drop net_admin --endpoint-mode dnsrr -u 33");
        assert_eq!(spec.task.container.cap_add, ["CAP_KILL"]);
        assert_eq!(spec.task.container.cap_drop, ["CAP_NET_ADMIN"]);
        assert_eq!(spec.task.container.user, "33");
        assert_eq!(spec.endpoint.mode, EndpointMode::Dnsrr);
        assert_eq!(changed("--force").task.force_update, 1);
        let spec = changed("--stop-signal sigquit --stop-grace-period 1m");
        assert_eq!(spec.task.container.stop_signal, "sigquit");
        assert_eq!(spec.task.container.stop_grace, Duration::from_secs(60));
    }

    #[test]
    fn a_check_of_a_port_goes_and_a_job_gets_wider() {
        let mut spec = changed("--ready tcp:80");
        assert!(spec.task.container.ready.is_some());
        change(&mut spec, &given("--no-ready"), &[]).expect("changed");
        assert_eq!(spec, web());
        let job = |at_once| ServiceMode::ReplicatedJob {
            max_concurrent: at_once,
            total_completions: 9,
        };
        spec.mode = job(1);
        change(&mut spec, &given("--max-concurrent 3"), &[]).expect("changed");
        assert_eq!(spec.mode, job(3));
        let error = change(&mut web(), &given("--max-concurrent 3"), &[]).expect_err("no job");
        assert!(error.to_string().contains("replicated-job mode"), "{error}");
    }

    #[test]
    fn names_wait_for_health_or_not_and_no_task_is_another_one() {
        let mut spec = changed("--names-before-healthy");
        assert!(spec.names_before_healthy);
        assert_eq!(spec.task, web().task);
        change(&mut spec, &given("--quiet"), &[]).expect("changed");
        assert!(spec.names_before_healthy, "what is not given stays");
        let plan = UpdatePlan {
            before: web(),
            after: spec.clone(),
            tasks: 1,
            replaced: 0,
            warnings: Vec::new(),
        };
        assert_eq!(
            lines("web", &plan)[1..],
            ["  NamesBeforeHealthy: false -> true"]
        );
        change(&mut spec, &given("--names-before-healthy=false"), &[]).expect("changed");
        assert_eq!(spec, web());
    }

    #[test]
    fn secrets_that_differ_are_told_by_their_names() {
        let with = |id: &str, name: &str| {
            let mut spec = web();
            Arc::make_mut(&mut spec.task).container.secrets = vec![SecretReference {
                file: PayloadFile {
                    name: "key".to_owned(),
                    ..PayloadFile::default()
                },
                id: id.into(),
                name: name.to_owned(),
            }];
            spec
        };
        let told = |before: ServiceSpec, after: ServiceSpec| {
            let plan = UpdatePlan {
                before,
                after,
                tasks: 1,
                replaced: 1,
                warnings: Vec::new(),
            };
            lines("web", &plan).split_off(1)
        };
        assert_eq!(
            told(with("s1", "key-1"), with("s2", "key-2")),
            ["  TaskTemplate.ContainerSpec.Secrets: [key-1 as key] -> [key-2 as key]"]
        );
        // Another one of the same name.
        let told = told(with("s1", "key-1"), with("s2", "key-1"));
        assert!(
            told[0].contains("\"s1\"") && told[0].contains("\"s2\""),
            "{told:?}"
        );
    }

    #[test]
    fn a_command_is_read_as_a_shell_reads_it() {
        let line = [
            "weft",
            "service",
            "update",
            "--args",
            "run 'a b' \"c\"",
            "web",
        ];
        let mut spec = web();
        change(&mut spec, &parsed(line.into_iter()), &[]).expect("changed");
        assert_eq!(spec.task.container.args, ["run", "a b", "c"]);
        let line = ["weft", "service", "update", "--args", "run 'a", "web"];
        let error = change(&mut spec, &parsed(line.into_iter()), &[]).expect_err("no end");
        assert!(error.to_string().contains("close it"), "{error}");
    }

    #[test]
    fn what_a_container_has_is_changed() {
        let words = |line: &'static str| {
            parsed(
                ["weft", "service", "update"]
                    .into_iter()
                    .chain(line.split(' ')),
            )
        };
        let mut spec = web();
        let args =
            words("--image nginx:1.27 -w /www --read-only --env-add D --host-add db:10.0.0.5 web");
        let task = Arc::make_mut(&mut spec.task);
        task.placement.platforms.push(Platform::default());
        change(&mut spec, &args, &[]).expect("changed");
        assert_eq!(spec.task.runtime, Runtime::Container);
        assert!(spec.task.placement.platforms.is_empty());
        let container = &spec.task.container;
        assert_eq!(
            (container.image.as_str(), container.dir.as_str()),
            ("nginx:1.27", "/www")
        );
        assert!(container.read_only);
        assert_eq!(container.hosts, ["10.0.0.5 db"]);
        // A variable that nobody has here is the image's.
        assert_eq!(container.env.last().map(String::as_str), Some("D"));
        // A program of the node has no image that could say it.
        let error = change(&mut spec, &words("--image host web"), &[]).expect_err("unset");
        assert!(error.to_string().contains("D is not set here"), "{error}");
        let back = words("--image host --env-rm D --read-only=false web");
        change(&mut spec, &back, &[]).expect("changed");
        assert_eq!(spec.task.runtime, Runtime::Host);
        assert!(!spec.task.container.read_only);
    }

    #[test]
    fn networks_are_joined_and_left() {
        let args = given("--network-add back,alias=db --network-rm front");
        let mut spec = web();
        change(&mut spec, &args, &[NetworkId::from("net1")]).expect("changed");
        let targets: Vec<&str> = spec.task.networks.iter().map(|n| &*n.target).collect();
        assert_eq!(targets, ["back"]);
        let error = change(&mut spec, &args, &[NetworkId::from("net1")]).expect_err("left");
        assert!(error.to_string().contains("has not joined network net1"));
    }

    #[test]
    fn policies_are_of_one_direction_each() {
        let spec = changed(
            "--update-parallelism 0 --update-delay 10s --update-failure-action rollback \
             --update-max-failure-ratio 0.2 --update-order start-first --update-timeout 1m \
             --rollback-monitor 1s --rollback-parallelism 2",
        );
        let update = UpdateConfig {
            parallelism: 0,
            delay: Duration::from_secs(10),
            failure_action: FailureAction::Rollback,
            max_failure_ratio: Ratio::new(0.2).expect("a ratio"),
            order: UpdateOrder::StartFirst,
            timeout: Duration::from_secs(60),
            ..UpdateConfig::default()
        };
        assert_eq!(spec.update, update);
        assert_eq!(spec.rollback.parallelism, 2);
        assert_eq!(spec.rollback.monitor, Duration::from_secs(1));
        let words = [
            "weft",
            "service",
            "update",
            "--update-max-failure-ratio",
            "1.5",
            "web",
        ];
        let error = Cli::try_parse_from(words).expect_err("no ratio");
        assert!(error.to_string().contains("from 0 to 1"), "{error}");
    }

    #[test]
    fn jobs_have_no_policies() {
        let job = || ServiceSpec {
            mode: ServiceMode::GlobalJob,
            ..web()
        };
        for flags in ["--update-delay 1s", "--rollback-order start-first"] {
            let error = change(&mut job(), &given(flags), &[]).expect_err("a job");
            let says = "update and rollback configuration is not supported for jobs";
            assert!(error.to_string().starts_with(says), "{error}");
        }
        change(&mut job(), &given("--force"), &[]).expect("another run");
    }

    #[test]
    fn a_plan_names_what_is_another_one() {
        let plan = UpdatePlan {
            before: web(),
            after: changed("--env-rm A --env-rm B --update-order start-first"),
            tasks: 3,
            replaced: 3,
            warnings: Vec::new(),
        };
        assert_eq!(
            lines("web", &plan),
            [
                "3 of 3 tasks of service web are replaced, 1 at a time, start-first",
                "  TaskTemplate.ContainerSpec.Env: [\"A=1\",\"B=2\",\"C=3\"] -> [\"C=3\"]",
                "  UpdateConfig.Order: \"stop-first\" -> \"start-first\"",
            ]
        );
        let forced = UpdatePlan {
            after: changed("--force"),
            ..plan.clone()
        };
        assert_eq!(
            lines("web", &forced)[1..],
            ["  TaskTemplate.ForceUpdate: 0 -> 1"]
        );
        let plan = UpdatePlan {
            replaced: 0,
            ..plan
        };
        assert_eq!(lines("web", &plan)[0], "no task of service web is replaced");
    }
}
