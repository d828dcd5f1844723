//! The command line of `weftd`.

use std::path::PathBuf;

use clap::Parser;

use super::{Origin, Setting};

/// Flags of `weftd`. Values are kept as text, so that mistakes in flags and in the file are
/// reported together.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "weftd",
    version,
    about = "The weft agent: overlay networks, routing mesh and DNS of one node",
    after_help = "Every flag but --config is also a key of the file (log-format = \"json\"), --dns-upstream as the list dns-upstreams; flags win. [registries.\"HOST\"] of the file says how registries are reached."
)]
pub(crate) struct Flags {
    /// Name of this node in the cluster [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Identity, desired state and task logs [default: /var/lib/weft]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,

    /// Namespaces and task directories, may vanish at reboot [default: /run/weft]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<String>,

    /// API socket [default: unix://RUN-DIR/weft.sock]
    #[arg(short = 'H', long, value_name = "unix://SOCK")]
    pub(crate) host: Option<String>,

    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Contents and layers of images; agents of one machine may share it
    /// [default: DATA-DIR/images/shared]
    #[arg(long, value_name = "DIR")]
    pub(crate) image_store: Option<String>,

    /// Data plane threads [default: all CPUs]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<String>,

    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,

    /// error, warn, info, debug, trace, or directives like info,weft_dataplane=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,

    /// UDP and TCP port of gossip [default: 7946]
    #[arg(long, value_name = "PORT")]
    pub(crate) gossip_port: Option<String>,

    /// Front end of published ports: `frame` sends packets from elsewhere to replicas as they are,
    /// with the client's address; `socket` accepts every connection here [default: frame]
    #[arg(long, value_name = "FRONT-END")]
    pub(crate) mesh: Option<String>,

    /// Silence after which datagrams through a virtual address or a published port are forgotten,
    /// as in 90, 90s, 3m, 1h [default: 3m]
    #[arg(long, value_name = "TIME")]
    pub(crate) udp_idle: Option<String>,

    /// How long a worker that ran out of packets looks for more before it sleeps, at most, in
    /// microseconds: it follows the rhythm of the packets and what a wake-up costs here; 0 sleeps at
    /// once, which saves power and costs latency [default: 200]
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) poll: Option<String>,

    /// Whether the kernel may segment TCP together with its VXLAN headers: `on` where a test at the
    /// start passes (Linux 6.17), `auto` where that is also cheaper than UDP_SEGMENT, or `off`
    /// [default: auto]
    #[arg(long, value_name = "auto|on|off")]
    pub(crate) tunnel_offload: Option<String>,

    /// Whether the kernel may carry established TCP flows and exchanges of UDP by itself, once this
    /// process has decided about them: `auto` where its programs can be loaded and pass their test, or
    /// `off` [default: auto]
    #[arg(long, value_name = "auto|off")]
    pub(crate) fast_path: Option<String>,

    /// Class of service (DSCP) of packets to other nodes, or `inherit` that of the packet inside
    /// [default: 0]
    #[arg(long, value_name = "0-63|inherit")]
    pub(crate) dscp: Option<String>,

    /// IPv4 network of weft_gwbridge [default: 172.18.0.0/16, or the next free one]
    #[arg(long, value_name = "CIDR")]
    pub(crate) gwbridge_subnet: Option<String>,

    /// OCI runtime program that runs containers [default: crun or runc, as fits the machine]
    #[arg(long, value_name = "PATH")]
    pub(crate) runtime: Option<String>,

    /// Resolver for names outside the cluster, IP or IP:PORT; repeatable
    /// [default: the host's /etc/resolv.conf]
    #[arg(long = "dns-upstream", value_name = "ADDR")]
    pub(crate) dns_upstreams: Vec<String>,
}

impl Flags {
    /// The flags that were given, in the order of [`super::KEYS`].
    pub(super) fn settings(&self) -> Vec<Setting> {
        let single = [
            ("name", "--name", &self.name),
            ("data-dir", "--data-dir", &self.data_dir),
            ("run-dir", "--run-dir", &self.run_dir),
            ("host", "-H", &self.host),
            ("image-store", "--image-store", &self.image_store),
            ("workers", "--workers", &self.workers),
            ("log-format", "--log-format", &self.log_format),
            ("log-level", "--log-level", &self.log_level),
            ("gossip-port", "--gossip-port", &self.gossip_port),
            ("mesh", "--mesh", &self.mesh),
            ("udp-idle", "--udp-idle", &self.udp_idle),
            ("poll", "--poll", &self.poll),
            ("tunnel-offload", "--tunnel-offload", &self.tunnel_offload),
            ("fast-path", "--fast-path", &self.fast_path),
            ("dscp", "--dscp", &self.dscp),
            (
                "gwbridge-subnet",
                "--gwbridge-subnet",
                &self.gwbridge_subnet,
            ),
            ("runtime", "--runtime", &self.runtime),
        ];
        let mut settings: Vec<Setting> = single
            .into_iter()
            .filter_map(|(key, flag, text)| {
                Some(Setting {
                    key,
                    texts: vec![text.clone()?],
                    origin: Origin::Flag(flag),
                })
            })
            .collect();
        if !self.dns_upstreams.is_empty() {
            settings.push(Setting {
                key: "dns-upstreams",
                texts: self.dns_upstreams.clone(),
                origin: Origin::Flag("--dns-upstream"),
            });
        }
        settings
    }
}
