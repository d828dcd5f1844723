//! The signal that asks a program to end, as users of Docker spell it.

/// SIGTERM, unless somebody says otherwise.
pub const DEFAULT: i32 = 15;

/// signal(7), by Linux' numbers, without `SIG`: the list of Docker (moby/sys/signal), apart from
/// those in real time.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first and the last signal in real time; the C library keeps the two before them for itself.
const REAL_TIME: [i32; 2] = [34, 64];
/// Process 1 of a task hears of its children by the one, and by the other stops itself: neither
/// reaches the program.
const UNHEARD: [i32; 2] = [17, 19];

/// Bytes of a text at most, which is stored as it is: `SIGRTMAX-14`, and some noughts.
const LONGEST: usize = 16;

/// No signal that could ask a program to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSignal {
    /// There is none of this name or number. The text begins as Docker's.
    #[error(
        "invalid signal: {0}; write a name such as SIGQUIT, USR1 or RTMIN+3, or a number from 1 to 64"
    )]
    Unknown(String),
    /// No program gets it.
    #[error(
        "signal {0} does not reach the program of a task: stop it by another one, such as SIGTERM or \
         SIGINT"
    )]
    Unheard(String),
}

/// The number of a signal by its name, with or without `SIG` in front and in any case, or by that
/// number; [`DEFAULT`] for the empty text.
///
/// # Errors
/// There is none, or it reaches no program.
pub fn number(text: &str) -> Result<i32, BadSignal> {
    if text.is_empty() {
        return Ok(DEFAULT);
    }
    // It may come from anywhere, and a message is read by people.
    let shown = || text.chars().take(40).collect::<String>();
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(known, _)| *known == name);
    let number = match named {
        Some((_, number)) => Some(*number),
        None if text.len() > LONGEST => None,
        None => real_time(name).or_else(|| text.parse::<i32>().ok().filter(|n| exists(*n))),
    };
    match number {
        Some(number) if UNHEARD.contains(&number) => Err(BadSignal::Unheard(shown())),
        Some(number) => Ok(number),
        None => Err(BadSignal::Unknown(shown())),
    }
}

fn exists(number: i32) -> bool {
    let [first, last] = REAL_TIME;
    (1..=31).contains(&number) || (first..=last).contains(&number)
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let [first, last] = REAL_TIME;
    let steps = |text: &str| -> Option<i32> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i32>().ok().filter(|_| plain)
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(first),
        (_, Some("")) => Some(last),
        (Some(more), _) => {
            let up = steps(more.strip_prefix('+')?)?;
            (1..=15).contains(&up).then_some(first + up)
        }
        (_, Some(less)) => {
            let down = steps(less.strip_prefix('-')?)?;
            (1..=14).contains(&down).then_some(last - down)
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_dockers() {
        for (text, expected) in [
            ("", DEFAULT),
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigquit", 3),
            ("winch", 28),
            ("SIGIOT", 6),
            ("poll", 29),
            ("9", 9),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("RTMIN+1", 35),
            ("sigrtmin+15", 49),
            ("SIGRTMAX-14", 50),
            ("RTMAX", 64),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_asks_no_program_to_end_is_refused() {
        for text in [
            "FOO",
            "SIG",
            "SIGSIGTERM",
            "0",
            "-1",
            "32",
            "33",
            "65",
            "15.0",
            " TERM",
            "RTMIN+0",
            "RTMIN+16",
            "RTMIN++1",
            "RTMAX-15",
            "RTMAX+1",
            "RTMINX",
            "00000000000000000000000000000015",
        ] {
            let error = number(text).expect_err(text).to_string();
            let says = format!("invalid signal: {text}; write a name such as SIGQUIT");
            assert!(error.starts_with(&says), "{error}");
        }
        for text in ["SIGCHLD", "cld", "17", "STOP", "19"] {
            let error = number(text).expect_err(text).to_string();
            assert!(error.contains("does not reach the program"), "{error}");
        }
        let long = number(&"x".repeat(10_000)).expect_err("none").to_string();
        assert!(long.len() < 200, "{long}");
    }
}
