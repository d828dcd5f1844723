//! The whole command line: the commands of this crate, and those that others bring.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::output::Printer;

/// A command that another crate brings to `weft`.
#[derive(Debug, Clone, Copy)]
pub struct MoreCommand {
    /// Its name, texts and options.
    pub command: fn() -> Command,
    /// Does what arguments that were read by `command` say.
    pub run: fn(&ArgMatches, &mut Printer) -> anyhow::Result<ExitCode>,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A command of this crate.
    Own(Box<Cli>),
    /// One that another crate brought, with its arguments.
    More(MoreCommand, ArgMatches),
}

/// All that `weft` accepts, those of other crates last.
#[must_use]
pub fn whole(more: &[MoreCommand]) -> Command {
    let commands = more.iter().map(|more| (more.command)());
    Cli::command().subcommands(commands)
}

/// Reads arguments; the first one is the name of the program.
pub(crate) fn parse(
    program: &mut Command,
    args: impl IntoIterator<Item = OsString>,
    more: &[MoreCommand],
) -> Result<Asked, clap::Error> {
    let matches = program.try_get_matches_from_mut(args)?;
    if let Some((name, arguments)) = matches.subcommand()
        && let Some(found) = more.iter().find(|m| (m.command)().get_name() == name)
    {
        return Ok(Asked::More(*found, arguments.clone()));
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(program))?;
    Ok(Asked::Own(Box::new(cli)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn more() -> [MoreCommand; 1] {
        [MoreCommand {
            command: || Command::new("dance").about("Move to music"),
            run: |_, out| {
                out.line("dancing")?;
                Ok(ExitCode::SUCCESS)
            },
        }]
    }

    fn asked(words: &[&str]) -> Result<Asked, clap::Error> {
        let words = words.iter().map(OsString::from);
        parse(&mut whole(&more()), words, &more())
    }

    #[test]
    fn commands_of_others_are_listed_and_found() {
        let help = whole(&more()).render_help().to_string();
        assert!(help.contains("Move to music"), "{help}");
        let found = asked(&["weft", "dance"]).unwrap();
        assert!(matches!(found, Asked::More(..)), "{found:?}");
        let own = asked(&["weft", "info"]).unwrap();
        assert!(matches!(own, Asked::Own(_)), "{own:?}");
        asked(&["weft", "sing"]).unwrap_err();
    }
}
