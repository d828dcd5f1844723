//! `weft swarm ca` (docker/cli `cli/command/swarm/ca.go`, `progress/root_rotation.go`)

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use weft_client::Client;
use weft_model::api::{CaRotate, SwarmDetail};

use crate::args::SwarmCaArgs;
use crate::output::Printer;

const SWARM: &str = "/v1/swarm";

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// Prints the root certificate, or replaces it first.
///
/// # Errors
/// Flags that do not go together, files that cannot be read, or the node's.
pub(super) async fn run(
    client: &Client,
    args: &SwarmCaArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    if args.rotate {
        let request = request(args)?;
        client.post_done("/v1/swarm/ca/rotate", &request).await?;
        if args.detach || !wait(client, args.quiet, out).await? || args.quiet {
            return Ok(());
        }
    } else if let Some(flag) = needless(args) {
        bail!("`--{flag}` flag requires the `--rotate` flag to update the CA");
    }
    let swarm: SwarmDetail = client.get(SWARM).await?;
    out.line(swarm.tls_info.trust_root.trim())?;
    Ok(())
}

/// The first flag that means something with `--rotate` only.
fn needless(args: &SwarmCaArgs) -> Option<&'static str> {
    let given = [
        ("ca-cert", args.ca_cert.is_some()),
        ("ca-key", args.ca_key.is_some()),
        ("cert-expiry", args.cert_expiry.is_some()),
    ];
    given.iter().find(|(_, is)| *is).map(|(flag, _)| *flag)
}

fn request(args: &SwarmCaArgs) -> anyhow::Result<CaRotate> {
    if args.ca_cert.is_some() && args.ca_key.is_none() {
        bail!("the --ca-cert flag requires that a --ca-key flag be provided as well");
    }
    if args.ca_key.is_some() && args.ca_cert.is_none() {
        bail!("the --ca-key flag requires that a --ca-cert flag be provided as well");
    }
    let read = |file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    Ok(CaRotate {
        signing_ca_cert: args.ca_cert.as_deref().map(read).transpose()?,
        signing_ca_key: args.ca_key.as_deref().map(read).transpose()?,
        node_cert_expiry: args.cert_expiry.map(Duration::from_millis),
    })
}

/// Shows progress until the root is replaced; false when a person did not want to wait for it.
async fn wait(client: &Client, quiet: bool, out: &mut Printer) -> anyhow::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = watch(client, quiet, out) => return ended.map(|()| true),
        _ = interrupt.recv() => {}
    }
    out.line("Operation continuing in background.\nUse `weft info` to check progress.")?;
    Ok(false)
}

async fn watch(client: &Client, quiet: bool, out: &mut Printer) -> anyhow::Result<()> {
    let mut screen = Screen::default();
    loop {
        let swarm: SwarmDetail = client.get(SWARM).await?;
        let progress = Progress::of(&swarm);
        if !quiet {
            screen.show(&progress, out)?;
        }
        if progress.is_over {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    digest: String,
    certificates: u32,
    total: u32,
    is_over: bool,
    waiting: Vec<String>,
    away: Vec<String>,
}

impl Progress {
    fn of(swarm: &SwarmDetail) -> Self {
        let rotation = &swarm.root_rotation;
        Self {
            digest: rotation.desired_root_digest.clone(),
            certificates: rotation.renewed,
            total: rotation.total,
            is_over: !swarm.root_rotation_in_progress,
            waiting: rotation.waiting.clone(),
            away: rotation.away.clone(),
        }
    }

    /// Each with what is done of it. Nodes trust the new root alone once it is the only one.
    fn bars(&self) -> [(&'static str, u32); 2] {
        let roots = if self.is_over { self.certificates } else { 0 };
        [
            ("rotated TLS certificates", self.certificates),
            ("rotated CA certificates", roots),
        ]
    }
}

/// What was shown last. A terminal is redrawn; elsewhere a line is printed when it changes.
#[derive(Debug, Default)]
struct Screen {
    last: Vec<String>,
    drawn: usize,
}

impl Screen {
    fn show(&mut self, progress: &Progress, out: &mut Printer) -> std::io::Result<()> {
        let lines = lines(progress, out.is_terminal());
        if lines == self.last {
            return Ok(());
        }
        if out.is_terminal() {
            if self.drawn > 0 {
                out.redraw(self.drawn)?;
            }
            self.drawn = lines.len();
            out.text(&format!("{}\n", lines.join("\n")))?;
        } else {
            for line in lines.iter().filter(|line| !self.last.contains(line)) {
                out.line(line)?;
            }
            out.flush()?;
        }
        self.last = lines;
        Ok(())
    }
}

fn lines(progress: &Progress, bars: bool) -> Vec<String> {
    let mut lines = vec![format!("desired root digest: {}", progress.digest)];
    for (what, done) in progress.bars() {
        let counts = format!("{done}/{} nodes", progress.total);
        lines.push(if bars {
            format!(
                "  {:<26} {} {counts}",
                format!("{what}:"),
                bar(done, progress.total)
            )
        } else {
            format!("{what}: {counts}")
        });
    }
    if !progress.is_over && !progress.waiting.is_empty() {
        lines.push(format!("waiting for: {}", few(&progress.waiting)));
    }
    if !progress.away.is_empty() {
        lines.push(format!(
            "down, and to join again if not back in time: {}",
            progress.away.join(", ")
        ));
    }
    lines
}

/// Names, as many as a person reads.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = &names[..names.len().min(SHOWN)];
    let text = shown.join(", ");
    match names.len() - shown.len() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// `[=====>    ]`
fn bar(done: u32, total: u32) -> String {
    const WIDTH: usize = 50;
    let part = u64::from(done) * 50 / u64::from(total.max(1));
    let filled = usize::try_from(part).unwrap_or(WIDTH).min(WIDTH);
    format!("[{}>{}]", "=".repeat(filled), " ".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_dockers() {
        let progress = Progress {
            digest: "sha256:05da".to_owned(),
            certificates: 1,
            total: 2,
            is_over: false,
            waiting: vec!["m3".to_owned()],
            away: Vec::new(),
        };
        let expected = [
            "desired root digest: sha256:05da",
            "  rotated TLS certificates:  [=========================>                         ] 1/2 nodes",
            "  rotated CA certificates:   [>                                                  ] 0/2 nodes",
            "waiting for: m3",
        ];
        assert_eq!(lines(&progress, true), expected);
        let progress = Progress {
            certificates: 2,
            is_over: true,
            away: vec!["n3".to_owned()],
            ..progress
        };
        let expected = [
            "desired root digest: sha256:05da",
            "rotated TLS certificates: 2/2 nodes",
            "rotated CA certificates: 2/2 nodes",
            "down, and to join again if not back in time: n3",
        ];
        assert_eq!(lines(&progress, false), expected);
        let many: Vec<String> = (1..=7).map(|n| format!("n{n}")).collect();
        assert_eq!(few(&many), "n1, n2, n3, n4, n5 and 2 more");
        assert_eq!(few(&many[..5]), "n1, n2, n3, n4, n5");
        assert_eq!(bar(2, 2), format!("[{}>]", "=".repeat(50)));
        assert_eq!(bar(0, 0).len(), 53);
    }
}
