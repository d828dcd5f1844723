//! Several files to one stack, by docker's rules (docker/cli `cli/compose/loader/merge.go`): what a later
//! file says wins, mappings are joined by their keys, lists follow each other, and what has a natural key
//! is joined by that: ports by the published one, mounts by target, secrets and configs by name.

mod deploy;

use std::collections::BTreeSet;

use crate::model::{Grant, Logging, Mount, Port, Service, Stack};
use crate::problem::{Findings, Position};
use crate::target::place;

/// Takes a later file into what the ones before came to.
pub(crate) fn merge(base: &mut Stack, over: Stack, findings: &mut Findings) {
    if base.version != over.version {
        let at = over.services.first().map(|service| service.at.clone());
        let what = format!(
            "version mismatched between two composefiles : {} and {}",
            base.version, over.version
        );
        findings.warn(
            &at.unwrap_or_default(),
            "version",
            what,
            "docker refuses it",
        );
    }
    replace(&mut base.name, over.name);
    for service in over.services {
        match base
            .services
            .iter_mut()
            .find(|there| there.name == service.name)
        {
            Some(there) => merge_service(there, service),
            None => base.services.push(service),
        }
    }
    // Whole entries, not their keys.
    base.networks.extend(over.networks);
    base.volumes.extend(over.volumes);
    base.secrets.extend(over.secrets);
    base.configs.extend(over.configs);
}

/// A value that a later file has.
fn replace<T>(base: &mut Option<T>, over: Option<T>) {
    if over.is_some() {
        *base = over;
    }
}

fn merge_service(base: &mut Service, over: Service) {
    base.places.extend(over.places);
    base.cap_add.extend(over.cap_add);
    base.cap_drop.extend(over.cap_drop);
    base.cap_drop.retain(|name| !base.cap_add.contains(name));
    replace(&mut base.command, over.command);
    merge_grants(&mut base.configs, over.configs);
    replace(&mut base.credential_spec, over.credential_spec);
    base.depends_on.extend(over.depends_on);
    match (&mut base.deploy, over.deploy) {
        (Some(base), Some(over)) => deploy::merge(base, over),
        (base, Some(over)) => *base = Some(over),
        (_, None) => {}
    }
    base.dns.extend(over.dns);
    base.dns_opt.extend(over.dns_opt);
    base.dns_search.extend(over.dns_search);
    replace(&mut base.entrypoint, over.entrypoint);
    base.environment.extend(over.environment);
    base.extra_hosts.extend(over.extra_hosts);
    base.group_add.extend(over.group_add);
    match (&mut base.healthcheck, over.healthcheck) {
        (Some(base), Some(over)) => {
            if !over.test.is_empty() {
                base.test = over.test;
            }
            replace(&mut base.interval, over.interval);
            replace(&mut base.timeout, over.timeout);
            replace(&mut base.retries, over.retries);
            replace(&mut base.start_period, over.start_period);
            replace(&mut base.start_interval, over.start_interval);
            base.disable |= over.disable;
        }
        (base, Some(over)) => *base = Some(over),
        (_, None) => {}
    }
    replace(&mut base.hostname, over.hostname);
    replace(&mut base.image, over.image);
    replace(&mut base.init, over.init);
    replace(&mut base.isolation, over.isolation);
    base.labels.extend(over.labels);
    merge_logging(&mut base.logging, over.logging);
    for (name, attachment) in over.networks {
        let there = base.networks.entry(name).or_default();
        replace(there, attachment);
    }
    replace(&mut base.oom_score_adj, over.oom_score_adj);
    merge_ports(&mut base.ports, over.ports);
    replace(&mut base.read_only, over.read_only);
    replace(&mut base.restart, over.restart);
    merge_grants(&mut base.secrets, over.secrets);
    replace(&mut base.stdin_open, over.stdin_open);
    replace(&mut base.stop_grace_period, over.stop_grace_period);
    replace(&mut base.stop_signal, over.stop_signal);
    base.sysctls.extend(over.sysctls);
    replace(&mut base.tty, over.tty);
    base.ulimits.extend(over.ulimits);
    replace(&mut base.user, over.user);
    merge_mounts(&mut base.volumes, over.volumes);
    replace(&mut base.working_dir, over.working_dir);
    base.weft.extend(over.weft);
}

/// Options are joined only where both are of one driver.
fn merge_logging(base: &mut Option<Logging>, over: Option<Logging>) {
    match (base, over) {
        (Some(base), Some(over))
            if over.driver.is_none() || base.driver.is_none() || base.driver == over.driver =>
        {
            replace(&mut base.driver, over.driver);
            base.options.extend(over.options);
        }
        (base, Some(over)) => *base = Some(over),
        (_, None) => {}
    }
}

/// By the published port. Those on ports that nodes choose have none in common.
fn merge_ports(base: &mut Vec<Port>, over: Vec<Port>) {
    let key = |port: &Port| {
        let published = port.published?;
        Some((published, port.protocol.clone(), port.host_ip.clone()))
    };
    let later: Vec<_> = over.iter().filter_map(key).collect();
    // Wherever it is written.
    let said = |port: &Port| Port {
        at: Position::default(),
        ..port.clone()
    };
    let same: Vec<Port> = over.iter().map(said).collect();
    base.retain(|port| {
        key(port).is_none_or(|key| !later.contains(&key)) && !same.contains(&said(port))
    });
    base.extend(over);
}

fn merge_grants(base: &mut Vec<Grant>, over: Vec<Grant>) {
    base.retain(|grant| !over.iter().any(|later| later.source == grant.source));
    base.extend(over);
}

fn merge_mounts(base: &mut Vec<Mount>, over: Vec<Mount>) {
    let later: BTreeSet<String> = over.iter().map(|mount| place(&mount.target)).collect();
    base.retain(|mount| !later.contains(&place(&mount.target)));
    base.extend(over);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn port(target: u16, published: Option<u16>) -> Port {
        Port {
            mode: "ingress".to_owned(),
            target,
            published,
            protocol: "tcp".to_owned(),
            ..Port::default()
        }
    }

    #[test]
    fn mounts_are_joined_by_the_place_that_they_have() {
        let mount = |target: &str, source: &str| Mount {
            target: target.to_owned(),
            source: Some(source.to_owned()),
            ..Mount::default()
        };
        let mut base = vec![mount("/y", "one"), mount("/z", "one")];
        merge_mounts(&mut base, vec![mount("/y/", "two")]);
        assert_eq!(base, [mount("/z", "one"), mount("/y/", "two")]);
    }

    #[test]
    fn the_same_port_in_another_file_is_the_same() {
        let at = |line| Position {
            line,
            ..Position::default()
        };
        let on = |line| Port {
            at: at(line),
            ..port(81, None)
        };
        let mut base = vec![on(3)];
        merge_ports(&mut base, vec![on(7)]);
        assert_eq!(base, [on(7)]);
    }

    #[test]
    fn ports_are_joined_by_what_is_published() {
        let mut base = vec![port(80, Some(8080)), port(81, None), port(82, Some(8082))];
        merge_ports(
            &mut base,
            vec![port(90, Some(8080)), port(81, None), port(83, None)],
        );
        let is = [
            port(82, Some(8082)),
            port(90, Some(8080)),
            port(81, None),
            port(83, None),
        ];
        assert_eq!(base, is);
    }

    #[test]
    fn options_of_two_drivers_are_not_joined() {
        let logging = |driver: Option<&str>, option: &str| Logging {
            driver: driver.map(str::to_owned),
            options: BTreeMap::from([(option.to_owned(), "1".to_owned())]),
        };
        let mut base = Some(logging(Some("json-file"), "a"));
        merge_logging(&mut base, Some(logging(None, "b")));
        let options = |logging: &Option<Logging>| {
            let options = logging.as_ref().map(|logging| logging.options.len());
            options.expect("options")
        };
        assert_eq!(options(&base), 2);
        merge_logging(&mut base, Some(logging(Some("journald"), "c")));
        assert_eq!(base, Some(logging(Some("journald"), "c")));
        merge_logging(&mut base, None);
        assert_eq!(options(&base), 1);
    }

    #[test]
    fn services_are_joined_by_name() {
        let service = |name: &str, image: Option<&str>| Service {
            name: name.to_owned(),
            image: image.map(str::to_owned),
            dns: vec![name.to_owned()],
            ..Service::default()
        };
        let stack = |services| Stack {
            services,
            ..Stack::default()
        };
        let mut base = stack(vec![service("a", Some("one")), service("b", Some("two"))]);
        let over = stack(vec![service("c", Some("three")), service("a", None)]);
        merge(&mut base, over, &mut Findings::default());
        let names: Vec<&str> = base
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(base.services[0].image.as_deref(), Some("one"));
        assert_eq!(base.services[0].dns, ["a", "a"]);
    }
}
