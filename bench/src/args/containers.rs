//! The command line of `weft bench containers`.

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench containers`
#[derive(Debug, Args)]
pub(crate) struct BenchContainersArgs {
    /// Tests to run; may be repeated (default: all, about a minute)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<ContainersTest>,
    /// Services of one container that are made
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) created: u8,
    /// Rounds of many containers at once, and of pulls
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) runs: u8,
    /// Containers that are started at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) containers: u8,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench-containers")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A test of `weft bench containers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContainersTest {
    /// From `service create` to an answer through the published port; the image is there
    Start,
    /// Many containers of one service on one node, until all answer, and what weft needs for each
    Many,
    /// A layer of 6.4 MB from a registry on the same machine, unpacked
    Pull,
    /// What a registry sends when three nodes need one image
    Nodes,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    #[test]
    fn twenty_services_and_twenty_containers_are_made_unless_somebody_says_otherwise() {
        let parsed = |words: &[&str]| {
            let words = ["bench", "containers"].iter().chain(words);
            BenchArgs::try_parse_from(words).map(|args| match args.command {
                BenchCommand::Containers(args) => args,
                other => panic!("{other:?}"),
            })
        };
        let usual = parsed(&[]).unwrap();
        assert_eq!((usual.created, usual.containers, usual.runs), (20, 20, 5));
        assert!(usual.only.is_empty());
        let some = parsed(&["--only", "pull,nodes"]).unwrap();
        assert_eq!(some.only, [ContainersTest::Pull, ContainersTest::Nodes]);
        parsed(&["--containers", "0"]).unwrap_err();
    }
}
