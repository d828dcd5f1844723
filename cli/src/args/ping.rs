//! `weft ping`

use clap::Args;

use super::parse_duration_ms;

/// `weft ping`
#[derive(Debug, Args)]
#[command(after_help = "\
Packets go by VXLAN, on the UDP port, the addresses and the ways of overlay networks, and the other
node's weftd answers them. Each round sends a small one and one as large as the way is taken to
carry. What is lost is tried again, to tell whether it was lost on the way there or back.

Exit status: 0 when packets of every size were answered, 1 when those of a size were not, 2 when
none could be sent.")]
pub(crate) struct PingArgs {
    /// End after so many rounds; otherwise Ctrl-C ends it
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Seconds between two rounds; units such as 200ms are taken too
    #[arg(short, long, value_name = "INTERVAL", default_value = "1", value_parser = seconds)]
    pub(crate) interval: u64,
    /// Packets of so many bytes only, as their network counts them
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) size: Option<u16>,
    /// Seconds to wait for an answer
    #[arg(short = 'W', long, value_name = "TIMEOUT", default_value = "1", value_parser = seconds)]
    pub(crate) timeout: u64,
    /// Print only the summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Name, id, or data-path address of a node
    pub(crate) node: String,
}

/// As ping(8) has it: a bare number, with a fraction perhaps, is seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let bare = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let text = if bare {
        format!("{text}s")
    } else {
        text.to_owned()
    };
    let ms = parse_duration_ms(&text).map_err(|e| e.to_string())?;
    if (10..=60_000).contains(&ms) {
        Ok(ms)
    } else {
        Err(format!("{text} is not between 0.01 and 60 seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_ping() {
        for (text, ms) in [("1", 1000), ("0.2", 200), ("200ms", 200), ("1m", 60_000)] {
            assert_eq!(seconds(text), Ok(ms), "{text}");
        }
        for text in ["0", "0.001", "61", "-1", "x", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
