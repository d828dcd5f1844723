//! What the agent of this build can do.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Context;

/// What `weftd --help` of this very program says.
pub(crate) fn help() -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let output = Command::new(program)
        .arg0("weftd")
        .arg("--help")
        .stdin(Stdio::null())
        .output()
        .context("cannot ask weftd for its options")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
