//! `weftd`'s main: command line, logging, privileges, the instance lock, signals.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use weft_sys::instance_lock::InstanceLock;
use weft_sys::private_folder::make_private;
use weft_sys::{descriptors, open_files, privileges};

use crate::config::{Config, EXIT_USAGE, Flags, LogFormat, Machine};
use crate::data_format::OtherFormat;
use crate::{data_format, node, notify, shim_program};

/// In the data directory: who uses it.
const LOCK_FILE: &str = "weftd.lock";

/// Runs `weftd` with the arguments of this process, until a signal ends it.
///
/// Exit status: 0 after SIGTERM or SIGINT, 1 when the node failed, 64 for wrong flags, a wrong
/// configuration, or a data directory of another version. A second signal ends the process at once
/// with 130.
pub fn main(shim: &'static [u8]) -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let help = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return match error.print() {
                Ok(()) if help => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    let config = match Config::load(&flags, &Machine::this()) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(config, shim) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            if error.is::<OtherFormat>() {
                return ExitCode::from(EXIT_USAGE);
            }
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong on stderr, also before logging is set up.
fn complain(message: &str) {
    if writeln!(std::io::stderr(), "weftd: {message}").is_err() {
        // Nobody reads stderr; the exit status has to do.
    }
}

fn run(config: Config, shim: &'static [u8]) -> anyhow::Result<()> {
    // Whatever started this process may have left something open in it: none of it is for `nft`, a
    // task or anything else that is started from here.
    descriptors::close_on_exec_from(3).context("cannot keep inherited descriptors to itself")?;
    start_logging(&config)?;
    privileges::check()?;
    // Before anything in it is touched.
    data_format::check(&config.data_dir)?;
    // Keys lie in it, and what tasks are started: of this user alone, whatever it was before.
    if make_private(&config.data_dir).context("the data directory")? {
        tracing::warn!(
            data_dir = %config.data_dir.display(),
            "others could enter the data directory; it has mode 0700 now"
        );
    }
    let lock = InstanceLock::acquire(config.data_dir.join(LOCK_FILE))?;
    let shim = shim_program::place(&config.data_dir, shim);
    // Every TAP, socket of a sandbox and mesh connection is a descriptor; 1024 are few.
    if let Err(error) = open_files::raise() {
        tracing::warn!(%error, "cannot raise the limit of open files; `ulimit -n` sets it");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("weftd")
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        watch_signals(stop)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            name = config.name,
            pid = std::process::id(),
            data_dir = %config.data_dir.display(),
            socket = %config.socket.display(),
            workers = config.workers,
            "weftd starts"
        );
        node::run(config, shim, stopped).await
    });
    notify::stopping();
    // Blocking calls that hang must not keep a stopped node alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    drop(lock);
    result
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let mut filter = EnvFilter::builder()
        .parse(&config.log_level)
        .context("log-level")?;
    if !config.log_level.contains("openraft") {
        // A manager that is away is an error of its own at each heartbeat; weft tells it once.
        let quiet = "openraft=off".parse::<Directive>().context("log-level")?;
        filter = filter.add_directive(quiet);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// SIGTERM and SIGINT set the flag; the second one ends the process.
fn watch_signals(stop: watch::Sender<bool>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if asked {
                complain(&format!("second signal ({name}): ends at once"));
                leave_at_once();
            }
            asked = true;
            tracing::info!(signal = name, "stopping; a second signal ends at once");
            stop.send_replace(true);
        }
    });
    Ok(())
}

#[expect(clippy::exit, reason = "the second signal means: no more clean-up")]
fn leave_at_once() -> ! {
    std::process::exit(130)
}
