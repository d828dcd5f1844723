//! `weft bench services`: what clients notice while tasks are replaced, and what users wait for. There
//! is no other side: the figures stand beside those that are required.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use weft_cli::{Printer, complain};
use weft_lab::tools::get::fetch;
use weft_lab::{Crowd, Lab, LabConfig, MANAGER, OUTSIDE, Patience, Stop, Swarm};
use weft_model::api::{NodeUpdate, NodeUpdated, Scale, ServiceDetail, ServiceUpdate};
use weft_model::objects::{
    Availability, ContainerSpec, EndpointSpec, NetworkAttachmentSpec, NetworkSpec, PortSpec,
    ReadyCheck, Runtime, Service, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
    UpdateState,
};

use crate::args::{BenchServicesArgs, ServicesTest};
use crate::required::{self, Measured};

/// How long anything may take that is waited for: an update whose every task has a long request.
const LIMIT: Duration = Duration::from_secs(180);

/// Between two looks at something that is measured.
const PAUSE: Duration = Duration::from_millis(2);

const NODES: [&str; 3] = ["node1", "node2", "node3"];
const NETWORK: &str = "front";
const SERVICE: &str = "web";

/// Published port of the service, and the one of its tasks.
const PUBLISHED: u16 = 8000;
const TARGET: u16 = 80;

/// Tasks of the service, and to how few it is scaled.
const REPLICAS: u32 = 15;
const FEWER: u32 = 2;

/// The longest answer that clients ask for; the shortest takes 10 ms.
const LONGEST: Duration = Duration::from_secs(3);

/// Failures that are shown of each step at most.
const SHOWN: usize = 5;

/// Runs those that were asked for; the exit status says whether all that is required held.
pub(crate) fn run(args: &BenchServicesArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    weft_lab::gain_privileges()?;
    let stop = Stop::on_signals()?;
    let bench = Bench { args, stop };
    let mut measured = Vec::new();
    if bench.has(ServicesTest::Requests) {
        measured.extend(bench.requests()?);
    }
    if bench.has(ServicesTest::Update) {
        measured.push(bench.update()?);
    }
    if bench.has(ServicesTest::Create) {
        measured.push(bench.create()?);
    }
    required::print(&measured, &args.format, out)
}

struct Bench<'a> {
    args: &'a BenchServicesArgs,
    stop: Stop,
}

/// What happens to the service while clients ask.
#[derive(Debug, Clone, Copy)]
enum Step {
    Update(UpdateOrder),
    RollBack,
    Scale,
    Drain,
}

impl Step {
    const ALL: [Self; 5] = [
        Self::Update(UpdateOrder::StopFirst),
        Self::Update(UpdateOrder::StartFirst),
        Self::RollBack,
        Self::Scale,
        Self::Drain,
    ];

    fn title(self) -> String {
        match self {
            Self::Update(UpdateOrder::StopFirst) => "update, stop-first".to_owned(),
            Self::Update(UpdateOrder::StartFirst) => "update, start-first".to_owned(),
            Self::RollBack => "rollback".to_owned(),
            Self::Scale => format!("scale {REPLICAS} to {FEWER} to {REPLICAS}"),
            Self::Drain => "drain of a node".to_owned(),
        }
    }
}

impl Bench<'_> {
    fn has(&self, test: ServicesTest) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&test)
    }

    fn patience(&self) -> Patience {
        Patience::new(LIMIT, &self.stop)
    }

    /// Three nodes in one swarm, with a network.
    fn lab(&self, kind: &str) -> anyhow::Result<Swarm> {
        let config = LabConfig::new(&format!("{}-{kind}", self.args.name))?;
        let lab = Lab::create(&config)?;
        lab.wait_ready(LIMIT)?;
        let swarm = Swarm::of(lab, self.patience())?;
        swarm.form()?;
        swarm.make_network(&NetworkSpec {
            name: NETWORK.to_owned(),
            ..NetworkSpec::default()
        })?;
        Ok(swarm)
    }

    /// Clients ask all nodes while the tasks of the service are replaced, end and move: how many
    /// requests failed in each step of each round.
    fn requests(&self) -> anyhow::Result<Vec<Measured>> {
        let swarm = self.lab("requests")?;
        swarm.make_service(&web(vec![program()?, "demo-http".to_owned()], None))?;
        swarm.wait_tasks(SERVICE, REPLICAS as usize)?;
        let crowd = self.crowd(&swarm)?;
        let mut measured: Vec<Measured> = Step::ALL
            .iter()
            .map(|step| Measured::failures(step.title(), Vec::new()))
            .collect();
        for round in 1..=self.args.runs {
            for (step, figures) in Step::ALL.into_iter().zip(&mut measured) {
                let begun = (Instant::now(), crowd.answered());
                self.take(&swarm, step, round)?;
                crowd.settle(&self.patience())?;
                let failures = crowd.take_failures();
                complain(&format!(
                    "{}: {} requests in {:.1} s, {} failed",
                    step.title(),
                    crowd.answered() - begun.1,
                    begun.0.elapsed().as_secs_f64(),
                    failures.len()
                ));
                for failure in failures.iter().take(SHOWN) {
                    complain(&format!("  {failure:?}"));
                }
                figures.runs.push(failures.len() as f64);
            }
        }
        crowd.stop();
        swarm.down()?;
        Ok(measured)
    }

    /// Clients outside, once every node answers.
    fn crowd(&self, swarm: &Swarm) -> anyhow::Result<Crowd> {
        let client = swarm.lab().netns(OUTSIDE, None)?;
        let mut addresses = Vec::new();
        for node in NODES {
            let address = SocketAddr::new(swarm.lab().node_addr(node)?, PUBLISHED);
            self.patience().until(|| {
                client
                    .run_in(|| fetch(address, "/", Duration::from_secs(1)))?
                    .with_context(|| format!("{node} does not answer"))
            })?;
            addresses.push(address);
        }
        Crowd::start(&client, &addresses, self.args.clients.into(), LONGEST)
    }

    fn take(&self, swarm: &Swarm, step: Step, round: u8) -> anyhow::Result<()> {
        match step {
            Step::Update(order) => {
                self.change(swarm, |spec| {
                    spec.update.order = order;
                    let version = format!("VERSION={round} {order:?}");
                    Arc::make_mut(&mut spec.task).container.env = vec![version];
                })?;
                self.wait_update(swarm, UpdateState::Completed)
            }
            Step::RollBack => {
                let update = ServiceUpdate {
                    rollback: true,
                    ..ServiceUpdate::default()
                };
                swarm.post::<_, Service>(MANAGER, &of_service("update"), &update)?;
                self.wait_update(swarm, UpdateState::RollbackCompleted)
            }
            Step::Scale => {
                for replicas in [FEWER, REPLICAS] {
                    swarm.post::<_, Service>(MANAGER, &of_service("scale"), &Scale { replicas })?;
                    self.wait_settled(swarm, replicas, &[])?;
                }
                Ok(())
            }
            Step::Drain => {
                let drained = if round.is_multiple_of(2) {
                    "node2"
                } else {
                    "node3"
                };
                set_availability(swarm, drained, Availability::Drain)?;
                self.wait_settled(swarm, REPLICAS, &[drained])?;
                set_availability(swarm, drained, Availability::Active)
            }
        }
    }

    /// What the service is, but for what `edit` changes.
    fn change(&self, swarm: &Swarm, edit: impl FnOnce(&mut ServiceSpec)) -> anyhow::Result<()> {
        self.stop.going_on()?;
        let detail: ServiceDetail = swarm.get(MANAGER, &of_service(""))?;
        let mut spec = detail.service.spec;
        edit(&mut spec);
        let update = ServiceUpdate {
            spec: Some(spec),
            ..ServiceUpdate::default()
        };
        swarm.post::<_, Service>(MANAGER, &of_service("update"), &update)?;
        Ok(())
    }

    fn wait_update(&self, swarm: &Swarm, wanted: UpdateState) -> anyhow::Result<()> {
        self.patience().until(|| {
            let detail: ServiceDetail = swarm.get(MANAGER, &of_service(""))?;
            let status = detail.service.update_status;
            let status = status.context("no update has begun")?;
            ensure!(status.state == wanted, "{}", status.message);
            Ok(())
        })
    }

    /// Waits until so many tasks run, none of them on these nodes, and no others are left.
    fn wait_settled(&self, swarm: &Swarm, count: u32, but: &[&str]) -> anyhow::Result<()> {
        swarm.wait_tasks(SERVICE, count as usize)?;
        self.patience().until(|| {
            let rows = swarm.task_rows(SERVICE)?;
            let ending = rows.iter().filter(|row| {
                let ends = !row.task.is_wanted() && !row.task.status.state.is_terminal();
                ends || (row.task.is_wanted() && but.contains(&row.node_name.as_str()))
            });
            let ending = ending.count();
            ensure!(ending == 0, "{ending} tasks have not ended");
            Ok(())
        })
    }

    /// From the command until all tasks are other ones that answer. Nobody asks them anything.
    fn update(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("update")?;
        let command = r#"sleep 0.05; exec "$0" demo-http"#;
        let args = ["sh", "-c", command].map(str::to_owned);
        let args = args.into_iter().chain([program()?]).collect();
        let ready = ReadyCheck {
            port: TARGET,
            path: String::new(),
        };
        swarm.make_service(&web(args, Some(ready)))?;
        swarm.wait_tasks(SERVICE, REPLICAS as usize)?;
        let mut runs = Vec::new();
        for run in 1..=self.args.runs {
            let begun = Instant::now();
            self.change(&swarm, |spec| {
                Arc::make_mut(&mut spec.task).force_update += 1;
            })?;
            self.wait_update(&swarm, UpdateState::Completed)?;
            let took = begun.elapsed().as_secs_f64();
            complain(&format!(
                "update {run} of {REPLICAS} tasks took {took:.2} s"
            ));
            runs.push(took);
        }
        swarm.down()?;
        let test = format!("update of {REPLICAS} tasks, one after the other");
        Ok(Measured::times(test, runs, 8.0, 3.0))
    }

    /// From the command until its task runs.
    fn create(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("create")?;
        let mut runs = Vec::new();
        for run in 1..=self.args.created {
            let name = format!("one{run}");
            let args = ["sleep", "1000"].map(str::to_owned).to_vec();
            let spec = ServiceSpec {
                name: name.clone(),
                mode: ServiceMode::Replicated { replicas: 1 },
                endpoint: EndpointSpec::default(),
                ..web(args, None)
            };
            let begun = Instant::now();
            swarm.make_service(&spec)?;
            while swarm.tasks(&name)?.is_empty() {
                self.stop.going_on()?;
                ensure!(begun.elapsed() < LIMIT, "the task of {name} does not run");
                std::thread::sleep(PAUSE);
            }
            runs.push(begun.elapsed().as_secs_f64());
        }
        swarm.down()?;
        let test = "create of one task, until it runs".to_owned();
        Ok(Measured::times(test, runs, 0.15, 0.06))
    }
}

/// A path of the node API about the service.
fn of_service(what: &str) -> String {
    let path = format!("/v1/services/{SERVICE}/{what}");
    path.trim_end_matches('/').to_owned()
}

fn set_availability(swarm: &Swarm, node: &str, to: Availability) -> anyhow::Result<()> {
    let path = format!("/v1/nodes/{node}/update");
    let update = NodeUpdate {
        availability: Some(to),
        ..NodeUpdate::default()
    };
    swarm.post::<_, NodeUpdated>(MANAGER, &path, &update)?;
    Ok(())
}

/// This program, which is the tasks' too.
fn program() -> anyhow::Result<String> {
    let path = std::env::current_exe().context("cannot find the path of this program")?;
    Ok(path.display().to_string())
}

/// The service, whose tasks are replaced one after the other without a pause.
fn web(args: Vec<String>, ready: Option<ReadyCheck>) -> ServiceSpec {
    let at_once = UpdateConfig {
        monitor: Duration::ZERO,
        ..UpdateConfig::default()
    };
    ServiceSpec {
        name: SERVICE.to_owned(),
        mode: ServiceMode::Replicated { replicas: REPLICAS },
        task: Arc::new(TaskSpec {
            container: ContainerSpec {
                image: Runtime::HOST_IMAGE.to_owned(),
                args,
                ready,
                ..ContainerSpec::default()
            },
            networks: vec![NetworkAttachmentSpec {
                target: NETWORK.to_owned(),
                ..NetworkAttachmentSpec::default()
            }],
            ..TaskSpec::default()
        }),
        endpoint: EndpointSpec {
            ports: vec![PortSpec {
                published: PUBLISHED,
                target: TARGET,
                ..PortSpec::default()
            }],
            ..EndpointSpec::default()
        },
        update: at_once,
        rollback: at_once,
        ..ServiceSpec::default()
    }
}
