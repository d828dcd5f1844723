//! What the multi-call program is for a lab, told by its first word. No command of `weft`'s users:
//! only labs, and what runs in them, call it so.

use std::ffi::OsStr;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::enter::{EnterSpec, run_enter, run_netns};
use crate::init::run_init;
use crate::node::run_node;
use crate::output::complain;
use crate::tools::{dns, get, http, ping, replica, spin};

/// Its first word, and what it takes.
#[derive(Debug, Parser)]
#[command(name = "weft")]
enum Program {
    /// The process that a lab machine stands and falls with
    LabNode {
        /// File with what the machine shall be, in JSON
        spec: PathBuf,
    },
    /// Process 1 of a lab machine
    LabInit {
        /// File with what the machine shall be, in JSON
        spec: PathBuf,
    },
    /// Runs a command on a lab machine
    LabEnter(EnterSpec),
    /// Makes network namespaces
    LabNetns {
        /// Where they are bound
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// A small HTTP server, such as the demo's tasks
    DemoHttp(http::HttpArgs),
    /// Look a name up; prints one address per line
    DemoDns(dns::DnsArgs),
    /// Request something over HTTP; prints the answer
    DemoGet(get::GetArgs),
    /// Send ICMP echo requests
    DemoPing(ping::PingArgs),
    /// The server behind the published port of `weft bench mesh`
    BenchReplica(replica::ReplicaArgs),
    /// Loops that use CPUs until their standard input ends
    BenchSpin(spin::SpinArgs),
}

/// Whether this process was started by a lab, or inside one, as one of its programs.
#[must_use]
pub fn is_called() -> bool {
    let word = std::env::args_os().nth(1);
    let word = word.as_deref().and_then(OsStr::to_str);
    word.is_some_and(Program::has_subcommand)
}

/// Is that program. Must be called before any thread is started.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage; of a command on a machine, its own.
#[must_use]
pub fn main() -> ExitCode {
    // Machines, and what runs on them, are not to have what this process inherited. A kernel that
    // cannot do it runs no agent either.
    drop(weft_sys::descriptors::close_on_exec_from(3));
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(usage) => {
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            return match usage.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match run(program) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout();
    let code = match program {
        Program::LabNode { spec } => run_node(&spec)?,
        Program::LabInit { spec } => run_init(&spec)?,
        Program::LabEnter(spec) => run_enter(&spec)?,
        Program::LabNetns { paths } => run_netns(&paths)?,
        Program::DemoHttp(args) => block_on(http::serve(args))?,
        Program::DemoDns(args) => dns::run(&args, &mut out)?,
        Program::DemoGet(args) => get::run(&args, &mut out)?,
        Program::DemoPing(args) => ping::run(&args, &mut out)?,
        Program::BenchReplica(args) => block_on(replica::serve(args))?,
        Program::BenchSpin(args) => spin::run(&args, &mut io::stdin().lock())?,
    };
    out.flush()?;
    Ok(code)
}

/// Serves on this thread.
fn block_on(task: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the I/O loop")?
        .block_on(task)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn words_are_those_that_labs_say() {
        Program::command().debug_assert();
        for word in [
            "lab-node",
            "lab-init",
            "lab-enter",
            "lab-netns",
            "demo-http",
            "bench-spin",
        ] {
            assert!(Program::has_subcommand(word), "{word}");
        }
        for word in ["lab", "demo", "bench", "service", "--help"] {
            assert!(!Program::has_subcommand(word), "{word}");
        }
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        let line = "weft lab-enter --netns /run/netns/x 17 -- ping -c 1 --netns 10.0.0.1";
        let parsed = Program::try_parse_from(line.split(' ')).unwrap();
        let Program::LabEnter(spec) = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!(spec.pid, 17);
        assert_eq!(spec.netns, Some(PathBuf::from("/run/netns/x")));
        assert_eq!(spec.command, ["ping", "-c", "1", "--netns", "10.0.0.1"]);
    }
}
