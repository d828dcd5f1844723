//! `weft stack …`
//!
//! ```text
//! files ─► Stack ─► Deployment ─► what differs from what there is ─► steps ─► calls
//! (config)         (weft-stack)   (current, images, steps)                    (deploy)
//! ```

mod config;
mod current;
mod depends;
mod deploy;
mod differences;
mod ends;
mod images;
mod ledger;
mod ls;
mod payloads;
mod ports;
mod rm;
mod steps;
mod turns;

use std::process::ExitCode;

use anyhow::bail;
use weft_client::Client;

use crate::args::StackCommand;
use crate::output::Printer;

pub(super) use config::config;

/// All but `weft stack config` asks a node.
pub(super) async fn run(
    client: &Client,
    command: StackCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        StackCommand::Config(args) => config(&args, out),
        StackCommand::Deploy(args) => {
            check_name(&args.stack)?;
            deploy::deploy(client, &args, out).await
        }
        StackCommand::Ls { format } => ls::stacks(client, &format, out).await,
        StackCommand::Ps(args) => {
            check_name(&args.stack)?;
            ls::tasks_of(client, &args, out).await
        }
        StackCommand::Rm(args) => {
            for stack in &args.stacks {
                check_name(stack)?;
            }
            rm::rm(client, &args, out).await
        }
        StackCommand::Services(args) => {
            check_name(&args.stack)?;
            ls::services_of(client, &args, out).await
        }
    }
}

/// As docker: a name of blanks and quotes alone is none (docker/cli `validateStackName`).
fn check_name(name: &str) -> anyhow::Result<()> {
    let blank = |c: char| c == '"' || c == '\'' || c.is_whitespace();
    if name.chars().all(blank) {
        bail!("invalid stack name: {name:?}; give it one, such as \"vote\"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_a_name() {
        for name in ["", " ", "'\"", "\t"] {
            let error = check_name(name).expect_err("no name").to_string();
            assert!(error.starts_with("invalid stack name: \""), "{error}");
        }
        check_name("vote").expect("a name");
    }
}
