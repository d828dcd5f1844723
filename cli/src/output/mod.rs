//! What people see: one writer, docker's tables, Go templates, JSON.

mod ago;
mod amounts;
mod filters;
mod listing;
mod template;
mod terminal;
mod wrap;

pub(crate) use ago::{ago, capital_ago};
pub(crate) use amounts::{bytes, duration, size};
pub(crate) use filters::{Filters, Key, Match};
pub use listing::Listing;
pub(crate) use listing::render_inspect;
pub(crate) use terminal::value as shown;
pub(crate) use wrap::wrap;

use std::io::{self, IsTerminal, Write};

use crate::args::FormatArgs;

/// Columns of a terminal that does not say.
const WIDTH: usize = 80;

/// The one place that the program's own output leaves through.
pub struct Printer {
    out: Box<dyn Write>,
    terminal: bool,
    /// Columns of the terminal.
    width: Option<usize>,
    colours: bool,
}

/// How a word stands out, where colours are seen and wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Look at it.
    Yellow,
    /// Something does not work.
    Red,
    /// All is well.
    Green,
}

impl Colour {
    /// Of ECMA-48 section 8.3.117, "Select Graphic Rendition".
    const fn code(self) -> u8 {
        match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
        }
    }
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer")
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

impl Printer {
    /// Standard output.
    #[must_use]
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self {
            out: Box::new(out),
            terminal,
            width: terminal.then(|| {
                let size = terminal_size::terminal_size();
                size.map_or(WIDTH, |(width, _)| usize::from(width.0))
            }),
            colours: terminal && are_colours_wanted(|name| std::env::var(name).ok()),
        }
    }

    /// Any writer, taken for no terminal.
    #[must_use]
    pub fn to(out: Box<dyn Write>) -> Self {
        Self {
            out,
            terminal: false,
            width: None,
            colours: false,
        }
    }

    /// Any writer, taken for a terminal of so many columns.
    #[cfg(test)]
    pub(crate) fn to_terminal(out: Box<dyn Write>, columns: usize) -> Self {
        Self {
            terminal: true,
            width: Some(columns),
            ..Self::to(out)
        }
    }

    /// True when a person looks at it, so that lines may be redrawn.
    #[must_use]
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns of the terminal; none where it is no terminal: lines are as long as they are then, so
    /// that a program finds what belongs together in one.
    #[must_use]
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes rows as `--format` asks for.
    ///
    /// # Errors
    /// A bad template, or as [`Printer::line`].
    pub(crate) fn listing(&mut self, listing: &Listing, args: &FormatArgs) -> anyhow::Result<()> {
        Ok(self.text(&listing.render_in(args, self.width)?)?)
    }

    /// Writes text in a colour.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub(crate) fn paint(&mut self, colour: Colour, text: &str) -> io::Result<()> {
        if !self.colours {
            return self.write(terminal::lines(text).as_bytes());
        }
        let text = terminal::lines(text);
        self.write(format!("\x1b[{}m{text}\x1b[0m", colour.code()).as_bytes())
    }

    /// Writes as it is, as [`Printer::line`] does otherwise.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).map_err(of_output)
    }

    /// Writes text and a line feed. What a terminal would obey is escaped, but for line ends and
    /// tabs.
    ///
    /// # Errors
    /// The writer's, a closed pipe among them.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.write(terminal::lines(text).as_bytes())?;
        self.write(b"\n")
    }

    /// Writes text, escaped as [`Printer::line`] does, and makes it visible at once.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.write(terminal::lines(text).as_bytes())?;
        self.flush()
    }

    /// Writes a line of a program's output: as it is, but for a terminal, which must not obey it.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub(crate) fn output(&mut self, text: &str) -> io::Result<()> {
        if self.terminal {
            return self.line(text);
        }
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Writes what a program writes, at once and as it is: for `exec`, whose terminal is the user's.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)?;
        self.flush()
    }

    /// Goes so many lines up and empties the screen from there.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub(crate) fn redraw(&mut self, lines: usize) -> io::Result<()> {
        self.write(format!("\x1b[{lines}A\x1b[J").as_bytes())
    }

    /// Writes a line anew that is so many lines up, and comes back. What is in it of line ends and tabs
    /// is escaped, too.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub(crate) fn rewrite(&mut self, up: usize, text: &str) -> io::Result<()> {
        // ECMA-48: cursor up (8.3.22), erase in line (8.3.41), cursor down (8.3.19).
        let text = terminal::value(text);
        self.write(format!("\x1b[{up}A\r\x1b[2K{text}\r\x1b[{up}B").as_bytes())
    }

    /// Makes everything visible.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(of_output)
    }

    /// Prints a line in the middle of work that changes something, and shows it at once. What was begun is
    /// not left half-way because nobody reads on (`| head -1`).
    ///
    /// # Errors
    /// The output's, but for a closed pipe.
    pub(crate) fn line_on_the_way(&mut self, line: &str) -> io::Result<()> {
        match self.line(line).and_then(|()| self.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            said => said,
        }
    }
}

/// What the environment says of colours.
fn are_colours_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    // https://no-color.org: any text that is not empty.
    variable("NO_COLOR").is_none_or(|text| text.is_empty())
        && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Whoever read the program's output has closed the pipe.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output has gone")]
pub(crate) struct ReaderGone;

/// Marks what went wrong with the program's own output. A closed pipe is no failure there, while
/// other pipes and sockets break too; a disk that is full is that of the output, not the node's.
pub(crate) fn of_output(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, ReaderGone),
        kind => io::Error::new(kind, format!("cannot write the output: {error}")),
    }
}

/// True when the error is that nobody reads the output any more.
#[must_use]
pub(crate) fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.and_then(io::Error::get_ref)
            .is_some_and(|inner| inner.is::<ReaderGone>())
    })
}

/// Writes a line of a program's output to standard error, as [`Printer::output`] does.
pub(crate) fn write_error(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        return complain(text);
    }
    // Where it is closed there is nobody left to tell.
    drop(writeln!(stderr, "{text}"));
}

/// Writes to standard error as [`Printer::bytes`] does to standard output.
pub(crate) fn error_bytes(bytes: &[u8]) {
    drop(io::stderr().write_all(bytes));
}

/// Writes a line to standard error; when that is closed there is nobody left to tell.
pub fn complain(text: &str) {
    drop(writeln!(io::stderr(), "{}", terminal::lines(text)));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use anyhow::Context;

    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        for (set, wanted) in [
            (vec![], true),
            (vec![("TERM", "xterm"), ("NO_COLOR", "")], true),
            (vec![("NO_COLOR", "1")], false),
            (vec![("NO_COLOR", "0"), ("TERM", "xterm")], false),
            (vec![("TERM", "dumb")], false),
        ] {
            let variable = |name: &str| {
                let found = set.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(are_colours_wanted(variable), wanted, "{set:?}");
        }
        let painted = |colours| {
            let kept = Kept::default();
            let mut printer = Printer {
                colours,
                ..Printer::to(Box::new(kept.clone()))
            };
            printer.paint(Colour::Red, "fail").unwrap();
            String::from_utf8(kept.0.borrow().clone()).unwrap()
        };
        assert_eq!(painted(true), "\x1b[31mfail\x1b[0m");
        assert_eq!(painted(false), "fail");
    }

    /// What was written.
    #[derive(Clone, Default)]
    struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_the_outputs_own_pipe_may_close_without_a_failure() {
        let mut closed = Printer::to(Box::new(Closed));
        let own = closed.line("x").context("listing").unwrap_err();
        assert!(is_reader_gone(&own), "{own:?}");
        let socket = io::Error::from(io::ErrorKind::BrokenPipe);
        let socket = Err::<(), _>(socket).context("no usable answer from weftd");
        assert!(!is_reader_gone(&socket.unwrap_err()));
        let full = of_output(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let full = anyhow::Error::from(full);
        assert!(!is_reader_gone(&full));
        assert!(full.to_string().starts_with("cannot write the output: "));
    }
}
