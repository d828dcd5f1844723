//! What tasks see besides their image (docker/cli `cli/compose/convert/volume.go`).

use weft_model::objects::{
    BindOptions, Mount, MountType, Propagation, TmpfsOptions, VolumeDriver, VolumeOptions,
};

use super::Work;
use crate::model::{self, External, Service, Volume};
use crate::problem::below;
use crate::target::place;

/// The one driver of volumes.
const LOCAL: &str = "local";
/// Its options.
const OPTIONS: [&str; 4] = ["type", "device", "o", "size"];
/// What begins a template, which the node fills in.
const ACTION: &str = "{{";

/// The mounts of a service, in the order of their places, so that none in the file replaces tasks.
pub(super) fn mounts(service: &Service, work: &mut Work<'_>) -> Vec<Mount> {
    let mounts = service.volumes.iter();
    let mut mounts: Vec<Mount> = mounts.map(|mount| convert(service, mount, work)).collect();
    mounts.sort_by(|one, other| one.target.cmp(&other.target));
    mounts
}

fn convert(service: &Service, mount: &model::Mount, work: &mut Work<'_>) -> Mount {
    check_target(service, mount, work);
    let mut made = Mount {
        source: mount.source.clone().unwrap_or_default(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        ..Mount::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            made.kind = MountType::Bind;
            made.bind_options = bind(mount);
        }
        "tmpfs" => {
            made.kind = MountType::Tmpfs;
            let tmpfs = mount.tmpfs.clone().unwrap_or_default();
            let options = TmpfsOptions {
                size_bytes: tmpfs.size.unwrap_or_default(),
                mode: tmpfs.mode.unwrap_or_default(),
            };
            made.tmpfs_options = (options != TmpfsOptions::default()).then_some(options);
        }
        // The others are refused when a file is read.
        _ => volume(service, mount, &mut made, work),
    }
    made
}

/// As managers check it, in their words.
fn check_target(service: &Service, mount: &model::Mount, work: &mut Work<'_>) {
    let target = &mount.target;
    let why = if target.split('/').any(|part| part == "..") {
        "must not have \"..\" in it"
    } else if place(target) == "/" {
        "destination can't be '/'"
    } else {
        return;
    };
    let what = format!("invalid mount target, {why}: {target}");
    let path = below(&below("services", &service.name), "volumes");
    let mend = "write the path of a folder in the container";
    work.findings.error(&mount.at, &path, what, mend);
}

fn bind(mount: &model::Mount) -> Option<BindOptions> {
    let bind = mount.bind.as_ref()?;
    let propagation = match bind.propagation.as_deref() {
        Some("private") => Propagation::Private,
        Some("rshared") => Propagation::Rshared,
        Some("shared") => Propagation::Shared,
        Some("rslave") => Propagation::Rslave,
        Some("slave") => Propagation::Slave,
        _ => Propagation::Rprivate,
    };
    let options = BindOptions {
        propagation,
        create_mountpoint: bind.create_host_path,
        ..BindOptions::default()
    };
    (options != BindOptions::default()).then_some(options)
}

/// A volume by its final name, with what a node needs to make it. One that is there already is taken
/// as it is, and one without a name is gone with its task.
fn volume(service: &Service, mount: &model::Mount, made: &mut Mount, work: &mut Work<'_>) {
    made.kind = MountType::Volume;
    let asked = mount.volume.clone().unwrap_or_default();
    let mut options = VolumeOptions {
        no_copy: asked.nocopy,
        subpath: asked.subpath.unwrap_or_default(),
        ..VolumeOptions::default()
    };
    let path = below(&below("services", &service.name), "volumes");
    let mut parts = options.subpath.split('/');
    if options.subpath.starts_with('/') || parts.any(|part| part == "..") {
        let what = format!(
            "invalid volume-subpath, must be a relative path inside the volume: {}",
            options.subpath
        );
        work.findings
            .error(&mount.at, &path, what, "write it without / in front and ..");
    }
    match &mount.source {
        None if !options.subpath.is_empty() => {
            let what = "has a subpath of a volume without a name, which is gone with its task";
            work.findings
                .error(&mount.at, &path, what, "name one of `volumes` as source");
        }
        None => {}
        Some(key) => {
            let unwritten = Volume::default();
            let stack = work.stack;
            let volume = stack.volumes.get(key).unwrap_or(&unwritten);
            made.source = work.named(volume.name.as_ref(), key);
            check_name(key, volume, &made.source, work);
            if volume.external == External::No {
                options.labels = work.labels(&volume.labels);
                options.driver_config = driver(key, volume, work);
            }
        }
    }
    made.volume_options = (options != VolumeOptions::default()).then_some(options);
}

/// Docker's pattern, but for templates, which only nodes can fill in.
fn check_name(key: &str, volume: &Volume, name: &str, work: &mut Work<'_>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let is_good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && (2..=255).contains(&name.len());
    if is_good || name.contains(ACTION) {
        return;
    }
    let what = format!(
        "{name:?} includes invalid characters for a local volume name, or has not 2 to 255 of them; \
         only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    );
    let mend = "give it another `name`, and a folder of the nodes as /PATH or ./PATH";
    let path = below("volumes", key);
    work.findings.error(&volume.at, &path, what, mend);
}

fn driver(key: &str, volume: &Volume, work: &mut Work<'_>) -> Option<VolumeDriver> {
    let path = below("volumes", key);
    let labels = work.labels(&volume.labels);
    work.check_labels(&labels, &volume.at, &path);
    let name = volume.driver.clone().unwrap_or_default();
    if !matches!(name.as_str(), "" | LOCAL) {
        let what = format!("plugin {name:?} not found: weft has the volume driver \"local\" alone");
        let mend = "write `driver: local`, with driver_opts for NFS and others that mount(8) knows";
        work.findings.error(&volume.at, &path, what, mend);
    }
    let unknown = volume.driver_opts.keys();
    for option in unknown.filter(|option| !OPTIONS.contains(&option.as_str())) {
        let what = format!("invalid option: {option:?}");
        let mend = format!("there are {}", OPTIONS.join(", "));
        work.findings.error(&volume.at, &path, what, mend);
    }
    let driver = VolumeDriver {
        name,
        options: volume.driver_opts.clone(),
    };
    (driver != VolumeDriver::default()).then_some(driver)
}
