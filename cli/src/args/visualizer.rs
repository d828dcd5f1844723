//! `weft visualizer`

use clap::Args;

use crate::visualizer::Listen;

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
        assert_eq!(usual.listen, "127.0.0.1:8080".parse().unwrap());
        assert!(!usual.relay);
        let relay = parsed(&["--relay", "--listen", "0.0.0.0:80"]);
        assert_eq!(relay.listen, "0.0.0.0:80".parse().unwrap());
        assert!(relay.relay);
    }
}
