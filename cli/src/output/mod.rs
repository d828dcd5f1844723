//! What people see: one writer, docker's tables, Go templates, JSON.

mod ago;
mod case;
mod listing;
mod template;
mod terminal;

pub use ago::{ago, human_duration};
pub use case::docker_case;
pub use listing::{Listing, render_inspect};
pub use terminal::value as shown;

use std::io::{self, IsTerminal, Write};

/// The one place that the program's own output leaves through.
pub struct Printer {
    out: Box<dyn Write>,
    terminal: bool,
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
    pub fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self {
            out: Box::new(out),
            terminal,
        }
    }

    /// Any writer, taken for no terminal.
    #[must_use]
    pub fn to(out: Box<dyn Write>) -> Self {
        Self {
            out,
            terminal: false,
        }
    }

    /// True when a person looks at it, so that lines may be redrawn.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes text and a line feed. What a terminal would obey is escaped, but for line ends and
    /// tabs.
    ///
    /// # Errors
    /// The writer's, a closed pipe among them.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(terminal::lines(text).as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Writes text, escaped as [`Printer::line`] does, and makes it visible at once.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(terminal::lines(text).as_bytes())?;
        self.out.flush()
    }

    /// Goes so many lines up and empties the screen from there.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn redraw(&mut self, lines: usize) -> io::Result<()> {
        write!(self.out, "\x1b[{lines}A\x1b[J")
    }

    /// Makes everything visible.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a line to standard error; when that is closed there is nobody left to tell.
pub fn complain(text: &str) {
    drop(writeln!(io::stderr(), "{}", terminal::lines(text)));
}
