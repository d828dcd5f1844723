//! One check of a task: a command inside of it, or a question to its port.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use weft_model::objects::Task;
use weft_shim::check::{Checked, Checking, Outcome};
use weft_sys::netns::Netns;
use weft_sys::process::Signal;

use crate::blocking::blocking;
use crate::sandbox::runner::Runner;

/// How long a check may take to begin and to end, besides its own limit: docker's for the start of a
/// command.
const AROUND: Duration = Duration::from_secs(30);

/// Characters of a command's output in what is reported.
const SHOWN: usize = 200;

/// Runs a command inside the task. The error says what it came to.
pub(super) async fn command(
    runner: Runner,
    task: Arc<Task>,
    command: Vec<String>,
    limit: Duration,
) -> Result<(), String> {
    // Beside the caller, who may go away: somebody has to wait for the process.
    let asked = tokio::spawn(carry_out(runner, task, command, limit));
    match asked.await {
        Ok(Ok(checked)) => judge(checked, limit),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn carry_out(
    runner: Runner,
    task: Arc<Task>,
    command: Vec<String>,
    limit: Duration,
) -> anyhow::Result<Checked> {
    let begun = blocking(move || runner.begin_check(&task, &command, limit)).await?;
    let Checking { helper, answer } = begun?;
    let heard = tokio::time::timeout(limit.saturating_add(AROUND), hear(answer)).await;
    if !matches!(heard, Ok(Ok(_))) {
        helper.signal(Signal::KILL)?;
    }
    blocking(move || helper.wait()).await??;
    let answer = heard.context("the check does not end")??;
    Checked::read(&answer).context("the check was killed")
}

async fn hear(answer: OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut answer = pipe::Receiver::from_owned_fd(answer)?;
    let mut bytes = Vec::new();
    answer.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn judge(checked: Checked, limit: Duration) -> Result<(), String> {
    let what = match checked.outcome {
        Outcome::Ended(0) => return Ok(()),
        Outcome::Ended(code) => format!("exit code {code}"),
        Outcome::TimedOut => format!("Health check exceeded timeout ({limit:?})"),
        Outcome::NotRun(why) => why,
    };
    // Of several lines one.
    let words: Vec<&str> = checked.output.split_whitespace().collect();
    let words = words.join(" ");
    let output: String = words.chars().take(SHOWN).collect();
    Err(match output.as_str() {
        "" => what,
        output => format!("{what}: {output}"),
    })
}

/// Asks a port of the task, from inside its network: for `path` by HTTP, or whether it takes a
/// connection where that is empty. The error says what it came to.
pub(super) async fn port(
    netns: Arc<Netns>,
    address: SocketAddr,
    path: String,
    limit: Duration,
) -> Result<(), String> {
    match tokio::time::timeout(limit, ask_port(netns, address, path)).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("{address} did not answer within {limit:?}")),
    }
}

async fn ask_port(netns: Arc<Netns>, address: SocketAddr, path: String) -> anyhow::Result<()> {
    // A socket keeps the namespace that it was made in.
    let make = move || {
        netns.run_in(|| match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })
    };
    let socket = blocking(make).await???;
    let stream = socket.connect(address).await;
    let stream = stream.with_context(|| format!("{address} takes no connections"))?;
    if path.is_empty() {
        return Ok(());
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with this question, answered or not.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(path.as_str())
        .header("host", address.to_string())
        .header("user-agent", "weft")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await;
    let status = answer.with_context(|| format!("{address}{path}"))?.status();
    if !(status.is_success() || status.is_redirection()) {
        bail!("{address}{path} answers {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn checked(outcome: Outcome, output: &str) -> Result<(), String> {
        let output = output.to_owned();
        judge(Checked { outcome, output }, Duration::from_secs(2))
    }

    #[test]
    fn a_command_is_judged_by_its_code() {
        assert_eq!(checked(Outcome::Ended(0), "fine"), Ok(()));
        let said = |outcome, output| checked(outcome, output).expect_err("failed");
        assert_eq!(said(Outcome::Ended(1), ""), "exit code 1");
        assert_eq!(
            said(Outcome::Ended(22), "curl: (22)\n  503\n"),
            "exit code 22: curl: (22) 503"
        );
        assert_eq!(
            said(Outcome::TimedOut, "waits"),
            "Health check exceeded timeout (2s): waits"
        );
        assert_eq!(said(Outcome::NotRun("gone".to_owned()), ""), "gone");
        let long = said(Outcome::Ended(1), &"é".repeat(1000));
        assert_eq!(long.chars().count(), "exit code 1: ".len() + SHOWN);
    }

    /// Answers one connection with these bytes and returns what was asked.
    async fn answering(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = vec![0; 4096];
        let len = stream.read(&mut asked).await.expect("a request");
        stream.write_all(answer.as_bytes()).await.expect("answered");
        String::from_utf8_lossy(&asked[..len]).into_owned()
    }

    #[tokio::test]
    async fn a_port_is_judged_by_its_answer() {
        let netns = Arc::new(Netns::current().expect("a namespace"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let ask = |path: &str| port(Arc::clone(&netns), address, path.to_owned(), LIMIT);
        assert_eq!(ask("").await, Ok(()));
        // The connection of that question.
        drop(listener.accept().await.expect("a connection"));
        let ok = "HTTP/1.1 204 No Content\r\n\r\n";
        let (result, asked) = tokio::join!(ask("/healthz?a=b"), answering(&listener, ok));
        assert_eq!(result, Ok(()));
        assert!(
            asked.starts_with("GET /healthz?a=b HTTP/1.1\r\n"),
            "{asked}"
        );
        let sick = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let (result, _) = tokio::join!(ask("/"), answering(&listener, sick));
        let why = format!("{address}/ answers 503 Service Unavailable");
        assert_eq!(result, Err(why));
        let (result, _) = tokio::join!(ask("/"), answering(&listener, "no HTTP\r\n\r\n"));
        assert!(result.is_err(), "{result:?}");
        let silent = port(
            Arc::clone(&netns),
            address,
            "/".to_owned(),
            Duration::from_millis(50),
        );
        let why = format!("{address} did not answer within 50ms");
        assert_eq!(silent.await, Err(why));
        drop(listener);
        let closed = ask("").await.expect_err("nobody listens");
        assert!(closed.contains("takes no connections"), "{closed}");
    }
}
