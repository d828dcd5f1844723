//! `weft info`

use std::process::ExitCode;

use serde_json::Value;
use weft_client::Client;

use crate::args::FormatArgs;
use crate::output::{Printer, render_inspect};

pub(super) async fn run(
    client: &Client,
    args: &FormatArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let info: Value = client.get("/v1/info").await?;
    let table = FormatArgs {
        format: args.format.clone().or_else(|| Some("table".to_owned())),
        quiet: args.quiet,
    };
    out.text(&render_inspect(&[info], &table)?)?;
    Ok(ExitCode::SUCCESS)
}
