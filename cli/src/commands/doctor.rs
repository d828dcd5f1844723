//! `weft doctor`

use std::process::ExitCode;

use serde_json::json;
use weft_control::api::{Check, Health};

use crate::args::FormatArgs;
use crate::client::Client;
use crate::output::{Listing, Printer};

pub(super) async fn run(
    client: &Client,
    args: &FormatArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let checks: Vec<Check> = client.get("/v1/doctor").await?;
    out.text(&listing(&checks).render(args)?)?;
    let failed = checks.iter().any(|check| check.health == Health::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One line for each check, in the order of the node.
pub(super) fn listing(checks: &[Check]) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Health", "HEALTH"),
            ("Name", "CHECK"),
            ("Found", "FOUND"),
            ("Next", "NEXT STEP"),
        ],
        "{{.Health}}\t{{.Name}}\t{{.Found}}\t{{.Next}}",
        "Name",
    );
    for check in checks {
        listing.push(json!({
            "Health": check.health,
            "Name": check.name,
            "Found": check.found,
            "Next": check.next,
        }));
    }
    listing
}
