//! Which tests to run, on which front ends.

use anyhow::bail;

use crate::args::{FrontChoice, MeshTest};
use crate::weftd;

/// Front ends that weftd has or may have, the better one first.
const FRONTS: [&str; 2] = ["frame", "socket"];

/// What this kernel can use.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// True when the test was asked for; the long one only by name.
pub(super) fn has(only: &[MeshTest], test: MeshTest) -> bool {
    if only.is_empty() {
        return test != MeshTest::Long;
    }
    only.contains(&test) || only.contains(&MeshTest::All)
}

/// Front ends to measure.
pub(super) fn fronts(choice: FrontChoice) -> anyhow::Result<Vec<&'static str>> {
    chosen(choice, &weftd::help()?)
}

fn chosen(choice: FrontChoice, help: &str) -> anyhow::Result<Vec<&'static str>> {
    let known = known_in(help);
    let wanted = match choice {
        FrontChoice::Both => return Ok(known),
        FrontChoice::Frame => FRONTS[0],
        FrontChoice::Socket => FRONTS[1],
    };
    if !known.contains(&wanted) {
        bail!(
            "this weftd has no front end {wanted}: it has {}",
            known.join(", ")
        );
    }
    Ok(vec![wanted])
}

/// Those that the description of `--mesh` names.
fn known_in(help: &str) -> Vec<&'static str> {
    let text = help.split_once("--mesh").map_or("", |(_, rest)| rest);
    let text = text.split_once(" --").map_or(text, |(option, _)| option);
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric());
    FRONTS
        .into_iter()
        .filter(|front| words().any(|word| word == *front))
        .collect()
}

/// Refuses a congestion control that the kernel has not.
pub(crate) fn check_control(wanted: Option<&str>) -> anyhow::Result<()> {
    let available = std::fs::read_to_string(AVAILABLE)?;
    let mut names = available.split_ascii_whitespace();
    match wanted {
        Some(wanted) if !names.any(|name| name == wanted) => bail!(
            "this kernel has no congestion control {wanted:?}: it has {}; more may come with `modprobe tcp_{wanted}`",
            available.trim()
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "      --mesh <FRONT-END>   Front end of published ports: socket [default: socket]\n      --udp-idle <TIME>  a frame\n";
    const LATER: &str =
        "      --mesh <frame|socket>\n   Front end [default: frame]\n      --poll <N>\n";

    #[test]
    fn front_ends_are_those_that_weftd_names() {
        assert_eq!(known_in(NOW), ["socket"]);
        assert_eq!(known_in(LATER), ["frame", "socket"]);
        assert!(known_in("--poll").is_empty());
        assert_eq!(chosen(FrontChoice::Both, LATER).unwrap().len(), 2);
        assert_eq!(chosen(FrontChoice::Socket, LATER).unwrap(), ["socket"]);
        let error = chosen(FrontChoice::Frame, NOW).unwrap_err().to_string();
        assert!(error.ends_with("frame: it has socket"), "{error}");
    }

    #[test]
    fn the_long_test_is_for_those_who_ask() {
        assert!(has(&[], MeshTest::Bulk) && !has(&[], MeshTest::Long));
        assert!(has(&[MeshTest::All], MeshTest::Long));
        assert!(!has(&[MeshTest::Long], MeshTest::Bulk));
    }
}
