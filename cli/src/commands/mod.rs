//! What each command does.

mod asking;
mod capture;
mod complete;
mod converge;
mod doctor;
mod drops;
mod events;
mod exec;
mod failures;
mod image;
mod image_pull;
mod image_rows;
mod info;
mod lab;
mod local_range;
mod local_volumes;
mod logs;
mod mesh;
mod names;
mod network;
mod node;
mod node_pretty;
mod paths;
mod payload;
mod payload_words;
mod peer;
mod ping;
mod pinning;
mod progress;
mod root;
mod rows;
mod service;
mod service_pretty;
mod service_update;
mod stack;
mod swarm;
mod tasks;
mod version;
mod volume;
mod why;

pub(crate) use lab::status as lab_status;

use std::future::Future;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;
use weft_client::{Client, Refused};
use weft_model::objects::PayloadKind;

use crate::args::{Cli, Command, InspectArgs, StackCommand};
use crate::demo;
use crate::output::{Printer, complain, render_inspect};
use crate::program::{MoreCommand, whole};
use crate::visualizer;

/// Does what the command line says and returns the exit status. `more` are the commands of others,
/// which completion and manual pages know as well.
///
/// # Errors
/// Whatever went wrong, with the next step; printed by [`crate::main`].
pub fn run(cli: Cli, more: &[MoreCommand], out: &mut Printer) -> anyhow::Result<ExitCode> {
    let (host, stale) = (cli.host(), cli.stale);
    if stale && !cli.command.shows_the_swarm() {
        bail!(
            "--stale is for commands that show the swarm, such as node ls, service ps and network \
             inspect; nothing was done: leave it out"
        );
    }
    let client = || Client::new(&host).map(|client| client.with_stale(stale));
    let done = match cli.command {
        Command::Swarm(command) => block_on(swarm::run(&client()?, command, out)),
        Command::Node(command) => block_on(node::run(&client()?, command, out)),
        Command::Network(command) => block_on(network::run(&client()?, command, out)),
        Command::Service(command) => block_on(service::run(&client()?, command, out)),
        Command::Secret(command) => {
            block_on(payload::run(&client()?, PayloadKind::Secret, command, out))
        }
        Command::Config(command) => {
            block_on(payload::run(&client()?, PayloadKind::Config, command, out))
        }
        // It asks no node.
        Command::Stack(StackCommand::Config(args)) => stack::config(&args, out),
        Command::Stack(command) => block_on(stack::run(&client()?, command, out)),
        Command::Volume(command) => block_on(volume::run(&client()?, command, out)),
        Command::Task(command) => block_on(tasks::run(&client()?, command, out)),
        Command::Image(command) => block_on(image::run(&client()?, command, out)),
        Command::Exec(args) => block_on(exec::run(&client()?, args, out)),
        Command::Events(args) => block_on(events::run(&client()?, &args, out)),
        Command::Mesh(command) => block_on(mesh::run(&client()?, command, out)),
        Command::Why(args) => block_on(why::run(&client()?, &args, out)),
        Command::Info(args) => block_on(info::run(&client()?, &args, out)),
        Command::Version(args) => block_on(version::run(client(), &args, out)),
        Command::Completion(args) => complete::completion(whole(more), args.shell, out),
        Command::Man { dir } => complete::manual(whole(more), &dir),
        Command::Drops(args) => block_on(drops::run(&client()?, &args, out)),
        Command::Doctor(args) => block_on(doctor::run(&client()?, &args, out)),
        Command::Ping(args) => block_on(ping::run(client(), &args, out)),
        Command::Capture(args) => block_on(capture::run(&client()?, &args)),
        Command::Visualizer(args) => block_on(visualizer::run(client()?, &args, out)),
        Command::Lab(command) => lab::run(command, out),
        Command::Demo(args) => demo::run(&args, out),
    }?;
    if stale {
        complain("weft: this is what the manager last knew; it may have changed since (--stale)");
    }
    Ok(done)
}

/// Runs the conversation with a node on this thread.
fn block_on(task: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the I/O loop")?
        .block_on(task)
}

/// Shows what could be found; what could not is told afterwards and makes the command fail.
fn show(
    args: &InspectArgs,
    found: Vec<anyhow::Result<Value>>,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let (mut objects, mut missing) = (Vec::new(), Vec::new());
    for result in found {
        match result {
            Ok(object) => objects.push(object),
            Err(error) if error.is::<Refused>() => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    out.text(&render_inspect(&objects, &args.format())?)?;
    finish(&missing)
}

/// Tells every refusal; success only when there was none.
fn finish(refused: &[anyhow::Error]) -> anyhow::Result<ExitCode> {
    for error in refused {
        complain(&format!("weft: {error:#}"));
    }
    Ok(if refused.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tells what a person should know of a change that was made.
fn warn(warnings: &[String]) {
    for warning in warnings {
        complain(&format!("WARNING: {warning}"));
    }
}

/// Turns `key=value` pairs into a map; one key with two values is a mistake.
fn unique<I>(what: &str, pairs: I) -> anyhow::Result<std::collections::BTreeMap<String, String>>
where
    I: IntoIterator<Item = (String, String)>,
{
    let mut map = std::collections::BTreeMap::new();
    for (key, value) in pairs {
        if let Some(first) = map.insert(key.clone(), value.clone())
            && first != value
        {
            bail!("{what} {key} is given twice, as {first:?} and as {value:?}; keep one");
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
