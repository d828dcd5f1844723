//! Secrets and configs (docker/cli `cli/compose/convert/{compose,service}.go`): which there are, and as
//! which files a service sees them.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::id::PayloadId;
use weft_model::names;
use weft_model::objects::{
    ConfigReference, PayloadFile, PayloadKind, PayloadSpec, SecretReference, Templating,
};

use super::{Origin, StackPayload, Work, path_of};
use crate::model::{External, Grant, Service};
use crate::problem::{Position, below};
use crate::target::place as place_of;

/// What both say in a file.
struct Written<'a> {
    kind: PayloadKind,
    key: &'a str,
    at: &'a Position,
    name: Option<&'a String>,
    external: External,
    labels: &'a BTreeMap<String, String>,
    template_driver: Option<&'a String>,
    origin: Option<Origin>,
}

/// Secrets of the file, and those that are there already and are used.
pub(super) fn secrets(work: &mut Work<'_>) -> Vec<StackPayload> {
    let stack = work.stack;
    let used = used(stack.services.iter().flat_map(|service| &service.secrets));
    let mut secrets = Vec::new();
    for (key, secret) in &stack.secrets {
        let path = below("secrets", key);
        if let Some(driver) = &secret.driver {
            let what = format!("has the driver {driver:?}, and weft keeps secrets itself");
            let mend = "write `file`, `environment`, or `external: true`";
            work.findings.error(&secret.at, &path, what, mend);
            continue;
        }
        if !secret.driver_opts.is_empty() {
            let what = "has options of a driver, and no driver";
            work.findings
                .error(&secret.at, &path, what, "take driver_opts away");
        }
        let file = secret.file.clone().map(Origin::File);
        let written = Written {
            kind: PayloadKind::Secret,
            key,
            at: &secret.at,
            name: secret.name.as_ref(),
            external: secret.external,
            labels: &secret.labels,
            template_driver: secret.template_driver.as_ref(),
            origin: file.or_else(|| secret.environment.clone().map(Origin::Environment)),
        };
        secrets.extend(convert(written, &used, work));
    }
    secrets
}

/// Configs, likewise.
pub(super) fn configs(work: &mut Work<'_>) -> Vec<StackPayload> {
    let stack = work.stack;
    let used = used(stack.services.iter().flat_map(|service| &service.configs));
    let mut configs = Vec::new();
    for (key, config) in &stack.configs {
        if let Some(content) = &config.content {
            let most = PayloadKind::Config.max_bytes();
            let bytes = content.len();
            if bytes == 0 || bytes > most {
                let what = format!("holds {bytes} bytes, and a config has from 1 to {most}");
                let path = below(&below("configs", key), "content");
                work.findings
                    .error(&config.at, &path, what, "write another content");
            }
        }
        let origin = config.file.clone().map(Origin::File);
        let origin = origin.or_else(|| config.content.clone().map(Origin::Content));
        let written = Written {
            kind: PayloadKind::Config,
            key,
            at: &config.at,
            name: config.name.as_ref(),
            external: config.external,
            labels: &config.labels,
            template_driver: config.template_driver.as_ref(),
            origin: origin.or_else(|| config.environment.clone().map(Origin::Environment)),
        };
        configs.extend(convert(written, &used, work));
    }
    configs
}

fn used<'a>(grants: impl Iterator<Item = &'a Grant>) -> BTreeSet<&'a str> {
    grants.map(|grant| grant.source.as_str()).collect()
}

/// None of one that is there already and that nobody uses.
fn convert(
    written: Written<'_>,
    used: &BTreeSet<&str>,
    work: &mut Work<'_>,
) -> Option<StackPayload> {
    let Written { kind, key, at, .. } = written;
    let path = below(&format!("{kind}s"), key);
    let name = work.named(written.name, key);
    if written.external == External::Yes {
        return used.contains(key).then(|| StackPayload {
            key: key.to_owned(),
            at: at.clone(),
            spec: PayloadSpec {
                name,
                ..PayloadSpec::default()
            },
            origin: Origin::External,
        });
    }
    if let Err(error) = names::check_payload(&kind.to_string(), &name) {
        let mend = "rename it, give it a `name`, or choose a shorter name for the stack";
        work.findings.error(at, &path, error.to_string(), mend);
    }
    let templating = written.template_driver.map(|driver| Templating {
        name: driver.clone(),
    });
    if let Some(driver) = written.template_driver
        && driver != Templating::GOLANG
    {
        let what = format!("has the template driver {driver:?}, and there is one: golang");
        work.findings
            .error(at, &path, what, "write golang, or take the line away");
    }
    let labels = work.labels(written.labels);
    work.check_labels(&labels, at, &path);
    let Some(origin) = written.origin else {
        // Told when the file was read; a stack out of other hands comes here.
        let mend = "write `file`, or `external: true`";
        work.findings
            .error(at, &path, "does not say what it holds", mend);
        return None;
    };
    Some(StackPayload {
        key: key.to_owned(),
        at: at.clone(),
        spec: PayloadSpec {
            name,
            labels,
            templating,
            ..PayloadSpec::default()
        },
        origin,
    })
}

/// Secrets that a service sees, in the order of their names.
pub(super) fn secrets_of(service: &Service, work: &mut Work<'_>) -> Vec<SecretReference> {
    let stack = work.stack;
    let mut references = Vec::new();
    for grant in &service.secrets {
        let secret = stack.secrets.get(&grant.source);
        let name = secret.and_then(|secret| secret.name.as_ref());
        references.push(SecretReference {
            file: file(service, "secrets", grant, work),
            id: PayloadId::default(),
            name: work.named(name, &grant.source),
        });
    }
    references.sort_by(|one, other| one.name.cmp(&other.name));
    references
}

/// Configs that a service sees, in the order of their names.
pub(super) fn configs_of(service: &Service, work: &mut Work<'_>) -> Vec<ConfigReference> {
    let stack = work.stack;
    let mut references = Vec::new();
    for grant in &service.configs {
        let config = stack.configs.get(&grant.source);
        let name = config.and_then(|config| config.name.as_ref());
        references.push(ConfigReference {
            file: file(service, "configs", grant, work),
            id: PayloadId::default(),
            name: work.named(name, &grant.source),
        });
    }
    references.sort_by(|one, other| one.name.cmp(&other.name));
    references
}

/// As docker has it, the file of a secret or config has its name in the file of the stack.
fn file(service: &Service, key: &str, grant: &Grant, work: &mut Work<'_>) -> PayloadFile {
    let path = below(&below("services", &service.name), key);
    let mut number = |what: &str, given: &Option<String>| {
        let text = given.as_deref().filter(|text| !text.is_empty());
        let text = text.unwrap_or("0");
        if text.parse::<u32>().is_err() {
            let what = format!("gives {} the {what} {text:?}", grant.source);
            let mend = "write the number of the user or group";
            work.findings.error(&grant.at, &path, what, mend);
        }
        text.to_owned()
    };
    PayloadFile {
        name: file_name(grant).to_owned(),
        uid: number("uid", &grant.uid),
        gid: number("gid", &grant.gid),
        mode: grant.mode.unwrap_or(PayloadFile::default().mode),
    }
}

/// The `target`, or the name in the file of the stack.
fn file_name(grant: &Grant) -> &str {
    match grant.target.as_deref() {
        None | Some("") => &grant.source,
        Some(target) => target,
    }
}

/// A file of a task, and who asks for it.
struct File<'a> {
    kind: PayloadKind,
    grant: &'a Grant,
    /// Final name of the secret or config.
    name: String,
    /// Its full path.
    target: String,
}

/// Two of them cannot be one file, nor one of them the folder of another one, nor anything be mounted
/// where one is: managers compare places in the same way.
pub(super) fn check_targets(service: &Service, work: &mut Work<'_>) {
    let files = files(service, work);
    let mut places: BTreeMap<String, &File<'_>> = BTreeMap::new();
    for file in &files {
        let place = place_of(&file.target);
        if let Some(other) = places.get(&place) {
            conflict(service, other, file, work);
            continue;
        }
        let mut mounts = service.volumes.iter();
        if let Some(mount) = mounts.find(|mount| place_of(&mount.target) == place) {
            let what = format!(
                "duplicate mount point: '{}', which {} '{}' has, and the mount at {}",
                file.target, file.kind, file.name, mount.at
            );
            refuse(service, file, what, work);
        }
        places.insert(place, file);
    }
    for (place, file) in &places {
        let mut folders = place.match_indices('/').map(|(end, _)| &place[..end]);
        if let Some(other) = folders.find_map(|folder| places.get(folder)) {
            conflict(service, other, file, work);
        }
    }
}

fn files<'a>(service: &'a Service, work: &Work<'_>) -> Vec<File<'a>> {
    let stack = work.stack;
    let secrets = service.secrets.iter().map(|grant| {
        let secret = stack.secrets.get(&grant.source);
        let name = secret.and_then(|secret| secret.name.as_ref());
        (PayloadKind::Secret, grant, name)
    });
    let configs = service.configs.iter().map(|grant| {
        let config = stack.configs.get(&grant.source);
        let name = config.and_then(|config| config.name.as_ref());
        (PayloadKind::Config, grant, name)
    });
    let files = secrets.chain(configs).map(|(kind, grant, name)| {
        let target = file_name(grant);
        let folder = kind.folder().trim_end_matches('/');
        File {
            kind,
            grant,
            name: work.named(name, &grant.source),
            target: if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("{folder}/{target}")
            },
        }
    });
    files.collect()
}

/// SwarmKit's words.
fn conflict(service: &Service, one: &File<'_>, other: &File<'_>, work: &mut Work<'_>) {
    let who = if one.kind == other.kind {
        let kind = one.kind;
        format!("{kind} references '{}' and '{}'", one.name, other.name)
    } else {
        format!(
            "{} reference '{}' and {} reference '{}'",
            one.kind, one.name, other.kind, other.name
        )
    };
    let what = format!("{who} have a conflicting target: '{}'", other.target);
    refuse(service, other, what, work);
}

fn refuse(service: &Service, file: &File<'_>, what: String, work: &mut Work<'_>) {
    let path = path_of(service, &format!("{}s", file.kind));
    let mend = "give one of them another `target`";
    work.findings.error(&file.grant.at, &path, what, mend);
}
