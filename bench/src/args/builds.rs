//! The command line of `weft bench builds`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench builds`
#[derive(Debug, Args)]
pub(crate) struct BenchBuildsArgs {
    /// The `weft` program of the other build: what the change is held against
    #[arg(value_name = "PROGRAM")]
    pub(crate) other: PathBuf,
    /// Tests to run; may be repeated (default: all)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<BuildsTest>,
    /// Measured pairs in each lab, alternating; from six in all on there is an interval
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) pairs: u8,
    /// How often new labs are made: which worker and CPU something falls to differs between two of
    /// the same build by more than most changes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) labs: u8,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=120))]
    pub(crate) seconds: u8,
    /// TCP congestion control of streams and of replicas
    #[arg(long = "cc", value_name = "NAME", default_value = "bbr")]
    pub(crate) congestion: String,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench-builds")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A test of `weft bench builds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuildsTest {
    /// One TCP stream between two nodes
    Tcp,
    /// Datagrams of 64 bytes between two nodes
    Udp,
    /// 64 bytes there and back between two nodes, one at a time
    Rr,
    /// One TCP stream through a virtual address
    Vip,
    /// One TCP stream from a sandbox to a machine outside the cluster
    Egress,
    /// Published port: a new connection for each request, 32 at once
    Connections,
    /// Published port: requests over 64 kept connections
    Keepalive,
    /// Published port: bytes from replicas to the client, over one connection
    Bulk,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    #[test]
    fn the_other_build_is_needed_and_the_rest_is_not() {
        let parsed = |words: &[&str]| {
            let words = ["bench", "builds"].iter().chain(words);
            BenchArgs::try_parse_from(words).map(|args| match args.command {
                BenchCommand::Builds(args) => args,
                other => panic!("{other:?}"),
            })
        };
        parsed(&[]).unwrap_err();
        parsed(&["old", "--only", "iperf3"]).unwrap_err();
        let args = parsed(&["old", "--only", "egress,vip"]).unwrap();
        assert_eq!(args.only, [BuildsTest::Egress, BuildsTest::Vip]);
        assert_eq!((args.pairs, args.labs, args.seconds), (3, 5, 1));
        assert_eq!(args.congestion, "bbr");
    }
}
