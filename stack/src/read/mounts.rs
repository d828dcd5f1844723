//! What a task has in its file system: `[SOURCE:]TARGET[:OPTIONS]`, or written out, and `tmpfs`.

use super::place::Place;
use crate::amount::parse_size;
use crate::model::{Bind, Mount, MountedVolume, Tmpfs};
use crate::problem::Findings;
use crate::surroundings::Surroundings;
use crate::target::place as place_of;

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

pub(super) fn mounts(
    place: &Place<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut take = |mount: Mount, path: &str, findings: &mut Findings| {
        if !mount.target.starts_with('/') {
            let what = format!(
                "has the target {:?}, which is no absolute path",
                mount.target
            );
            findings.error(&mount.at, path, what, "begin it with /");
        } else if let Some(other) = mounts
            .iter()
            .find(|other| place_of(&other.target) == place_of(&mount.target))
        {
            let what = format!(
                "is the second mount at {}; the first is at {}",
                mount.target, other.at
            );
            findings.error(&mount.at, path, what, "keep one of them");
        } else {
            mounts.push(mount);
        }
    };
    for item in place.get("volumes").iter().flat_map(Place::items) {
        let mount = match item.node.text() {
            Some(text) => short(text, surroundings).map_err(|what| {
                let mend = "write [SOURCE:]TARGET[:ro], such as data:/var/lib/data";
                findings.error(item.at(), &item.path, what, mend);
            }),
            None => long(&item, surroundings, findings).ok_or(()),
        };
        if let Ok(mut mount) = mount {
            mount.at = item.at().clone();
            take(mount, &item.path, findings);
        }
    }
    if let Some(place) = place.get("tmpfs") {
        let what = "is mounted here; `docker stack deploy` drops it";
        findings.warn(place.at(), &place.path, what, "");
        let texts = place.node.text().into_iter();
        let texts = texts.chain(place.node.items().iter().filter_map(|item| item.text()));
        for text in texts {
            match memory(text) {
                Ok(mut mount) => {
                    mount.at = place.at().clone();
                    take(mount, &place.path, findings);
                }
                Err(what) => {
                    findings.error(
                        place.at(),
                        &place.path,
                        what,
                        "write /PATH:size=64m,mode=1777",
                    );
                }
            }
        }
    }
    mounts
}

fn short(text: &str, surroundings: &Surroundings<'_>) -> Result<Mount, String> {
    let bytes = text.as_bytes();
    let is_drive = bytes.len() > 2
        && bytes[0].is_ascii_alphabetic()
        && bytes[1] == b':'
        && (bytes[2] == b'\\' || (bytes[2] == b'/' && text[3..].contains(':')));
    if is_drive {
        return Err(format!(
            "has a path of Windows in {text:?}, and nodes run Linux"
        ));
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!(
            "invalid spec: {text}: empty section between colons"
        ));
    }
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("invalid spec: {text}: too many colons")),
    };
    let is_bind = source.is_some_and(|source| source.starts_with(['.', '/', '~']));
    let mut mount = Mount {
        kind: if is_bind { "bind" } else { "volume" }.to_owned(),
        source: source.map(|source| {
            if is_bind {
                surroundings.absolute(source)
            } else {
                source.to_owned()
            }
        }),
        target: target.to_owned(),
        ..Mount::default()
    };
    // What else is there docker leaves out, too: `z` and `Z` of SELinux, `cached`.
    for option in options.split(',') {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" if !is_bind => mount.volume.get_or_insert_default().nocopy = true,
            _ if is_bind && PROPAGATIONS.contains(&option) => {
                mount.bind.get_or_insert_default().propagation = Some(option.to_owned());
            }
            _ => {}
        }
    }
    Ok(mount)
}

fn long(
    place: &Place<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Mount> {
    if place.node.entries().is_empty() {
        return None;
    }
    let kind = match place.get("type") {
        Some(_) => place.one_of("type", &["volume", "bind", "tmpfs"], findings)?,
        None => {
            let what = "has no type";
            findings.error(
                place.at(),
                &place.path,
                what,
                "write `type: volume`, bind or tmpfs",
            );
            return None;
        }
    };
    let source = place.text("source").filter(|source| !source.is_empty());
    match (kind.as_str(), &source) {
        ("bind", None) => {
            let what = "is a bind without a source";
            findings.error(
                place.at(),
                &place.path,
                what,
                "write the folder of the nodes as `source`",
            );
        }
        ("tmpfs", Some(_)) => {
            let what = "is memory with a source";
            findings.error(place.at(), &place.path, what, "take `source` away");
        }
        _ => {}
    }
    for other in ["bind", "volume", "tmpfs"] {
        if other != kind
            && let Some(place) = place.get(other)
        {
            let what = format!("has options for {other}, and is of type {kind}");
            findings.error(
                place.at(),
                &place.path,
                what,
                "take them away, or write another type",
            );
        }
    }
    let Some(target) = place.text("target") else {
        findings.error(
            place.at(),
            &place.path,
            "has no target",
            "write the path in the container",
        );
        return None;
    };
    Some(Mount {
        source: source.map(|source| {
            if kind == "bind" {
                surroundings.absolute(&source)
            } else {
                source
            }
        }),
        target,
        read_only: place.flag("read_only").unwrap_or_default(),
        consistency: place.text("consistency"),
        bind: place.get("bind").map(|place| Bind {
            propagation: place.one_of("propagation", &PROPAGATIONS, findings),
            create_host_path: place.flag("create_host_path").unwrap_or_default(),
        }),
        volume: place.get("volume").map(|place| MountedVolume {
            nocopy: place.flag("nocopy").unwrap_or_default(),
            subpath: place.text("subpath"),
        }),
        tmpfs: place.get("tmpfs").map(|place| Tmpfs {
            size: place.size("size", findings),
            mode: place.mode("mode", findings),
        }),
        kind,
        ..Mount::default()
    })
}

/// `/PATH[:size=64m,mode=1777]`, as `docker run --tmpfs` has it.
fn memory(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = Tmpfs::default();
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "size" => {
                let size = parse_size(value);
                tmpfs.size = Some(size.ok_or_else(|| format!("has the size {value:?}"))?);
            }
            "mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777);
                tmpfs.mode = Some(mode.ok_or_else(|| format!("has the mode {value:?}"))?);
            }
            "ro" => read_only = true,
            // These hold anyhow, or are the default.
            "rw" | "noexec" | "nosuid" | "nodev" => {}
            _ => return Err(format!("has the option {option:?}")),
        }
    }
    Ok(Mount {
        kind: "tmpfs".to_owned(),
        target: target.to_owned(),
        read_only,
        tmpfs: (tmpfs != Tmpfs::default()).then_some(tmpfs),
        ..Mount::default()
    })
}
