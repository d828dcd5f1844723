//! A service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_model::{capability, names, stop_signal};

use super::deploy::deploy;
use super::environment::environment;
use super::mounts::mounts;
use super::place::Place;
use super::ports::ports;
use crate::model::{
    Attachment, CredentialSpec, Dependency, Grant, Healthcheck, Logging, Service, Ulimit,
};
use crate::problem::{Findings, Position, below};
use crate::surroundings::Surroundings;
use crate::tree::{Entry, Node};

pub(super) fn service(
    entry: &Entry,
    place: &Place<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Service {
    if let Err(error) = names::check_service(&entry.key) {
        let mend = "rename the service";
        findings.error(
            &entry.at,
            &place.path,
            format!("has a name that is none: {error}"),
            mend,
        );
    }
    let (cap_add, cap_drop) = capabilities(place, findings);
    Service {
        name: entry.key.clone(),
        at: entry.at.clone(),
        places: places(place),
        cap_add,
        cap_drop,
        command: words(place, "command", findings),
        configs: grants(place, "configs", findings),
        credential_spec: place.get("credential_spec").map(|place| CredentialSpec {
            config: place.text("config"),
            file: place.text("file"),
            registry: place.text("registry"),
        }),
        depends_on: depends_on(place, findings),
        deploy: place.get("deploy").map(|place| deploy(&place, findings)),
        dns: addresses(place, findings),
        dns_opt: place.texts("dns_opt"),
        dns_search: place.texts("dns_search"),
        entrypoint: words(place, "entrypoint", findings),
        environment: environment(place, surroundings, findings),
        extra_hosts: extra_hosts(place, findings),
        group_add: place.texts("group_add"),
        healthcheck: place
            .get("healthcheck")
            .map(|place| healthcheck(&place, findings)),
        hostname: place.text("hostname"),
        image: place.text("image").filter(|image| !image.is_empty()),
        init: place.flag("init"),
        isolation: place.text("isolation"),
        labels: place.labels("labels"),
        logging: place.get("logging").map(|place| Logging {
            driver: place.text("driver"),
            options: place.labels("options"),
        }),
        networks: networks(place),
        oom_score_adj: oom_score_adj(place, findings),
        ports: ports(place, findings),
        read_only: place.flag("read_only"),
        restart: restart(place, findings),
        secrets: grants(place, "secrets", findings),
        stdin_open: place.flag("stdin_open"),
        stop_grace_period: place.duration("stop_grace_period", findings),
        stop_signal: signal(place, findings),
        sysctls: place.labels("sysctls"),
        tty: place.flag("tty"),
        ulimits: ulimits(place),
        user: place.text("user"),
        volumes: mounts(place, surroundings, findings),
        working_dir: place.text("working_dir"),
        weft: own(place, findings),
    }
}

/// Where keys are, for what is wrong with them only when all files are there. Below `deploy` there are
/// many things to be wrong about, and each of the `networks` may be; elsewhere the key is near enough.
fn places(place: &Place<'_>) -> BTreeMap<String, Position> {
    let mut places = BTreeMap::new();
    for (entry, inner) in place.entries() {
        places.insert(entry.key.clone(), entry.at.clone());
        if entry.key == "networks" {
            // In either form.
            let named = inner
                .entries()
                .map(|(entry, _)| (entry.key.clone(), &entry.at));
            let items = inner.node.items().iter();
            let listed = items.filter_map(|item| Some((item.text()?.to_owned(), &item.at)));
            let each = named.chain(listed);
            places.extend(each.map(|(name, at)| (below("networks", name), at.clone())));
        }
        if entry.key != "deploy" {
            continue;
        }
        for (entry, deeper) in inner.entries() {
            let key = below("deploy", &entry.key);
            places.extend(deeper.entries().map(|(entry, _)| {
                let key = below(&key, &entry.key);
                (key, entry.at.clone())
            }));
            places.insert(key, entry.at.clone());
        }
    }
    places
}

/// A text is split as a shell would; no shell is run.
fn words(place: &Place<'_>, key: &str, findings: &mut Findings) -> Option<Vec<String>> {
    let place = place.get(key)?;
    let Some(text) = place.node.text() else {
        let items = place.node.items().iter();
        return Some(items.filter_map(Node::text).map(str::to_owned).collect());
    };
    let words = shlex::split(text);
    if words.is_none() {
        let what = "has a quote that does not end";
        findings.error(
            place.at(),
            &place.path,
            what,
            "close it, or write the words as a list",
        );
    }
    words
}

/// Their names in full. One that is added and dropped is added, as docker has it.
fn capabilities(place: &Place<'_>, findings: &mut Findings) -> (Vec<String>, Vec<String>) {
    let mut read = |key: &str| {
        let mut names: Vec<String> = Vec::new();
        for item in place.get(key).iter().flat_map(Place::items) {
            match item.node.text().map(capability::canonical) {
                Some(Ok(name)) if !names.contains(&name) => names.push(name),
                Some(Err(error)) => {
                    let what = error.to_string();
                    findings.error(
                        item.at(),
                        &item.path,
                        what,
                        "capabilities(7) has their names",
                    );
                }
                _ => {}
            }
        }
        names
    };
    let added = read("cap_add");
    let mut dropped = read("cap_drop");
    dropped.retain(|name| !added.contains(name));
    (added, dropped)
}

fn addresses(place: &Place<'_>, findings: &mut Findings) -> Vec<String> {
    let servers = place.texts("dns");
    if let Some(place) = place.get("dns") {
        for server in servers
            .iter()
            .filter(|server| server.parse::<IpAddr>().is_err())
        {
            let what = format!("has {server:?}, which is no address");
            findings.error(place.at(), &place.path, what, "write it as 192.0.2.53");
        }
    }
    servers
}

/// `NAME:ADDRESS`, `NAME=ADDRESS`, or a mapping.
fn extra_hosts(place: &Place<'_>, findings: &mut Findings) -> Vec<String> {
    let Some(place) = place.get("extra_hosts") else {
        return Vec::new();
    };
    let named = place.entries().filter_map(|(entry, inner)| {
        let address = entry.value.text()?.to_owned();
        Some((entry.key.clone(), address, inner))
    });
    // As docker: the order of keys says nothing.
    let mut named: Vec<(String, String, Place<'_>)> = named.collect();
    named.sort_by(|one, other| one.0.cmp(&other.0));
    let listed = place.items().filter_map(|inner| {
        let text = inner.node.text()?;
        let (name, address) = text.split_once(['=', ':']).unwrap_or((text, ""));
        Some((name.to_owned(), address.to_owned(), inner))
    });
    let mut hosts: Vec<String> = Vec::new();
    for (name, address, inner) in named.into_iter().chain(listed) {
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let bare = bare.unwrap_or(&address).trim();
        let name = name.trim();
        let host = format!("{name}:{bare}");
        // A name with one of these would be another one in the short form.
        let is_name = !name.is_empty() && !name.contains(['=', ':']);
        if !is_name || (bare != "host-gateway" && bare.parse::<IpAddr>().is_err()) {
            let what = format!("bad format for extra host: {host:?}");
            findings.error(inner.at(), &inner.path, what, "write it as name:192.0.2.1");
        } else if hosts.contains(&host) {
            let what = format!("is there twice: {host:?}; docker refuses it");
            findings.warn(inner.at(), &inner.path, what, "keep one");
        } else {
            hosts.push(host);
        }
    }
    hosts
}

fn healthcheck(place: &Place<'_>, findings: &mut Findings) -> Healthcheck {
    let test = place.get("test");
    let test = match test.as_ref().and_then(|test| test.node.text()) {
        Some(text) => vec!["CMD-SHELL".to_owned(), text.to_owned()],
        None => place.texts("test"),
    };
    let is_known = test
        .first()
        .is_none_or(|word| matches!(word.as_str(), "NONE" | "CMD" | "CMD-SHELL"));
    if !is_known && let Some(place) = place.get("test") {
        let what = "begins with a word that is none of NONE, CMD and CMD-SHELL";
        let mend = "write [CMD, PROGRAM, ARGUMENT], or one text for a shell";
        findings.error(place.at(), &place.path, what, mend);
    }
    let disable = place.flag("disable").unwrap_or_default();
    if disable && !test.is_empty() {
        let what = "test and disable can't be set at the same time";
        findings.error(place.at(), &place.path, what, "take one of them away");
    }
    Healthcheck {
        test,
        interval: place.duration("interval", findings),
        timeout: place.duration("timeout", findings),
        retries: place.count("retries", 1_000_000, findings),
        start_period: place.duration("start_period", findings),
        start_interval: place.duration("start_interval", findings),
        disable,
    }
}

fn depends_on(place: &Place<'_>, findings: &mut Findings) -> BTreeMap<String, Dependency> {
    const CONDITIONS: [&str; 3] = [
        "service_started",
        "service_healthy",
        "service_completed_successfully",
    ];
    let Some(place) = place.get("depends_on") else {
        return BTreeMap::new();
    };
    let started = |at| Dependency {
        condition: CONDITIONS[0].to_owned(),
        at,
    };
    let mut services = BTreeMap::new();
    for item in place.items() {
        if let Some(name) = item.node.text() {
            services.insert(name.to_owned(), started(item.at().clone()));
        }
    }
    if !place.node.entries().is_empty() {
        let what = "is a mapping, which `docker stack deploy` refuses";
        findings.warn(place.at(), &place.path, what, "");
    }
    for (entry, inner) in place.entries() {
        let mut dependency = started(entry.at.clone());
        if let Some(condition) = inner.one_of("condition", &CONDITIONS, findings) {
            dependency.condition = condition;
        }
        for (key, honoured) in [("restart", false), ("required", true)] {
            if inner.flag(key).is_some_and(|flag| flag != honoured) {
                let what = "is not honoured in a cluster";
                findings.error(inner.at(), &below(&inner.path, key), what, "take it away");
            }
        }
        services.insert(entry.key.clone(), dependency);
    }
    services
}

/// None is the network `default`.
fn networks(place: &Place<'_>) -> BTreeMap<String, Option<Attachment>> {
    let Some(place) = place.get("networks") else {
        return BTreeMap::new();
    };
    let listed = place.node.items().iter().filter_map(Node::text);
    let mut networks: BTreeMap<_, _> = listed.map(|name| (name.to_owned(), None)).collect();
    for (entry, inner) in place.entries() {
        let attachment = Attachment {
            aliases: inner.texts("aliases"),
            driver_opts: inner.labels("driver_opts"),
        };
        let is_empty = attachment == Attachment::default();
        networks.insert(entry.key.clone(), (!is_empty).then_some(attachment));
    }
    networks
}

fn grants(place: &Place<'_>, key: &str, findings: &mut Findings) -> Vec<Grant> {
    let mut grants = Vec::new();
    for item in place.get(key).iter().flat_map(Place::items) {
        let at = item.at().clone();
        if let Some(source) = item.node.text() {
            grants.push(Grant {
                at,
                source: source.to_owned(),
                ..Grant::default()
            });
        } else if let Some(source) = item.text("source") {
            let mode = item.mode("mode", findings);
            grants.push(Grant {
                at,
                source,
                target: item.text("target"),
                uid: item.text("uid"),
                gid: item.text("gid"),
                mode,
            });
        } else if !item.node.entries().is_empty() {
            let mend = format!("write the name of one of the {key} at the top");
            findings.error(item.at(), &item.path, "has no source", mend);
        }
    }
    grants
}

fn oom_score_adj(place: &Place<'_>, findings: &mut Findings) -> Option<i64> {
    let place = place.get("oom_score_adj")?;
    let score = place.node.whole()?;
    if (-1000..=1000).contains(&score) {
        return Some(score);
    }
    let what = format!("is {score}, and must be from -1000 to 1000");
    findings.error(place.at(), &place.path, what, "write another number");
    None
}

fn restart(place: &Place<'_>, findings: &mut Findings) -> Option<String> {
    let text = place.text("restart")?;
    let (word, number) = text.split_once(':').unwrap_or((text.as_str(), "0"));
    let fits = match word {
        "no" | "always" | "unless-stopped" => !text.contains(':'),
        "on-failure" => number.parse::<u32>().is_ok(),
        _ => false,
    };
    if !fits && let Some(place) = place.get("restart") {
        let what = format!("is {text:?}");
        let mend = "write \"no\", always, unless-stopped or on-failure:3";
        findings.error(place.at(), &place.path, what, mend);
    }
    fits.then_some(text)
}

fn signal(place: &Place<'_>, findings: &mut Findings) -> Option<String> {
    let text = place.text("stop_signal")?;
    if let Err(error) = stop_signal::number(&text)
        && let Some(place) = place.get("stop_signal")
    {
        findings.error(
            place.at(),
            &place.path,
            error.to_string(),
            "write it as SIGTERM",
        );
    }
    Some(text)
}

fn ulimits(place: &Place<'_>) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    for (entry, inner) in place.get("ulimits").iter().flat_map(Place::entries) {
        let number = |key: &str| inner.node.get(key).and_then(Node::whole);
        let limit = match (inner.node.whole(), number("soft"), number("hard")) {
            (Some(both), _, _) => Some(Ulimit::Single(both)),
            (None, Some(soft), Some(hard)) => Some(Ulimit::Pair { soft, hard }),
            (None, Some(one), None) | (None, None, Some(one)) => Some(Ulimit::Single(one)),
            (None, None, None) => None,
        };
        if let Some(limit) = limit {
            ulimits.insert(entry.key.clone(), limit);
        }
    }
    ulimits
}

/// `x-weft: {names-before-healthy: true}`
fn own(place: &Place<'_>, findings: &mut Findings) -> BTreeMap<String, bool> {
    const KEYS: [&str; 1] = ["names-before-healthy"];
    let mut own = BTreeMap::new();
    for (entry, inner) in place.get("x-weft").iter().flat_map(Place::entries) {
        match inner.node.flag() {
            Some(flag) if KEYS.contains(&entry.key.as_str()) => {
                own.insert(entry.key.clone(), flag);
            }
            Some(_) => {
                let what = format!("Additional property {} is not allowed", entry.key);
                let mend = format!("weft knows {}", KEYS.join(", "));
                findings.error(&entry.at, &below(&place.path, "x-weft"), what, mend);
            }
            None => {
                findings.error(
                    inner.at(),
                    &inner.path,
                    "must be a boolean",
                    "write true or false",
                );
            }
        }
    }
    own
}
