//! nftables through the `nft` program: one atomic transaction per call.

mod kernel;

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

pub use kernel::{TranslationHold, generation};

/// Why a rule set could not be applied or read. A transaction that fails changes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// Local: the program is not installed.
    #[error("the `nft` program was not found: install the nftables package")]
    Missing,
    /// Local: it could not be run.
    #[error("cannot run nft: {0}")]
    Run(#[from] io::Error),
    /// Local: it, or the kernel, refused.
    #[error("nft refused: {0}")]
    Refused(String),
    /// Local: its JSON makes no sense.
    #[error("nft printed JSON that cannot be read: {0}")]
    Output(#[from] serde_json::Error),
}

/// Where it is looked for: the search path, then where systems keep it that leave `sbin` out of an
/// ordinary user's path.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// True when the program is there. Whether it may change anything is another question, and has
/// another answer in each namespace.
#[must_use]
pub fn installed() -> bool {
    run(&["--version"], "").is_ok()
}

/// Applies a rule set text (`nft -f -`) in the calling thread's namespace, all or nothing.
///
/// # Errors
/// See [`NftError`].
pub fn apply(rules: &str) -> Result<(), NftError> {
    run(&["-f", "-"], rules).map(drop)
}

/// One table as nft's JSON (`nft -j list table FAMILY NAME`); `None` when it is not there.
///
/// # Errors
/// See [`NftError`].
pub fn list_table(family: &str, name: &str) -> Result<Option<serde_json::Value>, NftError> {
    match run(&["-j", "list", "table", family, name], "") {
        Ok(json) => Ok(Some(serde_json::from_str(&json)?)),
        Err(NftError::Refused(text)) if text.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// All chains of all tables as nft's JSON (`nft -j list ruleset` without the elements of sets).
///
/// # Errors
/// See [`NftError`].
pub fn list_ruleset() -> Result<serde_json::Value, NftError> {
    Ok(serde_json::from_str(&run(
        &["-j", "-t", "list", "ruleset"],
        "",
    )?)?)
}

/// The child is forked from the calling thread and so is in that thread's namespace.
fn run(args: &[&str], input: &str) -> Result<String, NftError> {
    let mut child = spawn(args)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // nft reads all of its input before it prints; a refusal shows in its exit status.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(NftError::Refused(text.trim().to_owned()));
    }
    written?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn spawn(args: &[&str]) -> Result<Child, NftError> {
    for program in PROGRAMS {
        let spawned = Command::new(program)
            .args(args)
            // `list_table` reads a message of the C library.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            spawned => return Ok(spawned?),
        }
    }
    Err(NftError::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    #[test]
    fn a_table_is_applied_listed_and_deleted() {
        let netns = Netns::create_anonymous().expect("netns");
        netns
            .run_in(|| {
                assert!(installed());
                assert!(list_table("inet", "weft").expect("list").is_none());
                apply("table inet weft { chain c { type filter hook input priority 0; }; }")
                    .expect("apply");
                let table = list_table("inet", "weft").expect("list").expect("table");
                assert!(table.to_string().contains(r#""hook":"input""#), "{table}");
                let error = apply("add rule inet weft nosuch accept").expect_err("refused");
                assert!(matches!(error, NftError::Refused(_)), "{error}");
                apply("delete table inet weft").expect("delete");
                assert!(list_table("inet", "weft").expect("list").is_none());
            })
            .expect("run");
    }
}
