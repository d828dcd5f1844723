//! What tasks see besides their image: whether it can be, as far as that is known before there is a
//! node (Docker's `daemon/cluster/executor/container/validate.go` and `volume/mounts`).

use std::collections::BTreeSet;

use weft_model::names;
use weft_model::objects::{Mount, MountType, Runtime, TaskSpec};

use super::super::error::CommandError;
use super::super::template::{TemplateFields, expand_mount};

/// Mounts of one task at most.
const MAX_MOUNTS: usize = 128;
/// Longest path, in bytes: the kernel's.
const MAX_PATH: usize = 4095;
/// Characters of a text that are repeated in an error.
const SHOWN: usize = 128;

fn bad(message: String) -> CommandError {
    CommandError::bad(message)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Whether the tasks of a service can have these mounts.
///
/// # Errors
/// One that cannot be, in Docker's words where Docker has some.
pub(super) fn check(task: &TaskSpec) -> Result<(), CommandError> {
    let mounts = &task.container.mounts;
    if mounts.is_empty() {
        return Ok(());
    }
    if task.runtime == Runtime::Host {
        return Err(bad(
            "a task of image `host` sees the node's own files, and has no mounts: leave --mount out, or \
             give the service an image"
                .to_owned(),
        ));
    }
    if mounts.len() > MAX_MOUNTS {
        return Err(bad(format!(
            "{} mounts are too many: a task may have {MAX_MOUNTS}",
            mounts.len()
        )));
    }
    let trial = TemplateFields::trial();
    let mut targets = BTreeSet::new();
    for mount in mounts {
        options_fit(mount)?;
        let expanded = expand_mount(mount, &trial)?;
        let target = target(&expanded)?;
        source(&expanded)?;
        volume(&expanded)?;
        if !targets.insert(target) {
            return Err(bad(format!(
                "ContainerSpec: duplicate mount point: {}",
                shown(&mount.target)
            )));
        }
    }
    Ok(())
}

/// Options are of the kind that the mount is.
fn options_fit(mount: &Mount) -> Result<(), CommandError> {
    let (own, word) = match mount.kind {
        MountType::Volume => ("volume-*", "volume"),
        MountType::Bind => ("bind-*", "bind"),
        MountType::Tmpfs => ("tmpfs-*", "tmpfs"),
    };
    for (options, given) in [
        ("volume-*", mount.volume_options.is_some()),
        ("bind-*", mount.bind_options.is_some()),
        ("tmpfs-*", mount.tmpfs_options.is_some()),
    ] {
        if given && options != own {
            return Err(bad(format!(
                "cannot mix '{options}' options with mount type '{word}'"
            )));
        }
    }
    let mode = mount.tmpfs_options.map_or(0, |options| options.mode);
    if mode > 0o7777 {
        return Err(bad(format!("invalid tmpfs mode {mode:o}: write 0 to 7777")));
    }
    let bind = mount.bind_options.as_ref();
    let strict = bind.is_some_and(|b| b.read_only_non_recursive || b.read_only_force_recursive);
    if strict && !mount.read_only {
        return Err(bad(format!(
            "mount at {}: bind-recursive=writable and =readonly are about binds that are readonly, and \
             this one is not",
            shown(&mount.target)
        )));
    }
    Ok(())
}

/// The full path of a mount in the task, each in one spelling.
pub(super) fn target(mount: &Mount) -> Result<String, CommandError> {
    let path = &mount.target;
    let invalid = |why: &str| bad(format!("invalid mount target, {why}: {}", shown(path)));
    if !path.starts_with('/') {
        return Err(invalid("must be an absolute path"));
    }
    if path.contains('\0') || path.len() > MAX_PATH {
        return Err(invalid(
            "must have 4095 bytes at most, and no NUL character",
        ));
    }
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    if parts.contains(&"..") {
        return Err(invalid("must not have \"..\" in it"));
    }
    if parts.is_empty() {
        return Err(invalid("destination can't be '/'"));
    }
    Ok(parts.join("/"))
}

fn source(mount: &Mount) -> Result<(), CommandError> {
    let source = &mount.source;
    if source.contains('\0') || source.len() > MAX_PATH {
        return Err(bad(format!(
            "invalid mount source, must have {MAX_PATH} bytes at most, and no NUL character: {}",
            shown(source)
        )));
    }
    let absolute = source.starts_with('/');
    match mount.kind {
        MountType::Bind if !absolute => Err(bad(format!(
            "invalid bind mount source, must be an absolute path: {}",
            shown(source)
        ))),
        MountType::Volume if absolute => Err(bad(format!(
            "invalid volume mount source, must not be an absolute path: {}",
            shown(source)
        ))),
        MountType::Tmpfs if !source.is_empty() => {
            Err(bad("invalid tmpfs source, source must be empty".to_owned()))
        }
        MountType::Volume if !source.is_empty() => volume_name(source),
        _ => Ok(()),
    }
}

/// Docker's pattern, which the driver holds to on the node.
fn volume_name(name: &str) -> Result<(), CommandError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !first || !rest {
        return Err(bad(format!(
            "{:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
             absolute path",
            shown(name)
        )));
    }
    match name.len() {
        1 => Err(bad(
            "volume name is too short, names should be at least two alphanumeric characters"
                .to_owned(),
        )),
        2..=255 => Ok(()),
        long => Err(bad(format!(
            "volume name is too long: it has {long} characters and may have 255"
        ))),
    }
}

fn volume(mount: &Mount) -> Result<(), CommandError> {
    let Some(options) = &mount.volume_options else {
        return Ok(());
    };
    names::check_labels(&options.labels)?;
    let driver = options.driver_config.as_ref();
    let driver = driver.map_or("", |driver| driver.name.as_str());
    if !matches!(driver, "" | "local") {
        return Err(bad(format!(
            "plugin {:?} not found: weft has the volume driver \"local\" alone",
            shown(driver)
        )));
    }
    if mount.source.is_empty() && (options.sticky || !options.subpath.is_empty()) {
        let what = if options.sticky {
            "volume-sticky"
        } else {
            "volume-subpath"
        };
        return Err(bad(format!(
            "{what} needs a volume with a name, as one without is gone with its task: give source=NAME"
        )));
    }
    let mut parts = options.subpath.split('/');
    if options.subpath.starts_with('/') || parts.any(|part| part == "..") {
        return Err(bad(format!(
            "invalid volume-subpath, must be a relative path inside the volume: {}",
            shown(&options.subpath)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weft_model::objects::{
        BindOptions, ContainerSpec, TmpfsOptions, VolumeDriver, VolumeOptions,
    };

    use super::*;

    fn task(mounts: Vec<Mount>) -> TaskSpec {
        TaskSpec {
            runtime: Runtime::Container,
            container: ContainerSpec {
                mounts,
                ..ContainerSpec::default()
            },
            ..TaskSpec::default()
        }
    }

    fn mount(kind: MountType, source: &str, target: &str) -> Mount {
        Mount {
            kind,
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        }
    }

    fn refused(mounts: Vec<Mount>) -> String {
        check(&task(mounts)).expect_err("refused").message
    }

    #[test]
    fn what_can_be_is_taken() {
        let fine = vec![
            mount(MountType::Volume, "data-{{.Task.Slot}}", "/data"),
            mount(MountType::Volume, "", "/own/{{.Service.Name}}"),
            mount(MountType::Bind, "/srv/{{.Node.Hostname}}", "/srv"),
            mount(MountType::Tmpfs, "", "/tmp"),
        ];
        assert_eq!(check(&task(fine.clone())), Ok(()));
        assert_eq!(check(&task(Vec::new())), Ok(()));
        let host = TaskSpec {
            runtime: Runtime::Host,
            ..task(fine)
        };
        let error = check(&host).expect_err("a host task").message;
        assert!(error.contains("leave --mount out"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        use MountType::{Bind, Tmpfs, Volume};
        for (mount, says) in [
            (
                mount(Volume, "data", "data"),
                "invalid mount target, must be an absolute path: data",
            ),
            (
                mount(Volume, "data", "/"),
                "invalid mount target, destination can't be '/': /",
            ),
            (
                mount(Volume, "data", "/a/../.."),
                "invalid mount target, must not have \"..\" in it: /a/../..",
            ),
            (
                mount(Bind, "srv", "/x"),
                "invalid bind mount source, must be an absolute path: srv",
            ),
            (
                mount(Bind, "", "/x"),
                "invalid bind mount source, must be an absolute path: ",
            ),
            (
                mount(Volume, "/srv", "/x"),
                "invalid volume mount source, must not be an absolute path: /srv",
            ),
            (
                mount(Tmpfs, "x", "/x"),
                "invalid tmpfs source, source must be empty",
            ),
            (
                mount(Volume, "x", "/x"),
                "volume name is too short, names should be at least two alphanumeric characters",
            ),
        ] {
            assert_eq!(refused(vec![mount]), says);
        }
        let slash = refused(vec![mount(Volume, "a/b", "/x")]);
        assert!(
            slash.starts_with("\"a/b\" includes invalid characters"),
            "{slash}"
        );
        let template = refused(vec![mount(Volume, "data-{{.Task.Nope}}", "/x")]);
        assert!(template.starts_with("invalid template "), "{template}");
    }

    #[test]
    fn two_mounts_have_two_places() {
        let mounts = |a: &str, b: &str| {
            vec![
                mount(MountType::Volume, "aa", a),
                mount(MountType::Tmpfs, "", b),
            ]
        };
        for (a, b) in [
            ("/x", "/x"),
            ("/x", "/x/"),
            ("/x/y", "//x/./y"),
            ("/x/1", "/x/{{.Task.Slot}}"),
        ] {
            let says = format!("ContainerSpec: duplicate mount point: {b}");
            assert_eq!(refused(mounts(a, b)), says);
        }
        assert_eq!(check(&task(mounts("/x", "/x/y"))), Ok(()));
        let many = (0..=MAX_MOUNTS).map(|n| mount(MountType::Tmpfs, "", &format!("/{n}")));
        assert!(refused(many.collect()).starts_with("129 mounts are too many"));
    }

    #[test]
    fn options_are_of_their_kind() {
        let mut tmpfs = mount(MountType::Volume, "data", "/x");
        tmpfs.tmpfs_options = Some(TmpfsOptions::default());
        assert_eq!(
            refused(vec![tmpfs]),
            "cannot mix 'tmpfs-*' options with mount type 'volume'"
        );
        let mut bind = mount(MountType::Bind, "/srv", "/x");
        bind.bind_options = Some(BindOptions {
            read_only_force_recursive: true,
            ..BindOptions::default()
        });
        assert!(refused(vec![bind]).contains("binds that are readonly"));
        let volume = |source: &str, options: VolumeOptions| {
            let mut mount = mount(MountType::Volume, source, "/x");
            mount.volume_options = Some(options);
            refused(vec![mount])
        };
        let sticky = VolumeOptions {
            sticky: true,
            ..VolumeOptions::default()
        };
        assert!(volume("", sticky).starts_with("volume-sticky needs a volume with a name"));
        for subpath in ["/etc", "a/../.."] {
            let options = VolumeOptions {
                subpath: subpath.into(),
                ..VolumeOptions::default()
            };
            assert!(volume("data", options).starts_with("invalid volume-subpath"));
        }
        let foreign = VolumeOptions {
            driver_config: Some(VolumeDriver {
                name: "rexray".into(),
                ..VolumeDriver::default()
            }),
            ..VolumeOptions::default()
        };
        assert!(volume("data", foreign).starts_with("plugin \"rexray\" not found"));
    }
}
