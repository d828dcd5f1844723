//! `weft service …`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use hyper::StatusCode;
use weft_client::{Client, Refused};
use weft_model::api::{Scale, ServiceDetail, ServiceUpdate};
use weft_model::objects::{
    ConnectionPolicy, ContainerSpec, EndpointMode, EndpointSpec, Privileges, RestartCondition,
    RestartPolicy, Runtime, Service, ServiceMode, ServiceSpec, TaskSpec,
};

use crate::args::{
    ConnectionArgs, EndpointModeArg, ModeArg, PortList, RestartArg, ServiceCommand,
    ServiceCreateArgs, ServiceUpdateArgs,
};
use crate::commands::{
    converge, finish, local_range, logs, names, paths, rows, service_pretty, show, tasks, unique,
};
use crate::output::{Printer, complain};

/// Names that are tried for a service that is given none, while others have them.
const NAMES_TRIED: u64 = 5;

pub(super) async fn run(
    client: &Client,
    command: ServiceCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        ServiceCommand::Create(args) => create(client, args, out).await?,
        ServiceCommand::Ls { filter, format } => {
            let services: Vec<ServiceDetail> = client.get("/v1/services").await?;
            let errors: Vec<String> = services
                .iter()
                .flat_map(|s| {
                    let errors = s.port_errors.iter().chain(&s.waiting);
                    errors.map(|error| (&s.service.spec.name, error))
                })
                .map(|(name, error)| format!("weft: warning: service {name}: {error}"))
                .collect();
            let mut listing = rows::services(services);
            let keys = [("id", "ID"), ("name", "Name"), ("mode", "Mode")];
            listing.keep(&filter.filters, &keys)?;
            out.listing(&listing, &format)?;
            if format.format.is_none() && !format.quiet {
                out.flush()?;
                errors.iter().for_each(|error| complain(error));
            }
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
        ServiceCommand::Update(args) => update(client, args, out).await?,
        ServiceCommand::Scale { detach, targets } => {
            return scale(client, detach, &targets, out).await;
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

async fn create(client: &Client, args: ServiceCreateArgs, out: &mut Printer) -> anyhow::Result<()> {
    let (detach, quiet, named) = (args.detach, args.quiet, args.name.is_some());
    let mut spec = spec(args)?;
    let service: Service = if named {
        client.post("/v1/services", &spec).await?
    } else {
        create_unnamed(client, &mut spec).await?
    };
    out.line(service.id.as_str())?;
    out.flush()?;
    local_range::warn(&service.spec.endpoint.ports);
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

/// A port or an address that is taken has the same status and another text.
fn is_name_taken(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| {
        refused.status == StatusCode::CONFLICT && refused.message.starts_with("name conflicts with")
    })
}

async fn update(client: &Client, args: ServiceUpdateArgs, out: &mut Printer) -> anyhow::Result<()> {
    let ports = |lists: Vec<PortList>| lists.into_iter().flat_map(|list| list.0).collect();
    let update = ServiceUpdate {
        publish_add: ports(args.publish_add),
        publish_rm: ports(args.publish_rm),
        affinity: args.connections.affinity.map(Into::into),
        local_first: args.connections.local_first,
        limit_connections: args.connections.limit_connections,
        limit_client_connections: args.connections.limit_client_connections,
        attach: args.attach,
    };
    if update == ServiceUpdate::default() && args.replicas.is_none() {
        bail!(
            "nothing to change: give --replicas, --publish-add, --publish-rm, --affinity, --local-first, \
             --limit-connections, --limit-client-connections or --attach"
        );
    }
    let mut changed = None;
    if update != ServiceUpdate::default() {
        let path = format!("{}/update", paths::service(&args.service));
        changed = Some(client.post::<_, Service>(&path, &update).await?);
    }
    if let Some(replicas) = args.replicas {
        let path = format!("{}/scale", paths::service(&args.service));
        changed = Some(
            client
                .post::<_, Service>(&path, &Scale { replicas })
                .await?,
        );
    }
    out.line(&args.service)?;
    out.flush()?;
    local_range::warn(&update.publish_add);
    if let Some(service) = changed.filter(|_| !args.detach) {
        converge::wait(client, &service.id.0, args.quiet, out).await?;
    }
    Ok(())
}

/// Checks what clap cannot, and builds what the node understands; without a name where none is given.
pub(super) fn spec(args: ServiceCreateArgs) -> anyhow::Result<ServiceSpec> {
    let mode = match (args.mode, args.replicas) {
        (ModeArg::Replicated, replicas) => ServiceMode::Replicated {
            replicas: replicas.unwrap_or(1),
        },
        (ModeArg::Global, None) => ServiceMode::Global,
        (ModeArg::Global, Some(_)) => {
            bail!(
                "replicas can only be used with replicated mode; drop --replicas or --mode global"
            )
        }
    };
    let mut words = args.image_and_command.into_iter();
    let image = words.next().unwrap_or_default();
    let command: Vec<String> = words.collect();
    // Which other images there are, the manager knows.
    let runtime = Runtime::of_image(&image);
    if runtime == Some(Runtime::Host) && command.is_empty() {
        bail!(
            "image \"host\" needs a command: weft service create --name {} host COMMAND [ARG]…",
            args.name.as_deref().unwrap_or("S")
        );
    }
    let container = ContainerSpec {
        image,
        hostname: args.hostname.unwrap_or_default(),
        args: command,
        env: args.env,
        user: args.user.unwrap_or_default(),
        privileges: Privileges {
            no_new_privileges: args.no_new_privileges.unwrap_or_default(),
        },
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        stop_grace: Duration::from_millis(args.stop_grace_period),
    };
    let restart = RestartPolicy {
        condition: match args.restart_condition {
            RestartArg::Any => RestartCondition::Any,
            RestartArg::OnFailure => RestartCondition::OnFailure,
            RestartArg::None => RestartCondition::None,
        },
        delay: Duration::from_millis(args.restart_delay),
    };
    Ok(ServiceSpec {
        name: args.name.unwrap_or_default(),
        labels: unique("label", args.labels)?,
        task: Arc::new(TaskSpec {
            runtime: runtime.unwrap_or_default(),
            container,
            restart,
            networks: args.networks,
        }),
        mode,
        endpoint: EndpointSpec {
            mode: match args.endpoint_mode {
                EndpointModeArg::Vip => EndpointMode::Vip,
                EndpointModeArg::Dnsrr => EndpointMode::Dnsrr,
            },
            ports: args.publish.into_iter().flat_map(|list| list.0).collect(),
        },
        connections: connections(&args.connections),
        attach: args.attach,
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
