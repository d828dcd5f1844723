//! The command line of `weft bench services`.

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench services`
#[derive(Debug, Args)]
pub(crate) struct BenchServicesArgs {
    /// Tests to run; may be repeated (default: all, about ten minutes)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<ServicesTest>,
    /// Rounds of updates, rollbacks, scales and drains
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) runs: u8,
    /// Clients that ask meanwhile
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) clients: u16,
    /// Services of one task that are made
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) created: u8,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench-services")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A test of `weft bench services`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServicesTest {
    /// Requests that fail in updates of both orders, rollbacks, scales and drains
    Requests,
    /// The time of an update of 15 tasks without clients
    Update,
    /// From `service create` of one task to a task that runs
    Create,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    #[test]
    fn two_hundred_clients_ask_unless_somebody_says_otherwise() {
        let parsed = |words: &[&str]| {
            let words = ["bench", "services"].iter().chain(words);
            BenchArgs::try_parse_from(words).map(|args| match args.command {
                BenchCommand::Services(args) => args,
                other => panic!("{other:?}"),
            })
        };
        let usual = parsed(&[]).unwrap();
        assert_eq!((usual.runs, usual.clients), (3, 200));
        assert!(usual.only.is_empty());
        let some = parsed(&["--only", "update,create", "--runs", "8"]).unwrap();
        assert_eq!(some.only, [ServicesTest::Update, ServicesTest::Create]);
        assert_eq!(some.runs, 8);
        parsed(&["--clients", "0"]).unwrap_err();
    }
}
