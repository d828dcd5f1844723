//! TCP streams made by iperf3, where it is installed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use weft_sys::netns::Netns;

use super::Way;
use super::stream::Streamed;

const PROGRAM: &str = "iperf3";

/// Whether it can be run.
pub(crate) fn is_installed() -> bool {
    let mut version = Command::new(PROGRAM);
    version.arg("--version");
    let output = version.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// The part of its report that counts.
#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    end: Option<End>,
}

#[derive(Debug, Deserialize)]
struct End {
    /// Missing when the test failed.
    sum_received: Option<Sum>,
}

#[derive(Debug, Deserialize)]
struct Sum {
    bytes: u64,
    seconds: f64,
}

/// `count` streams from the client to the server for that long, in whole seconds.
pub(crate) fn iperf3(
    way: &Way<'_>,
    control: &str,
    count: usize,
    length: Duration,
) -> anyhow::Result<Streamed> {
    let server = Server::start(way)?;
    let (port, seconds) = (server.port.to_string(), length.as_secs().max(1).to_string());
    let (target, count) = (way.target.to_string(), count.to_string());
    let args = [
        "--client",
        &target,
        "--port",
        &port,
        "--time",
        &seconds,
        "--parallel",
        &count,
        "--congestion",
        control,
        "--json",
    ];
    let output = spawn(way.client, &args)?.wait_with_output()?;
    drop(server);
    streamed(&String::from_utf8_lossy(&output.stdout))
}

fn streamed(report: &str) -> anyhow::Result<Streamed> {
    let report: Report =
        serde_json::from_str(report).context("iperf3's report has another form")?;
    if let Some(error) = report.error {
        bail!("iperf3 failed: {error}");
    }
    let end = report.end.and_then(|end| end.sum_received);
    let received = end.context("iperf3 reported no end of the test")?;
    Ok(Streamed {
        bytes: received.bytes,
        took: Duration::try_from_secs_f64(received.seconds)?,
    })
}

/// A process inherits the namespace of the thread that starts it.
fn spawn(netns: &Netns, args: &[&str]) -> anyhow::Result<Child> {
    let started = netns.run_in(|| {
        Command::new(PROGRAM)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    })?;
    started.context("cannot run iperf3")
}

/// A server that ends by itself after one test; killed if it does not come to that, and waited for
/// in any case, so that its CPU time counts.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(way: &Way<'_>) -> anyhow::Result<Self> {
        let port = {
            let (socket, target) = way.datagrams()?;
            drop(socket);
            target.port()
        };
        let (listen, number) = (way.listen.to_string(), port.to_string());
        let args = [
            "--server",
            "--one-off",
            "--forceflush",
            "--bind",
            &listen,
            "--port",
            &number,
        ];
        let mut server = Self {
            child: spawn(way.server, &args)?,
            port,
        };
        let out = server.child.stdout.take().context("no pipe from iperf3")?;
        let mut out = BufReader::new(out);
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            if out.read_line(&mut line)? == 0 {
                bail!("iperf3 --server ended before it listened");
            }
        }
        // Read on to its end, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            weft_cli::complain(&format!("iperf3 could not be stopped: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_errors_are_understood() {
        let good = r#"{"start":{},"end":{"sum_sent":{"bytes":9},"sum_received":{"start":0,"end":2.0,"seconds":2.0,"bytes":1000,"bits_per_second":4000.0}}}"#;
        let got = streamed(good).unwrap();
        assert_eq!((got.bytes, got.took), (1000, Duration::from_secs(2)));
        let bad = r#"{"start":{},"end":{},"error":"error - unable to connect"}"#;
        // Its report of a failure has an empty end.
        let said = streamed(bad).unwrap_err().to_string();
        assert!(said.contains("unable to connect"), "{said}");
        assert!(streamed("iperf3: error").is_err());
    }
}
