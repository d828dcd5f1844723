//! The command line of `weft bench managers`.

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench managers`
#[derive(Debug, Args)]
pub(crate) struct BenchManagersArgs {
    /// Tests to run; may be repeated (default: all, about four minutes)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<ManagersTest>,
    /// How often a leader is killed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) runs: u8,
    /// Seconds of changes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=120))]
    pub(crate) seconds: u8,
    /// Clients that change something at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) writers: u16,
    /// Tasks in the log of the manager that is started again
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) tasks: u32,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench-managers")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A test of `weft bench managers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManagersTest {
    /// From the death of the leader of three to the first change that is taken
    Failover,
    /// Changes in a second, of three managers that write each to their disks
    Writes,
    /// From `swarm join` to a node that is ready
    Join,
    /// From the start of a manager with many tasks to the first change that is taken
    Restart,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    #[test]
    fn twenty_leaders_die_unless_somebody_says_otherwise() {
        let parsed = |words: &[&str]| {
            let words = ["bench", "managers"].iter().chain(words);
            BenchArgs::try_parse_from(words).map(|args| match args.command {
                BenchCommand::Managers(args) => args,
                other => panic!("{other:?}"),
            })
        };
        let usual = parsed(&[]).unwrap();
        assert_eq!((usual.runs, usual.tasks), (20, 10_000));
        assert!(usual.only.is_empty());
        let some = parsed(&["--only", "writes,join", "--writers", "8"]).unwrap();
        assert_eq!(some.only, [ManagersTest::Writes, ManagersTest::Join]);
        assert_eq!(some.writers, 8);
        parsed(&["--runs", "0"]).unwrap_err();
    }
}
