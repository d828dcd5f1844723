//! The command line of `weft bench stacks`.

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench stacks`
#[derive(Debug, Args)]
pub(crate) struct BenchStacksArgs {
    /// Tests to run; may be repeated (default: all, about three minutes)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<StacksTest>,
    /// How often each is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) rounds: u8,
    /// Services of the large file
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) services: u16,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench-stacks")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A test of `weft bench stacks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StacksTest {
    /// From `stack deploy` of the voting app until all tasks run and every node answers; the images
    /// are there
    Deploy,
    /// `stack deploy --dry-run` of the large file: read, and compared with what there is
    Plan,
    /// `stack deploy` of the large file when nothing has changed
    Again,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    #[test]
    fn twenty_rounds_are_measured_unless_somebody_says_otherwise() {
        let parsed = |words: &[&str]| {
            let words = ["bench", "stacks"].iter().chain(words);
            BenchArgs::try_parse_from(words).map(|args| match args.command {
                BenchCommand::Stacks(args) => args,
                other => panic!("{other:?}"),
            })
        };
        let usual = parsed(&[]).unwrap();
        assert_eq!((usual.rounds, usual.services), (20, 200));
        assert!(usual.only.is_empty());
        let some = parsed(&["--only", "plan,again", "--rounds", "3"]).unwrap();
        assert_eq!(some.only, [StacksTest::Plan, StacksTest::Again]);
        assert_eq!(some.rounds, 3);
        parsed(&["--rounds", "0"]).unwrap_err();
    }
}
