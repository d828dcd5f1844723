//! `weft lab …`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use weft_lab::{Lab, LabConfig, default_dir};

use crate::args::{FormatArgs, LabCommand};
use crate::output::{Listing, Printer};

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
        LabCommand::Status { name, format } => {
            out.text(&status(&Lab::open(&default_dir()?.join(name))?).render(&format)?)?;
        }
        LabCommand::Down { name } => {
            Lab::open(&default_dir()?.join(&name))?.down()?;
            out.line(&name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(config: LabConfig, out: &mut Printer) -> anyhow::Result<()> {
    let mut lab = Lab::create(&config)?;
    let name = &config.name;
    lab.wait_ready(READY_LIMIT)?;
    out.text(&status(&lab).render(&FormatArgs::default())?)?;
    let first = lab.socket("node1")?;
    out.line(&format!(
        "\nTalk to a node:    weft -H unix://{} info\nRun on a node:     weft lab exec --name {name} node1 -- ip address\nTake it all down:  weft lab down --name {name}",
        first.display()
    ))?;
    lab.keep();
    Ok(())
}

fn exec(name: &str, node: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let lab = Lab::open(&default_dir()?.join(name))?;
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let status = lab
        .command(node, &words)?
        .status()
        .context("cannot run weft again")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
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
