//! `weft demo`: three nodes on this machine, and everything that weft does, with real traffic; with
//! `--managers` five nodes, of which three are managers, and what becomes of a swarm without them; with
//! `--day` three nodes, and what a team does with services on its first day; with `--stack` containers:
//! six services of one file.
//!
//! Every line after a prompt is a command that was really run, followed by what it really
//! printed. Every claim is checked against a deadline; the exit status is 0 only if all held.

mod cluster;
mod crowd;
mod day;
mod day_rows;
mod day_update;
mod failure;
mod leaving;
mod managers;
mod members;
mod names;
mod stack;
mod traffic;
mod transcript;
mod trouble;
mod walk;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use weft_lab::{FAR_ADDRESS, Lab, LabConfig, Patience, Stop, Swarm};

use crate::args::{DemoArgs, FormatArgs};
use crate::commands::lab_status;
use crate::output::Printer;
use transcript::Transcript;
use walk::Walk;

/// How long the agents may take until they answer.
const READY_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &DemoArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    // First of all: this moves the process to another namespace, so no thread may run yet.
    weft_lab::gain_privileges()?;
    anyhow::ensure!(
        weft_sys::nft::installed(),
        "the demo needs `nft` for the way to the outside: install it with `apt-get install nftables` (or your system's package of that name) and run it again"
    );
    if args.stack {
        stack::needs()?;
    }
    let stop = Stop::on_signals()?;
    let started = Instant::now();
    let mut transcript = Transcript::new(out);
    let (nodes, word) = if args.managers {
        (5, "Five")
    } else {
        (3, "Three")
    };
    transcript.say(&format!(
        "{word} machines, each a network namespace with a real weftd in it, joined by a bridge:"
    ))?;
    let config = LabConfig {
        nodes,
        log_dir: args.log_dir.clone(),
        outside_args: ["demo-http", "--port", "80", "--name", "outside"]
            .map(str::to_owned)
            .to_vec(),
        dies_with_parent: !args.keep,
        ..LabConfig::new(&args.name)?
    };
    let mut swarm = Swarm::of(Lab::create(&config)?, Patience::new(READY_LIMIT, &stop))?;
    let ready = swarm.lab().wait_ready(READY_LIMIT);
    let steps = match args {
        _ if args.managers => managers::walk,
        _ if args.day => day::walk,
        _ if args.stack => stack::walk,
        _ => everything,
    };
    let result = ready.and_then(|()| tour(&mut swarm, &stop, &mut transcript, steps));
    if let Err(error) = &result {
        transcript.failed(&format!("{error:#}"))?;
    }
    let failures = transcript.failures();
    if failures > 0 && !stop.is_set() {
        transcript.last_words(swarm.lab())?;
    }
    if args.keep && !stop.is_set() {
        how_to_talk(swarm.lab(), &args.name, &mut transcript)?;
        swarm.lab_mut().keep();
    } else {
        take_down(swarm, &mut transcript)?;
    }
    transcript.summary(started.elapsed(), stop.is_set())?;
    let held = transcript.failures() == 0 && !stop.is_set();
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The whole walk; an error ends it, a check that fails does not.
fn tour(
    swarm: &mut Swarm,
    stop: &Stop,
    transcript: &mut Transcript<'_>,
    steps: impl FnOnce(&mut Walk<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    transcript.output(&lab_status(swarm.lab()).render(&FormatArgs {
        format: Some("table {{.Name}}\t{{.Addr}}\t{{.State}}\t{{.Agent}}".to_owned()),
        quiet: false,
    })?)?;
    let mut walk = Walk::new(swarm, stop, transcript)?;
    for node in walk.nodes.clone() {
        walk.eventually(READY_LIMIT, |walk| walk.quietly(&node, &["info"]))?;
    }
    steps(&mut walk)
}

/// Each thing that weft does.
fn everything(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    cluster::swarm(walk)?;
    cluster::network(walk)?;
    let service = cluster::service(walk)?;
    traffic::between_tasks(walk, &service)?;
    traffic::published_port(walk, "Every node accepts the published port")?;
    let readers = trouble::slow_clients(walk)?;
    let service = cluster::scale(walk)?;
    trouble::all_read(walk, readers)?;
    traffic::published_port(walk, "So does the node without a replica")?;
    let guest = cluster::connect(walk, &service)?;
    names::lookups(walk, &service)?;
    traffic::virtual_address(walk, &service, &guest)?;
    traffic::outside(walk, &service, FAR_ADDRESS.into())?;
    trouble::narrow_link(walk)?;
    trouble::firewall_loaded_anew(walk)?;
    failure::kill_a_node(walk, &service, &guest)
}

fn how_to_talk(lab: &Lab, name: &str, transcript: &mut Transcript<'_>) -> anyhow::Result<()> {
    transcript.section("The cluster stays up")?;
    transcript.output(&format!(
        "export WEFT_HOST=unix://{}\nweft node ls\nweft service ps web\nweft lab status --name {name}\nweft lab exec --name {name} node1 -- ip address\nweft lab down --name {name}        # ends it\n",
        lab.socket("node1")?.display(),
    ))?;
    Ok(())
}

fn take_down(swarm: Swarm, transcript: &mut Transcript<'_>) -> anyhow::Result<()> {
    transcript.section("Everything is taken down")?;
    let started = Instant::now();
    let dir = swarm.lab().dir().to_owned();
    let before = swarm.lab().status();
    let result = swarm.down();
    let alive: Vec<_> = before
        .iter()
        .filter_map(|machine| machine.agent_pid)
        .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists())
        .collect();
    let clean = match result {
        Err(error) => Err(error),
        Ok(()) if dir.exists() => Err(anyhow::anyhow!("{} is still there", dir.display())),
        Ok(()) if !alive.is_empty() => Err(anyhow::anyhow!("processes {alive:?} still run")),
        Ok(()) => Ok(()),
    };
    transcript.check(
        "no process, namespace, link or file is left",
        started.elapsed(),
        clean,
    )?;
    Ok(())
}
