//! `weft lab …`

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use weft_lab::{Lab, LabConfig, default_dir};

use crate::args::{FormatArgs, LabCommand};
use crate::output::{Filters, Key, Listing, Match, Printer};

/// Keys of `lab ls --filter`.
const KEYS: [Key; 1] = [("name", &[("Name", Match::Begins)])];

/// How long the agents may take until they answer.
const READY_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn run(command: LabCommand, out: &mut Printer) -> anyhow::Result<ExitCode> {
    match command {
        LabCommand::Up {
            nodes,
            ipv6,
            name,
            weftd_args,
        } => {
            weft_lab::gain_privileges()?;
            let config = LabConfig {
                nodes,
                agent_args: weftd_args,
                dies_with_parent: false,
                ..LabConfig::new(&name)?
            };
            up(if ipv6 { config.over_ipv6() } else { config }, out)?;
        }
        LabCommand::Exec {
            name,
            node,
            command,
        } => return exec(&name, &node, &command),
        LabCommand::Ls { filter, format } => {
            let filters = Filters::of(&filter, &KEYS)?;
            let mut listing = labs()?;
            listing.keep(&filters);
            out.listing(&listing, &format)?;
        }
        LabCommand::Stop { name, node } => {
            open(&name)?.stop_node(&node)?;
            out.line(&node)?;
        }
        LabCommand::Start { name, node } => {
            weft_lab::gain_privileges()?;
            let mut lab = open(&name)?;
            lab.start_node(&node)?;
            lab.wait_ready_of(&node, READY_LIMIT)?;
            out.line(&node)?;
        }
        LabCommand::Status { name, format } => {
            out.listing(&status(&open(&name)?), &format)?;
        }
        LabCommand::Down { name } => {
            open(&name)?.down()?;
            out.line(&name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(config: LabConfig, out: &mut Printer) -> anyhow::Result<()> {
    let mut lab = Lab::create(&config)?;
    let name = &config.name;
    lab.wait_ready(READY_LIMIT)?;
    out.listing(&status(&lab), &FormatArgs::default())?;
    let first = lab.socket("node1")?;
    out.line(&format!(
        "\nTalk to a node:    weft -H unix://{} info\nRun on a node:     weft lab exec --name {name} node1 -- ip address\nTake it all down:  weft lab down --name {name}",
        first.display()
    ))?;
    lab.keep();
    Ok(())
}

fn exec(name: &str, node: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let lab = open(name)?;
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let status = lab
        .command(node, &words)?
        .status()
        .context("cannot run weft again")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// The lab of that name; when there is none, the text names those that there are.
fn open(name: &str) -> anyhow::Result<Lab> {
    open_in(&default_dir()?, name)
}

fn open_in(dir: &Path, name: &str) -> anyhow::Result<Lab> {
    let here = dir.join(name);
    if !here.join("state.json").try_exists().unwrap_or(true) {
        let labs = weft_lab::list(dir).into_iter();
        bail!(no_lab(name, &labs.map(|lab| lab.name).collect::<Vec<_>>()));
    }
    Lab::open(&here)
}

fn no_lab(name: &str, others: &[String]) -> String {
    match others {
        [] => {
            format!("there is no lab {name:?}, and no other one: start one with `weft lab up`")
        }
        others => format!(
            "there is no lab {name:?}: there is {}; name it with --name",
            others.join(", ")
        ),
    }
}

/// `lab ls`
fn labs() -> anyhow::Result<Listing> {
    let mut listing = Listing::new(
        &[("Name", "LAB"), ("Running", "NODES UP"), ("Dir", "FOLDER")],
        "{{.Name}}\t{{.Running}}\t{{.Dir}}",
        "Name",
    );
    for lab in weft_lab::list(&default_dir()?) {
        listing.push(json!({
            "Name": lab.name,
            "Nodes": lab.nodes,
            "Up": lab.up,
            "Running": format!("{}/{}", lab.up, lab.nodes),
            "Dir": lab.dir.display().to_string(),
        }));
    }
    Ok(listing)
}

/// `lab status`
pub(crate) fn status(lab: &Lab) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Name", "NODE"),
            ("Addr", "ADDRESS"),
            ("State", "STATE"),
            ("Agent", "WEFTD"),
            ("Host", "SOCKET"),
        ],
        "{{.Name}}\t{{.Addr}}\t{{.State}}\t{{.Agent}}\t{{.Host}}",
        "Name",
    );
    for machine in lab.status() {
        let socket = machine.socket.map(|s| format!("unix://{}", s.display()));
        listing.push(json!({
            "Name": machine.name,
            "Addr": machine.addr.map(|a| a.to_string()).unwrap_or_default(),
            "State": if machine.up { "up" } else { "down" },
            "Agent": machine.agent_pid.map(|pid| format!("pid {pid}")).unwrap_or_default(),
            "Host": socket.unwrap_or_default(),
            "Log": machine.log,
        }));
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_that_is_not_there_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let error = open_in(dir.path(), "lab").map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no lab \"lab\", and no other one: start one with `weft lab up`"
        );
        let others = ["demo".to_owned(), "mine".to_owned()];
        assert_eq!(
            no_lab("lab", &others),
            "there is no lab \"lab\": there is demo, mine; name it with --name"
        );
    }
}
