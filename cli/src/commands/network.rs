//! `weft network …`

use std::process::ExitCode;

use weft_client::{Client, Refused};
use weft_model::api::{Connect, Connected, Disconnect};
use weft_model::objects::{Network, NetworkSpec};

use crate::args::{NetworkCommand, NetworkConnectArgs, NetworkCreateArgs};
use crate::commands::{finish, paths, peer, rows, show, unique};
use crate::output::Printer;

pub(super) async fn run(
    client: &Client,
    command: NetworkCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        NetworkCommand::Create(args) => create(client, args, out).await?,
        NetworkCommand::Ls {
            no_trunc,
            filter,
            format,
        } => {
            let networks: Vec<Network> = client.get("/v1/networks").await?;
            let mut listing = rows::networks(networks, no_trunc);
            let keys = [
                ("id", "ID"),
                ("name", "Name"),
                ("driver", "Driver"),
                ("scope", "Scope"),
            ];
            listing.keep(&filter.filters, &keys)?;
            out.listing(&listing, &format)?;
        }
        NetworkCommand::Inspect(args) => {
            let mut found = Vec::new();
            for name in &args.refs {
                found.push(client.get(&paths::network(name)).await);
            }
            return show(&args, found, out);
        }
        NetworkCommand::Rm { refs } => {
            let mut refused = Vec::new();
            for name in &refs {
                match client.delete(&paths::network(name)).await {
                    Ok(()) => out.line(name)?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            return finish(&refused);
        }
        NetworkCommand::Connect(args) => connect(client, args, out).await?,
        NetworkCommand::Disconnect {
            force,
            network,
            endpoint,
        } => {
            let path = format!("{}/disconnect", paths::network(&network));
            let request = Disconnect { endpoint, force };
            client.post_done(&path, &request).await?;
        }
        NetworkCommand::Peer(command) => return peer::run(client, command, out).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(client: &Client, args: NetworkCreateArgs, out: &mut Printer) -> anyhow::Result<()> {
    let spec = NetworkSpec {
        name: args.name,
        ipam: args.subnets.into_iter().collect(),
        ipv6: args.ipv6,
        internal: args.internal,
        attachable: args.attachable,
        options: unique("option", args.options)?,
        labels: unique("label", args.labels)?,
        ..NetworkSpec::default()
    };
    let network: Network = client.post("/v1/networks", &spec).await?;
    out.line(network.id.as_str())?;
    Ok(())
}

async fn connect(
    client: &Client,
    args: NetworkConnectArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let request = Connect {
        netns: absolute(args.netns)?,
        ip: args.ip,
        aliases: args.aliases,
        service: args.service,
        name: args.name,
        ifname: args.ifname,
    };
    let path = format!("{}/connect", paths::network(&args.network));
    let connected: Connected = client.post(&path, &request).await?;
    out.line(&serde_json::to_string_pretty(&connected)?)?;
    Ok(())
}

/// A relative path means something here only, so it is made absolute before the node sees it.
fn absolute(netns: String) -> anyhow::Result<String> {
    if netns.starts_with('/') || netns.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(netns);
    }
    let path = std::path::absolute(&netns)?;
    Ok(path.to_string_lossy().into_owned())
}
