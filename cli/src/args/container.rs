//! Flags of `service create` and `service update` that say what a container has besides its image.

use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use weft_model::objects::{ContainerSpec, Ulimit};

use super::parse_key_value;

/// What a container has once; what is not given stays, or is the image's of a new service.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct ContainerArgs {
    /// Program with its arguments, as a shell reads them, in place of the image's entrypoint and its
    /// command; empty for the image's
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Working directory, a full path; it is made where it is missing; empty for the image's
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// A terminal for the program
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    tty: Option<bool>,
    /// The file system of the image cannot be written to
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    read_only: Option<bool>,
    /// A process 1 before the program, which passes signals on and reaps orphans
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    init: Option<bool>,
    /// Which container ends first where memory is short, from -1000 (never) to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    oom_score_adj: Option<i64>,
    /// Who keeps what tasks write: `json-file` or `local`, which both mean weft (`service logs`)
    #[arg(long, value_name = "DRIVER", value_parser = parse_log_driver)]
    log_driver: Option<()>,
    /// Of those that keep what tasks write.
    #[arg(long = "log-opt", value_name = "NAME=VALUE", hide = true,
          value_parser = refuse_log_option)]
    log_option: Option<()>,
    /// Of containers on Windows.
    #[arg(long, value_name = "ISOLATION", hide = true, value_parser = refuse_isolation)]
    isolation: Option<()>,
    /// Of containers on Windows.
    #[arg(long, value_name = "SPEC", hide = true, value_parser = refuse_credential_spec)]
    credential_spec: Option<()>,
}

impl ContainerArgs {
    /// Puts what is given into a specification.
    ///
    /// # Errors
    /// The entrypoint cannot be read.
    pub(crate) fn apply(&self, container: &mut ContainerSpec) -> anyhow::Result<()> {
        if let Some(line) = &self.entrypoint {
            container.command = shlex::split(line).with_context(|| {
                format!("--entrypoint {line:?} has a quote or a backslash without an end: close it")
            })?;
        }
        if let Some(dir) = &self.workdir {
            container.dir.clone_from(dir);
        }
        container.tty = self.tty.unwrap_or(container.tty);
        container.read_only = self.read_only.unwrap_or(container.read_only);
        container.init = self.init.or(container.init);
        container.oom_score_adj = self.oom_score_adj.unwrap_or(container.oom_score_adj);
        Ok(())
    }
}

/// What a container of a new service has several of.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ContainerListArgs {
    /// Group that the program has besides, by name or number; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Label of the containers, not of the service; may be repeated
    #[arg(long = "container-label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    container_labels: Vec<(String, String)>,
    /// Line of /etc/hosts; may be repeated
    #[arg(long = "host", value_name = "HOST:IP", value_parser = parse_host)]
    hosts: Vec<String>,
    /// Server that is asked for names that weft does not know; may be repeated
    #[arg(long, value_name = "IP", value_parser = parse_server)]
    dns: Vec<String>,
    /// Word for `options` of resolv.conf(5); may be repeated
    #[arg(long = "dns-option", value_name = "OPTION")]
    dns_options: Vec<String>,
    /// Domain to search; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Kernel setting of the containers' own, such as net.core.somaxconn=1024; may be repeated
    #[arg(long = "sysctl", value_name = "NAME=VALUE", value_parser = parse_key_value)]
    sysctls: Vec<(String, String)>,
    /// Limit of setrlimit(2), such as nofile=1024 or nofile=1024:2048; -1 is none; may be repeated
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = parse_ulimit)]
    ulimits: Vec<Ulimit>,
}

impl ContainerListArgs {
    /// Puts what is given into a new specification; of what is given twice, the last one.
    pub(crate) fn apply(self, container: &mut ContainerSpec) {
        container.groups = self.groups;
        container.labels = self.container_labels.into_iter().collect();
        container.hosts = self.hosts;
        container.dns_config.nameservers = self.dns;
        container.dns_config.options = self.dns_options;
        container.dns_config.search = self.dns_search;
        container.sysctls = self.sysctls.into_iter().collect();
        put_ulimits(&mut container.ulimits, &self.ulimits);
    }
}

/// Who asks a registry for the image, and whether the image is to stay the one that it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(crate) struct RegistryArgs {
    /// Nodes fetch the image with what `docker login` has kept here
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
    /// Do not ask the registry which image its name stands for now: each node asks by itself
    #[arg(long)]
    pub(crate) no_resolve_image: bool,
}

/// Puts limits in the place of those of the same name, all in the order of their names.
pub(super) fn put_ulimits(ulimits: &mut Vec<Ulimit>, given: &[Ulimit]) {
    for ulimit in given {
        ulimits.retain(|there| there.name != ulimit.name);
        ulimits.push(ulimit.clone());
    }
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
}

/// `HOST:IP` or `HOST=IP`, as /etc/hosts has it: `IP HOST`.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}; write HOST:IP, such as db:10.0.0.5");
    let (name, address) = text.split_once(['=', ':']).ok_or_else(bad)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    let inside = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = inside.unwrap_or(address);
    // Docker's word for the node itself.
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{address} {name}"))
}

/// An address.
pub(super) fn parse_server(text: &str) -> Result<String, String> {
    let parsed = text.parse::<IpAddr>();
    parsed
        .map(|ip| ip.to_string())
        .map_err(|_| format!("{text} is not an ip address"))
}

/// `nofile=1024:2048`, or one number for both.
pub(super) fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("invalid ulimit argument: {text}; write NAME=SOFT[:HARD]");
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    let (soft, hard) = (number(soft)?, number(hard)?);
    if name.is_empty() {
        return Err(bad());
    }
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        hard,
        soft,
    })
}

fn parse_log_driver(text: &str) -> Result<(), String> {
    match text {
        "json-file" | "local" => Ok(()),
        _ => Err(format!(
            "log driver {text} is not supported: weft keeps what tasks write on their nodes, and \
             \"weft service logs\" shows it; write json-file or local, or leave --log-driver out"
        )),
    }
}

fn refuse_log_option(_: &str) -> Result<(), String> {
    let text = "log options are not carried out: of each output of a task weft keeps 10 MiB; leave it \
                out";
    Err(text.to_owned())
}

fn refuse_isolation(_: &str) -> Result<(), String> {
    Err("isolation is of containers on Windows, which weft does not run; leave it out".to_owned())
}

fn refuse_credential_spec(_: &str) -> Result<(), String> {
    let text =
        "credential specs are of containers on Windows, which weft does not run; leave it out";
    Err(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        container: ContainerArgs,
        #[command(flatten)]
        lists: ContainerListArgs,
    }

    fn spec(words: &[&str]) -> Result<ContainerSpec, String> {
        let words = std::iter::once(&"create").chain(words);
        let flags = Flags::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut container = ContainerSpec::default();
        let applied = flags.container.apply(&mut container);
        applied.map_err(|error| error.to_string())?;
        flags.lists.apply(&mut container);
        Ok(container)
    }

    #[test]
    fn nothing_given_is_what_the_image_says() {
        assert_eq!(spec(&[]), Ok(ContainerSpec::default()));
        let same = spec(&["--entrypoint", "", "-w", "", "--tty=false"]);
        assert_eq!(same, Ok(ContainerSpec::default()));
    }

    #[test]
    fn specifications_are_dockers() {
        let made = spec(&[
            "--entrypoint",
            "/bin/server -c 'a b'",
            "-w",
            "/www",
            "-t",
            "--read-only",
            "--init=false",
            "--oom-score-adj",
            "-500",
            "--group=video",
            "--group=44",
            "--container-label",
            "a=b",
            "--host",
            "db:10.0.0.5",
            "--host=six=[fd00::5]",
            "--host=gw:host-gateway",
            "--dns",
            "10.0.0.1",
            "--dns-option=ndots:2",
            "--dns-search=example.org",
            "--sysctl",
            "net.core.somaxconn=1024",
            "--ulimit=nofile=100:200",
            "--ulimit=core=-1",
            "--ulimit=nofile=300",
            "--log-driver=json-file",
        ]);
        let made = serde_json::to_value(made.unwrap()).unwrap();
        let wanted = serde_json::json!({
            "Command": ["/bin/server", "-c", "a b"], "Dir": "/www", "TTY": true, "ReadOnly": true,
            "Init": false, "OomScoreAdj": -500, "Groups": ["video", "44"], "Labels": {"a": "b"},
            "Hosts": ["10.0.0.5 db", "fd00::5 six", "host-gateway gw"],
            "DNSConfig": {"Nameservers": ["10.0.0.1"], "Options": ["ndots:2"],
                          "Search": ["example.org"]},
            "Sysctls": {"net.core.somaxconn": "1024"},
            "Ulimits": [{"Name": "core", "Hard": -1, "Soft": -1},
                        {"Name": "nofile", "Hard": 300, "Soft": 300}],
        });
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(made.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_with_the_way_out() {
        for (words, says) in [
            (&["--entrypoint", "a 'b"][..], "close it"),
            (&["--host", "db"], "bad format for add-host: \"db\""),
            (
                &["--host", "db:10.0.0"],
                "invalid IP address in add-host: \"10.0.0\"",
            ),
            (&["--dns", "ns.example"], "ns.example is not an ip address"),
            (&["--ulimit", "nofile"], "invalid ulimit argument: nofile"),
            (
                &["--ulimit", "nofile=2:1"],
                "less than or equal to hard limit: 2 > 1",
            ),
            (&["--ulimit", "nofile=1:x"], "invalid ulimit argument"),
            (&["--oom-score-adj=1001"], "1001 is not in -1000..=1000"),
            (
                &["--log-driver", "syslog"],
                "log driver syslog is not supported",
            ),
            (
                &["--log-opt", "max-size=1m"],
                "log options are not carried out: of each output",
            ),
            (
                &["--isolation", "hyperv"],
                "isolation is of containers on Windows",
            ),
            (
                &["--credential-spec", "file://x"],
                "credential specs are of containers on Windows",
            ),
        ] {
            let error = spec(words).unwrap_err();
            assert!(error.contains(says), "{words:?}: {error}");
        }
    }
}
