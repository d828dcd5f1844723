//! Folders and files of the node that tasks see as they are.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use weft_model::objects::Mount;

use crate::error::VolumeError;

/// The source of a bind, if it is there; one with `create_mountpoint` is made, as a folder (0755).
///
/// # Errors
/// It is no full path, is not there, or cannot be made.
pub fn check_bind(mount: &Mount) -> Result<PathBuf, VolumeError> {
    let source = Path::new(&mount.source);
    if !source.is_absolute() {
        return Err(VolumeError::BindRelative(mount.source.clone()));
    }
    // What a link leads to is what is bound.
    if source.exists() {
        return Ok(source.to_owned());
    }
    let make = mount.bind_options.as_ref();
    if !make.is_some_and(|options| options.create_mountpoint) {
        return Err(VolumeError::BindMissing(mount.source.clone()));
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(source);
    made.map_err(|source| VolumeError::BindMake {
        path: mount.source.clone(),
        source,
    })?;
    Ok(source.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use weft_model::objects::{BindOptions, MountType};

    use super::*;

    fn bind(source: &Path, create: bool) -> Mount {
        Mount {
            kind: MountType::Bind,
            source: source.display().to_string(),
            target: "/x".into(),
            bind_options: Some(BindOptions {
                create_mountpoint: create,
                ..BindOptions::default()
            }),
            ..Mount::default()
        }
    }

    #[test]
    fn sources_are_there_or_said_to_be_missing() {
        let dir = tempfile::tempdir().expect("a folder");
        let missing = dir.path().join("a/b");
        let error = check_bind(&bind(&missing, false)).expect_err("not there");
        let begins = format!(
            "invalid bind mount source, source path not found: {}",
            missing.display()
        );
        assert!(error.to_string().starts_with(&begins), "{error}");
        assert!(!missing.exists());
        assert_eq!(check_bind(&bind(&missing, true)).expect("made"), missing);
        assert!(missing.is_dir());
        assert_eq!(check_bind(&bind(&missing, false)).expect("there"), missing);
        let error = check_bind(&bind(Path::new("srv"), true)).expect_err("relative");
        assert_eq!(
            error.to_string(),
            "invalid bind mount source, must be an absolute path: srv"
        );
        // A link to nothing is not made into something.
        let link = dir.path().join("link");
        symlink(dir.path().join("nothing"), &link).expect("a link");
        assert!(check_bind(&bind(&link, false)).is_err());
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert!(check_bind(&bind(&file.join("below"), true)).is_err());
    }
}
