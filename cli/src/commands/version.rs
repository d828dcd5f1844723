//! `weft version`

use std::process::ExitCode;

use serde_json::{Value, json};
use weft_client::Client;
use weft_model::api::Info;

use crate::args::VersionArgs;
use crate::output::{Printer, complain, render_inspect};

/// Of the node API: the first part of its paths.
const API: &str = "v1";

pub(super) async fn run(
    client: anyhow::Result<Client>,
    args: &VersionArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let server = match client {
        Ok(client) => client.get::<Info>("/v1/info").await,
        Err(error) => Err(error),
    };
    let found = versions(server.as_ref().ok());
    match &args.format {
        Some(template) => {
            let format = crate::args::FormatArgs {
                format: Some(template.clone()),
                quiet: false,
            };
            if template == "json" {
                out.line(&found.to_string())?;
            } else {
                out.text(&render_inspect(&[found], &format)?)?;
            }
        }
        None => out.text(&table(&found))?,
    }
    // As docker does: what is known of this side, and a failure for the other.
    match server {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            out.flush()?;
            complain(&format!("weft: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn versions(server: Option<&Info>) -> Value {
    json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": API,
            "Os": std::env::consts::OS,
            "Arch": arch(std::env::consts::ARCH),
        },
        "Server": server.map(|info| json!({
            "Version": info.version,
            "ApiVersion": API,
            "Name": info.name,
            "Pid": info.pid,
        })),
    })
}

/// As docker calls it, which has its names from Go.
fn arch(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn table(found: &Value) -> String {
    let of = |side: &str, field: &str| match &found[side][field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let client = "Client";
    let mut text = format!(
        "Client:\n Version:       {}\n API version:   {}\n OS/Arch:       {}/{}\n",
        of(client, "Version"),
        of(client, "ApiVersion"),
        of(client, "Os"),
        of(client, "Arch"),
    );
    if !found["Server"].is_null() {
        let server = "Server";
        text += &format!(
            "\nServer:\n Version:       {}\n API version:   {}\n Name:          {}\n Process:       {}\n",
            of(server, "Version"),
            of(server, "ApiVersion"),
            of(server, "Name"),
            of(server, "Pid"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use weft_model::api::{ContainersInfo, SwarmState};

    use super::*;

    #[test]
    fn both_sides_are_told_as_docker_tells_them() {
        let info = Info {
            version: "0.2.0".to_owned(),
            name: "node1".to_owned(),
            pid: 7,
            containers: ContainersInfo::default(),
            swarm: SwarmState::Inactive,
            warnings: Vec::new(),
        };
        let text = table(&versions(Some(&info)));
        assert!(text.starts_with("Client:\n Version:       "), "{text}");
        assert!(
            text.contains("\nServer:\n Version:       0.2.0\n"),
            "{text}"
        );
        assert!(text.ends_with(" Process:       7\n"), "{text}");
        let alone = versions(None);
        assert_eq!(alone["Server"], Value::Null);
        assert!(!table(&alone).contains("Server"));
    }
}
