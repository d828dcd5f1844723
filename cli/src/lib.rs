//! `weft`: talks to the node API over its unix socket; also `lab` and `demo`.
//!
//! [`main`] is the whole program, with the commands that other crates bring. Everything that it prints
//! goes through one [`Printer`], so that a closed pipe ends it quietly and tests can read what it says.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod demo;
mod output;
mod program;
mod suggest;
mod visualizer;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use program::Asked;
use weft_sys::error_text::without_numbers;

pub use args::FormatArgs;
pub use output::{Listing, Printer, complain};
pub use program::MoreCommand;

/// Runs `weft` with the arguments of this process and the commands `more`.
///
/// Exit status: 0 done, 1 refused or failed, 2 wrong usage. A reader that closes the pipe is no
/// failure.
#[must_use]
pub fn main(more: &[MoreCommand]) -> ExitCode {
    // Nodes of a lab, and what runs on them, are not to have what this process inherited. A kernel
    // that cannot do it runs no agent either.
    drop(weft_sys::descriptors::close_on_exec_from(3));
    main_from(std::env::args_os(), more)
}

/// Names of commands that are not for people.
fn hidden_commands(of: &clap::Command) -> Vec<String> {
    let hidden = of.get_subcommands().filter(|command| command.is_hide_set());
    hidden
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// Runs `weft` with these arguments; the first one is the name of the program.
#[must_use]
fn main_from(args: impl IntoIterator<Item = OsString>, more: &[MoreCommand]) -> ExitCode {
    let mut program = program::whole(more);
    let asked = match program::parse(&mut program, args, more) {
        Ok(asked) => asked,
        Err(mut usage) => {
            if let Some(missing) = suggest::mend(&mut usage, &hidden_commands(&program)) {
                complain(&format!("weft: {missing}"));
                return ExitCode::from(2);
            }
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            let printed = usage.print();
            return match printed.and_then(|()| io::Write::flush(&mut io::stdout())) {
                // Help that nobody got, though somebody still waits for it.
                Err(e) if code == 0 && e.kind() != io::ErrorKind::BrokenPipe => {
                    complain(&format!("weft: {}", output::of_output(e)));
                    ExitCode::FAILURE
                }
                _ => ExitCode::from(code),
            };
        }
    };
    let mut out = Printer::stdout();
    let result = match asked {
        Asked::Own(cli) => commands::run(*cli, more, &mut out),
        Asked::More(command, arguments) => (command.run)(&arguments, &mut out),
    };
    let result = result.and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match result {
        Ok(code) => code,
        Err(error) if output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("weft: {}", without_numbers(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

/// For `tests/api`, which plays the node and runs commands as a person would, and for the tests of
/// crates that bring commands.
#[doc(hidden)]
pub mod testing {
    pub use crate::args::Cli;
    pub use crate::commands::run;
    pub use crate::program::whole;
}
