//! `weft visualizer`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// `weft visualizer`
#[derive(Debug, Args)]
#[command(after_help = "\
The page shows names, images and states, and nothing can be changed by it. There is no password: let
only those reach it who may see that much. docs/visualizer.md says how it becomes a service.")]
pub(crate) struct VisualizerArgs {
    /// Where browsers ask for the page; unix:///PATH for a visualizer that relays it
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Listen,
    /// The socket is another visualizer's (--listen unix:///PATH): show what that says
    #[arg(long)]
    pub(crate) relay: bool,
}

/// `--listen`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// `ADDR:PORT`
    Tcp(SocketAddr),
    /// `unix:///PATH`
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("the path of the socket must start with a slash".to_owned()),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "expected ADDR:PORT, such as 127.0.0.1:8080, or unix:///path/of/socket".to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn it_is_for_this_machine_unless_somebody_says_otherwise() {
        let parsed = |words: &[&str]| {
            let words = ["weft", "visualizer"].iter().chain(words);
            match Cli::try_parse_from(words).unwrap().command {
                Command::Visualizer(args) => args,
                other => panic!("{other:?}"),
            }
        };
        let usual = parsed(&[]);
        assert_eq!(usual.listen, "127.0.0.1:8080".parse::<Listen>().unwrap());
        assert!(!usual.relay);
        let relay = parsed(&["--relay", "--listen", "0.0.0.0:80"]);
        assert_eq!(relay.listen, "0.0.0.0:80".parse::<Listen>().unwrap());
        assert!(relay.relay);
    }

    #[test]
    fn places_are_addresses_or_sockets() {
        for text in ["127.0.0.1:8080", "[::1]:80"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(text.parse::<Listen>(), Ok(Listen::Tcp(addr)));
        }
        let unix = Listen::Unix("/run/x.sock".into());
        assert_eq!("unix:///run/x.sock".parse::<Listen>(), Ok(unix));
        for bad in ["8080", "localhost:8080", "unix://x", ""] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
