//! Programs that keep credentials for docker: `docker-credential-NAME get`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Credentials, TOKEN_USER};

/// A program that asks somebody for a password has this long.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// How programs say that they have nothing.
const NOT_FOUND: &str = "credentials not found";

/// Why a program gives no credentials.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Its name would be a path.
    #[error("{0:?} in credsStore or credHelpers is no name of a credential program")]
    Name(String),
    /// It is not there, or does not start.
    #[error("cannot run docker-credential-{name}, which the Docker configuration names: {source}")]
    Start {
        /// What follows `docker-credential-`.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It does not end.
    #[error("docker-credential-{name} has not answered within {} s and was ended", .limit.as_secs())]
    TimeOut {
        /// What follows `docker-credential-`.
        name: String,
        /// How long it had.
        limit: Duration,
    },
    /// It says that something went wrong.
    #[error("docker-credential-{name} failed: {reason}")]
    Failed {
        /// What follows `docker-credential-`.
        name: String,
        /// Its own words.
        reason: String,
    },
    /// Its answer is none.
    #[error("docker-credential-{0} did not answer with Username and Secret as JSON")]
    Answer(String),
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// What the program has for a server; `None` when it has nothing.
///
/// # Errors
/// It does not start, end, or answer as it should.
pub(super) fn ask(
    name: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credentials>, ProgramError> {
    // Without a folder the name is looked up in `PATH`, as docker does.
    ask_in(Path::new(""), name, server, limit)
}

/// The same, of a program in this folder.
pub(super) fn ask_in(
    folder: &Path,
    name: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credentials>, ProgramError> {
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !is_name {
        return Err(ProgramError::Name(name.chars().take(60).collect()));
    }
    let mut child = Command::new(folder.join(format!("docker-credential-{name}")))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| start_error(name, source))?;
    let outcome = converse(&mut child, server, limit);
    if outcome.is_none() {
        // It may have ended in the meantime; whichever it was, it is reaped below.
        if let Err(error) = child.kill() {
            tracing::debug!(%error, "a credential program cannot be ended");
        }
    }
    let status = child.wait().map_err(|source| start_error(name, source))?;
    let Some(output) = outcome else {
        return Err(ProgramError::TimeOut {
            name: name.to_owned(),
            limit,
        });
    };
    if !status.success() {
        let text = String::from_utf8_lossy(&output);
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(ProgramError::Failed {
            name: name.to_owned(),
            reason: reason(&text, &status),
        });
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| ProgramError::Answer(name.to_owned()))?;
    Ok(match (answer.username.as_str(), answer.secret.as_str()) {
        (_, "") => None,
        (TOKEN_USER, token) => Some(Credentials::identity(token)),
        ("", _) => return Err(ProgramError::Answer(name.to_owned())),
        (username, password) => Some(Credentials::basic(username, password)),
    })
}

/// Hands the server over and takes the answer; `None` where the time is up.
fn converse(child: &mut Child, server: &str, limit: Duration) -> Option<Zeroizing<Vec<u8>>> {
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(server.as_bytes())
    {
        // One that does not read may still answer.
        tracing::debug!(%error, "a credential program does not read");
    }
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = Zeroizing::new(Vec::with_capacity(4096));
        let read = stdout.take(MAX_ANSWER).read_to_end(&mut output);
        if read.is_err() {
            output.clear();
        }
        if sender.send(output).is_err() {
            tracing::debug!("nobody waits for the answer of a credential program any more");
        }
    });
    receiver.recv_timeout(limit).ok()
}

fn start_error(name: &str, source: std::io::Error) -> ProgramError {
    ProgramError::Start {
        name: name.to_owned(),
        source,
    }
}

/// Programs say on their output why they fail; it is no secret then.
fn reason(text: &str, status: &std::process::ExitStatus) -> String {
    let said: String = text
        .trim()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(200)
        .collect();
    if said.is_empty() {
        status.to_string()
    } else {
        said
    }
}
