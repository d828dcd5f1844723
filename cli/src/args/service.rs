//! `weft service`.

use clap::{Args, Subcommand, ValueEnum};
use weft_model::capability;
use weft_model::objects::NetworkAttachmentSpec;

use super::{
    ConnectionArgs, FilterArgs, FormatArgs, InspectArgs, LogsArgs, PortList, TaskListArgs,
    parse_attachment, parse_duration_ms, parse_key_value, parse_publish,
};

/// `weft service …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Start a service
    Create(ServiceCreateArgs),
    /// List services
    Ls {
        /// Which: keys are id, name and mode.
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
    /// Change published ports, how connections find a replica, and the number of replicas
    Update(ServiceUpdateArgs),
    /// Change the number of replicas
    Scale {
        /// Do not wait until the tasks run
        #[arg(short, long)]
        detach: bool,
        /// Service and wanted number
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = parse_scale)]
        targets: Vec<(String, u32)>,
    },
    /// Stop services and remove them
    Rm {
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "SERVICE")]
        refs: Vec<String>,
    },
}

/// `weft service create`
#[derive(Debug, Args)]
pub(crate) struct ServiceCreateArgs {
    /// Name of the service, a DNS label (default: two words by chance)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Number of tasks (default 1)
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// `replicated` or `global`
    #[arg(long, default_value = "replicated")]
    pub(crate) mode: ModeArg,
    /// Published ports, short or long syntax.
    #[arg(short, long = "publish", value_name = "PORT", value_parser = parse_publish, help = "Published port: [IP:][PUBLISHED:]TARGET[/tcp|udp], ranges allowed, or published=P,target=T,protocol=tcp,mode=ingress|host; may be repeated")]
    pub(crate) publish: Vec<PortList>,
    /// Network to join: NAME[,alias=A]… or name=NAME,alias=A; may be repeated
    #[arg(long = "network", value_name = "NETWORK", value_parser = parse_attachment)]
    pub(crate) networks: Vec<NetworkAttachmentSpec>,
    /// Host name that the tasks see, such as web-{{.Task.Slot}} (default: the task's name)
    #[arg(long, value_name = "HOSTNAME")]
    pub(crate) hostname: Option<String>,
    /// Environment variable KEY=VALUE, the value perhaps a template ({{.Task.Slot}}); may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = parse_env)]
    pub(crate) env: Vec<String>,
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
    /// When finished tasks are replaced
    #[arg(long, default_value = "any")]
    pub(crate) restart_condition: RestartArg,
    /// Time between failure and replacement
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration_ms)]
    pub(crate) restart_delay: u64,
    /// Time between SIGTERM and SIGKILL
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
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The word `host` (no image: COMMAND from the node's own file system), then the command
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
}

/// `--endpoint-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndpointModeArg {
    /// One virtual address.
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// `--restart-condition`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartArg {
    /// Always.
    Any,
    /// When the task ended with an error.
    OnFailure,
    /// Never.
    None,
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

/// `KEY=VALUE`, or `KEY` for the value that this process has.
pub(super) fn parse_env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err("invalid environment variable: the name is empty".into()),
        None => match std::env::var(text) {
            Ok(value) => Ok(format!("{text}={value}")),
            Err(_) => Err(format!(
                "environment variable {text} is not set here; write {text}=VALUE"
            )),
        },
    }
}

fn parse_capability(text: &str) -> Result<String, String> {
    capability::canonical(text).map_err(|error| error.to_string())
}

/// As `docker run` spells it: alone, or with `=` or `:` and a truth value.
fn parse_no_new_privileges(text: &str) -> Result<bool, String> {
    let value = text.strip_prefix("no-new-privileges");
    match value.map(|value| value.trim_start_matches(['=', ':'])) {
        Some("" | "true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(format!(
            "invalid security option {text:?}: there is no-new-privileges, no-new-privileges=true and no-new-privileges=false"
        )),
    }
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
