//! What runs a task, and in what: what no node could carry out is refused, with the flag that asks
//! for it.

use std::net::IpAddr;

use weft_model::objects::{ContainerSpec, DnsConfig, PullOptions, Runtime, TaskSpec, Ulimit};

use super::super::error::CommandError;
use super::super::image;

/// Groups, lines of hosts and servers of names that a task has at most, each.
const MAX_LINES: usize = 1_024;
/// Longest text of these, in bytes.
const MAX_TEXT: usize = 256;
/// Longest credentials for a registry, in bytes: tokens are a few KiB.
const MAX_CREDENTIALS: usize = 16 << 10;
/// Limits that setrlimit(2) knows, by Docker's names.
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

/// A text of a user, as far as it helps to find it.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Checks the image, and everything that depends on whether there is one. No credentials are kept
/// where they are said to be nobody's.
///
/// # Errors
/// What cannot be carried out, and what to write.
pub(super) fn check(task: &mut TaskSpec) -> Result<(), CommandError> {
    check_image(task)?;
    let container = &mut task.container;
    if container.pull_options.registry_auth == PullOptions::NOBODY {
        container.pull_options = PullOptions::default();
    }
    match task.runtime {
        Runtime::Host => check_host(container),
        Runtime::Container => check_container(container),
    }
}

fn check_image(task: &TaskSpec) -> Result<(), CommandError> {
    let name = &task.container.image;
    if name.is_empty() {
        return Err(CommandError::bad(
            "ContainerSpec: image reference must be provided; name an image, or write `host` to run a \
             command from the node's own file system",
        ));
    }
    let runtime = Runtime::of_image(name);
    if runtime != task.runtime {
        return Err(CommandError::bad(match runtime {
            Runtime::Host => {
                "image `host` is the node's own file system, which no container runtime runs: Runtime \
                 must be \"host\"; an image of this name is library/host"
                    .to_owned()
            }
            Runtime::Container => format!(
                "image {:?} is run by a container runtime: Runtime must be \"container\"",
                shown(name)
            ),
        }));
    }
    if runtime == Runtime::Container && !image::is_reference(name) {
        return Err(CommandError::bad(format!(
            "ContainerSpec: {:?} is not a valid repository/tag; write NAME[:TAG], or \
             REGISTRY[:PORT]/NAME[:TAG], names in small letters",
            name.chars().take(128).collect::<String>()
        )));
    }
    Ok(())
}

/// A program of the node's own file system has what the node has.
fn check_host(container: &ContainerSpec) -> Result<(), CommandError> {
    if container.args.first().is_none_or(String::is_empty) {
        return Err(CommandError::bad(
            "a service of image `host` needs a command: weft service create --name S host COMMAND \
             [ARG…]",
        ));
    }
    let lacks: Vec<&str> = of_containers(container)
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(CommandError::bad(format!(
        "a service of image `host` runs a command in the node's own file system and cannot have {}: \
         leave {} out, or name an image",
        lacks.join(", "),
        if lacks.len() == 1 { "it" } else { "them" }
    )))
}

/// What only a container can have, by its flag, and whether it is asked for.
fn of_containers(container: &ContainerSpec) -> [(&'static str, bool); 15] {
    let dns = &container.dns_config;
    [
        ("--entrypoint", !container.command.is_empty()),
        ("--workdir", !container.dir.is_empty()),
        ("--group", !container.groups.is_empty()),
        ("--tty", container.tty),
        ("--read-only", container.read_only),
        ("--init", container.init.is_some()),
        ("--mount", !container.mounts.is_empty()),
        ("--host", !container.hosts.is_empty()),
        ("--dns", !dns.nameservers.is_empty()),
        ("--dns-search", !dns.search.is_empty()),
        ("--dns-option", !dns.options.is_empty()),
        ("--sysctl", !container.sysctls.is_empty()),
        ("--ulimit", !container.ulimits.is_empty()),
        ("--oom-score-adj", container.oom_score_adj != 0),
        ("--with-registry-auth", !container.pull_options.is_empty()),
    ]
}

fn check_container(container: &ContainerSpec) -> Result<(), CommandError> {
    if let Some(word) = container.command.iter().find(|word| word.contains('\0')) {
        return Err(CommandError::bad(format!(
            "the entrypoint {:?} has a NUL character, which no program can be given; leave it out",
            shown(word)
        )));
    }
    let dir = &container.dir;
    if !(dir.is_empty() || dir.starts_with('/')) || dir.contains('\0') {
        return Err(CommandError::bad(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            shown(dir)
        )));
    }
    check_lines(container)?;
    check_dns(&container.dns_config)?;
    for (name, value) in &container.sysctls {
        check_sysctl(name, value)?;
    }
    for ulimit in &container.ulimits {
        check_ulimit(ulimit)?;
    }
    if !(-1000..=1000).contains(&container.oom_score_adj) {
        return Err(CommandError::bad(format!(
            "invalid oom-score-adj {}: it is a number from -1000 to 1000",
            container.oom_score_adj
        )));
    }
    let credentials = &container.pull_options.registry_auth;
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+/=".contains(&byte);
    if credentials.len() > MAX_CREDENTIALS || !credentials.bytes().all(base64) {
        // Never with what was given.
        return Err(CommandError::bad(format!(
            "the credentials for the registry are no base64 of {MAX_CREDENTIALS} bytes at most: log in \
             again with \"docker login\", or leave --with-registry-auth out"
        )));
    }
    Ok(())
}

/// Texts that become lines of files: one line each, and not too many.
fn check_lines(container: &ContainerSpec) -> Result<(), CommandError> {
    let dns = &container.dns_config;
    for (flag, texts) in [
        ("--group", &container.groups),
        ("--host", &container.hosts),
        ("--dns", &dns.nameservers),
        ("--dns-search", &dns.search),
        ("--dns-option", &dns.options),
    ] {
        if texts.len() > MAX_LINES {
            return Err(CommandError::bad(format!(
                "{} times {flag} is too many: there may be {MAX_LINES}",
                texts.len()
            )));
        }
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
        };
        if let Some(text) = texts.iter().find(|text| !fits(text)) {
            return Err(CommandError::bad(format!(
                "invalid value {:?} of {flag}: it has to be one line of 1 to {MAX_TEXT} bytes",
                shown(text)
            )));
        }
    }
    let bad = container
        .groups
        .iter()
        .find(|g| g.contains([':', ' ', ',']));
    if let Some(group) = bad {
        return Err(CommandError::bad(format!(
            "invalid group {:?}: write one name or number for each --group",
            shown(group)
        )));
    }
    for line in &container.hosts {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().unwrap_or_default();
        // Docker's word for an address of the node, which is another one on each.
        if address == "host-gateway" {
            return Err(CommandError::bad(format!(
                "host-gateway of --host {}:host-gateway is no address here: a container has no gateway \
                 to its node; write an address that it can reach, --host NAME:ADDRESS",
                shown(words.next().unwrap_or("NAME"))
            )));
        }
        if address.parse::<IpAddr>().is_err() || words.next().is_none() {
            return Err(CommandError::bad(format!(
                "bad format for add-host: {:?}; write --host NAME:ADDRESS",
                shown(line)
            )));
        }
    }
    Ok(())
}

fn check_dns(dns: &DnsConfig) -> Result<(), CommandError> {
    for server in &dns.nameservers {
        if server.parse::<IpAddr>().is_err() {
            return Err(CommandError::bad(format!(
                "{} is not an ip address; give --dns the address of a server of names",
                shown(server)
            )));
        }
    }
    let spaced = |text: &&String| text.chars().any(char::is_whitespace);
    if let Some(text) = dns.search.iter().chain(&dns.options).find(spaced) {
        return Err(CommandError::bad(format!(
            "invalid value {:?} of --dns-search or --dns-option: write one word for each",
            shown(text)
        )));
    }
    Ok(())
}

/// What is no part of a container's own namespaces would be the node's.
fn check_sysctl(name: &str, value: &str) -> Result<(), CommandError> {
    let own = SYSCTLS.contains(&name)
        || SYSCTL_PREFIXES.iter().any(|prefix| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty())
        });
    // A dot in the name of an interface is written as `/`, as sysctl(8) has it. Nodes know the same
    // names (`bundle.rs` of the runtime).
    let of_network = name.starts_with("net.");
    let mut parts = name.split(|c| c == '.' || (of_network && c == '/'));
    let is_word = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if !own || !parts.all(is_word) {
        return Err(CommandError::bad(format!(
            "sysctl {:?} is not in a separate kernel namespace: a task may set net.*, fs.mqueue.* and {}",
            shown(name),
            SYSCTLS.join(", ")
        )));
    }
    if value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return Err(CommandError::bad(format!(
            "the value of sysctl {name} has to be one line of {MAX_TEXT} bytes at most"
        )));
    }
    Ok(())
}

fn check_ulimit(ulimit: &Ulimit) -> Result<(), CommandError> {
    let Ulimit { name, hard, soft } = ulimit;
    if !ULIMITS.contains(&name.as_str()) {
        return Err(CommandError::bad(format!(
            "invalid ulimit type: {}; there are {}",
            shown(name),
            ULIMITS.join(", ")
        )));
    }
    if *hard < -1 || *soft < -1 {
        return Err(CommandError::bad(format!(
            "ulimit {name} cannot be less than -1, which is no limit"
        )));
    }
    if *hard != -1 && (*soft == -1 || soft > hard) {
        return Err(CommandError::bad(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(())
}

/// Who asks for the image from now on, where an update does not say: who did, as long as it is the
/// same registry. Another one must not be shown what the first one asks for.
pub(super) fn keep_credentials(before: &ContainerSpec, after: &mut ContainerSpec) {
    let same = Runtime::of_image(&after.image) == Runtime::Container
        && image::domain(&before.image) == image::domain(&after.image);
    if after.pull_options.is_empty() && same {
        after.pull_options = before.pull_options.clone();
    }
}
