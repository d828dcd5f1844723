//! `weft drops`

use std::process::ExitCode;

use serde_json::json;
use weft_client::{Client, segment};
use weft_model::api::{DropCount, Drops};

use crate::args::DropsArgs;
use crate::output::{Listing, Printer};

pub(super) async fn run(
    client: &Client,
    args: &DropsArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let path = match &args.port {
        Some(port) => format!("/v1/drops?port={}", segment(port)),
        None => "/v1/drops".to_owned(),
    };
    let drops: Drops = client.get(&path).await?;
    out.listing(&listing(&drops, args.by_port), &args.format)?;
    Ok(ExitCode::SUCCESS)
}

/// Reasons that occurred most come first.
pub(super) fn listing(drops: &Drops, by_port: bool) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Port", "PORT"),
            ("Reason", "REASON"),
            ("Packets", "PACKETS"),
            ("Help", "MEANING"),
        ],
        if by_port {
            "{{.Port}}\t{{.Reason}}\t{{.Packets}}\t{{.Help}}"
        } else {
            "{{.Reason}}\t{{.Packets}}\t{{.Help}}"
        },
        "Reason",
    );
    let mut add = |port: &str, counts: &[DropCount]| {
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.reason.cmp(&b.reason)));
        for count in counts {
            listing.push(json!({
                "Port": port,
                "Reason": count.reason,
                "Packets": count.packets,
                "Help": count.help,
            }));
        }
    };
    if by_port {
        for port in &drops.ports {
            add(&port.port, &port.drops);
        }
    } else {
        add("", &drops.total);
    }
    listing
}
