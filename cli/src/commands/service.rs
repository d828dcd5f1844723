//! `weft service …`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use hyper::StatusCode;
use weft_client::{Client, Refused};
use weft_model::api::{Rebalance, Rebalanced, Scale, ServiceDetail};
use weft_model::objects::{
    ConnectionPolicy, ContainerSpec, EndpointSpec, Privileges, ResourceRequirements, RestartPolicy,
    Runtime, Service, ServiceMode, ServiceSpec, TaskSpec,
};

use crate::args::{
    ConnectionArgs, FilterArgs, FormatArgs, ModeArg, ServiceCommand, ServiceCreateArgs, env,
};
use crate::commands::{
    converge, finish, local_range, local_volumes, logs, names, paths, pinning, rows,
    service_pretty, service_update, show, tasks, unique,
};
use crate::output::{Filters, Key, Match, Printer, complain};

/// Keys of `service ls --filter`.
const KEYS: [Key; 4] = [
    ("id", &[("ID", Match::Begins)]),
    ("label", &[("Labels", Match::Label)]),
    ("mode", &[("Mode", Match::Is)]),
    ("name", &[("Name", Match::Begins)]),
];

/// Names that are tried for a service that is given none, while others have them.
const NAMES_TRIED: u64 = 5;

pub(super) async fn run(
    client: &Client,
    command: ServiceCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        ServiceCommand::Create(args) => create(client, *args, out).await?,
        ServiceCommand::Ls { filter, format } => {
            let filters = filters(&filter)?;
            let services: Vec<ServiceDetail> = client.get("/v1/services").await?;
            list(services, &filters, &format, out)?;
        }
        ServiceCommand::Ps(args) => {
            let tasks_of: Vec<String> = args.refs.iter().map(|name| paths::tasks(name)).collect();
            return tasks::list(client, &tasks_of, &args.list, out).await;
        }
        ServiceCommand::Inspect(args) if args.pretty() => {
            let mut found = Vec::new();
            for name in &args.refs {
                found.push(client.get(&paths::service(name)).await);
            }
            return service_pretty::show(client, found, out).await;
        }
        ServiceCommand::Inspect(args) => {
            let mut found = Vec::new();
            for name in &args.refs {
                found.push(client.get(&paths::service(name)).await);
            }
            return show(&args, found, out);
        }
        ServiceCommand::Logs(args) => return logs::run(client, &args, out).await,
        ServiceCommand::Update(args) => service_update::update(client, *args, out).await?,
        ServiceCommand::Rollback(args) => service_update::roll_back(client, &args, out).await?,
        ServiceCommand::Scale { detach, targets } => {
            return scale(client, detach, &targets, out).await;
        }
        ServiceCommand::Rebalance {
            dry_run,
            max_moves,
            refs,
        } => {
            let request = Rebalance { dry_run, max_moves };
            return rebalance(client, request, refs, out).await;
        }
        ServiceCommand::Rm { refs } => {
            let mut refused = Vec::new();
            for name in &refs {
                match client.delete(&paths::service(name)).await {
                    Ok(()) => out.line(name)?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            return finish(&refused);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `--filter` of [`list`].
///
/// # Errors
/// It has a key that there is not.
pub(super) fn filters(args: &FilterArgs) -> anyhow::Result<Filters<'_>> {
    Filters::of(args, &KEYS)
}

/// `service ls` of these services, and what people should know of them.
///
/// # Errors
/// A bad template, or the output's.
pub(super) fn list(
    services: Vec<ServiceDetail>,
    filters: &Filters<'_>,
    format: &FormatArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let errors: Vec<String> = services
        .iter()
        .flat_map(|s| {
            let errors = s.port_errors.iter().chain(&s.waiting);
            errors.map(|error| (&s.service.spec.name, error))
        })
        .map(|(name, error)| format!("weft: warning: service {name}: {error}"))
        .collect();
    let mut listing = rows::services(services);
    listing.keep(filters);
    out.listing(&listing, format)?;
    if format.format.is_none() && !format.quiet {
        out.flush()?;
        errors.iter().for_each(|error| complain(error));
    }
    Ok(())
}

async fn create(client: &Client, args: ServiceCreateArgs, out: &mut Printer) -> anyhow::Result<()> {
    let (detach, quiet, named) = (args.detach, args.quiet, args.name.is_some());
    let registry = args.registry;
    let mut spec = spec(args)?;
    let image = spec.task.container.image.clone();
    let pinned = pinning::pin(client, &image, registry, quiet).await?;
    pinned.apply(Arc::make_mut(&mut spec.task));
    let service: Service = if named {
        client.post("/v1/services", &spec).await?
    } else {
        create_unnamed(client, &mut spec).await?
    };
    pinned.warn();
    out.line(service.id.as_str())?;
    out.flush()?;
    local_range::warn(&service.spec.endpoint.ports);
    local_volumes::warn(client, &service.spec).await;
    if !detach {
        converge::wait(client, &service.id.0, quiet, out).await?;
    }
    Ok(())
}

async fn create_unnamed(client: &Client, spec: &mut ServiceSpec) -> anyhow::Result<Service> {
    let mut names = names::some(NAMES_TRIED);
    spec.name = names.next().unwrap_or_default();
    loop {
        let refused = match client.post("/v1/services", &*spec).await {
            Err(error) if is_name_taken(&error) => error,
            other => return other,
        };
        match names.next() {
            Some(name) => spec.name = name,
            None => return Err(refused),
        }
    }
}

/// Another service has the name. A port or an address that is taken has the same status and another
/// text.
pub(super) fn is_name_taken(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| {
        refused.status == StatusCode::CONFLICT && refused.message.starts_with("name conflicts with")
    })
}

/// Checks what clap cannot, and builds what the node understands; without a name where none is given.
pub(super) fn spec(args: ServiceCreateArgs) -> anyhow::Result<ServiceSpec> {
    let mode = mode(args.mode, args.replicas, args.max_concurrent)?;
    let mut words = args.image_and_command.into_iter();
    let image = words.next().unwrap_or_default();
    let command: Vec<String> = words.collect();
    let runtime = Runtime::of_image(&image);
    if runtime == Runtime::Host && command.is_empty() {
        bail!(
            "image \"host\" needs a command: weft service create --name {} host COMMAND [ARG]…",
            args.name.as_deref().unwrap_or("S")
        );
    }
    let health = args.health.over(None)?;
    let ready = args.health.ready_over(None)?;
    let env = env::environment(&args.env_files, args.env)?;
    env::check(runtime, &env)?;
    let mut container = ContainerSpec {
        image,
        hostname: args.hostname.unwrap_or_default(),
        args: command,
        env,
        user: args.user.unwrap_or_default(),
        privileges: Privileges {
            no_new_privileges: args.no_new_privileges.unwrap_or_default(),
        },
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        stop_signal: args.stop_signal.unwrap_or_default(),
        stop_grace: Duration::from_millis(args.stop_grace_period),
        health,
        ready,
        ..ContainerSpec::default()
    };
    args.container.apply(&mut container)?;
    args.lists.apply(&mut container);
    args.payloads.apply(&mut container)?;
    let restart = RestartPolicy {
        condition: args.restart_condition.into(),
        delay: Duration::from_millis(args.restart_delay),
        max_attempts: args.attempts.restart_max_attempts.unwrap_or_default(),
        window: Duration::from_millis(args.attempts.restart_window.unwrap_or_default()),
    };
    let mut spec = ServiceSpec {
        name: args.name.unwrap_or_default(),
        labels: unique("label", args.labels)?,
        task: Arc::new(TaskSpec {
            runtime,
            container,
            restart,
            networks: args.networks,
            placement: args.placement.placement(),
            resources: args.resources.over(ResourceRequirements::default()),
            force_update: 0,
        }),
        mode,
        endpoint: EndpointSpec {
            mode: args.endpoint_mode.into(),
            ports: args.publish.into_iter().flat_map(|list| list.0).collect(),
        },
        connections: connections(&args.connections),
        attach: args.attach,
        names_before_healthy: args.health.names_before_healthy.unwrap_or_default(),
        ..ServiceSpec::default()
    };
    Arc::make_mut(&mut spec.task).container.mounts = args.mounts;
    args.policy.apply(&mut spec)?;
    Ok(spec)
}

fn mode(
    mode: ModeArg,
    replicas: Option<u32>,
    max_concurrent: Option<u32>,
) -> anyhow::Result<ServiceMode> {
    if max_concurrent.is_some() && mode != ModeArg::ReplicatedJob {
        bail!(
            "max-concurrent can only be used with replicated-job mode; drop --max-concurrent, or give \
             --mode replicated-job"
        );
    }
    let has_replicas = matches!(mode, ModeArg::Replicated | ModeArg::ReplicatedJob);
    if replicas.is_some() && !has_replicas {
        bail!(
            "replicas can only be used with replicated or replicated-job mode; drop --replicas or \
             --mode"
        );
    }
    let replicas = replicas.unwrap_or(1);
    Ok(match mode {
        ModeArg::Replicated => ServiceMode::Replicated { replicas },
        ModeArg::Global => ServiceMode::Global,
        ModeArg::ReplicatedJob => ServiceMode::ReplicatedJob {
            max_concurrent: max_concurrent.unwrap_or(replicas),
            total_completions: replicas,
        },
        ModeArg::GlobalJob => ServiceMode::GlobalJob,
    })
}

fn connections(args: &ConnectionArgs) -> ConnectionPolicy {
    ConnectionPolicy {
        affinity: args.affinity.map(Into::into).unwrap_or_default(),
        local_first: args.local_first.unwrap_or_default(),
        limit: args.limit_connections.unwrap_or_default(),
        limit_per_client: args.limit_client_connections.unwrap_or_default(),
    }
}

async fn rebalance(
    client: &Client,
    request: Rebalance,
    mut names: Vec<String>,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    if names.is_empty() {
        let services: Vec<ServiceDetail> = client.get("/v1/services").await?;
        let services = services.into_iter().map(|detail| detail.service.spec);
        let replicated =
            services.filter(|spec| matches!(spec.mode, ServiceMode::Replicated { .. }));
        names = replicated.map(|spec| spec.name).collect();
    }
    let mut refused = Vec::new();
    for name in &names {
        let path = format!("{}/rebalance", paths::service(name));
        let planned: Rebalanced = match client.post(&path, &request).await {
            Ok(planned) => planned,
            Err(error) if error.is::<Refused>() => {
                refused.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if planned.moves.is_empty() {
            out.line(&format!("{name}: nothing to move"))?;
        }
        let word = if request.dry_run {
            "would move"
        } else {
            "moves"
        };
        for one in planned.moves {
            let (slot, from, to) = (one.slot, one.from, one.to);
            out.line(&format!("{name}.{slot} {word} from {from} to {to}"))?;
        }
    }
    out.flush()?;
    finish(&refused)
}

async fn scale(
    client: &Client,
    detach: bool,
    targets: &[(String, u32)],
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let (mut scaled, mut refused) = (Vec::new(), Vec::new());
    for (name, replicas) in targets {
        let request = Scale {
            replicas: *replicas,
        };
        match client
            .post::<_, Service>(&format!("{}/scale", paths::service(name)), &request)
            .await
        {
            Ok(service) => {
                out.line(&format!("{name} scaled to {replicas}"))?;
                scaled.push(service.id);
            }
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    out.flush()?;
    if !detach {
        for id in scaled {
            converge::wait(client, &id.0, false, out).await?;
        }
    }
    finish(&refused)
}
