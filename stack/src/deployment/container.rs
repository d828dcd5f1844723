//! The program of a service and what it has (docker/cli `cli/compose/convert/service.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use weft_model::objects::{ContainerSpec, DnsConfig, HealthConfig, Runtime, Ulimit};

use super::{Work, mounts, payloads, policy};
use crate::model::{self, Service};

/// Limits that setrlimit(2) knows, by docker's names.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Kernel settings of a container's own: those below a prefix, and single ones.
const SYSCTL_PREFIXES: [&str; 2] = ["net.", "fs.mqueue."];
const SYSCTLS: [&str; 9] = [
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];
/// Who keeps what tasks write: both words stand for weft.
const LOG_DRIVERS: [&str; 2] = ["json-file", "local"];

/// What a task runs.
pub(super) fn container(service: &Service, work: &mut Work<'_>) -> ContainerSpec {
    let image = service.image.clone().unwrap_or_default();
    if image.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let what = format!("invalid reference format: {image:?}");
        work.refuse(
            service,
            "image",
            what,
            "write NAME:TAG, or REGISTRY/NAME:TAG",
        );
    }
    let mut env: Vec<String> = service
        .environment
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect();
    // So that no order in the file replaces tasks.
    env.sort_unstable();
    let labels = work.labels(&service.labels);
    let path = super::path_of(service, "labels");
    work.check_labels(&labels, service.place("labels"), &path);
    let default = ContainerSpec::default();
    let grace = service.stop_grace_period;
    let grace = policy::time(service, "stop_grace_period", grace, work);
    let container = ContainerSpec {
        image,
        labels,
        command: service.entrypoint.clone().unwrap_or_default(),
        hostname: service.hostname.clone().unwrap_or_default(),
        args: service.command.clone().unwrap_or_default(),
        env,
        dir: service.working_dir.clone().unwrap_or_default(),
        user: service.user.clone().unwrap_or_default(),
        groups: service.group_add.clone(),
        tty: service.tty.unwrap_or_default(),
        read_only: service.read_only.unwrap_or_default(),
        init: service.init,
        mounts: mounts::mounts(service, work),
        secrets: payloads::secrets_of(service, work),
        configs: payloads::configs_of(service, work),
        hosts: hosts(service, work),
        dns_config: DnsConfig {
            nameservers: service.dns.clone(),
            search: service.dns_search.clone(),
            options: service.dns_opt.clone(),
        },
        sysctls: sysctls(service, work),
        cap_add: sorted(&service.cap_add),
        cap_drop: sorted(&service.cap_drop),
        ulimits: ulimits(service, work),
        oom_score_adj: service.oom_score_adj.unwrap_or_default(),
        stop_signal: service.stop_signal.clone().unwrap_or_default(),
        stop_grace: grace.unwrap_or(default.stop_grace),
        health: health(service, work),
        ..default
    };
    payloads::check_targets(service, work);
    check_process(service, &container, work);
    of_windows(service, work);
    logging(service, work);
    if Runtime::of_image(&container.image) == Runtime::Host {
        check_host(service, &container, work);
    }
    container
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names
}

/// What the kernel cannot hand to a program, and who that may be.
fn check_process(service: &Service, container: &ContainerSpec, work: &mut Work<'_>) {
    for (key, texts) in [
        ("entrypoint", &container.command),
        ("command", &container.args),
        ("environment", &container.env),
    ] {
        if texts.iter().any(|text| text.contains('\0')) {
            let what = "has a NUL character, which no program can be given";
            work.refuse(service, key, what, "leave it out");
        }
    }
    let dir = &container.dir;
    if !(dir.is_empty() || dir.starts_with('/')) {
        let what =
            format!("the working directory '{dir}' is invalid, it needs to be an absolute path");
        work.refuse(service, "working_dir", what, "begin it with /");
    }
    let user = &container.user;
    let plain = !user.contains(|c: char| c.is_whitespace() || c.is_control());
    let named = user.split(':').all(|part| !part.is_empty()) && user.split(':').count() <= 2;
    if !(user.is_empty() || (plain && named)) {
        let what = format!("is {user:?}");
        let mend = "write NAME or UID, and perhaps a group: www-data, 33, 33:33";
        work.refuse(service, "user", what, mend);
    }
    for group in &container.groups {
        if group.is_empty() || group.contains(|c: char| ":, ".contains(c) || c.is_control()) {
            let what = format!("has the group {group:?}");
            let mend = "write one name or number for each";
            work.refuse(service, "group_add", what, mend);
        }
    }
    if service.stdin_open == Some(true) {
        let what = "keeps standard input open, and nobody can write to that of a task";
        let mend = "take it away; `tty: true` gives the program a terminal";
        work.refuse(service, "stdin_open", what, mend);
    }
}

/// `NAME:ADDRESS` as /etc/hosts has it.
fn hosts(service: &Service, work: &mut Work<'_>) -> Vec<String> {
    let mut hosts = Vec::with_capacity(service.extra_hosts.len());
    for host in &service.extra_hosts {
        let (name, address) = host.split_once(':').unwrap_or((host.as_str(), ""));
        if address == "host-gateway" {
            let what = format!(
                "has host-gateway for {name}: a container has no gateway to its node, and so no \
                 address of it"
            );
            let mend = "write an address that it can reach";
            work.refuse(service, "extra_hosts", what, mend);
        }
        if name.contains(char::is_whitespace) {
            let what = format!("bad format for extra host: {host:?}");
            work.refuse(service, "extra_hosts", what, "write one name");
        }
        hosts.push(format!("{address} {name}"));
    }
    hosts
}

/// What is no part of a container's own namespaces would be the node's.
fn sysctls(service: &Service, work: &mut Work<'_>) -> BTreeMap<String, String> {
    for name in service.sysctls.keys() {
        let has = |prefix: &&str| name.len() > prefix.len() && name.starts_with(*prefix);
        if !SYSCTLS.contains(&name.as_str()) && !SYSCTL_PREFIXES.iter().any(has) {
            let what = format!("sysctl {name:?} is not in a separate kernel namespace");
            let mend = format!(
                "a task may set net.*, fs.mqueue.* and {}",
                SYSCTLS.join(", ")
            );
            work.refuse(service, "sysctls", what, mend);
        }
    }
    service.sysctls.clone()
}

fn ulimits(service: &Service, work: &mut Work<'_>) -> Vec<Ulimit> {
    let mut ulimits = Vec::with_capacity(service.ulimits.len());
    for (name, limit) in &service.ulimits {
        let (soft, hard) = match *limit {
            model::Ulimit::Single(both) => (both, both),
            model::Ulimit::Pair { soft, hard } => (soft, hard),
        };
        if !ULIMITS.contains(&name.as_str()) {
            let what = format!("invalid ulimit type: {name}");
            let mend = format!("there are {}", ULIMITS.join(", "));
            work.refuse(service, "ulimits", what, mend);
        } else if soft < -1 || hard < -1 {
            let what = format!("ulimit {name} cannot be less than -1, which is no limit");
            work.refuse(service, "ulimits", what, "write a larger number");
        } else if hard != -1 && (soft == -1 || soft > hard) {
            let what = format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            );
            work.refuse(service, "ulimits", what, "raise hard, or lower soft");
        }
        ulimits.push(Ulimit {
            name: name.clone(),
            hard,
            soft,
        });
    }
    ulimits
}

fn health(service: &Service, work: &mut Work<'_>) -> Option<HealthConfig> {
    let asked = service.healthcheck.as_ref()?;
    if asked.disable {
        return Some(HealthConfig::none());
    }
    let key = |key: &str| format!("healthcheck.{key}");
    let mut time = |name: &str, given| {
        let time = policy::time(service, &key(name), given, work).unwrap_or_default();
        if !time.is_zero() && time < Duration::from_millis(1) {
            let what = "cannot be less than 1ms";
            work.refuse(service, &key(name), what, "write a longer time, or none");
        }
        time
    };
    let health = HealthConfig {
        test: asked.test.clone(),
        interval: time("interval", asked.interval),
        timeout: time("timeout", asked.timeout),
        start_period: time("start_period", asked.start_period),
        start_interval: time("start_interval", asked.start_interval),
        retries: asked
            .retries
            .map_or(0, |retries| u32::try_from(retries).unwrap_or(u32::MAX)),
    };
    let names_none = !health.test.is_empty() && !health.is_none() && health.command().is_none();
    if names_none {
        let what = "names no command behind its first word";
        let mend = "write [CMD, PROGRAM, ARGUMENT], one text for a shell, or `disable: true`";
        work.refuse(service, &key("test"), what, mend);
    }
    (health != HealthConfig::default()).then_some(health)
}

/// What is about containers on Windows.
fn of_windows(service: &Service, work: &mut Work<'_>) {
    if let Some(isolation) = &service.isolation
        && !matches!(isolation.as_str(), "" | "default")
    {
        let what = "is of containers on Windows, which weft does not run";
        work.refuse(service, "isolation", what, "leave it out");
    }
    if service.credential_spec.is_some() {
        let what = "is of containers on Windows, which weft does not run";
        work.refuse(service, "credential_spec", what, "leave it out");
    }
}

/// Nodes keep what tasks write themselves.
fn logging(service: &Service, work: &mut Work<'_>) {
    let Some(logging) = &service.logging else {
        return;
    };
    let driver = logging.driver.as_deref().unwrap_or(LOG_DRIVERS[0]);
    if !LOG_DRIVERS.contains(&driver) {
        let what = format!(
            "log driver {driver} is not supported: weft keeps what tasks write on their nodes, and \
             \"weft service logs\" shows it"
        );
        let mend = "write json-file or local, or take logging away";
        work.refuse(service, "logging.driver", what, mend);
    } else if !logging.options.is_empty() {
        let names: Vec<&str> = logging.options.keys().map(String::as_str).collect();
        let what = format!(
            "are not carried out ({}): of each output of a task weft keeps 10 MiB",
            names.join(", ")
        );
        work.warn(service, "logging.options", what, "");
    }
}

/// A program of the node's own file system has what the node has.
fn check_host(service: &Service, container: &ContainerSpec, work: &mut Work<'_>) {
    if container.args.first().is_none_or(String::is_empty) {
        let what = "is the node's own file system, which has no command of its own";
        work.refuse(service, "image", what, "write `command`");
    }
    if let Some(name) = container.env.iter().find(|pair| !pair.contains('=')) {
        let what = format!("has {name} without a value, and no image that could say one");
        work.refuse(service, "environment", what, "write NAME=VALUE");
    }
    let dns = &container.dns_config;
    let has_test = container.health.as_ref();
    for (key, is_given) in [
        ("entrypoint", !container.command.is_empty()),
        ("working_dir", !container.dir.is_empty()),
        ("group_add", !container.groups.is_empty()),
        ("tty", container.tty),
        ("read_only", container.read_only),
        ("init", container.init.is_some()),
        ("volumes", !container.mounts.is_empty()),
        ("extra_hosts", !container.hosts.is_empty()),
        ("dns", !dns.nameservers.is_empty()),
        ("dns_search", !dns.search.is_empty()),
        ("dns_opt", !dns.options.is_empty()),
        ("sysctls", !container.sysctls.is_empty()),
        ("ulimits", !container.ulimits.is_empty()),
        ("oom_score_adj", container.oom_score_adj != 0),
        (
            "healthcheck",
            has_test.is_some_and(|health| health.test.is_empty()),
        ),
    ] {
        if is_given {
            let what = "is not for a service of image `host`, which runs a command in the node's \
                        own file system";
            work.refuse(service, key, what, "leave it out, or name an image");
        }
    }
}
