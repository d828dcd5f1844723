//! `weft bench stacks`: how soon a stack serves, and what a large file costs that changes nothing. There is
//! no other side: the figures stand beside those that are required.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use weft_cli::{Printer, complain};
use weft_lab::image::{Archive, VOTE_PORT, VOTING_SERVICES, voting, voting_file};
use weft_lab::tools::get::fetch;
use weft_lab::{Lab, LabConfig, MANAGER, OUTSIDE, Patience, Stop, Swarm};
use weft_model::api::ServiceDetail;
use weft_sys::netns::Netns;

use crate::args::{BenchStacksArgs, StacksTest};
use crate::containers::weft;
use crate::required::{self, Measured};
use crate::usage;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at something that is measured.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a client waits for one answer: it asks from the start on, before anybody listens.
const ANSWER: Duration = Duration::from_millis(100);

/// Host and port that images are named after. Nobody is there, which everybody hears at once.
const REGISTRY: &str = "10.77.0.254:5000";

/// Name of the voting app's stack.
const VOTE: &str = "vote";

/// Name of the large one.
const LARGE: &str = "large";

/// Runs those that were asked for; the exit status says whether all that is required held.
pub(crate) fn run(args: &BenchStacksArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    weft_lab::gain_privileges()?;
    let stop = Stop::on_signals()?;
    let bench = Bench { args, stop };
    let mut measured = Vec::new();
    if bench.has(StacksTest::Deploy) {
        measured.push(bench.deploy()?);
    }
    if bench.has(StacksTest::Plan) || bench.has(StacksTest::Again) {
        measured.extend(bench.large()?);
    }
    required::print(&measured, &args.format, out)
}

struct Bench<'a> {
    args: &'a BenchStacksArgs,
    stop: Stop,
}

impl Bench<'_> {
    fn has(&self, test: StacksTest) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&test)
    }

    fn patience(&self) -> Patience {
        Patience::new(LIMIT, &self.stop)
    }

    fn lab(&self, kind: &str, nodes: u8) -> anyhow::Result<Swarm> {
        let config = LabConfig {
            nodes,
            ..LabConfig::new(&format!("{}-{kind}", self.args.name))?
        };
        let lab = Lab::create(&config)?;
        lab.wait_ready(LIMIT)?;
        let swarm = Swarm::of(lab, self.patience())?;
        swarm.form()?;
        Ok(swarm)
    }

    /// From the command until every task runs and the page of votes has answered on each node.
    fn deploy(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("deploy", 3)?;
        let client = swarm.lab().netns(OUTSIDE, None)?;
        let dir = swarm.lab().dir().join("stack");
        // The picture has nothing to show, and costs what it costs.
        let shown = dir.join("shown");
        std::fs::create_dir_all(&shown)
            .with_context(|| format!("cannot make {}", shown.display()))?;
        for image in voting()? {
            let file = dir.join("image.tar");
            let name = format!("{REGISTRY}/{}", image.name());
            Archive::of(&image.named(&name))?.write_file(&file)?;
            let path = file.display().to_string();
            weft(&swarm, &["image", "load", "-q", "-i", &path])?;
        }
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let text = voting_file(REGISTRY, &program, &shown)?;
        let file = written(&dir, "voting.yml", &text)?;
        let mut runs = Vec::new();
        // Images are unpacked by the first round, which counts for nothing.
        for round in 0..=self.args.rounds {
            let begun = Instant::now();
            weft(&swarm, &["stack", "deploy", "-c", &file, VOTE])?;
            for node in swarm.lab().nodes() {
                let at = SocketAddr::new(swarm.lab().node_addr(node)?, VOTE_PORT);
                self.answers(&client, at, begun)
                    .with_context(|| format!("{node} does not serve"))?;
            }
            self.all_run(&swarm, begun)?;
            let took = begun.elapsed().as_secs_f64();
            if round > 0 {
                complain(&format!("the stack served after {took:.2} s"));
                runs.push(took);
            }
            self.remove(&swarm)?;
        }
        swarm.down()?;
        let test = "deploy of the voting app on three nodes, until all of it serves".to_owned();
        Ok(Measured::times(test, runs, 3.0, 1.2))
    }

    /// Asks a node until it answers.
    fn answers(&self, client: &Netns, at: SocketAddr, begun: Instant) -> anyhow::Result<()> {
        let ask = || {
            loop {
                self.stop.going_on()?;
                let Err(error) = fetch(at, "/", ANSWER) else {
                    return anyhow::Ok(());
                };
                if begun.elapsed() > LIMIT {
                    return Err(error.into());
                }
                std::thread::sleep(PAUSE);
            }
        };
        client.run_in(ask)?
    }

    fn all_run(&self, swarm: &Swarm, begun: Instant) -> anyhow::Result<()> {
        loop {
            self.stop.going_on()?;
            let services = services(swarm, VOTE)?;
            let short = services.iter().find(|detail| {
                let status = detail.status;
                status.desired == 0 || status.running != status.desired
            });
            let short = short.map(|detail| detail.service.spec.name.as_str());
            if services.len() == VOTING_SERVICES.len() && short.is_none() {
                return Ok(());
            }
            ensure!(
                begun.elapsed() <= LIMIT,
                "{} of {} services are there, and {short:?} lacks tasks",
                services.len(),
                VOTING_SERVICES.len()
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes the stack and waits until nothing of it runs.
    fn remove(&self, swarm: &Swarm) -> anyhow::Result<()> {
        weft(swarm, &["stack", "rm", VOTE])?;
        self.patience().until(|| {
            let mut left = 0;
            for agent in swarm.agents()? {
                left += usage::shims(agent)?.len();
            }
            ensure!(left == 0, "{left} containers have not ended");
            Ok(())
        })
    }

    /// What a file of many services costs: before anything of it is there, and when all of it is.
    fn large(&self) -> anyhow::Result<Vec<Measured>> {
        let swarm = self.lab("large", 1)?;
        let count = self.args.services;
        let file = written(swarm.lab().dir(), "large.yml", &large_file(count))?;
        let deploy = ["stack", "deploy", "-c", &file, LARGE];
        let plan = ["stack", "deploy", "--dry-run", "-c", &file, LARGE];
        let mut measured = Vec::new();
        if self.has(StacksTest::Plan) {
            let runs = self.times(|| {
                let said = weft(&swarm, &plan)?;
                let told = said
                    .lines()
                    .filter(|line| line.contains("service "))
                    .count();
                ensure!(told == usize::from(count), "{told} services are told of");
                Ok(())
            })?;
            ensure!(services(&swarm, LARGE)?.is_empty(), "a plan made services");
            let test = format!("plan of a file of {count} services");
            measured.push(Measured::times(test, runs, 0.1, 0.05));
        }
        if self.has(StacksTest::Again) {
            weft(&swarm, &deploy)?;
            let before = versions(&swarm)?;
            ensure!(
                before.len() == usize::from(count),
                "{} services",
                before.len()
            );
            let runs = self.times(|| weft(&swarm, &deploy).map(drop))?;
            ensure!(versions(&swarm)? == before, "a service was changed");
            let test = format!("deploy of {count} services that are there");
            measured.push(Measured::times(test, runs, 0.3, 0.15));
        }
        swarm.down()?;
        Ok(measured)
    }

    /// Seconds that each round takes.
    fn times(&self, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
        let mut runs = Vec::new();
        for _ in 0..self.args.rounds {
            self.stop.going_on()?;
            let begun = Instant::now();
            work()?;
            runs.push(begun.elapsed().as_secs_f64());
        }
        Ok(runs)
    }
}

/// Writes a file; its path, as it is typed.
fn written(dir: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

/// Services of a stack.
fn services(swarm: &Swarm, stack: &str) -> anyhow::Result<Vec<ServiceDetail>> {
    let mut services: Vec<ServiceDetail> = swarm.get(MANAGER, "/v1/services")?;
    services.retain(|detail| detail.service.spec.stack() == Some(stack));
    Ok(services)
}

/// How often each service of the large stack was changed.
fn versions(swarm: &Swarm) -> anyhow::Result<BTreeMap<String, u64>> {
    let services = services(swarm, LARGE)?.into_iter();
    let version = |detail: ServiceDetail| {
        let service = detail.service;
        (service.spec.name, service.meta.version.index)
    };
    Ok(services.map(version).collect())
}

/// A file of so many services without tasks: what managers and the command do is measured.
fn large_file(services: u16) -> String {
    let mut text = String::from("version: \"3.8\"\nservices:\n");
    for number in 0..services {
        text.push_str(&format!(
            "  part{number}:\n    image: host\n    command: [sleep, \"1000\"]\n    environment:\n      \
             NUMBER: \"{number}\"\n      LEVEL: info\n      UPSTREAM: http://part{}:80/\n    \
             networks: [front, back]\n    deploy:\n      replicas: 0\n      labels:\n        \
             tier: \"{}\"\n      update_config:\n        parallelism: 2\n        order: start-first\n",
            number.saturating_sub(1),
            number % 7,
        ));
    }
    text.push_str("networks:\n  front:\n  back:\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_file_has_as_many_services_as_asked() {
        let text = large_file(30);
        assert_eq!(text.matches("    image: host\n").count(), 30);
        assert!(text.contains("\n  part29:\n"), "{text}");
        assert!(
            text.contains("      UPSTREAM: http://part28:80/\n"),
            "{text}"
        );
        assert!(text.contains("        tier: \"1\"\n"), "{text}");
    }
}
