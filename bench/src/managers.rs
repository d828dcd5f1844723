//! `weft bench managers`: what users wait for while managers come and go. There is no other side: the
//! figures stand beside those that are required.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use weft_cli::{Printer, complain};
use weft_lab::{Lab, LabConfig, Patience, Stop, Swarm};
use weft_model::api::TaskRow;
use weft_model::objects::{
    ContainerSpec, Network, NetworkSpec, Node, Runtime, ServiceMode, ServiceSpec, TaskSpec,
};

use crate::args::{BenchManagersArgs, ManagersTest};
use crate::required::{self, Measured};

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// The managers of a lab of three.
const THREE: [&str; 3] = ["node1", "node2", "node3"];

/// Nodes that join, one after the other.
const JOINING: u8 = 8;

/// How often a manager is started again.
const RESTARTS: u8 = 5;

/// Tasks of one service.
const TASKS_EACH: u32 = 1000;

/// Runs those that were asked for; the exit status says whether all that is required held.
pub(crate) fn run(args: &BenchManagersArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    weft_lab::gain_privileges()?;
    let stop = Stop::on_signals()?;
    let bench = Bench { args, stop };
    let mut measured = Vec::new();
    if bench.has(ManagersTest::Failover) {
        measured.push(bench.failover()?);
    }
    if bench.has(ManagersTest::Writes) {
        measured.push(bench.writes()?);
    }
    if bench.has(ManagersTest::Join) {
        measured.push(bench.join()?);
    }
    if bench.has(ManagersTest::Restart) {
        measured.push(bench.restart()?);
    }
    required::print(&measured, &args.format, out)
}

struct Bench<'a> {
    args: &'a BenchManagersArgs,
    stop: Stop,
}

impl Bench<'_> {
    fn has(&self, test: ManagersTest) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&test)
    }

    /// Machines whose agents answer, in no swarm yet.
    fn lab(&self, kind: &str, nodes: u8) -> anyhow::Result<Swarm> {
        let config = LabConfig {
            nodes,
            ..LabConfig::new(&format!("{}-{kind}", self.args.name))?
        };
        let lab = Lab::create(&config)?;
        lab.wait_ready(LIMIT)?;
        Swarm::of(lab, Patience::new(LIMIT, &self.stop))
    }

    fn three(&self, kind: &str) -> anyhow::Result<Swarm> {
        let swarm = self.lab(kind, 3)?;
        swarm.form_with(3)?;
        Ok(swarm)
    }

    /// Makes a network, on whichever of these nodes takes that, until one does.
    fn until_taken(&self, swarm: &Swarm, nodes: &[&str], name: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        for attempt in 0_u32.. {
            // Another one each time: the answer about the one before may have been lost.
            let spec = network(format!("{name}-{attempt}"));
            for node in nodes {
                let taken: anyhow::Result<Network> = swarm.post(node, "/v1/networks", &spec);
                let Err(error) = taken else {
                    return Ok(());
                };
                self.stop.going_on()?;
                if begun.elapsed() > LIMIT {
                    return Err(error.context("no change is taken"));
                }
            }
            std::thread::sleep(PAUSE);
        }
        bail!("no change is taken")
    }

    fn failover(&self) -> anyhow::Result<Measured> {
        let mut swarm = self.three("failover")?;
        let mut runs = Vec::new();
        for run in 1..=self.args.runs {
            let leader = swarm.wait_leader(&THREE)?;
            let rest: Vec<&str> = THREE.into_iter().filter(|node| *node != leader).collect();
            let killed = Instant::now();
            swarm.lab_mut().kill_node(&leader)?;
            self.until_taken(&swarm, &rest, &format!("run{run}"))?;
            let took = killed.elapsed().as_secs_f64();
            complain(&format!(
                "{leader} was killed; a change was taken after {took:.2} s"
            ));
            runs.push(took);
            swarm.ask(rest.first().context("two managers are left")?);
            swarm.lab_mut().start_node(&leader)?;
            swarm.wait_managers(3)?;
        }
        swarm.down()?;
        let test = "leader of 3 killed, until a change is taken".to_owned();
        Ok(Measured::times(test, runs, 3.0, 1.5))
    }

    /// Networks are made and removed again, so that the state stays small.
    fn writes(&self) -> anyhow::Result<Measured> {
        let swarm = self.three("writes")?;
        let leader = swarm.wait_leader(&THREE)?;
        let mut runs = Vec::new();
        for second in 0..self.args.seconds {
            self.stop.going_on()?;
            let until = Instant::now() + Duration::from_secs(1);
            let writers = (0..self.args.writers).map(|writer| {
                let spec = network(format!("writer{writer}-{second}"));
                move |client: weft_lab::Client| async move {
                    let path = format!("/v1/networks/{}", spec.name);
                    let mut taken = 0_u32;
                    while Instant::now() < until {
                        client.post_done("/v1/networks", &spec).await?;
                        client.delete(&path).await?;
                        taken += 2;
                    }
                    anyhow::Ok(taken)
                }
            });
            let begun = Instant::now();
            let taken: u32 = swarm.at_once(&leader, writers)?.into_iter().sum();
            let rate = f64::from(taken) / begun.elapsed().as_secs_f64();
            complain(&format!("{rate:.0} changes in a second"));
            runs.push(rate);
        }
        swarm.down()?;
        Ok(Measured {
            test: format!("changes, 3 managers, {} clients", self.args.writers),
            unit: "1/s",
            runs,
            required: 300.0,
            aim: 2000.0,
            more_is_better: true,
        })
    }

    fn join(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("join", JOINING + 1)?;
        let made = swarm.init("node1")?;
        swarm.wait_nodes(1)?;
        let mut runs = Vec::new();
        for index in 2..=JOINING + 1 {
            let node = format!("node{index}");
            let begun = Instant::now();
            swarm.join(&node, &made.worker_token, &made.manager_addr)?;
            swarm.wait_nodes(usize::from(index))?;
            let took = begun.elapsed().as_secs_f64();
            complain(&format!(
                "{node} was ready {took:.2} s after it was told to join"
            ));
            runs.push(took);
        }
        swarm.down()?;
        let test = "join, until the node is ready".to_owned();
        Ok(Measured::times(test, runs, 2.0, 0.7))
    }

    /// Its tasks find no node, as it is drained: they are in the log, and nothing runs.
    fn restart(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("restart", 1)?;
        swarm.form_with(1)?;
        let drain = json!({ "Availability": "drain" });
        let path = "/v1/nodes/node1/update";
        swarm.post::<_, Node>("node1", path, &drain)?;
        let mut left = self.args.tasks;
        for number in 0_u32.. {
            if left == 0 {
                break;
            }
            let replicas = left.min(TASKS_EACH);
            left -= replicas;
            let name = format!("service{number}");
            swarm.make_service(&service(&name, replicas))?;
            self.wait_task_count(&swarm, &name, replicas)?;
        }
        let mut runs = Vec::new();
        for run in 1..=RESTARTS {
            swarm.restart_agent("node1")?;
            let begun = Instant::now();
            self.until_taken(&swarm, &["node1"], &format!("run{run}"))?;
            let took = begun.elapsed().as_secs_f64();
            complain(&format!("a change was taken {took:.2} s after the start"));
            runs.push(took);
        }
        swarm.down()?;
        let test = format!(
            "start with {} tasks, until a change is taken",
            self.args.tasks
        );
        Ok(Measured::times(test, runs, 3.0, 1.0))
    }

    fn wait_task_count(&self, swarm: &Swarm, service: &str, count: u32) -> anyhow::Result<()> {
        Patience::new(LIMIT, &self.stop).until(|| {
            let path = format!("/v1/services/{service}/tasks");
            let rows: Vec<TaskRow> = swarm.get("node1", &path)?;
            let found = rows.len();
            ensure!(
                found == count as usize,
                "{found} of {count} tasks are there"
            );
            Ok(())
        })
    }
}

fn network(name: String) -> NetworkSpec {
    NetworkSpec {
        name,
        ..NetworkSpec::default()
    }
}

fn service(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        mode: ServiceMode::Replicated { replicas },
        task: Arc::new(TaskSpec {
            container: ContainerSpec {
                image: Runtime::HOST_IMAGE.to_owned(),
                args: vec!["sleep".to_owned(), "1000".to_owned()],
                ..ContainerSpec::default()
            },
            ..TaskSpec::default()
        }),
        ..ServiceSpec::default()
    }
}
