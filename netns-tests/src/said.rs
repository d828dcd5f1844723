//! What a command did.

use std::process::Output;

/// Exit status and output of a command that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The command, for messages.
    pub command: String,
    /// Exit status; 128 and the signal when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    pub(crate) fn new(command: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            command,
            code: output.status.code().unwrap_or_else(signal),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Standard output of a command that succeeded.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }

    /// The same for commands whose output nobody reads.
    ///
    /// # Panics
    /// It did not succeed.
    #[track_caller]
    pub fn done(self) {
        assert_eq!(self.code, 0, "{self:#?}");
    }

    /// Asserts that the command was refused with exit status 1 and printed nothing but a message
    /// on standard error that holds all of `words`.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, 1, "{self:#?}");
        assert_eq!(self.out, "", "{self:#?}");
        assert!(self.err.starts_with("weft: "), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing: {self:#?}");
        }
    }
}
