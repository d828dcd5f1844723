//! Configuration of `weftd`: flags, a TOML file, defaults; flags win.
//!
//! Texts from flags and file meet in one table of [`Setting`]s; then every value is parsed, and
//! all errors are reported together, each with the flag or the file and line that it came from.

mod file;
mod flags;
mod registries;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use weft_dataplane::TunnelOffload;
use weft_wire::ecn::Dscp;

pub(crate) use flags::Flags;
pub(crate) use registries::Registry;

/// Exit status for wrong usage and wrong configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Default of `--data-dir`.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/weft";
/// Default of `--run-dir`.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/weft";
/// Default gossip port, as Swarm's.
pub(crate) const DEFAULT_GOSSIP_PORT: u16 = 7946;

/// Default of `--udp-idle`; RFC 4787 section 4.3 asks for no less than two minutes.
pub(crate) const DEFAULT_UDP_IDLE: Duration = Duration::from_secs(180);

/// Default of `--poll`: a limit, which few machines come to.
pub(crate) const DEFAULT_POLL: Duration = Duration::from_micros(200);

/// Everything that can be set before a node starts. None of it can be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// `name`: what the node is called in the cluster. Default: the host name.
    pub(crate) name: String,
    /// `data-dir`: identity, desired state, task logs. Must outlive reboots. Default
    /// `/var/lib/weft`; one running `weftd` per directory.
    pub(crate) data_dir: PathBuf,
    /// `run-dir`: namespaces, task directories. May vanish at reboot. Default `/run/weft`.
    pub(crate) run_dir: PathBuf,
    /// `host`: path of the API socket. Default: `weft.sock` in `run_dir`.
    pub(crate) socket: PathBuf,
    /// `image-store`: contents and layers of images; nodes of one machine may share it. Default
    /// `images/shared` in `data_dir`.
    pub(crate) image_store: PathBuf,
    /// `workers`: data plane threads. Default: all CPUs; 1 to 256.
    pub(crate) workers: NonZeroUsize,
    /// `log-format`. Default text.
    pub(crate) log_format: LogFormat,
    /// `log-level`: a level or tracing directives (`info,weft_dataplane=debug`). Default `info`.
    pub(crate) log_level: String,
    /// `gossip-port`: UDP and TCP. Default 7946.
    pub(crate) gossip_port: u16,
    /// `mesh`: which front end accepts published ports. Default `frame`.
    pub(crate) mesh: MeshFrontEnd,
    /// `udp-idle`: how long an exchange of datagrams through a virtual address or a published port
    /// may be silent before it is forgotten, 1 second to 24 hours. Default 3 minutes. Datagrams
    /// that nobody answers are forgotten after 30 seconds at most.
    pub(crate) udp_idle: Duration,
    /// `poll`: how long a worker that ran out of packets looks for more before it sleeps, at most, 0
    /// to 1000 microseconds. Default 200.
    pub(crate) poll: Duration,
    /// `tunnel-offload`: `auto` lets the kernel segment TCP together with its VXLAN headers where a
    /// test at the start passes and finds that cheaper, `on` where it passes, `off` never. Default
    /// `auto`.
    pub(crate) tunnel_offload: TunnelOffload,
    /// `fast-path`: `auto` leaves established flows to the kernel where its programs can be loaded
    /// and pass their test, `off` carries everything in this process. Default `auto`.
    pub(crate) fast_path: bool,
    /// `dscp`: class of service of packets to other nodes, 0 to 63, or that of the packet inside.
    /// Default 0. Marks of congestion (ECN) are always copied.
    pub(crate) dscp: Dscp,
    /// `gwbridge-subnet`: IPv4 network of `weft_gwbridge`; its first address is the bridge's own.
    /// Default: 172.18.0.0/16, or the next free private range if that is taken.
    pub(crate) gwbridge_subnet: Option<Ipv4Net>,
    /// `runtime`: OCI runtime program that runs containers. Default, also of an empty text: `crun` or
    /// `runc`, whichever fits the machine's control groups.
    pub(crate) runtime: Option<PathBuf>,
    /// `dns-upstreams`: resolvers for names outside the cluster. Default: those of the host's
    /// `/etc/resolv.conf`.
    pub(crate) dns_upstreams: Vec<SocketAddr>,
    /// `[registries."HOST"]`, of the file alone: how registries are reached. Others by HTTPS.
    pub(crate) registries: BTreeMap<String, Registry>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// Which front end accepts published ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MeshFrontEnd {
    /// Packets from elsewhere go to the balancer as they are; replicas see their client's address.
    #[default]
    Frame,
    /// A real listener on every published port.
    Socket,
}

/// What defaults depend on; given by the caller so that tests need no particular machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// The kernel's host name.
    pub(crate) hostname: String,
    /// CPUs that this process may use.
    pub(crate) cpus: NonZeroUsize,
}

impl Machine {
    /// The machine that this process runs on.
    #[must_use]
    pub(crate) fn this() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            hostname: hostname.trim().to_owned(),
            cpus: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag, as it is spelled.
    Flag(&'static str),
    /// A line of the file, from 1.
    Line(PathBuf, usize),
    /// The file as a whole.
    File(PathBuf),
    /// A default of this machine.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => write!(f, "default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) origin: Origin,
    /// What, and what would be right.
    pub(crate) message: String,
}

/// Everything that is wrong with a configuration; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConfigError {
    /// In the order of the settings; file problems first.
    pub(crate) problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "the configuration has an error:")?,
            n => write!(f, "the configuration has {n} errors:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {}: {}", problem.origin, problem.message)?;
        }
        write!(
            f,
            "\nNothing was started. `weftd --help` lists every setting."
        )
    }
}

/// Names of all settings, as in the file. `-` and `_` mean the same there.
pub(crate) const KEYS: [&str; 18] = [
    "name",
    "data-dir",
    "run-dir",
    "host",
    "image-store",
    "workers",
    "log-format",
    "log-level",
    "gossip-port",
    "mesh",
    "udp-idle",
    "poll",
    "tunnel-offload",
    "fast-path",
    "dscp",
    "gwbridge-subnet",
    "runtime",
    "dns-upstreams",
];

/// One value as text, before it is parsed. Lists have one text for each element.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    key: &'static str,
    texts: Vec<String>,
    origin: Origin,
}

impl Config {
    /// Reads the file of `--config`, if any, and puts flags over it.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub(crate) fn load(flags: &Flags, machine: &Machine) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut settings = flags.settings();
        let mut registries = BTreeMap::new();
        if let Some(path) = &flags.config {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    let told = file::parse(path, &text, &mut problems);
                    settings.extend(told.settings);
                    registries = told.registries;
                }
                Err(error) => problems.push(Problem {
                    origin: Origin::File(path.clone()),
                    message: format!("cannot read the file of --config: {error}"),
                }),
            }
        }
        Self::resolve(&settings, registries, machine, problems)
    }

    /// `settings` holds flags first: the first one of a key decides.
    fn resolve(
        settings: &[Setting],
        registries: BTreeMap<String, Registry>,
        machine: &Machine,
        problems: Vec<Problem>,
    ) -> Result<Self, ConfigError> {
        let mut read = value::Reader::new(settings, problems);
        let data_dir = read
            .one("data-dir", value::directory)
            .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let run_dir = read
            .one("run-dir", value::directory)
            .unwrap_or_else(|| DEFAULT_RUN_DIR.into());
        let name = match read.one("name", value::node_name) {
            Some(name) => name,
            None if read.has("name") => String::new(),
            None => read.default_name(&machine.hostname),
        };
        let config = Self {
            name,
            image_store: read
                .one("image-store", value::directory)
                .unwrap_or_else(|| data_dir.join("images").join("shared")),
            data_dir,
            socket: read
                .one("host", value::socket)
                .unwrap_or_else(|| run_dir.join("weft.sock")),
            run_dir,
            workers: read.one("workers", value::workers).unwrap_or(machine.cpus),
            log_format: read
                .one("log-format", value::log_format)
                .unwrap_or_default(),
            log_level: read
                .one("log-level", value::log_level)
                .unwrap_or_else(|| "info".to_owned()),
            gossip_port: read
                .one("gossip-port", value::port)
                .unwrap_or(DEFAULT_GOSSIP_PORT),
            mesh: read.one("mesh", value::mesh).unwrap_or_default(),
            udp_idle: read
                .one("udp-idle", value::udp_idle)
                .unwrap_or(DEFAULT_UDP_IDLE),
            poll: read.one("poll", value::poll).unwrap_or(DEFAULT_POLL),
            tunnel_offload: read
                .one("tunnel-offload", value::tunnel_offload)
                .unwrap_or_default(),
            fast_path: read.one("fast-path", value::fast_path).unwrap_or(true),
            dscp: read.one("dscp", value::dscp).unwrap_or_default(),
            gwbridge_subnet: read.one("gwbridge-subnet", value::gwbridge_subnet),
            runtime: read.one("runtime", value::program).flatten(),
            dns_upstreams: read.each("dns-upstreams", value::dns_upstream),
            registries,
        };
        let problems = read.into_problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError { problems })
        }
    }
}

/// Port 53 of an address, or the port that was given.
fn with_dns_port(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 53)
}

#[cfg(test)]
mod tests;
