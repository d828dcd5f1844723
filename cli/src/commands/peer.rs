//! `weft network peer …`

use std::process::ExitCode;

use serde_json::json;
use weft_client::{Client, Refused};
use weft_model::api::PeerAdd;
use weft_model::objects::StaticPeer;

use crate::args::PeerCommand;
use crate::commands::{finish, paths};
use crate::output::{Filters, Key, Listing, Match, Printer};

/// Keys of `network peer ls --filter`.
const KEYS: [Key; 3] = [
    ("ip", &[("IP", Match::Is)]),
    ("mac", &[("MAC", Match::Is)]),
    ("vtep", &[("VTEP", Match::Is)]),
];

pub(super) async fn run(
    client: &Client,
    command: PeerCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let path = |network: &str| format!("{}/peers", paths::network(network));
    match command {
        PeerCommand::Add {
            ip,
            mac,
            vtep,
            network,
        } => {
            let peer: StaticPeer = client
                .post(&path(&network), &PeerAdd { ip, mac, vtep })
                .await?;
            out.line(peer.id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
        PeerCommand::Ls {
            filter,
            format,
            network,
        } => {
            let filters = Filters::of(&filter, &KEYS)?;
            let peers: Vec<StaticPeer> = client.get(&path(&network)).await?;
            let mut listing = listing(&peers);
            listing.keep(&filters);
            out.listing(&listing, &format)?;
            Ok(ExitCode::SUCCESS)
        }
        PeerCommand::Rm { network, ips } => {
            let mut refused = Vec::new();
            for ip in ips {
                match client.delete(&format!("{}/{ip}", path(&network))).await {
                    Ok(()) => out.line(&ip.to_string())?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            finish(&refused)
        }
    }
}

fn listing(peers: &[StaticPeer]) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "PEER ID"),
            ("IP", "IP"),
            ("MAC", "MAC"),
            ("VTEP", "VTEP"),
        ],
        "{{.IP}}\t{{.MAC}}\t{{.VTEP}}",
        // What `peer rm` takes.
        "IP",
    );
    for peer in peers {
        listing.push(json!({
            "ID": peer.id,
            "IP": peer.ip,
            "MAC": peer.mac,
            "VTEP": peer.vtep,
            "Network": peer.network,
        }));
    }
    listing
}
