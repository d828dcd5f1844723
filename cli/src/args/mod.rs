//! The command line: what `weft` accepts, before anything is done.

mod attachment;
mod connections;
mod container;
mod container_update;
mod duration;
pub(crate) mod env;
mod events;
mod exec;
mod filter;
mod health;
mod image;
mod logs;
mod mesh;
mod moment;
mod mount;
mod network;
mod node;
mod payload;
mod payload_file;
mod ping;
mod placement;
mod publish;
mod service;
mod stack;
mod swarm;
mod task;
mod tasks;
mod update;
mod visualizer;
mod volume;

pub(crate) use attachment::parse_attachment;
pub(crate) use connections::ConnectionArgs;
pub(crate) use container::{ContainerArgs, ContainerListArgs, RegistryArgs};
pub(crate) use container_update::ContainerUpdateArgs;
pub(crate) use duration::parse_duration_ms;
pub(crate) use events::EventsArgs;
pub(crate) use exec::ExecArgs;
pub(crate) use filter::FilterArgs;
pub(crate) use health::{AttemptArgs, HealthArgs};
pub(crate) use image::{
    ImageCommand, ImageInspectArgs, ImageListArgs, ImageLoadArgs, ImagePruneArgs, ImagePullArgs,
    ImageRemoveArgs, ImageSaveArgs,
};
pub(crate) use logs::{LogsArgs, Tail};
pub(crate) use mesh::{MeshCommand, WhyArgs};
pub(crate) use moment::parse_moment;
pub(crate) use mount::{change_mounts, parse_mount};
pub(crate) use network::{NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, PeerCommand};
pub(crate) use node::{NodeCommand, NodeUpdateArgs};
pub(crate) use payload::{PayloadCommand, PayloadCreateArgs};
pub(crate) use payload_file::{PayloadArgs, PayloadChangeArgs};
pub(crate) use ping::PingArgs;
pub(crate) use placement::{PlacementArgs, PlacementUpdateArgs, ResourceArgs};
pub(crate) use publish::{PortList, parse_publish};
pub(crate) use service::{
    ModeArg, RollbackArgs, ServiceCommand, ServiceCreateArgs, ServiceUpdateArgs,
};
pub(crate) use stack::{
    ResolveImageArg, StackCommand, StackConfigArgs, StackDeployArgs, StackPsArgs, StackRmArgs,
    StackServicesArgs,
};
pub(crate) use swarm::{SwarmInitArgs, SwarmJoinArgs};
pub(crate) use tasks::{TaskCommand, TaskListArgs};
pub(crate) use update::{PolicyArgs, TaskChangeArgs};
pub(crate) use visualizer::{Listen, VisualizerArgs};
pub(crate) use volume::{NodesArgs, VolumeCommand, VolumeCreateArgs, VolumePruneArgs};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weft_model::api::CaptureDir;
use weft_model::objects::Role;

/// Where `weftd` listens when nobody says otherwise.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/weft/weft.sock";

/// The network of a Linux cluster, spelled like docker's.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
pub struct Cli {
    /// Socket of the node to talk to [default: unix:///run/weft/weft.sock]
    // No default for the parser: its texts about wrong usage would name the option.
    #[arg(short = 'H', value_name = "unix://SOCKET", global = true)]
    host: Option<String>,
    /// The same, before the command: behind `service create`, --host is a line of /etc/hosts
    // As docker has it.
    #[arg(long = "host", value_name = "unix://SOCKET", conflicts_with = "host")]
    long_host: Option<String>,
    /// Show what this manager last knew of the swarm, also while it has no leader
    #[arg(long, global = true)]
    pub(crate) stale: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The socket: of `-H` or `--host`, else of `$WEFT_HOST`, else [`DEFAULT_HOST`]. An empty one, as a
    /// script may leave it, is none.
    #[must_use]
    pub(crate) fn host(&self) -> String {
        let option = self.host.as_ref().or(self.long_host.as_ref());
        host_of(option.cloned(), std::env::var("WEFT_HOST").ok())
    }
}

fn host_of(option: Option<String>, variable: Option<String>) -> String {
    let given = option.or(variable).filter(|host| !host.is_empty());
    given.unwrap_or_else(|| DEFAULT_HOST.to_owned())
}

/// First word of a command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, join and leave a swarm
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Show the nodes of the swarm
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make networks and attach things to them
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Run services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Check, deploy, show and remove stacks, which are files of services
    #[command(subcommand)]
    Stack(StackCommand),
    /// Keep secrets, which tasks see as files and nobody is shown again
    #[command(subcommand)]
    Secret(PayloadCommand),
    /// Keep configs, which tasks see as files
    #[command(subcommand)]
    Config(PayloadCommand),
    /// Make, show and remove volumes of nodes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Show tasks of services
    #[command(subcommand)]
    Task(TaskCommand),
    /// Get, show and remove images of this node
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run a program beside that of a task, inside of its walls, on whichever node that is
    Exec(ExecArgs),
    /// Show what changes in the swarm, as it does
    Events(EventsArgs),
    /// Show how this node accepts published ports
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Tell who answers a published port or a name on this node, and why not
    Why(WhyArgs),
    /// Show what this node is
    Info(FormatArgs),
    /// Show the versions of this program and of the node's weftd
    Version(VersionArgs),
    /// Print what makes a shell complete commands: see --help
    Completion(CompletionArgs),
    /// Show which packets were dropped on this node, and why
    Drops(DropsArgs),
    /// Check what this node has, uses and lacks; exit status 1 when something does not work
    Doctor(DoctorArgs),
    /// Send packets to another node as overlay networks do, and tell where they are lost
    Ping(PingArgs),
    /// Copy frames of this node, dropped ones with the reason, into a file for Wireshark
    Capture(CaptureArgs),
    /// Show nodes and their tasks on a page for browsers, live
    Visualizer(VisualizerArgs),
    /// Build a cluster in network namespaces of this machine
    #[command(subcommand)]
    Lab(LabCommand),
    /// Start nodes on this machine and walk through everything with real traffic
    Demo(DemoArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// Folder, such as /usr/local/share/man/man1; made where it is not there
        dir: PathBuf,
    },
}

impl Command {
    /// True of commands that show nodes, networks, services, tasks, secrets or configs, or write a
    /// backup, and change nothing.
    #[must_use]
    pub(crate) fn shows_the_swarm(&self) -> bool {
        match self {
            Self::Swarm(command) => match command {
                SwarmCommand::Backup { .. } => true,
                SwarmCommand::Ca(args) => !args.rotate,
                _ => false,
            },
            Self::Node(command) => matches!(
                command,
                NodeCommand::Ls { .. } | NodeCommand::Ps(_) | NodeCommand::Inspect(_)
            ),
            Self::Network(command) => matches!(
                command,
                NetworkCommand::Ls { .. }
                    | NetworkCommand::Inspect(_)
                    | NetworkCommand::Peer(PeerCommand::Ls { .. })
            ),
            Self::Service(command) => matches!(
                command,
                ServiceCommand::Ls { .. } | ServiceCommand::Ps(_) | ServiceCommand::Inspect(_)
            ),
            Self::Secret(command) | Self::Config(command) => command.only_shows(),
            Self::Stack(command) => matches!(
                command,
                StackCommand::Ls { .. } | StackCommand::Ps(_) | StackCommand::Services(_)
            ),
            Self::Task(TaskCommand::Inspect(_)) => true,
            _ => false,
        }
    }
}

/// How to print.
#[derive(Debug, Clone, Default, Args)]
pub struct FormatArgs {
    /// `table`, `json`, `table TEMPLATE`, or a Go template such as '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// `weft swarm …`
#[derive(Debug, Subcommand)]
pub(crate) enum SwarmCommand {
    /// Make a swarm, with this node as its first manager
    Init(SwarmInitArgs),
    /// Join a swarm
    Join(SwarmJoinArgs),
    /// Print the command that joins a node
    JoinToken(JoinTokenArgs),
    /// Print the root certificate of the swarm, or replace it
    Ca(SwarmCaArgs),
    /// Change settings of the swarm
    Update(SwarmUpdateArgs),
    /// Unlock the manager of this node: the key is asked for, or read from standard input
    Unlock,
    /// Print the key that unlocks managers
    UnlockKey(UnlockKeyArgs),
    /// Write the state of the swarm and its certificate authority into a file
    Backup {
        /// The file; it is readable by its owner only
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Make this node the only manager of a swarm that `weft swarm backup` has written
    Restore(RestoreArgs),
    /// Leave the swarm
    Leave {
        /// Leave as a manager, and even as the last one, which ends the swarm
        #[arg(short, long)]
        force: bool,
        /// Become a worker first, where the managers that stay are a quorum
        #[arg(long, conflicts_with = "force")]
        demote: bool,
    },
}

/// `weft swarm unlock-key`
#[derive(Debug, Args)]
pub(crate) struct UnlockKeyArgs {
    /// Print only the key
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new key, which managers that run take over; the old one still opens managers that were
    /// away, until they are back, and backups of before
    #[arg(long)]
    pub(crate) rotate: bool,
}

/// `weft swarm restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// What `weft swarm backup` wrote
    pub(crate) file: PathBuf,
    /// Address or interface that other nodes reach this one at, with an optional port; that of an
    /// earlier manager has the nodes come back by themselves
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise_addr: Option<String>,
    /// Address or interface that the manager listens on, with an optional port
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_addr: Option<String>,
    /// Address or interface of the VXLAN data path
    #[arg(long, value_name = "ADDR")]
    pub(crate) data_path_addr: Option<String>,
}

/// `weft swarm join-token`
#[derive(Debug, Args)]
pub(crate) struct JoinTokenArgs {
    /// Print only the token
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new token; the old one stops working
    #[arg(long)]
    pub(crate) rotate: bool,
    /// Role that the token gives
    pub(crate) role: RoleArg,
}

/// `weft swarm ca`
#[derive(Debug, Args)]
pub(crate) struct SwarmCaArgs {
    /// Replace the root certificate: every node gets a new certificate, and join tokens are others
    #[arg(long)]
    pub(crate) rotate: bool,
    /// Do not wait until it is replaced
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Life of node certificates (default 2160h)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) cert_expiry: Option<u64>,
    /// File with the new root certificate (PEM); a new one is made without it
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// File with the key of the new root certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_key: Option<PathBuf>,
}

/// `weft swarm update`
#[derive(Debug, Args)]
pub(crate) struct SwarmUpdateArgs {
    /// Lock what managers keep on disk: they wait for a key when they start again
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) autolock: Option<bool>,
    /// Life of node certificates, from the next ones on (default 2160h)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) cert_expiry: Option<u64>,
    /// Time between two heartbeats of a node (default 1s, and up to 5s above 200 nodes)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) dispatcher_heartbeat: Option<u64>,
    /// Finished tasks that are remembered for each slot (default 5)
    #[arg(long, value_name = "N")]
    pub(crate) task_history_limit: Option<u32>,
}

/// Role on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Runs tasks.
    Worker,
    /// Holds the desired state, and runs tasks.
    Manager,
}

impl RoleArg {
    /// As in paths and messages.
    #[must_use]
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Worker => Self::Worker,
            RoleArg::Manager => Self::Manager,
        }
    }
}

/// Objects to show.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Id, name, or unique start of an id
    #[arg(required = true, value_name = "NAME|ID")]
    pub(crate) refs: Vec<String>,
    /// `table`, `json`, or a Go template such as '{{.ID}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// For people
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    pretty: bool,
}

impl InspectArgs {
    /// For people, in a form of its own where there is one.
    #[must_use]
    pub(crate) fn pretty(&self) -> bool {
        self.pretty
    }

    /// How to print.
    #[must_use]
    pub(crate) fn format(&self) -> FormatArgs {
        let pretty = self.pretty.then(|| "table".to_owned());
        FormatArgs {
            format: self.format.clone().or(pretty),
            quiet: self.quiet,
        }
    }
}

/// `weft version`
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// `json`, or a Go template such as '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `weft completion`
#[derive(Debug, Args)]
#[command(after_help = "\
bash:  weft completion bash > /etc/bash_completion.d/weft
zsh:   weft completion zsh > \"${fpath[1]}/_weft\"
fish:  weft completion fish > ~/.config/fish/completions/weft.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: ShellArg,
}

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellArg {
    /// GNU bash, with bash-completion.
    Bash,
    /// Z shell.
    Zsh,
    /// Friendly interactive shell.
    Fish,
}

/// `weft drops`
#[derive(Debug, Args)]
pub(crate) struct DropsArgs {
    /// Say on which port
    #[arg(long)]
    pub(crate) by_port: bool,
    /// Drops of one port only: an endpoint's name, `mesh` or `underlay`
    #[arg(long)]
    pub(crate) port: Option<String>,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `weft doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also show what is as it should be
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How: `json`, `table` and templates have every check.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `weft capture`
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// Frames of one port only: an endpoint's name, `mesh` or `underlay`
    #[arg(long)]
    pub(crate) port: Option<String>,
    /// Only frames into sandboxes, out of them, or dropped
    #[arg(long, value_parser = capture_dir, value_name = "in|out|drop")]
    pub(crate) dir: Option<CaptureDir>,
    /// End after so many frames; otherwise Ctrl-C ends it
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Bytes to keep of each frame; default: all, super-frames whole
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(14..))]
    pub(crate) snaplen: Option<u32>,
    /// Where to, as pcapng; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: String,
}

fn capture_dir(text: &str) -> Result<CaptureDir, String> {
    [CaptureDir::In, CaptureDir::Out, CaptureDir::Drop]
        .into_iter()
        .find(|dir| dir.as_str() == text)
        .ok_or_else(|| "expected in, out or drop".to_owned())
}

/// `weft lab …`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
An agent that is killed (SIGKILL) or crashes is started again by its node, as systemd does with
Restart=always. One that is asked to end (SIGTERM, `weft lab stop`) stays down, and its node with
it, until `weft lab start`, which starts the node as after a power cut: what is on its disk is still
there, what ran on it is not.")]
pub(crate) enum LabCommand {
    /// Start nodes; they are not part of a swarm yet
    Up {
        /// How many
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=200))]
        nodes: u8,
        /// Join them by IPv6 alone
        #[arg(long)]
        ipv6: bool,
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// More arguments for every weftd; may be repeated
        #[arg(long = "weftd-arg", value_name = "ARG", allow_hyphen_values = true)]
        weftd_args: Vec<String>,
    },
    /// Run a command on a node
    Exec {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// Node, such as `node1`, or `outside`
        node: String,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show what runs
    Status {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List the labs of this machine
    Ls {
        /// Which: the key is name.
        #[command(flatten)]
        filter: FilterArgs,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Switch a node off: its weftd is asked to end, and everything on the node ends with it
    Stop {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// Node, such as `node1`
        node: String,
    },
    /// Switch a node on again that was stopped, or whose weftd has ended
    Start {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// Node, such as `node1`
        node: String,
    },
    /// Stop the lab and remove everything that it made
    Down {
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
    },
}

/// `weft demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Three managers and two workers: who leads, what goes on without a leader, and how they leave
    #[arg(long)]
    pub(crate) managers: bool,
    /// A team's first day: services are scaled, drained, updated and rolled back while clients ask
    #[arg(long, conflicts_with = "managers")]
    pub(crate) day: bool,
    /// Containers: a stack of six services is deployed, changed and removed, with secrets that rotate
    #[arg(long, conflicts_with_all = ["managers", "day"])]
    pub(crate) stack: bool,
    /// Leave the cluster up and print how to talk to it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    pub(crate) name: String,
    /// Keep the output of the nodes there, instead of removing it
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
}

fn parse_key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        None if !text.is_empty() => Ok((text.to_owned(), String::new())),
        _ => Err(format!("invalid key=value pair {text:?}: the key is empty")),
    }
}

#[cfg(test)]
mod tests;
