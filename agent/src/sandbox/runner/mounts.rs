//! What a container sees besides its image: binds, volumes, memory.

use std::path::Path;

use weft_model::objects::{ContainerSpec, Mount, MountType, Propagation, Task};
use weft_runtime::merged::Merged;
use weft_runtime::mounts::TaskMount;
use weft_volumes::check_bind;

use super::RunError;
use super::engine::Containers;

/// The service's mounts, and a volume for each place that the image asks one for and the service mounts
/// nothing at; outer places before those inside of them.
pub(super) fn task_mounts(
    task: &Task,
    spec: &ContainerSpec,
    merged: &Merged,
    containers: &Containers,
    rootfs: &Path,
) -> Result<Vec<TaskMount>, RunError> {
    let mut wanted = wanted(spec, &merged.volumes);
    wanted.sort_by_key(|mount| Path::new(&mount.target).components().count());
    let made = wanted.iter().map(|mount| -> Result<TaskMount, RunError> {
        Ok(match mount.kind {
            MountType::Bind => bind(mount, containers.engine.recursive_read_only())?,
            MountType::Volume => TaskMount::Bind {
                source: containers.volumes.attach(&task.id, mount, rootfs)?,
                target: (&mount.target).into(),
                read_only: mount.read_only,
                recursive_read_only: false,
                recursive: true,
                propagation: Propagation::Rprivate,
            },
            MountType::Tmpfs => {
                let options = mount.tmpfs_options.unwrap_or_default();
                TaskMount::Tmpfs {
                    target: (&mount.target).into(),
                    size_bytes: options.size_bytes,
                    mode: options.mode,
                }
            }
        })
    });
    made.collect()
}

/// `recursive`: the runtime program can make all below it read-only.
fn bind(mount: &Mount, recursive: bool) -> Result<TaskMount, RunError> {
    let options = mount.bind_options.clone().unwrap_or_default();
    if mount.read_only && options.read_only_force_recursive && !recursive {
        return Err(RunError::RecursiveReadOnly(mount.target.clone()));
    }
    Ok(TaskMount::Bind {
        source: check_bind(mount)?,
        target: (&mount.target).into(),
        read_only: mount.read_only,
        // As Docker: what is below it too where that can be, if nothing else is said.
        recursive_read_only: mount.read_only
            && !options.non_recursive
            && !options.read_only_non_recursive
            && recursive,
        recursive: !options.non_recursive,
        propagation: options.propagation,
    })
}

fn wanted(spec: &ContainerSpec, of_image: &[String]) -> Vec<Mount> {
    let given = |target: &String| spec.mounts.iter().any(|m| same_place(&m.target, target));
    let own = of_image.iter().filter(|target| !given(target));
    let own = own.map(|target| Mount {
        kind: MountType::Volume,
        target: target.clone(),
        ..Mount::default()
    });
    spec.mounts.iter().cloned().chain(own).collect()
}

/// Whether two full paths are one, as they are written.
pub(super) fn same_place(one: &str, other: &str) -> bool {
    Path::new(one)
        .components()
        .eq(Path::new(other).components())
}

#[cfg(test)]
mod tests {
    use weft_model::objects::BindOptions;

    use super::*;

    fn mount(kind: MountType, target: &str) -> Mount {
        Mount {
            kind,
            target: target.to_owned(),
            ..Mount::default()
        }
    }

    #[test]
    fn places_of_the_image_get_volumes_where_nothing_is_mounted() {
        let spec = ContainerSpec {
            mounts: vec![mount(MountType::Tmpfs, "/var/cache/")],
            ..ContainerSpec::default()
        };
        let of_image = ["/var/cache", "/var/lib/data"].map(str::to_owned);
        let wanted = wanted(&spec, &of_image);
        let kinds: Vec<_> = wanted.iter().map(|m| (m.kind, m.target.as_str())).collect();
        let expected = [
            (MountType::Tmpfs, "/var/cache/"),
            (MountType::Volume, "/var/lib/data"),
        ];
        assert_eq!(kinds, expected);
        assert!(!same_place("/var", "/var/cache"));
    }

    #[test]
    fn a_bind_that_is_read_only_is_so_with_what_is_below() {
        let dir = tempfile::tempdir().expect("dir");
        let mut given = mount(MountType::Bind, "/data");
        given.source = dir.path().display().to_string();
        given.read_only = true;
        let read_only_of = |given: &Mount| match bind(given, true).expect("it is there") {
            TaskMount::Bind {
                recursive_read_only,
                recursive,
                ..
            } => (recursive_read_only, recursive),
            TaskMount::Tmpfs { .. } | TaskMount::File { .. } => panic!("no bind"),
        };
        assert_eq!(read_only_of(&given), (true, true));
        given.bind_options = Some(BindOptions {
            read_only_non_recursive: true,
            ..BindOptions::default()
        });
        assert_eq!(read_only_of(&given), (false, true));
        given.bind_options = None;
        let old = bind(&given, false).expect("it is there");
        let TaskMount::Bind {
            read_only,
            recursive_read_only,
            ..
        } = old
        else {
            panic!("no bind");
        };
        assert!(read_only && !recursive_read_only, "a program that cannot");
        given.bind_options = Some(BindOptions {
            read_only_force_recursive: true,
            ..BindOptions::default()
        });
        let error = bind(&given, false).expect_err("asked for").to_string();
        assert!(error.contains("rro is not supported"), "{error}");
        assert_eq!(read_only_of(&given), (true, true));
        given.source += "/missing";
        let error = bind(&given, true).expect_err("not there").to_string();
        let begins = "invalid bind mount source, source path not found: ";
        assert!(error.starts_with(begins), "{error}");
    }
}
