//! `weft why`

use std::process::ExitCode;

use serde_json::json;
use weft_client::{Client, segment};
use weft_model::api::{MeshReplica, Why};

use super::mesh::mean;
use crate::args::WhyArgs;
use crate::output::{Listing, Printer, wrap};

pub(super) async fn run(
    client: &Client,
    args: &WhyArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let why: Why = client
        .get(&format!("/v1/mesh/why/{}", segment(&args.asked)))
        .await?;
    // Sentences are for people; rows are for programs, too.
    let plain = args.format.format.is_none() && !args.format.quiet;
    if plain {
        for sentence in sentences(&why) {
            for line in wrap(&sentence, out.width()) {
                out.line(&line)?;
            }
        }
    }
    if !plain || !why.replicas.is_empty() {
        out.listing(&listing(&why, args.wide), &args.format)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sentences(why: &Why) -> Vec<String> {
    let mut all = why.found.clone();
    if !why.source.is_empty() {
        all.push(format!("known on {} from: {}", why.node, why.source));
    }
    all
}

fn takes(replica: &MeshReplica) -> String {
    match (replica.why_not.as_str(), replica.accepted, replica.refused) {
        ("", 0, 1) => "yes, but it refused the only one so far".to_owned(),
        ("", 0, refused) if refused > 1 => format!("yes, but it refused all {refused} so far"),
        ("", ..) => "yes".to_owned(),
        (why, ..) => format!("no: {why}"),
    }
}

/// The name of a task without its id: `web.1`, as `service ps` has it.
fn short(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((slot, id)) if id.len() >= TASK_ID && slot.contains('.') => slot,
        _ => name,
    }
}

/// Every column.
const WIDE: &str = "{{.Name}}\t{{.Node}}\t{{.Network}}\t{{.Address}}\t{{.Active}}\t{{.ActiveEverywhere}}\t{{.Accepted}}\t{{.Refused}}\t{{.Retried}}\t{{.Ejections}}\t{{.BytesIn}}\t{{.BytesOut}}\t{{.Connect}}\t{{.Takes}}";

/// Letters of the id of a task.
const TASK_ID: usize = 25;

pub(super) fn listing(why: &Why, wide: bool) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Name", "REPLICA"),
            ("Short", "REPLICA"),
            ("Node", "NODE"),
            ("Network", "NETWORK"),
            ("Address", "ADDRESS"),
            ("IP", "ADDRESS"),
            ("Active", "OPEN"),
            ("ActiveEverywhere", "OPEN EVERYWHERE"),
            ("Accepted", "ACCEPTED"),
            ("Refused", "REFUSED"),
            ("Retried", "RETRIED"),
            ("Ejections", "EJECTED"),
            ("BytesIn", "BYTES IN"),
            ("BytesOut", "BYTES OUT"),
            ("Connect", "CONNECT"),
            ("Takes", "TAKES CONNECTIONS"),
        ],
        if wide {
            WIDE
        } else {
            "{{.Short}}\t{{.Node}}\t{{.IP}}\t{{.Active}}\t{{.Accepted}}\t{{.Refused}}\t{{.Takes}}"
        },
        "Name",
    );
    for replica in &why.replicas {
        let ips: Vec<String> = replica.ips.iter().map(ToString::to_string).collect();
        listing.push(json!({
            "Name": replica.name,
            "Short": short(&replica.name),
            "Service": why.service,
            "Node": replica.node,
            "Network": replica.network,
            "Address": ips.join(","),
            "IP": ips.first(),
            "Active": replica.active,
            "ActiveEverywhere": replica.active_everywhere,
            "Accepted": replica.accepted,
            "Refused": replica.refused,
            "Retried": replica.retried,
            "Failed": replica.refused.saturating_sub(replica.retried),
            "Ejected": replica.ejected,
            "Ejections": replica.ejections,
            "BytesIn": replica.rx_bytes,
            "BytesOut": replica.tx_bytes,
            "Connect": mean(replica.connect),
            "WhyNot": replica.why_not,
            "Takes": takes(replica),
        }));
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::FormatArgs;

    #[test]
    fn a_replica_that_takes_nothing_says_why() {
        let why = Why {
            asked: "8000".to_owned(),
            node: "n1".to_owned(),
            source: "orders".to_owned(),
            found: vec!["a sentence".to_owned()],
            replicas: vec![
                MeshReplica {
                    name: "web.1.a".to_owned(),
                    ..MeshReplica::default()
                },
                MeshReplica {
                    name: "web.2.b".to_owned(),
                    why_not: "node down".to_owned(),
                    ..MeshReplica::default()
                },
            ],
            ..Why::default()
        };
        assert_eq!(sentences(&why), ["a sentence", "known on n1 from: orders"]);
        assert_eq!(short("web.1.abcdefghijklmnopqrstuvwxy"), "web.1");
        assert_eq!(short("web.1.a"), "web.1.a");
        let format = FormatArgs {
            format: Some("{{.Name}} {{.Takes}}".to_owned()),
            quiet: false,
        };
        let text = listing(&why, false).render(&format).unwrap();
        assert_eq!(text, "web.1.a yes\nweb.2.b no: node down\n");
        let refuses = |accepted, refused| {
            takes(&MeshReplica {
                accepted,
                refused,
                ..MeshReplica::default()
            })
        };
        assert_eq!(refuses(0, 2), "yes, but it refused all 2 so far");
        assert_eq!(refuses(0, 1), "yes, but it refused the only one so far");
        assert_eq!(refuses(1, 2), "yes");
    }
}
