//! The keys of a stack file: what each holds, and what a cluster makes of it. This table is what a file is
//! held against; docker has a JSON schema for each version instead.

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A string; a number or a boolean is taken as it is written.
    Text,
    /// A string or a number, each as it is written.
    Amount,
    /// A string, a number, or null: a value of a variable, a label, an option.
    Variable,
    Whole,
    Number,
    Flag,
    List(&'static Self),
    /// A mapping with these keys and no others.
    Keys(&'static [Key]),
    /// A mapping with any keys.
    Named(&'static Self),
    /// A mapping of variables, or a list of `K=V`.
    Pairs,
    /// One of several that are told apart by being a scalar, a list or a mapping.
    Either(&'static [Self]),
    /// Or nothing.
    OrNull(&'static Self),
    /// Anything: nobody looks.
    Any,
}

/// A key of a mapping.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) fate: Fate,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Used,
    /// Used here and refused by `docker stack deploy`.
    Extra,
    /// Ignored with docker's one warning for all.
    Unsupported,
    /// Ignored with a reason of docker's.
    Deprecated(&'static str),
    /// Refused with docker's reason.
    Forbidden(&'static str),
    /// Of the Compose Specification, without a meaning in a cluster: what to write instead.
    Foreign(&'static str),
}

const fn used(name: &'static str, kind: Kind) -> Key {
    let fate = Fate::Used;
    Key { name, kind, fate }
}

const fn extra(name: &'static str, kind: Kind) -> Key {
    let fate = Fate::Extra;
    Key { name, kind, fate }
}

const fn unsupported(name: &'static str) -> Key {
    let (kind, fate) = (Any, Fate::Unsupported);
    Key { name, kind, fate }
}

const fn deprecated(name: &'static str, why: &'static str) -> Key {
    let (kind, fate) = (Any, Fate::Deprecated(why));
    Key { name, kind, fate }
}

const fn forbidden(name: &'static str, why: &'static str) -> Key {
    let (kind, fate) = (Any, Fate::Forbidden(why));
    Key { name, kind, fate }
}

const fn foreign(name: &'static str, instead: &'static str) -> Key {
    let (kind, fate) = (Any, Fate::Foreign(instead));
    Key { name, kind, fate }
}

use Kind::{
    Amount, Any, Either, Flag, Keys, List, Named, Number, OrNull, Pairs, Text, Variable, Whole,
};

const TEXTS: Kind = List(&Text);
const WORDS: Kind = Either(&[Text, TEXTS]);
const OPTIONS: Kind = Named(&Variable);

/// The top of a file.
pub(crate) const FILE: Kind = Keys(TOP);

const TOP: &[Key] = &[
    used("version", Amount),
    used("name", Text),
    used("services", Named(&Keys(SERVICE))),
    used("networks", Named(&OrNull(&Keys(NETWORK)))),
    used("volumes", Named(&OrNull(&Keys(VOLUME)))),
    used("secrets", Named(&Keys(SECRET))),
    used("configs", Named(&Keys(CONFIG))),
    foreign("include", "give each file with -c"),
    foreign("models", "run the model as a service"),
];

const LIMITED: &str = "Set resource limits using deploy.resources";

const SERVICE: &[Key] = &[
    used("image", Text),
    used("command", WORDS),
    used("entrypoint", WORDS),
    used("environment", Pairs),
    used(
        "env_file",
        Either(&[Text, List(&Either(&[Text, Keys(ENV_FILE)]))]),
    ),
    used("labels", Pairs),
    used("hostname", Text),
    used("user", Amount),
    used("working_dir", Text),
    used("read_only", Flag),
    used("tty", Flag),
    used("stdin_open", Flag),
    used("init", Flag),
    used("stop_signal", Amount),
    used("stop_grace_period", Text),
    used("sysctls", Pairs),
    used("ulimits", Named(&Either(&[Whole, Keys(ULIMIT)]))),
    used("cap_add", TEXTS),
    used("cap_drop", TEXTS),
    used("oom_score_adj", Whole),
    used("dns", WORDS),
    used("dns_search", WORDS),
    extra("dns_opt", WORDS),
    used("extra_hosts", Pairs),
    extra("group_add", List(&Amount)),
    used("logging", Keys(LOGGING)),
    used("healthcheck", Keys(HEALTHCHECK)),
    used("isolation", Text),
    used("credential_spec", Keys(CREDENTIAL_SPEC)),
    used(
        "networks",
        Either(&[TEXTS, Named(&OrNull(&Keys(ATTACHMENT)))]),
    ),
    used("ports", List(&Either(&[Amount, Keys(PORT)]))),
    used("volumes", List(&Either(&[Text, Keys(MOUNT)]))),
    used("tmpfs", WORDS),
    used("secrets", List(&Either(&[Text, Keys(GRANT)]))),
    used("configs", List(&Either(&[Text, Keys(GRANT)]))),
    used("deploy", Keys(DEPLOY)),
    used("depends_on", Either(&[TEXTS, Named(&Keys(DEPENDENCY))])),
    used("restart", Text),
    unsupported("build"),
    unsupported("cgroupns_mode"),
    unsupported("cgroup_parent"),
    unsupported("devices"),
    unsupported("domainname"),
    unsupported("external_links"),
    unsupported("ipc"),
    unsupported("links"),
    unsupported("mac_address"),
    unsupported("network_mode"),
    unsupported("pid"),
    unsupported("privileged"),
    unsupported("security_opt"),
    unsupported("shm_size"),
    unsupported("userns_mode"),
    deprecated(
        "container_name",
        "Setting the container name is not supported.",
    ),
    deprecated(
        "expose",
        "Exposing ports is unnecessary - services on the same network can access each other's \
         containers on any port.",
    ),
    forbidden("extends", "Support for `extends` is not implemented yet."),
    forbidden(
        "volume_driver",
        "Instead of setting the volume driver on the service, define a volume using the top-level \
         `volumes` option and specify the driver there.",
    ),
    forbidden(
        "volumes_from",
        "To share a volume between services, define it using the top-level `volumes` option and \
         reference it from each service that shares it using the service-level `volumes` option.",
    ),
    forbidden("cpu_quota", LIMITED),
    forbidden("cpu_shares", LIMITED),
    forbidden("cpuset", LIMITED),
    forbidden("mem_limit", LIMITED),
    forbidden("memswap_limit", LIMITED),
    foreign("cpus", "write deploy.resources.limits.cpus"),
    foreign("cpu_count", "write deploy.resources.limits.cpus"),
    foreign("cpu_percent", "write deploy.resources.limits.cpus"),
    foreign("cpu_period", "write deploy.resources.limits.cpus"),
    foreign("cpu_rt_period", "write deploy.resources.limits.cpus"),
    foreign("cpu_rt_runtime", "write deploy.resources.limits.cpus"),
    foreign(
        "mem_reservation",
        "write deploy.resources.reservations.memory",
    ),
    foreign("mem_swappiness", "set it on the nodes"),
    foreign("oom_kill_disable", "write deploy.resources.limits.memory"),
    foreign("pids_limit", "write deploy.resources.limits.pids"),
    foreign("scale", "write deploy.replicas"),
    foreign(
        "profiles",
        "put the service into a file of its own, given with -c where it is wanted",
    ),
    foreign(
        "platform",
        "write deploy.placement.constraints: [node.platform.arch == x86_64]",
    ),
    foreign(
        "pull_policy",
        "leave it out: images are pinned when the stack is deployed",
    ),
    foreign(
        "runtime",
        "leave it out: the runtime program is a setting of the node",
    ),
    foreign(
        "device_cgroup_rules",
        "leave it out: tasks get no devices of the node",
    ),
    foreign(
        "gpus",
        "label the nodes that have them, and write deploy.placement.constraints",
    ),
    foreign("blkio_config", "leave it out: disks of nodes differ"),
    foreign("storage_opt", "leave it out: it belongs to the node"),
    foreign(
        "attach",
        "leave it out: a deploy shows no output, `weft service logs` does",
    ),
    foreign("annotations", "write labels"),
    foreign("label_file", "write labels"),
    foreign("post_start", "let the program of the image do it"),
    foreign(
        "pre_stop",
        "let the program of the image do it when it gets its stop signal",
    ),
    foreign("develop", "leave it out: it is for building"),
    foreign("models", "run the model as a service"),
    foreign("provider", "run it as a service"),
    foreign("uts", "write hostname"),
    foreign("use_api_socket", "mount the socket as a volume"),
    foreign(
        "cgroup",
        "leave it out: tasks have a control group of their own",
    ),
];

const ENV_FILE: &[Key] = &[
    extra("path", Text),
    extra("required", Flag),
    foreign("format", "leave it out: lines are NAME=VALUE"),
];

const ULIMIT: &[Key] = &[used("soft", Whole), used("hard", Whole)];

const LOGGING: &[Key] = &[used("driver", Text), used("options", OPTIONS)];

const HEALTHCHECK: &[Key] = &[
    used("test", WORDS),
    used("interval", Text),
    used("timeout", Text),
    used("retries", Whole),
    used("start_period", Text),
    used("start_interval", Text),
    used("disable", Flag),
];

const CREDENTIAL_SPEC: &[Key] = &[
    used("config", Text),
    used("file", Text),
    used("registry", Text),
];

const ADDRESS: &str = "leave it out: addresses of replicas are chosen, and its name stays the same";

const ATTACHMENT: &[Key] = &[
    used("aliases", TEXTS),
    used("driver_opts", OPTIONS),
    foreign("ipv4_address", ADDRESS),
    foreign("ipv6_address", ADDRESS),
    foreign("link_local_ips", ADDRESS),
    foreign("mac_address", ADDRESS),
    foreign(
        "interface_name",
        "leave it out: interfaces are eth0, eth1, …",
    ),
    foreign(
        "priority",
        "leave it out: networks are joined in the order of their names",
    ),
    foreign(
        "gw_priority",
        "leave it out: the way out is the gateway bridge of the node",
    ),
];

const PORT: &[Key] = &[
    used("target", Whole),
    used("published", Whole),
    used("protocol", Text),
    used("mode", Text),
    extra("host_ip", Text),
    extra("name", Text),
    extra("app_protocol", Text),
];

const MOUNT: &[Key] = &[
    used("type", Text),
    used("source", Text),
    used("target", Text),
    used("read_only", Flag),
    used("consistency", Text),
    used("bind", Keys(BIND)),
    used("volume", Keys(MOUNTED_VOLUME)),
    used("tmpfs", Keys(TMPFS)),
    used("image", Keys(IMAGE)),
    foreign("cluster", "leave it out: there are no cluster volumes"),
];

const BIND: &[Key] = &[
    used("propagation", Text),
    used("create_host_path", Flag),
    foreign("selinux", "label the folder on the nodes"),
    foreign(
        "recursive",
        "leave it out: what is mounted below is bound with it",
    ),
];

const MOUNTED_VOLUME: &[Key] = &[
    used("nocopy", Flag),
    extra("subpath", Text),
    foreign(
        "labels",
        "write them at the volume, below `volumes` at the top",
    ),
];

const TMPFS: &[Key] = &[used("size", Amount), extra("mode", Whole)];

const IMAGE: &[Key] = &[foreign(
    "subpath",
    "copy what is wanted into the image of the service",
)];

const GRANT: &[Key] = &[
    used("source", Text),
    used("target", Text),
    used("uid", Amount),
    used("gid", Amount),
    used("mode", Whole),
];

const DEPENDENCY: &[Key] = &[
    extra("condition", Text),
    extra("restart", Flag),
    extra("required", Flag),
];

const DEPLOY: &[Key] = &[
    used("mode", Text),
    used("replicas", Whole),
    used("labels", Pairs),
    used("endpoint_mode", Text),
    used("placement", Keys(PLACEMENT)),
    used("resources", Keys(RESOURCES)),
    used("restart_policy", Keys(RESTART_POLICY)),
    used("update_config", Keys(UPDATE_CONFIG)),
    used("rollback_config", Keys(UPDATE_CONFIG)),
];

const PLACEMENT: &[Key] = &[
    used("constraints", TEXTS),
    used("preferences", List(&Keys(PREFERENCE))),
    used("max_replicas_per_node", Whole),
];

const PREFERENCE: &[Key] = &[used("spread", Text)];

const RESOURCES: &[Key] = &[
    used("limits", Keys(LIMITS)),
    used("reservations", Keys(RESERVATIONS)),
];

const LIMITS: &[Key] = &[
    used("cpus", Text),
    used("memory", Amount),
    used("pids", Whole),
];

const RESERVATIONS: &[Key] = &[
    used("cpus", Text),
    used("memory", Amount),
    used("generic_resources", List(&Keys(GENERIC))),
    foreign(
        "devices",
        "label the nodes that have them, and write deploy.placement.constraints",
    ),
];

const GENERIC: &[Key] = &[used("discrete_resource_spec", Keys(DISCRETE))];

const DISCRETE: &[Key] = &[used("kind", Text), used("value", Whole)];

const RESTART_POLICY: &[Key] = &[
    used("condition", Text),
    used("delay", Text),
    used("max_attempts", Whole),
    used("window", Text),
];

const UPDATE_CONFIG: &[Key] = &[
    used("parallelism", Whole),
    used("delay", Text),
    used("failure_action", Text),
    used("monitor", Text),
    used("max_failure_ratio", Number),
    used("order", Text),
];

/// `true`, or the form that docker has given up: `external: {name: X}`.
const EXTERNAL: Kind = Either(&[Flag, Keys(EXTERNAL_NAME)]);

const EXTERNAL_NAME: &[Key] = &[used("name", Text)];

const NETWORK: &[Key] = &[
    used("name", Text),
    used("driver", Text),
    used("driver_opts", OPTIONS),
    used("ipam", Keys(IPAM)),
    used("external", EXTERNAL),
    used("internal", Flag),
    used("attachable", Flag),
    used("labels", Pairs),
    extra("enable_ipv6", Flag),
    foreign(
        "enable_ipv4",
        "leave it out: a network has IPv4, and IPv6 with enable_ipv6",
    ),
];

const IPAM: &[Key] = &[
    used("driver", Text),
    used("config", List(&Keys(POOL))),
    foreign(
        "options",
        "leave it out: weft has one way of choosing addresses",
    ),
];

const POOL: &[Key] = &[
    used("subnet", Text),
    foreign(
        "gateway",
        "leave it out: it is the first address of the subnet",
    ),
    foreign("ip_range", "make the subnet smaller"),
    foreign(
        "aux_addresses",
        "leave it out: addresses of replicas are chosen",
    ),
];

const VOLUME: &[Key] = &[
    used("name", Text),
    used("driver", Text),
    used("driver_opts", OPTIONS),
    used("external", EXTERNAL),
    used("labels", Pairs),
    foreign(
        "x-cluster-spec",
        "leave it out: there are no cluster volumes",
    ),
];

const SECRET: &[Key] = &[
    used("name", Text),
    used("file", Text),
    used("external", EXTERNAL),
    used("labels", Pairs),
    used("driver", Text),
    used("driver_opts", OPTIONS),
    used("template_driver", Text),
    extra("environment", Text),
];

const CONFIG: &[Key] = &[
    used("name", Text),
    used("file", Text),
    used("external", EXTERNAL),
    used("labels", Pairs),
    used("template_driver", Text),
    extra("content", Text),
    extra("environment", Text),
];

/// What a kind takes, to be read behind "must be".
pub(crate) fn name_of(kind: Kind) -> String {
    match kind {
        Text => "a string".to_owned(),
        Amount => "a string or a number".to_owned(),
        Variable => "a string, number or null".to_owned(),
        // Docker's words are "must be a integer".
        Whole => "an integer".to_owned(),
        Number => "a number".to_owned(),
        Flag => "a boolean".to_owned(),
        List(_) => "a list".to_owned(),
        Keys(_) | Named(_) => "a mapping".to_owned(),
        Pairs => "a mapping or a list of NAME=VALUE".to_owned(),
        Either(kinds) => {
            let names: Vec<String> = kinds.iter().map(|kind| name_of(*kind)).collect();
            names.join(" or ")
        }
        OrNull(kind) => format!("{} or nothing", name_of(*kind)),
        Any => "anything".to_owned(),
    }
}
