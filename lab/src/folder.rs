//! The folder of a lab.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use weft_sys::private_folder::{PrivateError, make_private};

use crate::state::State;

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
        Ok(_) => {
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
