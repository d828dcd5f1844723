//! `weft info`

use std::process::ExitCode;

use serde_json::Value;
use weft_client::Client;

use crate::args::FormatArgs;
use crate::output::{Printer, docker_case, render_inspect};

pub(super) async fn run(
    client: &Client,
    args: &FormatArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let info: Value = client.get("/v1/info").await?;
    let info = docker_case(info, "");
    let table = FormatArgs {
        format: args.format.clone().or_else(|| Some("table".to_owned())),
        quiet: args.quiet,
    };
    let inactive = info["Swarm"].is_null() && args.format.is_none() && !args.quiet;
    out.text(&render_inspect(&[info], &table)?)?;
    if inactive {
        out.line("Swarm: inactive")?;
    }
    Ok(ExitCode::SUCCESS)
}
