//! `weft node …`

use std::process::ExitCode;

use anyhow::bail;
use weft_model::api::{Info, NodeRemove, NodeRow, NodeUpdate};
use weft_model::objects::Node;

use crate::args::NodeCommand;
use crate::client::{Client, Refused, segment};
use crate::commands::{finish, rows, show};
use crate::output::{Printer, docker_case};

pub(super) async fn run(
    client: &Client,
    command: NodeCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::Ls(format) => {
            let nodes: Vec<NodeRow> = client.get("/v1/nodes").await?;
            out.listing(&rows::nodes(nodes), &format)?;
            Ok(ExitCode::SUCCESS)
        }
        NodeCommand::Inspect(args) => {
            let mut found = Vec::new();
            for name in &args.refs {
                let id = match name.as_str() {
                    "self" => own_id(client).await?,
                    other => other.to_owned(),
                };
                let node = client.get(&format!("/v1/nodes/{}", segment(&id))).await;
                found.push(node.map(|node| docker_case(node, "node")));
            }
            show(&args, found, out)
        }
        NodeCommand::Update { availability, refs } => {
            let mut refused = Vec::new();
            for name in &refs {
                let path = format!("/v1/nodes/{}/update", segment(name));
                let request = NodeUpdate { availability };
                match client.post::<_, Node>(&path, &request).await {
                    Ok(_) => out.line(name)?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            finish(&refused)
        }
        NodeCommand::Rm { force, refs } => {
            let mut refused = Vec::new();
            for name in &refs {
                let path = format!("/v1/nodes/{}", segment(name));
                match client.delete_with(&path, &NodeRemove { force }).await {
                    Ok(()) => out.line(name)?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            finish(&refused)
        }
    }
}

async fn own_id(client: &Client) -> anyhow::Result<String> {
    let info: Info = client.get("/v1/info").await?;
    match info.swarm {
        Some(swarm) => Ok(swarm.node_id.0),
        None => bail!(
            "This node is not part of a swarm. Use \"weft swarm init\" or \"weft swarm join\" and try again."
        ),
    }
}
