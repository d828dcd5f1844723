//! How a node finds out whether a task does its work: by a command inside of it, by its port, or both.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command that is run inside the task again and again; its exit code says how the task is. A time
/// of 0, and no number of retries, stand for Docker's defaults. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct HealthConfig {
    /// `["CMD", PROGRAM, ARG…]`, `["CMD-SHELL", TEXT]` for `/bin/sh`, or `["NONE"]` for no check.
    pub test: Vec<String>,
    /// From the end of one run to the next; written in nanoseconds.
    #[serde(
        with = "crate::time::nanoseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub interval: Duration,
    /// A run that takes longer has failed; written in nanoseconds.
    #[serde(
        with = "crate::time::nanoseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub timeout: Duration,
    /// After the start failures do not count for so long, unless the task was healthy before; written
    /// in nanoseconds.
    #[serde(
        with = "crate::time::nanoseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub start_period: Duration,
    /// In place of the interval while the start period lasts and the task was never healthy; written
    /// in nanoseconds.
    #[serde(
        with = "crate::time::nanoseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub start_interval: Duration,
    /// So many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: u32,
}

/// True for what is not written.
fn is_default(number: &u32) -> bool {
    *number == 0
}

impl HealthConfig {
    /// The word of a test that is none.
    pub const NONE: &'static str = "NONE";

    /// No check.
    #[must_use]
    pub fn none() -> Self {
        Self {
            test: vec![Self::NONE.to_owned()],
            ..Self::default()
        }
    }

    /// A check by a command of `/bin/sh`.
    #[must_use]
    pub fn shell(command: impl Into<String>) -> Self {
        Self {
            test: vec!["CMD-SHELL".to_owned(), command.into()],
            ..Self::default()
        }
    }

    /// True where a check is expressly not wanted.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(&self.test[..], [word] if word == Self::NONE)
    }

    /// The program and its arguments; nothing where there is none to run.
    #[must_use]
    pub fn command(&self) -> Option<Vec<String>> {
        match self.test.split_first()? {
            (kind, rest) if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
            (kind, rest) if kind == "CMD-SHELL" && !rest.is_empty() => {
                let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
                Some(shell.into_iter().chain(rest.iter().cloned()).collect())
            }
            _ => None,
        }
    }
}

/// A task takes connections once its port answers, and as long as it does. What is not known here is
/// refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct ReadyCheck {
    /// TCP port that the program listens on; 0 for the target of the first one that is published, and
    /// never 0 once stored.
    pub port: u16,
    /// What is asked for by HTTP; a connection is enough when it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// The text is no check of a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid check {0:?}: write tcp, tcp:PORT, http:/PATH or http:PORT/PATH, like http:8080/healthz"
)]
pub struct ParseReadyError(pub String);

impl FromStr for ReadyCheck {
    type Err = ParseReadyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseReadyError(text.to_owned());
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (port, path) = match kind {
            "tcp" => (rest, ""),
            "http" => rest.split_at(rest.find('/').ok_or_else(bad)?),
            _ => return Err(bad()),
        };
        let port = match port {
            "" if kind == "tcp" && text.contains(':') => return Err(bad()),
            "" => 0,
            digits => digits
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(bad)?,
        };
        // RFC 9112 section 3.2: what stands in a request line.
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad());
        }
        Ok(Self {
            port,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for ReadyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.path.as_str()) {
            (0, "") => f.write_str("tcp"),
            (port, "") => write!(f, "tcp:{port}"),
            (0, path) => write!(f, "http:{path}"),
            (port, path) => write!(f, "http:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9112_s3_2_checks_of_ports_are_read_as_they_are_shown() {
        for (text, port, path) in [
            ("tcp", 0, ""),
            ("tcp:8080", 8080, ""),
            ("http:/", 0, "/"),
            ("http:8080/healthz?deep=1", 8080, "/healthz?deep=1"),
        ] {
            let check: ReadyCheck = text.parse().unwrap();
            assert_eq!((check.port, check.path.as_str()), (port, path), "{text}");
            assert_eq!(check.to_string(), text);
        }
        for text in [
            "",
            "udp",
            "tcp:",
            "tcp:0",
            "tcp:70000",
            "tcp:8080/",
            "http",
            "http:",
            "http:8080",
            "http:x/",
            "http:/a b",
            "http:/\u{1b}",
            "https:/",
        ] {
            let error = text.parse::<ReadyCheck>().unwrap_err().to_string();
            assert!(error.contains("write tcp, tcp:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn a_health_check_is_written_as_dockers() {
        let config = HealthConfig {
            timeout: Duration::from_secs(2),
            retries: 5,
            ..HealthConfig::shell("curl -f localhost")
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            text,
            r#"{"Test":["CMD-SHELL","curl -f localhost"],"Timeout":2000000000,"Retries":5}"#
        );
        assert_eq!(serde_json::from_str::<HealthConfig>(&text).unwrap(), config);
        let gos = r#"{"Test":["CMD","true"],"StartPeriod":1,"StartInterval":0,"Retries":0}"#;
        let read: HealthConfig = serde_json::from_str(gos).unwrap();
        assert_eq!(read.start_period, Duration::from_nanos(1));
        assert!(serde_json::from_str::<HealthConfig>(r#"{"Retries":-1}"#).is_err());
        assert!(serde_json::from_str::<HealthConfig>(r#"{"Tests":[]}"#).is_err());
    }

    #[test]
    fn a_test_is_a_command_or_none() {
        let command = |words: &[&str]| {
            let test = words.iter().map(|&word| word.to_owned()).collect();
            let config = HealthConfig {
                test,
                ..HealthConfig::default()
            };
            config.command().map(|words| words.join(" "))
        };
        assert_eq!(command(&["CMD", "a", "b"]).as_deref(), Some("a b"));
        let shell = command(&["CMD-SHELL", "a | b"]);
        assert_eq!(shell.as_deref(), Some("/bin/sh -c a | b"));
        for none in [&["NONE"][..], &[], &["CMD"], &["a", "b"]] {
            assert_eq!(command(none), None, "{none:?}");
        }
        assert!(HealthConfig::none().is_none());
        assert!(!HealthConfig::shell("NONE").is_none());
    }
}
