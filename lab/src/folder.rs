//! The folder of a lab, and the one of its images.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{Access, access, statfs};
use weft_sys::private_folder::{PrivateError, make_private};

use crate::config::LabConfig;
use crate::groups;
use crate::state::State;

/// `f_type` of file systems in memory (statfs(2)): tmpfs, and the older ramfs.
const IN_MEMORY: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// Where images of labs of root are, when the lab's own folder is in memory.
const DISK: &str = "/var/lib/weft-lab";

/// Makes the folder of a new lab, after removing what a lab that was killed left there. Nobody else
/// may enter it: sockets, specs and keys of agents lie in it.
pub(crate) fn make_room(dir: &Path) -> anyhow::Result<()> {
    match State::load(dir) {
        Ok(old) if old.machines.iter().any(|m| m.plug.is_alive()) => bail!(
            "lab {} runs already in {}: stop it with `weft lab down --name {}`",
            old.name,
            dir.display(),
            old.name
        ),
        Ok(old) => {
            groups::remove(&old);
            if let Some(store) = &old.config.image_store {
                remove_store(store)?;
            }
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?
        }
        Err(error) if error.is::<PrivateError>() => return Err(error),
        Err(_) => {
            let in_use = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
            if in_use {
                bail!(
                    "{} is not empty and holds no lab: remove it or choose another folder",
                    dir.display()
                );
            }
        }
    }
    make_private(dir)?;
    Ok(())
}

/// Makes the folder of a lab's images: where its settings say, else in its own folder, unless that is
/// in memory, which layers of images would soon fill.
pub(crate) fn make_store(config: &LabConfig) -> anyhow::Result<PathBuf> {
    let store = match &config.image_store {
        Some(store) => store.clone(),
        None if is_in_memory(&config.dir) => disk()
            .map_or_else(|| config.dir.clone(), |disk| disk.join(&config.name))
            .join("images"),
        None => config.dir.join("images"),
    };
    make_private(&store)?;
    Ok(store)
}

/// Removes the folder of a lab's images, if it is there.
pub(crate) fn remove_store(store: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(store) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", store.display()))
        }
        _ => Ok(()),
    }
}

fn is_in_memory(dir: &Path) -> bool {
    // The type of the field is not the same on all architectures.
    statfs(dir).is_ok_and(|found| IN_MEMORY.contains(&i128::from(found.f_type)))
}

/// A folder of this user that is not in memory; none where there is none.
fn disk() -> Option<PathBuf> {
    let writable = |dir: &str| access(dir, Access::WRITE_OK).is_ok();
    if writable(DISK) || (!Path::new(DISK).exists() && writable("/var/lib")) {
        return Some(PathBuf::from(DISK));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cache = home.filter(|home| home.is_absolute())?.join(".cache");
    (!is_in_memory(&cache)).then(|| cache.join("weft-lab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_beside_the_lab_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = LabConfig {
            dir: dir.path().join("lab"),
            ..LabConfig::new("t").unwrap()
        };
        make_room(&config.dir).unwrap();
        let store = make_store(&config).unwrap();
        if !is_in_memory(&config.dir) {
            assert_eq!(store, config.dir.join("images"));
        }
        fs::write(store.join("blob"), "x").unwrap();
        remove_store(&store).unwrap();
        assert!(!store.exists());
        remove_store(&store).unwrap();

        let elsewhere = LabConfig {
            image_store: Some(dir.path().join("elsewhere")),
            ..config
        };
        assert_eq!(
            make_store(&elsewhere).unwrap(),
            dir.path().join("elsewhere")
        );
    }

    #[test]
    fn memory_is_told_from_disks() {
        assert!(is_in_memory(Path::new("/dev/shm")));
        assert!(!is_in_memory(Path::new("/proc")));
        assert!(!is_in_memory(Path::new("/no/such/folder")));
    }
}
