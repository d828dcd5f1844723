//! Flags of `service update` for what a container has several of: `--X-add` and `--X-rm`.

use clap::Args;
use weft_model::objects::{ContainerSpec, Ulimit};

use super::container::{parse_host, parse_server, parse_ulimit, put_ulimits};
use super::parse_key_value;

/// What a container has several of; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct ContainerUpdateArgs {
    /// Group that the program has besides; may be repeated
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Group that it has no longer; may be repeated
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Label of the containers to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    container_label_add: Vec<(String, String)>,
    /// Label of the containers to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Line of /etc/hosts to add; may be repeated
    #[arg(long, value_name = "HOST:IP", value_parser = parse_host)]
    host_add: Vec<String>,
    /// Name to remove from /etc/hosts, with one address or with all; may be repeated
    #[arg(long, value_name = "HOST[:IP]", value_parser = parse_host_rm)]
    host_rm: Vec<HostRm>,
    /// Server of names to ask; may be repeated
    #[arg(long, value_name = "IP", value_parser = parse_server)]
    dns_add: Vec<String>,
    /// Server of names to ask no longer; may be repeated
    #[arg(long, value_name = "IP")]
    dns_rm: Vec<String>,
    /// Word for `options` of resolv.conf(5) to add; may be repeated
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Word of `options` to remove; may be repeated
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Domain to search; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// Domain to search no longer; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Kernel setting of the containers' own; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_key_value)]
    sysctl_add: Vec<(String, String)>,
    /// Kernel setting to leave as it is; may be repeated
    #[arg(long, value_name = "NAME")]
    sysctl_rm: Vec<String>,
    /// Limit of setrlimit(2), as for `service create`; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_ulimit)]
    ulimit_add: Vec<Ulimit>,
    /// Limit to leave as it is; may be repeated
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
}

impl ContainerUpdateArgs {
    /// Does to a specification what the flags say: what is removed goes first.
    pub(crate) fn apply(&self, container: &mut ContainerSpec) {
        let dns = &mut container.dns_config;
        for (list, add, rm) in [
            (&mut container.groups, &self.group_add, &self.group_rm),
            (&mut dns.nameservers, &self.dns_add, &self.dns_rm),
            (&mut dns.options, &self.dns_option_add, &self.dns_option_rm),
            (&mut dns.search, &self.dns_search_add, &self.dns_search_rm),
        ] {
            list.retain(|text| !rm.contains(text));
            append(list, add);
        }
        for (map, add, rm) in [
            (
                &mut container.labels,
                &self.container_label_add,
                &self.container_label_rm,
            ),
            (&mut container.sysctls, &self.sysctl_add, &self.sysctl_rm),
        ] {
            map.retain(|key, _| !rm.contains(key));
            map.extend(add.iter().cloned());
        }
        for rm in &self.host_rm {
            rm.remove_from(&mut container.hosts);
        }
        append(&mut container.hosts, &self.host_add);
        container
            .ulimits
            .retain(|ulimit| !self.ulimit_rm.contains(&ulimit.name));
        put_ulimits(&mut container.ulimits, &self.ulimit_add);
    }
}

/// Adds what is not there yet, in its order.
fn append(list: &mut Vec<String>, add: &[String]) {
    for text in add {
        if !list.contains(text) {
            list.push(text.clone());
        }
    }
}

/// A name that /etc/hosts is to have no more.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostRm {
    name: String,
    /// The address of which it goes; every one when absent.
    address: Option<String>,
}

impl HostRm {
    /// A line `ADDRESS NAME…` may have other names, which stay.
    fn remove_from(&self, lines: &mut Vec<String>) {
        let left = lines.iter().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?;
            let concerned = self.address.as_deref().is_none_or(|only| only == address);
            let all: Vec<&str> = words.collect();
            let others = all.iter().copied().filter(|name| *name != self.name);
            let names: Vec<&str> = others.collect();
            match names.as_slice() {
                _ if !concerned || names.len() == all.len() => Some(line.clone()),
                [] => None,
                names => Some(format!("{address} {}", names.join(" "))),
            }
        });
        *lines = left.collect();
    }
}

fn parse_host_rm(text: &str) -> Result<HostRm, String> {
    if !text.is_empty() && !text.contains([':', '=']) {
        return Ok(HostRm {
            name: text.to_owned(),
            address: None,
        });
    }
    let line = parse_host(text)?;
    let (address, name) = line.split_once(' ').unwrap_or((line.as_str(), ""));
    Ok(HostRm {
        name: name.to_owned(),
        address: Some(address.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;
    use weft_model::objects::DnsConfig;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        change: ContainerUpdateArgs,
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn ulimit(name: &str, soft: i64) -> Ulimit {
        Ulimit {
            name: name.to_owned(),
            hard: soft,
            soft,
        }
    }

    fn before() -> ContainerSpec {
        ContainerSpec {
            groups: texts(&["video", "audio"]),
            labels: map(&[("a", "1"), ("b", "2")]),
            hosts: texts(&["10.0.0.5 db store", "10.0.0.6 db", "10.0.0.7 web"]),
            dns_config: DnsConfig {
                nameservers: texts(&["10.0.0.2", "10.0.0.1"]),
                search: texts(&["example.org"]),
                options: texts(&["ndots:2"]),
            },
            sysctls: map(&[("net.core.somaxconn", "1024")]),
            ulimits: vec![ulimit("core", 0), ulimit("nofile", 100)],
            ..ContainerSpec::default()
        }
    }

    fn changed(line: &str) -> ContainerSpec {
        let words = std::iter::once("update").chain(line.split_ascii_whitespace());
        let flags = Flags::try_parse_from(words).expect("flags");
        let mut container = before();
        flags.change.apply(&mut container);
        container
    }

    #[test]
    fn what_is_not_named_stays() {
        assert_eq!(changed(""), before());
        // What is there already is not there twice.
        let same = changed("--group-add audio --dns-add 10.0.0.1 --host-add web:10.0.0.7");
        assert_eq!(same, before());
    }

    #[test]
    fn lists_lose_and_gain() {
        let after = changed(
            "--group-rm video --group-add 44 --container-label-rm a --container-label-add c=3 \
             --dns-rm 10.0.0.2 --dns-add 10.0.0.3 --dns-option-rm ndots:2 --dns-option-add rotate \
             --dns-search-rm example.org --dns-search-add example.net \
             --sysctl-rm net.core.somaxconn --sysctl-add net.ipv4.ip_forward=1 --ulimit-rm core \
             --ulimit-add nofile=7",
        );
        assert_eq!(after.groups, ["audio", "44"]);
        assert_eq!(after.labels, map(&[("b", "2"), ("c", "3")]));
        assert_eq!(after.dns_config.nameservers, ["10.0.0.1", "10.0.0.3"]);
        assert_eq!(after.dns_config.options, ["rotate"]);
        assert_eq!(after.dns_config.search, ["example.net"]);
        assert_eq!(after.sysctls, map(&[("net.ipv4.ip_forward", "1")]));
        assert_eq!(after.ulimits, [ulimit("nofile", 7)]);
        assert_eq!(after.hosts, before().hosts);
    }

    #[test]
    fn names_leave_the_file_of_hosts_with_one_address_or_all() {
        let hosts = |line| changed(line).hosts;
        assert_eq!(
            hosts("--host-rm db"),
            ["10.0.0.5 store", "10.0.0.7 web"],
            "other names stay"
        );
        assert_eq!(
            hosts("--host-rm db:10.0.0.6 --host-add db:10.0.0.9"),
            ["10.0.0.5 db store", "10.0.0.7 web", "10.0.0.9 db"]
        );
        assert_eq!(hosts("--host-rm other"), before().hosts);
        let words = ["update", "--host-rm", "db:10.0"];
        let error = Flags::try_parse_from(words).expect_err("no address");
        assert!(error.to_string().contains("invalid IP address"), "{error}");
    }
}
