//! `weft doctor`

use std::process::ExitCode;

use serde_json::json;
use weft_client::Client;
use weft_model::api::{Check, Health};

use crate::args::DoctorArgs;
use crate::output::{Colour, Listing, Printer, wrap};

/// Columns before what was found.
const INDENT: usize = 6;

pub(super) async fn run(
    client: &Client,
    args: &DoctorArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let checks: Vec<Check> = client.get("/v1/doctor").await?;
    if args.format.format.is_some() || args.format.quiet {
        out.listing(&listing(&checks), &args.format)?;
    } else {
        report(&checks, args.verbose, out)?;
    }
    let failed = checks.iter().any(|check| check.health == Health::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What somebody has to look at, each with what to do, and how much is well.
fn report(checks: &[Check], verbose: bool, out: &mut Printer) -> std::io::Result<()> {
    let room = out.width().map(|width| width.saturating_sub(INDENT));
    let indent = " ".repeat(INDENT);
    for check in checks {
        let (word, colour) = match check.health {
            Health::Ok if !verbose => continue,
            Health::Ok => ("ok", Colour::Green),
            Health::Warn => ("warn", Colour::Yellow),
            Health::Fail => ("fail", Colour::Red),
        };
        out.paint(colour, &format!("{word:<INDENT$}"))?;
        let mut lines = wrap(&format!("{}: {}", check.name, check.found), room).into_iter();
        out.line(&lines.next().unwrap_or_default())?;
        let next = Some(check.next.as_str()).filter(|next| !next.is_empty());
        for line in lines.chain(next.into_iter().flat_map(|next| wrap(next, room))) {
            out.line(&format!("{indent}{line}"))?;
        }
    }
    let well = checks.iter().filter(|c| c.health == Health::Ok).count();
    let word = if well == 1 { "check" } else { "checks" };
    out.paint(Colour::Green, &format!("{well} {word} ok"))?;
    out.line(if verbose || well == 0 {
        ""
    } else {
        " (-v shows them)"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::shared;

    #[test]
    fn what_is_well_is_counted_and_the_rest_is_told_with_the_next_step() {
        let check = |name: &str, health, next: &str| Check {
            name: name.to_owned(),
            health,
            found: "found".to_owned(),
            next: next.to_owned(),
        };
        let checks = [
            check("kernel", Health::Ok, ""),
            check("overlay to node2", Health::Fail, "open UDP 4789"),
            check("nft", Health::Warn, "install it"),
        ];
        let told = |verbose| {
            let (reader, writer) = shared();
            report(&checks, verbose, &mut Printer::to(writer)).unwrap();
            reader.text()
        };
        let bad = "fail  overlay to node2: found\n      open UDP 4789\nwarn  nft: found\n      install it\n";
        assert_eq!(told(false), format!("{bad}1 check ok (-v shows them)\n"));
        assert_eq!(
            told(true),
            format!("ok    kernel: found\n{bad}1 check ok\n")
        );
    }
}
