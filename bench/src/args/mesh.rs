//! The command line of `weft bench mesh`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench mesh`
#[derive(Debug, Args)]
pub(crate) struct BenchMeshArgs {
    /// Tests to run; may be repeated (default: all but `long`, about five minutes for
    /// each front end)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<MeshTest>,
    /// Which front end of weft's published ports to measure; `both` measures those that this weftd
    /// has, one after the other
    #[arg(long, default_value = "both")]
    pub(crate) front: FrontChoice,
    /// Measured pairs, alternating
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) pairs: u8,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=120))]
    pub(crate) seconds: u8,
    /// TCP congestion control of client, balancers and replicas (default: the kernel's)
    #[arg(long = "cc", value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Also draw a picture of rates and of the distribution of times
    #[arg(long, value_name = "FILE", alias = "picture")]
    pub(crate) svg: Option<PathBuf>,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench-mesh")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A front end of published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FrontChoice {
    /// Packets are rewritten, nothing is terminated
    Frame,
    /// A listener for each port
    Socket,
    /// Those that this weftd has
    Both,
}

/// A test of `weft bench mesh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MeshTest {
    /// Memory with 10,000 idle connections
    Idle,
    /// A new connection for each request, 32 at once
    Connections,
    /// Requests over 64 kept connections
    Keepalive,
    /// Bytes from replicas to the client, over one connection and over eight
    Bulk,
    /// Times of requests that come at half of the rate that the slower side can answer
    Latency,
    /// 200,000 connections in a row, once on each side: do source ports run out?
    Long,
    /// Every one of them
    All,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    fn parsed(words: &[&str]) -> Result<BenchMeshArgs, clap::Error> {
        let words = ["bench", "mesh"].iter().chain(words);
        match BenchArgs::try_parse_from(words)?.command {
            BenchCommand::Mesh(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_those_of_the_other_bench() {
        let usual = parsed(&[]).unwrap();
        assert_eq!((usual.pairs, usual.seconds), (5, 2));
        assert_eq!(usual.front, FrontChoice::Both);
        assert!(usual.only.is_empty() && usual.congestion.is_none());
        let some = parsed(&["--only", "bulk,long", "--front", "frame", "--cc", "bbr"]).unwrap();
        assert_eq!(some.only, [MeshTest::Bulk, MeshTest::Long]);
        assert_eq!(some.front, FrontChoice::Frame);
        assert_eq!(some.congestion.as_deref(), Some("bbr"));
        let drawn = parsed(&["--picture", "x.svg"]).unwrap();
        assert_eq!(drawn.svg, Some("x.svg".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [["--pairs", "0"], ["--front", "none"], ["--only", "tcp8"]] {
            parsed(&words).unwrap_err();
        }
    }
}
