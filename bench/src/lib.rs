//! `weft bench`: measures a data plane, side by side with others, in labs that are made for it. The
//! two sides take turns, so that a machine that changes its mind hits both.
//!
//! | command | what | where |
//! |---|---|---|
//! | `overlay` | between two nodes, also to services, against what the kernel, or Open vSwitch, has | `overlay/` |
//! | `mesh` | a published port, against HAProxy and nginx | `mesh/` |
//! | `builds` | both, this build against another one | `builds.rs` |
//! | `managers` | elections, changes, joins and restarts, against what is required | `managers.rs` |
//! | `services` | updates, rollbacks, scales, drains and creates, against what is required | `services.rs` |
//! | `containers` | starts, many at once, memory, pulls, against what is required | `containers.rs` |
//! | `stacks` | deploys, small and large, against what is required | `stacks.rs` |
//!
//! A side (`side/`, `mesh/cluster.rs`) is a lab and the ways through it, `load/` and `mesh/crowd.rs`
//! make the load, `proxies.rs` starts HAProxy and nginx, `busy.rs` neighbours that want the same CPUs,
//! `run.rs` keeps what came of it, `pairs.rs` lets the sides take turns, `report.rs` and `picture.rs`
//! show it. What has no other side is shown by `required.rs`.

#![forbid(unsafe_code)]

mod args;
mod builds;
mod busy;
mod conditions;
mod containers;
mod figures;
mod load;
mod managers;
mod measure;
mod mesh;
mod overlay;
mod pairs;
mod picture;
mod proxies;
mod report;
mod required;
mod run;
mod services;
mod setting;
mod side;
mod stacks;
mod trial;
mod usage;
mod weftd;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use weft_cli::{MoreCommand, Printer};

use args::{BenchArgs, BenchCommand};

/// `weft bench`, for [`weft_cli::main`].
#[must_use]
pub fn command() -> MoreCommand {
    MoreCommand {
        command: BenchArgs::command,
        run,
    }
}

fn run(matches: &ArgMatches, out: &mut Printer) -> anyhow::Result<ExitCode> {
    match BenchArgs::from_arg_matches(matches)?.command {
        BenchCommand::Overlay(args) => overlay::run(&args, out),
        BenchCommand::Mesh(args) => mesh::run(&args, out),
        BenchCommand::Builds(args) => builds::run(&args, out),
        BenchCommand::Managers(args) => managers::run(&args, out),
        BenchCommand::Services(args) => services::run(&args, out),
        BenchCommand::Containers(args) => containers::run(&args, out),
        BenchCommand::Stacks(args) => stacks::run(&args, out),
    }
}
