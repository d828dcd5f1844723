//! The right to make namespaces: root has it; others get it inside a user namespace.

use anyhow::{Context, bail};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::privileges;

const TUN: &str = "/dev/net/tun";

/// Makes sure that this process may build a lab, and becomes root of a new user namespace when it
/// is run by an ordinary user. Must be called before any thread is started.
///
/// # Errors
/// One sentence that says what is missing.
pub fn gain_privileges() -> anyhow::Result<()> {
    let root = rustix::process::geteuid().is_root();
    if let Err(e) = privileges::check_tun() {
        match e.kind() {
            std::io::ErrorKind::NotFound => bail!(
                "{TUN} does not exist here: load the kernel module with `modprobe tun`, or pass the device into the container"
            ),
            std::io::ErrorKind::PermissionDenied if !root => bail!(
                "{TUN} may not be opened by this user: run this as root, or allow it with `chmod 0666 {TUN}`"
            ),
            _ => bail!("{TUN} cannot be opened ({e}): weft's ports are TAP devices"),
        }
    }
    if root {
        return Ok(privileges::check()?);
    }
    let kinds = Kinds {
        user: true,
        ..Kinds::default()
    };
    namespaces::unshare(kinds).context(
        "an ordinary user needs a user namespace, and this kernel does not give one (see `sysctl user.max_user_namespaces kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns`); run this as root",
    )
}
