//! `weft network …`

use std::process::ExitCode;

use anyhow::bail;
use weft_client::{Client, Refused};
use weft_model::api::{Connect, Connected, Disconnect, NetworkDetail};
use weft_model::objects::{Network, NetworkSpec};

use crate::args::{NetworkCommand, NetworkConnectArgs, NetworkCreateArgs};
use crate::commands::{finish, paths, peer, rows, show, unique};
use crate::output::{Filters, Key, Match, Printer};

/// Keys of `network ls --filter`.
const KEYS: [Key; 7] = [
    ("dangling", &[]),
    ("driver", &[("Driver", Match::Is)]),
    ("id", &[("ID", Match::Part)]),
    ("label", &[("Labels", Match::Label)]),
    ("name", &[("Name", Match::Part)]),
    ("scope", &[("Scope", Match::Is)]),
    ("type", &[]),
];

/// Networks that docker calls built in.
const BUILTIN: [&str; 3] = ["bridge", "host", "none"];

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
            let filters = Filters::of(&filter, &KEYS)?;
            let uses = Uses::of(&filters)?;
            let networks: Vec<Network> = client.get("/v1/networks").await?;
            let networks = uses.keep(client, networks).await?;
            let mut listing = rows::networks(networks, no_trunc);
            listing.keep(&filters);
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

/// What filters ask of networks that no row has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Uses {
    /// Only those that nothing is attached to, or only others.
    dangling: Option<bool>,
    /// Only those that are there from the beginning, or only others.
    builtin: Option<bool>,
}

impl Uses {
    fn of(filters: &Filters<'_>) -> anyhow::Result<Self> {
        let mut uses = Self::default();
        for value in filters.values("dangling") {
            uses.dangling = Some(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => bail!(
                    "invalid filter 'dangling={value}': write dangling=true or dangling=false"
                ),
            });
        }
        let types: Vec<&str> = filters.values("type").collect();
        if let Some(unknown) = types
            .iter()
            .find(|kind| !["builtin", "custom"].contains(kind))
        {
            bail!("invalid filter: 'type'='{unknown}'; write type=custom or type=builtin");
        }
        // Both of them are all.
        if let [kind, rest @ ..] = types.as_slice()
            && rest.iter().all(|other| other == kind)
        {
            uses.builtin = Some(*kind == "builtin");
        }
        Ok(uses)
    }

    /// Asks for what is attached only where that counts.
    async fn keep(self, client: &Client, networks: Vec<Network>) -> anyhow::Result<Vec<Network>> {
        let mut kept = Vec::new();
        for network in networks {
            let builtin = BUILTIN.contains(&network.spec.name.as_str());
            if self.builtin.is_some_and(|wanted| wanted != builtin) {
                continue;
            }
            if let Some(wanted) = self.dangling {
                let path = paths::network(network.id.as_str());
                let detail: NetworkDetail = client.get(&path).await?;
                if wanted != (detail.containers.is_empty() && !builtin) {
                    continue;
                }
            }
            kept.push(network);
        }
        Ok(kept)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::FilterArgs;

    fn asked(filters: &[(&str, &str)]) -> anyhow::Result<Uses> {
        let pairs = filters.iter();
        let args = FilterArgs {
            filters: pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        Uses::of(&Filters::of(&args, &KEYS)?)
    }

    #[test]
    fn uses_are_asked_for_as_dockers() {
        let uses = |dangling, builtin| Uses { dangling, builtin };
        for (filters, wanted) in [
            (&[("name", "x")][..], uses(None, None)),
            (&[("dangling", "true")], uses(Some(true), None)),
            (&[("dangling", "0")], uses(Some(false), None)),
            (&[("type", "custom")], uses(None, Some(false))),
            (&[("type", "builtin")], uses(None, Some(true))),
            (&[("type", "builtin"), ("type", "custom")], uses(None, None)),
        ] {
            assert_eq!(asked(filters).unwrap(), wanted, "{filters:?}");
        }
        for (filters, says) in [
            ([("dangling", "maybe")], "invalid filter 'dangling=maybe'"),
            ([("type", "mine")], "invalid filter: 'type'='mine'"),
            ([("nosuch", "x")], "invalid filter 'nosuch': there is"),
        ] {
            let error = asked(&filters).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
