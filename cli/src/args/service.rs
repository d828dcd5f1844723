//! `weft service`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use weft_model::objects::{Mount, NetworkAttachmentSpec};

use super::env::parse_variable;
use super::task::{
    EndpointModeArg, RestartArg, parse_capability, parse_no_new_privileges, parse_stop_signal,
};
use super::{
    AttemptArgs, ConnectionArgs, ContainerArgs, ContainerListArgs, FilterArgs, FormatArgs,
    HealthArgs, InspectArgs, LogsArgs, PayloadArgs, PlacementArgs, PlacementUpdateArgs, PolicyArgs,
    PortList, RegistryArgs, ResourceArgs, TaskChangeArgs, TaskListArgs, parse_attachment,
    parse_duration_ms, parse_key_value, parse_mount, parse_publish,
};

/// `weft service …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Start a service
    Create(Box<ServiceCreateArgs>),
    /// List services
    Ls {
        /// Which: keys are id, label, mode and name.
        #[command(flatten)]
        filter: FilterArgs,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List the tasks of services
    Ps(ServicePsArgs),
    /// Show everything known about services
    Inspect(InspectArgs),
    /// Show what the tasks of a service, or one task, have written
    Logs(LogsArgs),
    /// Change a service; its tasks are replaced one after the other where they have to be
    Update(Box<ServiceUpdateArgs>),
    /// Make a service what it was before its last change
    Rollback(RollbackArgs),
    /// Change the number of replicas, or of tasks of a job
    Scale {
        /// Do not wait until the tasks run
        #[arg(short, long)]
        detach: bool,
        /// Service and wanted number
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = parse_scale)]
        targets: Vec<(String, u32)>,
    },
    /// Move tasks of services, one after the other, to nodes that have fewer of them
    Rebalance {
        /// Only print what would move
        #[arg(long)]
        dry_run: bool,
        /// Tasks of each service that move at most
        #[arg(long, value_name = "NUMBER", default_value = "100",
              value_parser = clap::value_parser!(u32).range(1..=100))]
        max_moves: u32,
        /// Id, name, or unique start of an id (default: every replicated service)
        #[arg(value_name = "SERVICE")]
        refs: Vec<String>,
    },
    /// Stop services and remove them
    Rm {
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "SERVICE")]
        refs: Vec<String>,
    },
}

/// `weft service rollback`
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Id, name, or unique start of an id
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
}

/// `weft service create`
#[derive(Debug, Args)]
pub(crate) struct ServiceCreateArgs {
    /// Name of the service, a DNS label (default: two words by chance)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Number of tasks, or of those of a job that are to end with success (default 1)
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// `replicated`, `global`, `replicated-job` or `global-job`
    #[arg(long, default_value = "replicated")]
    pub(crate) mode: ModeArg,
    /// Tasks of a replicated job at one time (default: all)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent: Option<u32>,
    /// Published ports, short or long syntax.
    #[arg(short, long = "publish", value_name = "PORT", value_parser = parse_publish, help = "Published port: [IP:][PUBLISHED:]TARGET[/tcp|udp], ranges allowed, or published=P,target=T,protocol=tcp,mode=ingress|host; may be repeated")]
    pub(crate) publish: Vec<PortList>,
    /// Network to join: NAME[,alias=A]… or name=NAME,alias=A; may be repeated
    #[arg(long = "network", value_name = "NETWORK", value_parser = parse_attachment)]
    pub(crate) networks: Vec<NetworkAttachmentSpec>,
    /// Host name that the tasks see, such as web-{{.Task.Slot}} (default: the task's name)
    #[arg(long, value_name = "HOSTNAME")]
    pub(crate) hostname: Option<String>,
    /// Environment variable KEY=VALUE, the value perhaps a template ({{.Task.Slot}}), or KEY for the
    /// value that it has here; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = parse_variable)]
    pub(crate) env: Vec<String>,
    /// File of environment variables, one a line; may be repeated
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// What the tasks see besides the image: type=volume|bind|tmpfs,source=S,target=T[,readonly][,…]; may be repeated
    #[arg(long = "mount", value_name = "MOUNT", value_parser = parse_mount)]
    pub(crate) mounts: Vec<Mount>,
    /// What they see of what the swarm keeps.
    #[command(flatten)]
    pub(crate) payloads: PayloadArgs,
    /// Label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// How the name resolves: `vip` or `dnsrr`
    #[arg(long, default_value = "vip")]
    pub(crate) endpoint_mode: EndpointModeArg,
    /// How connections find a replica.
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    /// Let `network connect` on workers make replicas and take its names; managers may anyway
    #[arg(long)]
    pub(crate) attach: bool,
    /// How tasks are replaced when it changes.
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// When finished tasks are replaced
    #[arg(long, default_value = "any")]
    pub(crate) restart_condition: RestartArg,
    /// Time between failure and replacement
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration_ms)]
    pub(crate) restart_delay: u64,
    /// How often.
    #[command(flatten)]
    pub(crate) attempts: AttemptArgs,
    /// Whether tasks are healthy, and ready.
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    /// Signal that asks a task to end, such as SIGQUIT, USR1 or 3 (default SIGTERM)
    #[arg(long, value_name = "SIGNAL", value_parser = parse_stop_signal)]
    pub(crate) stop_signal: Option<String>,
    /// Time between that signal and SIGKILL
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration_ms)]
    pub(crate) stop_grace_period: u64,
    /// Who the tasks are on their nodes: NAME|UID[:GROUP|GID] (default root)
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Capability that the tasks have beyond Docker's default, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    pub(crate) cap_add: Vec<String>,
    /// Capability of Docker's default that the tasks do not have, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    pub(crate) cap_drop: Vec<String>,
    /// `no-new-privileges`: nothing that the tasks execute gains rights by its file
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = parse_no_new_privileges)]
    pub(crate) no_new_privileges: Option<bool>,
    /// What a container has besides its image.
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
    /// And what it has several of.
    #[command(flatten)]
    pub(crate) lists: ContainerListArgs,
    /// Who asks for the image.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Where tasks run.
    #[command(flatten)]
    pub(crate) placement: PlacementArgs,
    /// What they need there.
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Image, such as nginx:1.27 or registry.example:5000/web, and what runs instead of its command;
    /// the word `host` is no image: COMMAND runs from the node's own file system
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND [ARG]…]"
    )]
    pub(crate) image_and_command: Vec<String>,
}

/// `weft service update`
#[derive(Debug, Args)]
pub(crate) struct ServiceUpdateArgs {
    /// Number of tasks, as `service scale` changes it
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// Tasks of a replicated job at one time
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent: Option<u32>,
    /// Port to publish, as for `service create`; may be repeated
    #[arg(long, value_name = "PORT", value_parser = parse_publish)]
    pub(crate) publish_add: Vec<PortList>,
    /// Published port to take back, by its target: TARGET[/tcp|udp], or as it was published; may
    /// be repeated
    #[arg(long, value_name = "PORT", value_parser = parse_publish)]
    pub(crate) publish_rm: Vec<PortList>,
    /// How connections find a replica.
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    /// Let `network connect` on workers make replicas and take its names
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) attach: Option<bool>,
    /// What its tasks are.
    #[command(flatten)]
    pub(crate) change: TaskChangeArgs,
    /// How they are replaced.
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// How often ended ones are replaced.
    #[command(flatten)]
    pub(crate) attempts: AttemptArgs,
    /// Whether they are healthy, and ready.
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    /// Where they run.
    #[command(flatten)]
    pub(crate) placement: PlacementUpdateArgs,
    /// What they need there.
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// Make the service what it was before its last change, as `service rollback`
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Only print what would change, and how many tasks would be replaced
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Id, name, or unique start of an id
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
}

/// `--mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// A fixed number of tasks.
    Replicated,
    /// One task on each node.
    Global,
    /// Until so many tasks have ended with success.
    ReplicatedJob,
    /// One task on each node, until it has ended with success.
    GlobalJob,
}

/// `weft service ps`
#[derive(Debug, Args)]
pub(crate) struct ServicePsArgs {
    /// Id, name, or unique start of an id
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) refs: Vec<String>,
    /// How.
    #[command(flatten)]
    pub(crate) list: TaskListArgs,
}

fn parse_scale(text: &str) -> Result<(String, u32), String> {
    let bad = || format!("invalid scale specifier '{text}'; write SERVICE=REPLICAS, such as web=3");
    let (service, count) = text.split_once('=').ok_or_else(bad)?;
    if service.is_empty() {
        return Err(bad());
    }
    let count = count
        .parse()
        .map_err(|_| format!("invalid replicas value {count}: expected a whole number"))?;
    Ok((service.to_owned(), count))
}
