//! `weft why`

use std::process::ExitCode;

use serde_json::json;
use weft_control::api::Why;

use super::mesh::mean;
use crate::args::WhyArgs;
use crate::client::{Client, segment};
use crate::output::{Listing, Printer};

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
        out.text(&sentences(&why))?;
    }
    if !plain || !why.replicas.is_empty() {
        out.text(&listing(&why).render(&args.format)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sentences(why: &Why) -> String {
    let mut text = String::new();
    for sentence in &why.found {
        text.push_str(sentence);
        text.push('\n');
    }
    if !why.source.is_empty() {
        text += &format!("known on {} from: {}\n", why.node, why.source);
    }
    text
}

fn listing(why: &Why) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Name", "REPLICA"),
            ("Node", "NODE"),
            ("Network", "NETWORK"),
            ("Address", "ADDRESS"),
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
        "{{.Name}}\t{{.Node}}\t{{.Network}}\t{{.Address}}\t{{.Active}}\t{{.ActiveEverywhere}}\t{{.Accepted}}\t{{.Refused}}\t{{.Retried}}\t{{.Ejections}}\t{{.BytesIn}}\t{{.BytesOut}}\t{{.Connect}}\t{{.Takes}}",
        "Name",
    );
    for replica in &why.replicas {
        let ips: Vec<String> = replica.ips.iter().map(ToString::to_string).collect();
        listing.push(json!({
            "Name": replica.name,
            "Service": why.service,
            "Node": replica.node,
            "Network": replica.network,
            "Address": ips.join(","),
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
            "Takes": if replica.why_not.is_empty() {
                "yes".to_owned()
            } else {
                format!("no: {}", replica.why_not)
            },
        }));
    }
    listing
}

#[cfg(test)]
mod tests {
    use weft_control::api::MeshReplica;

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
        assert_eq!(sentences(&why), "a sentence\nknown on n1 from: orders\n");
        let format = FormatArgs {
            format: Some("{{.Name}} {{.Takes}}".to_owned()),
            quiet: false,
        };
        let text = listing(&why).render(&format).unwrap();
        assert_eq!(text, "web.1.a yes\nweb.2.b no: node down\n");
    }
}
