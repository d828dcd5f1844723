//! Why a container did not start, from what its runtime program says on standard error.
//!
//! `runc` writes lines of `time="…" level=error msg="…"`, `crun` plain sentences. What they say is shown
//! as it is, behind Docker's words; codes and what is final are told by the sentences, as Docker does.

/// Characters that are shown at most: the last ones.
const MOST_CHARS: usize = 1024;

/// Docker's codes of a container whose program is not there, cannot be executed, or did not start for
/// another reason.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
const NOT_STARTED: i32 = 128;

/// Parts of sentences about the container's program or its user: they are as they are in the image, and
/// another attempt on this node ends alike.
const OF_THE_IMAGE: [&str; 9] = [
    "not found in $path",
    "exec: \"",
    "exec format error",
    "exec container process",
    "open executable",
    "find executable",
    "unable to find user",
    "unable to find group",
    "chdir to cwd",
];

/// What the runtime program's words come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// One line without control characters.
    pub(crate) text: String,
    /// Trying again on this node cannot help.
    pub(crate) permanent: bool,
    /// What Docker shows as the container's exit code.
    pub(crate) code: i32,
}

/// From the end of what it wrote.
pub(crate) fn of(said: &[u8]) -> Reason {
    let said = String::from_utf8_lossy(said);
    let lines = || said.lines().rev().filter(|line| !line.trim().is_empty());
    let text = lines()
        .find_map(error_of_log)
        .or_else(|| lines().next().map(str::to_owned))
        .unwrap_or_else(|| "it does not say why".to_owned());
    let text = shown(&text);
    let known = text.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| known.contains(part));
    let permanent = has(&OF_THE_IMAGE);
    let code = if permanent && has(&["not found in $path", "no such file or directory"]) {
        NOT_FOUND
    } else if permanent
        && has(&[
            "permission denied",
            "not permitted",
            "is a directory",
            "exec format error",
        ])
    {
        NOT_EXECUTABLE
    } else {
        NOT_STARTED
    };
    Reason {
        text,
        permanent,
        code,
    }
}

/// The message of a line that reports an error in the form of `runc`'s log.
fn error_of_log(line: &str) -> Option<String> {
    let level = line.split_once(" level=")?.1;
    if !["error", "fatal", "panic"]
        .iter()
        .any(|bad| level.starts_with(bad))
    {
        return None;
    }
    let message = line.split_once(" msg=")?.1;
    let Some(quoted) = message.strip_prefix('"') else {
        // A single word has no quotes.
        return message.split(' ').next().map(str::to_owned);
    };
    let mut escaped = false;
    let end = quoted.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    let quoted = &quoted[..end];
    // Go's escapes are those of JSON but for a few of control characters.
    let text = serde_json::from_str(&format!("\"{quoted}\""));
    Some(text.unwrap_or_else(|_| quoted.to_owned()))
}

fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let chars = text.trim().chars().count();
    let cut = chars.saturating_sub(MOST_CHARS);
    text.trim().chars().skip(cut).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(said: &str) -> (String, bool, i32) {
        let Reason {
            text,
            permanent,
            code,
        } = of(said.as_bytes());
        (text, permanent, code)
    }

    #[test]
    fn runcs_log_is_read() {
        let line =
            |text: &str| format!("time=\"2026-01-02T03:04:05Z\" level=error msg=\"{text}\"\n");
        let start = "runc run failed: unable to start container process: ";
        let missing = line(&format!(
            "{start}exec: \\\"nope\\\": executable file not found in $PATH"
        ));
        let text = format!("{start}exec: \"nope\": executable file not found in $PATH");
        let warned = format!("{missing}time=\"…\" level=warning msg=\"signal: killed\"\n\n");
        assert_eq!(reason(&warned), (text, true, 127));
        let stat = line(&format!(
            "{start}exec: \\\"/bin/x\\\": stat /bin/x: no such file or directory"
        ));
        assert_eq!(reason(&stat).2, 127);
        let denied = line(&format!("{start}exec: \\\"/etc\\\": permission denied"));
        assert_eq!((reason(&denied).1, reason(&denied).2), (true, 126));
        // A limit of this moment, and nothing of the image.
        let busy = line("runc run failed: unable to apply cgroup configuration: no space left");
        assert_eq!((reason(&busy).1, reason(&busy).2), (false, 128));
        let mount = line("runc run failed: error mounting \\\"/a\\\": no such file or directory");
        assert_eq!((reason(&mount).1, reason(&mount).2), (false, 128));
    }

    #[test]
    fn cruns_sentences_are_read() {
        let text = "executable file `nope` not found in $PATH: No such file or directory";
        let whole = format!("a line before\n{text}\n");
        assert_eq!(reason(&whole), (text.to_owned(), true, 127));
        let (_, permanent, code) = reason("open executable: Operation not permitted\n");
        assert_eq!((permanent, code), (true, 126));
    }

    #[test]
    fn garbage_is_cut_and_harmless() {
        assert_eq!(reason(""), ("it does not say why".to_owned(), false, 128));
        assert_eq!(reason("\n \n").0, "it does not say why");
        assert_eq!(reason("a\u{1b}[2Jb\rc").0, "a [2Jb c");
        let long = format!("{}end", "é".repeat(100_000));
        let (text, _, _) = reason(&long);
        assert_eq!(text.chars().count(), MOST_CHARS);
        assert!(text.ends_with("éend"), "{text}");
        let binary: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        assert!(!of(&binary).text.contains(char::is_control));
        // Quotes without an end are no message.
        let open = "time=x level=error msg=\"never ends \\\"";
        assert_eq!(reason(open).0, open);
        let odd = "time=x level=fatal msg=\"a \\x07 b\" error=c";
        assert_eq!(reason(odd).0, "a \\x07 b");
    }
}
